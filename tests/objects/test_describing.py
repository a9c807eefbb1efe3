"""What is said of a reference without asking anybody."""

import pytest

import caprpc
from caprpc.interfaces import TextLines


@pytest.fixture
def quiet(world):
    """Return a world in which nothing may be sent."""
    w = world()
    w.node.same()
    w.pair.run()
    yield w
    assert not w.sessions[0].data_to_send()


def test_members_are_those_that_were_announced(quiet):
    found = caprpc.describe(quiet.node)
    assert (found.interface, found.holder, found.alive) == ("Node", "spiffe://test.example/server", True)
    assert {(member.operation, member.name) for member in found.members} >= {("call", "echo"), ("set", "label")}
    assert "unoffered" not in {member.name for member in found.members}
    (echo,) = [member for member in found.members if member.name == "echo"]
    assert (echo.signature, echo.effect, str(echo)) == (
        "(value: list[int]) -> list[int]", "read", "echo(value: list[int]) -> list[int]",
    )  # fmt: skip
    assert [str(member) for member in found.members if member.operation == "get"] == ["label: str"]


def test_lesser_reference_says_so(world):
    less = caprpc.attenuate(world().node, only=["echo"])
    assert [member.name for member in caprpc.describe(less).members] == ["echo"]


def test_holder_is_the_owner(quiet):
    assert caprpc.holder(quiet.node) == "spiffe://test.example/server"
    for ours in (quiet.Leaves(), caprpc.attenuate(quiet.Leaves())):
        with pytest.raises(TypeError):
            caprpc.holder(ours)


def test_same_reference_is_the_same(world):
    w = world()
    less = caprpc.attenuate(w.node)
    one, other = w.node.same(), w.node.same()
    assert caprpc.same(one, other)
    assert not caprpc.same(one, w.node.fresh())
    assert not caprpc.same(w.node, less)
    leaf = w.Leaves()
    assert caprpc.same(leaf, leaf)
    assert not caprpc.same(leaf, caprpc.attenuate(leaf))


def test_interface_is_the_declared_one(quiet):
    assert caprpc.implements(quiet.node, quiet.Node)
    assert not caprpc.implements(quiet.node, quiet.Leaf)
    assert caprpc.implements(quiet.Leaves(), quiet.Leaf)
    assert caprpc.implements(caprpc.attenuate(quiet.Leaves()), quiet.Leaf)
    assert not caprpc.implements(quiet.Leaves(), TextLines)
