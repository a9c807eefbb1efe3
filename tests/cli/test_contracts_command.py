"""``caprpc contracts``: what the code declares, written down, and compared with what was reviewed."""

import pytest
from click.testing import CliRunner

from caprpc.cli import main

MODULE = '''
from caprpc.interface import Interface, method

class Feed(Interface):
    """Gives lines."""

    @method(effect="read")
    def last(self, count: int) -> str: ...

    @method(effect="admin")
    def stop(self) -> None: ...
'''


@pytest.fixture
def run():
    return lambda *args: CliRunner().invoke(main, ["contracts", *map(str, args)], prog_name="caprpc")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that writes a module under a fresh name: imports are kept by name."""
    monkeypatch.syspath_prepend(tmp_path)
    names = (f"contracts_command_{tmp_path.name}_{number}".replace("-", "_") for number in range(9))

    def write(text):
        name = next(names)
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.fixture
def reviewed(run, module, tmp_path):
    file = tmp_path / "contracts.toml"
    assert run("export", module(MODULE), "--write", file).exit_code == 0
    return file


def test_export_is_what_policy_contracts_prints(run, module):
    name = module(MODULE)
    exported = run("export", name)
    assert exported.exit_code == 0
    assert "[interface.Feed]" in exported.stdout
    assert exported.stdout == CliRunner().invoke(main, ["policy", "contracts", name]).stdout


def test_code_as_reviewed_is_clean(run, module, reviewed):
    result = run("check", module(MODULE), "--against", reviewed)
    assert result.exit_code == 0
    assert result.stdout.endswith(" interfaces, as declared\n")


def test_another_doc_text_is_no_drift(run, module, reviewed):
    assert run("check", module(MODULE.replace("Gives", "Yields")), "--against", reviewed).exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("count: int", "count: str", "call 'last' of interface Feed has changed in the code: parameters were"),
        ('effect="admin"', 'effect="read"', "call 'stop' of interface Feed has changed in the code: the effect was"),
        ("def stop", "def halt", "call 'stop' of interface Feed is gone from the code"),
        ("def stop", "def halt", "call 'halt' of interface Feed is new in the code"),
        ("class Feed", "class Food", "interface Feed is gone from the code"),
        ("class Feed", "class Food", "interface Food is new in the code"),
    ],
)
def test_drift_is_named_and_fails(run, module, reviewed, old, new, line):
    result = run("check", module(MODULE.replace(old, new)), "--against", reviewed)
    assert result.exit_code == 1
    assert f"{reviewed}: {line}" in result.stdout
    assert "hint: review it" in result.stdout


@pytest.mark.parametrize("text", ["caprpc = 1", 'caprpc = 1\nkind = "policy"\n[interface.A]', "a ="])
def test_file_that_is_no_contracts_does_not_load(run, module, reviewed, text):
    reviewed.write_text(text)
    result = run("check", module(MODULE), "--against", reviewed)
    assert result.exit_code == 3
    assert "contracts.toml" in result.stderr


def test_missing_module_is_a_usage_error(run, reviewed):
    assert run("check", "no_such_module_at_all", "--against", reviewed).exit_code == 2
