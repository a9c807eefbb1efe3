"""``caprpc contracts``: write down what the code declares, and compare it with what was reviewed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from caprpc.cli.exits import TOOL_FINDINGS, TOOL_OK, Toolbox
from caprpc.cli.policy_contracts import CONTRACTS_EPILOG, contracts_of
from caprpc.cli.policy_contracts import contracts as _policy_contracts
from caprpc.contract import InterfaceContract
from caprpc.policy.contracts import change, describe_member, parse_contracts
from caprpc.policy.document import Table
from caprpc.policy.problems import Problems
from caprpc.policy.text import TomlDocument, TomlProblem

_CHECK_EPILOG: Final = """\b
Examples:
  caprpc contracts check shop.interfaces --against policies/server/contracts.toml

Exit codes: 0 the file says what the code declares, 1 it does not, 2 a module or interface was not found,
3 the file does not load.
"""


@click.group(cls=Toolbox, epilog="\b\nExamples:\n  caprpc contracts export shop.interfaces\n")
def contracts() -> None:
    """Write down what the code declares, for review, and compare it with what was reviewed.

    Exit codes: 0 clean, 1 drift, 2 usage, 3 the file does not load.
    """


contracts.add_command(
    click.Command(
        "export",
        callback=_policy_contracts.callback,
        params=_policy_contracts.params,
        help=_policy_contracts.help,
        epilog=CONTRACTS_EPILOG.replace("caprpc policy contracts", "caprpc contracts export"),
    )
)


@contracts.command(epilog=_CHECK_EPILOG)
@click.argument("modules", metavar="MODULE[:NAME]...", nargs=-1, required=True)
@click.option(
    "--against",
    "reviewed",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The contracts.toml that was reviewed.",
)
def check(modules: tuple[str, ...], reviewed: Path) -> int:
    """Compare the interfaces in our own MODULEs, and those that these mention, with a contracts.toml.

    Any difference but that of a doc text is drift, granted or not; a service refuses to start only over what is
    granted.
    """
    declared = contracts_of(modules)
    differences = list(drift(read_contracts(reviewed), declared))
    for line in differences:
        click.echo(f"{reviewed}: {line}")
    if differences:
        click.echo(f"  hint: review it, and run: caprpc contracts export {' '.join(modules)} --write {reviewed}")
        return TOOL_FINDINGS
    click.echo(f"{reviewed}: {len(declared)} interfaces, as declared")
    return TOOL_OK


def read_contracts(path: Path) -> Mapping[str, InterfaceContract]:
    """Return the contracts of a file.

    Raises:
        PolicyError: The file is no ``contracts.toml``, or not as it should be.
        OSError: It cannot be read.
    """
    problems = Problems()
    found: Mapping[str, InterfaceContract] = {}
    try:
        top = Table.top(TomlDocument(path.read_text(encoding="utf-8")), path.name, problems)
    except TomlProblem as exc:
        problems.add(exc.where(path.name), exc.message, exc.hint, code="not-toml")
    else:
        top.integer("caprpc", 1, 1)
        top.choice("kind", ("contracts",))
        for key, example in (("caprpc", "caprpc = 1"), ("kind", 'kind = "contracts"')):
            if not top.has(key):
                top.missing(key, example)
        found = parse_contracts(top)
    problems.raise_if_any()
    return found


def drift(reviewed: Mapping[str, InterfaceContract], declared: Mapping[str, InterfaceContract]) -> Iterator[str]:
    """Yield a line for each member that the code declares otherwise than the file."""
    for name in sorted(reviewed.keys() | declared.keys()):
        if name not in declared:
            yield f"interface {name} is gone from the code"
            continue
        if name not in reviewed:
            yield f"interface {name} is new in the code"
            continue
        old, new = reviewed[name].members, declared[name].members
        for key in sorted(old.keys() | new.keys()):
            fault = change(old[key], new.get(key)) if key in old else "is new in the code"
            if fault:
                yield f"{describe_member(*key)} of interface {name} {fault}"
