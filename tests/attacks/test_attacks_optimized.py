"""The suite with asserts and docstrings removed (``python -O``, ``-OO``) has the same verdicts. CAP-RU-12.

Every run compares a sample; ``CAPRPC_ATTACK_SCALE=2`` compares the whole suite, three times as long as it takes.
"""

import ast

import pytest
from optimized_verdicts import ROOT, SAMPLE, verdicts, whole_suite
from vault_service import SCALE

TESTS, JOBS = (whole_suite(), 2) if SCALE > 1 else (SAMPLE, 0)

GUARDED = """
def may(name):
    assert name == "read", "denied"
    return True
"""
PLANTED = """
import sys
sys.path.insert(0, {directory!r})
from guarded import may

def test_the_guard_refuses():
    try:
        may("write")
    except AssertionError:
        return
    assert False, "allowed"

def test_that_fails():
    assert 1 == 2

def test_that_passes():
    assert 1 == 1
"""
PLANTED_NAMES = ["test_the_guard_refuses", "test_that_fails", "test_that_passes"]


class Levels:
    """The verdicts at each level, each taken once; those of the planted tests apart."""

    def __init__(self, directory):
        self._directory = directory
        self._seen = {}
        (directory / "guarded.py").write_text(GUARDED, encoding="utf-8")
        self._planted = directory / "test_planted.py"
        self._planted.write_text(PLANTED.format(directory=str(directory)), encoding="utf-8")

    def __getitem__(self, level):
        if level not in self._seen:
            report = self._directory / f"{level}.xml"
            found = verdicts(level, [*TESTS, str(self._planted)], report, planted=PLANTED_NAMES, jobs=JOBS)
            planted = [
                next(found.pop(name) for name in list(found) if name.endswith(f"::{one}")) for one in PLANTED_NAMES
            ]
            self._seen[level] = found, planted
        return self._seen[level]


@pytest.fixture(scope="module")
def levels(tmp_path_factory):
    return Levels(tmp_path_factory.mktemp("levels"))


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("level", [1, 2])
def test_verdicts_are_the_same_without_asserts(levels, level):
    plain, optimized = levels[0][0], levels[level][0]
    assert {name: (plain.get(name), optimized.get(name)) for name in plain.keys() ^ optimized.keys()} == {}
    assert {name: (was, optimized[name]) for name, was in plain.items() if optimized[name] != was} == {}
    assert len(plain) >= 10
    assert {outcome for outcomes in plain.values() for outcome in outcomes} <= {"passed", "skipped"}


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("level", [1, 2])
def test_a_guard_that_is_an_assert_would_be_noticed(levels, level):
    """What tests assert stays; what the tested code asserts goes, and is a difference."""
    assert levels[0][1] == [["passed"], ["failure"], ["passed"]]
    assert levels[level][1] == [["failure"], ["failure"], ["passed"]]


def test_modules_beside_the_tests_keep_their_asserts():
    """What is no test module and no ``conftest`` is rewritten only if ``tests/conftest.py`` says so."""
    conftest = ast.parse((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    named = {
        argument.value.rpartition(".")[2]
        for node in ast.walk(conftest)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.register_assert_rewrite"
        for argument in node.args
    }
    beside = [
        path
        for path in (ROOT / "tests").rglob("*.py")
        if not path.name.startswith(("test_", "conftest")) and path.parent.name != "benchmarks"
    ]
    forgotten = [
        str(path.relative_to(ROOT))
        for path in beside
        if path.stem not in named
        and any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    ]
    assert len(beside) > 10
    assert forgotten == []
