"""What a type checker says about interfaces, implementations and calls; ``# expect:`` marks the wanted errors."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is installed with the extra `check`")

EXAMPLE = Path(__file__).with_name("typing_example.txt")
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_mypy_accepts_what_is_right_and_finds_what_is_wrong(tmp_path):
    source = EXAMPLE.read_text(encoding="utf-8")
    module = tmp_path / "example.py"
    module.write_text(source, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--hide-error-context",
        "--follow-imports=silent",
        f"--cache-dir={tmp_path / 'cache'}",
        str(module),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    found = {(int(line), code) for line, code in re.findall(r"example\.py:(\d+): error: .*\[([a-z-]+)\]", done.stdout)}
    wanted = {
        (number, code)
        for number, line in enumerate(source.splitlines(), 1)
        for code in re.findall(r"# expect: ([a-z-]+)", line)
    }
    assert found == wanted, done.stdout + done.stderr
