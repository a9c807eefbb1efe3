"""``caprpc explain`` for refusals that a service really makes: what it means, and what to do."""

import re

import pytest
from click.testing import CliRunner

import caprpc
from caprpc import Interface, method
from caprpc.cli import main
from caprpc.testing.connected import connected
from caprpc.testing.deployment import Deployment


class Shelf(Interface):
    @method(effect="read")
    def book(self, number: int) -> bytes: ...


class ShelfImpl(Shelf):
    def book(self, number: int) -> bytes:
        return b"x" * number


SERVER = """\
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/reader"]
[roots]
shelf = "Reading"
[offer.Reading]
interface = "Shelf"
call = ["book"]
"""
READER = """\
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/library"]
[accept.Shelf]
call = ["book"]
"""


@pytest.fixture
def explained(tmp_path):
    """Run something against the shelf, and explain the number that its error has."""
    deployment = Deployment(tmp_path)
    server = deployment.side("library", {"reader": SERVER}, [Shelf])
    client = deployment.side("reader", {"library": READER}, [Shelf])

    def explain(action):
        with connected({"shelf": ShelfImpl()}, server, client) as peer, pytest.raises(caprpc.RemoteError) as caught:
            action(peer)
        result = CliRunner().invoke(main, ["explain", caught.value.reference, "--audit", str(server.audit)])
        assert result.exit_code == 0, result.output
        return dict(re.findall(r"^  (\w[\w ]*?) {2,}(.*)$", result.stdout, re.M))

    return explain


def test_a_root_that_is_not_given(explained):
    rows = explained(lambda peer: peer.root("attic", Shelf))
    assert rows["tried"].startswith("root attic")
    assert "asked for a root" in rows["it means"]
    assert "[roots]" in rows["to do"]


def test_a_result_that_the_peer_cannot_take(explained):
    rows = explained(lambda peer: peer.root("shelf", Shelf).book(3_000_000))
    assert rows["error"] == "LimitExceeded"
    assert "more than the peer accepts" in rows["it means"]
    assert "byte stream" in rows["to do"]


@pytest.mark.parametrize(("where", "says"), [("here", "is in no audit log below"), ("nowhere", "not there")])
def test_a_number_that_is_not_found_says_where_to_look(tmp_path, where, says):
    (tmp_path / "here").mkdir()
    result = CliRunner().invoke(main, ["explain", "R-AAAAAAAAAAAA", "--audit", str(tmp_path / where)])
    assert result.exit_code == 66
    assert says in result.stderr
    assert str(tmp_path / where) in result.stderr
    assert "name its log with --audit DIR" in result.stderr
