"""The pages about interfaces: their code runs, and their tables say what the code does."""

import re
from pathlib import Path
from types import GeneratorType

import pytest

from caprpc import interfaces
from caprpc.ids import OP_CALL, OP_ITERATE, OPERATION_NAMES
from caprpc.interface import contract_of, shape_of
from caprpc.interface.declaration import COMPARISONS, SPECIAL_OPERATIONS, interface_info
from caprpc.interface.file_adapters import MAX_READ_BYTES, MAX_READ_CHARS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["reference/interfaces.md", "how-to/declare-an-interface.md"]


def read(page):
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_code_of_the_page_runs(page):
    names = {"__name__": page}
    for block in re.findall(r"```python\n(.*?)```", read(page), re.DOTALL):
        exec(compile(block, page, "exec"), names)
    declared = [value for value in names.values() if interface_info(value)]
    assert len(declared) > 1
    for interface in declared:
        assert contract_of(interface).members


def test_implementation_of_the_guide_implements_its_interface():
    names = {"__name__": "guide"}
    for block in re.findall(r"```python\n(.*?)```", read(PAGES[1]), re.DOTALL):
        exec(compile(block, "guide", "exec"), names)
    ledger = names["MyLedger"]()
    assert shape_of(names["Ledger"]).adapt(ledger) is ledger


def rows(page, heading):
    part = read(page).split(f"# {heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_table_of_built_in_interfaces_is_complete():
    documented = {}
    for name, members, types in rows(PAGES[0], "Built-in interfaces"):
        documented[name.strip("`")] = (set(re.findall(r"`(\w+)`", members)), "iteration" in members, types)
    built_in = {name: interface_info(value) for name, value in vars(interfaces).items() if interface_info(value)}
    assert documented.keys() == built_in.keys()
    for name, (members, iterates, types) in documented.items():
        contract = contract_of(built_in[name].interface)
        assert members == {member for operation, member in contract.members if operation == OP_CALL}
        assert iterates == ((OP_ITERATE, "") in contract.members)
        if name != "Closeable":
            files = {f"io.{kind.__name__}" for kind in built_in[name].adapters if kind.__module__ == "_io"}
            assert files == set(re.findall(r"`([\w.]+)`", types))
            assert (GeneratorType in built_in[name].adapters) == ("generators" in types)


def test_table_of_special_methods_is_complete():
    documented = {
        special: operation.split("`")[1]
        for methods, operation in rows(PAGES[0], "Special methods")
        for special in re.findall(r"`(\w+)`", methods)
    }
    assert documented == {name: OPERATION_NAMES[operation] for name, operation in SPECIAL_OPERATIONS.items()}


def test_table_of_comparisons_is_complete():
    page = read(PAGES[0]).split("### Comparisons\n", 1)[1].split("\n## ", 1)[0]
    assert dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", page, flags=re.MULTILINE)) == dict(COMPARISONS)


def test_bounds_of_a_read_are_those_of_the_code():
    assert MAX_READ_BYTES == 1024 * 1024
    assert f"{MAX_READ_CHARS:,} characters" in read(PAGES[0])
