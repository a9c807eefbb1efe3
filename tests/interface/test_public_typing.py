"""What mypy and pyright, both strict, say of code that uses what is public; ``# expect:`` marks the wanted errors."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from caprpc.cli import main

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SEEN = [
    *("caprpc/__init__.py", "caprpc/aio/__init__.py", "caprpc/aio/interfaces.py", "caprpc/aio/typed.py"),
    *("caprpc/interfaces.py", "caprpc/interface/files.py", "caprpc/interface/streams.py"),
    *("caprpc/demo/interfaces.py", "caprpc/demo/async_interfaces.py", "docs/examples", "docs/tutorials/first_service"),
]
"""What users read and copy; the rest of the package is checked by mypy alone."""

QUIET = ("reportUnusedVariable", "reportUnusedExpression")
"""What strict also complains of, and what has nothing to do with types."""


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """The typed samples as modules of one directory, with the types that are generated for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("typing_example", "typing_async_example", "typing_public_example"):
        shutil.copy(HERE / f"{name}.txt", tmp_path / f"{name}.py")
    shutil.copy(HERE / "typed_ledger.py", tmp_path)
    done = CliRunner().invoke(main, ["stubs", "typed_ledger", "--write", "async_ledger.py"], prog_name="caprpc")
    sys.modules.pop("typed_ledger", None)
    assert done.exit_code == 0, done.output
    return tmp_path


def wanted(directory):
    """Return each line that a type checker must complain of."""
    return {
        (path.name, number)
        for path in directory.glob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "# expect: " in line
    }


@pytest.mark.timeout(300)
def test_mypy_takes_the_public_names_and_finds_what_is_wrong(samples):
    pytest.importorskip("mypy", reason="mypy is installed with the extra `check`")
    options = ["--strict", "--no-error-summary", "--hide-error-context", "--follow-imports=silent"]
    command = [sys.executable, "-m", "mypy", *options, f"--cache-dir={samples / 'cache'}"]
    path = samples / "typing_public_example.py"
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, cwd=ROOT, check=False)
    found = {(int(line), code) for line, code in re.findall(r"example\.py:(\d+): error: .*\[([a-z-]+)\]", done.stdout)}
    expected = {
        (number, code)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for code in re.findall(r"# expect: ([a-z-]+)", line)
    }
    assert found == expected, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_pyright_finds_the_same_and_nothing_in_what_users_read(samples):
    """pyright words its errors in its own way: the lines have to be the same."""
    pytest.importorskip("basedpyright", reason="pyright is installed with the extra `check`")
    seen = [os.path.relpath(ROOT / path, samples) for path in SEEN]
    config = {"include": [".", *seen], "extraPaths": seen[-1:], "typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (samples / "pyrightconfig.json").write_text(json.dumps(config | dict.fromkeys(QUIET, "none")), encoding="utf-8")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, cwd=samples, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] > len(SEEN)
    found = {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in report["generalDiagnostics"]
        if one["severity"] == "error"
    }
    assert set(found) == wanted(samples), "\n".join(f"{place}: {message}" for place, message in found.items())
