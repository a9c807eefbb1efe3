"""Runs of equal calls in a batch are planned together; each is guarded, recorded and answered as if it came alone."""

import json

import pytest

from caprpc import Interface, method
from caprpc.testing.deployment import Deployment
from caprpc.testing.pair import Pair


class Bell(Interface):
    @method(effect="write")
    def ring(self) -> int: ...

    @method(effect="write")
    def seldom(self) -> int: ...

    @method(effect="write")
    def louder(self, by: int, why: str = "") -> int: ...


class BellImpl(Bell):
    def __init__(self):
        self.rung = 0

    def ring(self):
        self.rung += 1
        if self.rung == 3:
            raise ValueError("cracked")
        return self.rung

    def seldom(self):
        return self.ring()

    def louder(self, by, why=""):
        return by + len(why)


SERVER = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/client"]
[roots]
bell = "Bell"
[offer.Bell]
interface = "Bell"
call = ["ring", "seldom", "louder"]
[offer.Bell.limit.seldom]
per_second = 1
burst = 5
[offer.Bell.args.louder]
by = { max = 1000 }
"""
CLIENT = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Bell]
call = ["ring", "seldom", "louder"]
"""


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    deployment = Deployment(tmp_path_factory.mktemp("bells"))
    return (
        deployment.side("server", {"client": SERVER}, [Bell], spiffe="spiffe://test.example/server"),
        deployment.side("client", {"server": CLIENT}, [Bell], spiffe="spiffe://test.example/client"),
    )


@pytest.fixture
def ask(sides, tmp_path):
    """Make a batch of ``(member, args)``; return the results, exceptions by their code."""
    with Pair(*sides, {"bell": BellImpl()}, audit=tmp_path) as pair:
        bell = pair.client.root("bell", Bell)
        target, members = bell._caprpc_import, bell._caprpc_shape.members

        def ask(*calls):
            planned = [(target, members[1, name], args, {}) for name, args in calls]
            return [getattr(each, "code", each) for each in pair.client.batch(planned)]

        yield ask


def decisions(tmp_path):
    paths = sorted((tmp_path / "server").rglob("*.jsonl"))
    records = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [(r["decision"], r["member"]) for r in records if r["kind"] == "decision" and r["member"] != "bell"]


def test_each_of_many_equal_calls_runs_and_is_recorded(ask, tmp_path):
    assert ask(*[("ring", ())] * 6) == [1, 2, "internal", 4, 5, 6]
    assert decisions(tmp_path) == [("permit", "ring")] * 6


def test_equal_calls_between_others_keep_their_places(ask, tmp_path):
    calls = [("ring", ()), ("ring", ()), ("louder", (7, "abc")), ("louder", (8, "")), ("ring", ()), ("ring", ())]
    assert ask(*calls) == [1, 2, 10, 8, "internal", 4]
    assert decisions(tmp_path) == [("permit", name) for name, _ in calls]


@pytest.mark.parametrize(("calls", "results"), [(6, ["limit"] * 6), (5, [1, 2, "internal", 4, 5])])
def test_counted_calls_are_let_through_all_or_none(ask, tmp_path, calls, results):
    assert ask(*[("seldom", ())] * calls) == results
    assert decisions(tmp_path) == [("deny" if calls > 5 else "permit", "seldom")] * calls


def test_arguments_are_checked_call_by_call(ask, tmp_path):
    assert ask(("louder", (1, "")), ("louder", (2000, "")), ("louder", (3, ""))) == [1, "invalid-arguments", 3]
    assert sorted(decisions(tmp_path)) == [("deny", "louder"), ("permit", "louder"), ("permit", "louder")]


def test_arguments_of_any_size_travel(ask):
    assert ask(*[("louder", (1, "x" * size)) for size in range(60)]) == list(range(1, 61))
    assert ask(("louder", (1,)), ("louder", (2, "b"))) == [1, 3]
    with pytest.raises(ValueError, match="UTF-8"):
        ask(("louder", (1, "\ud800")))
    with pytest.raises(TypeError):
        ask(("louder", (1, "")), ("louder", ("1", "")))
