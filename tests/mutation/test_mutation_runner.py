"""The mutation runner itself: what it changes, what it leaves alone, and that its verdicts are earned."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mutants import mutants, sampled
from running import ended, start

SOURCE = '''\
"""Docs."""

from typing import Final

MOST: Final = 3


class Box:
    __slots__ = ("a",)

    def fits(self, count: int) -> bool:
        """Docs: count < 3."""
        if count is None or not count:
            raise ValueError("x")
        return count < MOST
'''


def texts():
    return {(mutant.operator, mutant.text) for mutant in mutants(SOURCE)}


def test_each_kind_of_mistake_is_made():
    assert {
        ("constant", "3 -> 4"),
        ("comparison", "count < MOST -> count <= MOST"),
        ("comparison", "count < MOST -> count >= MOST"),
        ("comparison", "count is None -> count is not None"),
        ("and/or", "count is None or not count -> count is None and (not count)"),
        ("operand dropped", "count is None or not count -> not count"),
        ("not dropped", "not count -> count"),
        ("if True", "count is None or not count"),
        ("if False", "count is None or not count"),
        ("raise dropped", "raise ValueError('x')"),
        ("return", "return count < MOST -> return None"),
    } <= texts()


def test_what_means_nothing_at_run_time_is_left_alone():
    assert not any("Docs" in text or "int" in text or "'a'" in text for _, text in texts())


def test_every_mutant_is_another_program_of_the_same_names():
    plain = ast.unparse(ast.parse(SOURCE))
    for mutant in mutants(SOURCE):
        changed = ast.unparse(mutant.applied(SOURCE))
        assert changed != plain
        assert "class Box" in changed
    assert {mutant.name for mutant in mutants(SOURCE)} == {"module", "Box.fits"}


def test_a_sample_is_the_same_for_the_same_seed():
    found = mutants(SOURCE)
    assert [one.key for one in sampled(found, 5, 1, "m")] == [one.key for one in sampled(found, 5, 1, "m")]
    assert len(sampled(found, 5, 2, "m")) == 5
    assert sampled(found, 100, 1, "m") == found


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "mutated_box.py").write_text(SOURCE.replace('__slots__ = ("a",)', "kind = 1"))
    (tmp_path / "test_box.py").write_text(
        "from mutated_box import Box\n\n\n"
        "def test_fits():\n    assert Box().fits(2) is True\n    assert Box().fits(3) is False\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


# The runner itself has one thread; a test session may have more.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("count < MOST -> count <= MOST", "killed"),
        ("count < MOST -> count >= MOST", "killed"),
        ("3 -> 4", "killed"),
        ("raise ValueError('x')", "survived"),
    ],
)
def test_a_mutant_is_killed_where_a_test_notices_and_survives_where_none_does(project, tmp_path, text, verdict):
    path = project / "mutated_box.py"
    source = path.read_text()
    [mutant] = [one for one in mutants(source) if one.text == text]
    child = start("mutated_box", path, mutant.applied(source), ["test_box.py::test_fits"], tmp_path / "log")
    assert ended({child: float("inf")}) == (child, verdict), (tmp_path / "log").read_text()
    assert path.read_text() == source
