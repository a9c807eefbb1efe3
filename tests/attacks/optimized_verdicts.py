"""The verdicts of tests by name, in a process of their own, with or without ``assert`` statements in what they test.

pytest rewrites the asserts of test modules, and of the modules that the ``conftest`` files name, into code that ``-O``
leaves in place: the tests keep their verdicts, and only what they test loses its asserts (and, at 2, its docstrings).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

SAMPLE = [
    "tests/attacks/test_attacks_names.py::test_private_and_mangled_names_are_denied",
    "tests/attacks/test_attacks_names.py::test_absent_and_forbidden_members_are_answered_with_the_same_bytes",
    "tests/attacks/test_attacks_references.py::test_a_handle_of_another_connection_of_the_same_principal_is_denied",
    "tests/attacks/test_attacks_references.py::test_each_occurrence_is_counted",
    "tests/attacks/test_attacks_sturdy.py::test_a_stolen_secret_is_worthless_to_whoever_stole_it",
]
"""What every run can bear; the whole suite is behind ``CAPRPC_ATTACK_SCALE``."""


def whole_suite():
    """Return all attacks, and the tests elsewhere that the catalogue's table names."""
    table = json.loads((HERE / "coverage.json").read_text(encoding="utf-8"))
    named = {test for tests in table.values() for test in tests if test.startswith("../")}
    elsewhere = sorted(str((HERE / test.partition("::")[0]).resolve().relative_to(ROOT)) for test in named)
    return ["tests/attacks", *dict.fromkeys(elsewhere)]


def verdicts(level, tests, report, *, planted=(), jobs=0):
    """Run tests at a level of optimization (``-O`` is 1, ``-OO`` is 2); return outcome by name.

    Processes that the tests start inherit the level. What fails is tried once more: a machine with other work to do is
    late, and that is no verdict; a check that is gone is gone the second time, too.
    """
    found = _run(level, [*tests, "-n", str(jobs)], report)
    failed = {name for name, outcome in found.items() if outcome not in (["passed"], ["skipped"])}
    if any(name.rpartition("::")[2] not in planted for name in failed):
        found |= _run(level, [*tests, "--last-failed"], report.with_suffix(".again.xml"))
    return found


def _run(level, arguments, report):
    environment = {**os.environ, "PYTHONOPTIMIZE": str(level) if level else "", "CAPRPC_ATTACK_SCALE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir={report.parent / f'cache-{level}'}"]
    # pytest says that asserts outside of rewritten modules are gone, which is the point; and without docstrings it does
    # not find the mark in one of its own modules that says not to rewrite it.
    for text in ("assertions not in test modules", "Module already imported so cannot be rewritten; _pytest"):
        command += ["-W", f"ignore:{text}"]
    command += [f"--junitxml={report}", *arguments]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if not report.exists():
        raise RuntimeError(f"pytest wrote no report: {ran.stdout[-2_000:]}{ran.stderr[-2_000:]}")
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = [child.tag for child in case if child.tag in {"failure", "error", "skipped"}] or ["passed"]
        found.setdefault(f"{case.get('classname')}::{case.get('name')}", []).extend(outcome)
    return found
