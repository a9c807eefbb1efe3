"""What ``caprpc stubs`` writes: readable, stable, up to date, and what a type checker makes of it."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from caprpc.cli import main
from caprpc.cli.async_types import Unnameable, async_module
from caprpc.cli.stubs import interfaces_of
from caprpc.interface import Interface, method

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KEPT = [
    ("caprpc.interfaces", ROOT / "caprpc" / "aio" / "interfaces.py"),
    ("caprpc.demo.interfaces", ROOT / "caprpc" / "demo" / "async_interfaces.py"),
]


@pytest.fixture(scope="module")
def ledger():
    """The module of the example, and the text that is written for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        module = importlib.import_module("typed_ledger")
        yield module, async_module("typed_ledger", interfaces_of(module))
        del sys.modules["typed_ledger"]


def stubs(*arguments):
    return CliRunner().invoke(main, ["stubs", *map(str, arguments)], prog_name="caprpc", catch_exceptions=False)


@pytest.mark.parametrize(("module", "path"), KEPT, ids=["built-in", "demo"])
def test_what_is_kept_in_the_repository_is_up_to_date(module, path):
    result = stubs(module, "--check", path)
    assert result.exit_code == 0, result.output


def test_what_is_out_of_date_is_shown_as_a_difference(tmp_path):
    kept = tmp_path / "kept.py"
    assert stubs("caprpc.demo.interfaces", "--write", kept).exit_code == 0
    assert stubs("caprpc.demo.interfaces", "--check", kept).exit_code == 0
    kept.write_text(kept.read_text(encoding="utf-8").replace("fileobj", "file"), encoding="utf-8")
    result = stubs("caprpc.demo.interfaces", "--check", kept)
    assert result.exit_code == 1
    assert "-            file: " in result.stdout
    assert "caprpc stubs caprpc.demo.interfaces --write" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["no_such_module"], 64),
        (["caprpc.errors"], 64),
        (["caprpc.interfaces", "--check", "x", "--write", "x"], 64),
        (["caprpc.interfaces", "--check", "/nowhere/x.py"], 66),
    ],
)
def test_mistakes_have_exit_codes(arguments, code):
    assert stubs(*arguments).exit_code == code


def test_the_same_declarations_give_the_same_text(ledger):
    module, text = ledger
    assert async_module("typed_ledger", reversed(interfaces_of(module))) == text


def test_members_are_sorted_and_documented(ledger):
    _, text = ledger
    members = re.findall(r"^        def (\w+)", text.partition("class AsyncLedger")[2], re.MULTILINE)
    named = [name for name in members if not name.startswith("__")]
    assert named == sorted(named)
    assert members[len(named) :] == ["__getitem__", "__aiter__"]
    assert '"""Give the newest first."""' in text


def test_what_is_written_is_formatted_as_ruff_would(ledger, tmp_path):
    pytest.importorskip("ruff", reason="ruff is installed with the extra `check`")
    written = tmp_path / "async_ledger.py"
    written.write_text(ledger[1], encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "format", "--diff", "--line-length=120", "--isolated", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_at_run_time_the_name_is_the_interface(ledger):
    _, text = ledger
    assert text.endswith("else:\n    AsyncAccount = Account\n    AsyncLedger = Ledger\n")
    kept = importlib.import_module("caprpc.aio.interfaces")
    assert kept.AsyncTextLines is importlib.import_module("caprpc.interfaces").TextLines


def test_an_interface_that_cannot_be_imported_is_refused():
    class Hidden(Interface):
        @method(effect="read")
        def read(self) -> int: ...

    with pytest.raises(Unnameable, match="inside a function"):
        async_module("here", [Hidden])


@pytest.mark.timeout(300)
def test_mypy_completes_what_is_right_and_finds_what_is_wrong(ledger, tmp_path):
    pytest.importorskip("mypy", reason="mypy is installed with the extra `check`")
    source = (HERE / "typing_async_example.txt").read_text(encoding="utf-8")
    (tmp_path / "example.py").write_text(source, encoding="utf-8")
    (tmp_path / "async_ledger.py").write_text(ledger[1], encoding="utf-8")
    (tmp_path / "typed_ledger.py").write_text((HERE / "typed_ledger.py").read_text(encoding="utf-8"), encoding="utf-8")
    options = ["--strict", "--no-error-summary", "--hide-error-context", "--follow-imports=silent"]
    command = [sys.executable, "-m", "mypy", *options, f"--cache-dir={tmp_path / 'cache'}"]
    files = [str(tmp_path / name) for name in ("typed_ledger.py", "async_ledger.py", "example.py")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, cwd=ROOT, check=False)
    found = {(m[0], int(m[1]), m[2]) for m in re.findall(r"(\w+)\.py:(\d+): error: .*\[([a-z-]+)\]", done.stdout)}
    wanted = {
        ("example", number, code)
        for number, line in enumerate(source.splitlines(), 1)
        for code in re.findall(r"# expect: ([a-z-]+)", line)
    }
    assert found == wanted, done.stdout + done.stderr
