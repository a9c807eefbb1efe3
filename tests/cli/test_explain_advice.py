"""``caprpc explain`` for refusals that a service really makes: what it means, and what to do."""

import re

import pytest
from click.testing import CliRunner

import caprpc
from caprpc import Interface, method
from caprpc.audit import AuditLog, Selection, select
from caprpc.cli import main
from caprpc.cli.reasons import ENDINGS
from caprpc.errors import CLOSE_CODES
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
        return rows_of(caught.value.reference, server.audit)

    return explain


def rows_of(reference, log):
    """Return what ``caprpc explain`` says."""
    result = CliRunner().invoke(main, ["explain", reference, "--audit", str(log)])
    assert result.exit_code == 0, result.output
    return dict(re.findall(r"^  (\w[\w ]*?) {2,}(.*)$", result.stdout, re.M))


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


def test_the_end_of_a_connection(tmp_path):
    deployment = Deployment(tmp_path)
    server = deployment.side("library", {"reader": SERVER}, [Shelf])
    client = deployment.side("reader", {"library": READER}, [Shelf])
    with connected({"shelf": ShelfImpl()}, server, client) as peer:
        peer.root("shelf", Shelf).book(1)
    (closed,) = [entry.record for entry in select(client.audit, Selection(kind="close"))]
    rows = rows_of(closed.text("reference"), client.audit)
    assert rows["reason"] == "closed"
    assert rows["asked"].startswith("2 questions of ours")
    assert rows["it means"].startswith("The connection was closed in order")
    assert "count" not in rows


def test_every_way_in_which_a_connection_ends_is_explained():
    assert set(ENDINGS) == CLOSE_CODES | {"lost"}


def test_rejections_that_were_counted_have_no_questions(tmp_path):
    log = AuditLog.open(tmp_path / "log", name="library")
    log.general.record("reject", reason="alpn", count=12, references="R-AAAAAAAAAAAA R-BBBBBBBBBBBB")
    log.close()
    assert rows_of("R-BBBBBBBBBBBB", tmp_path / "log")["count"] == "12 equal refusals, counted in one record"


@pytest.mark.parametrize(("where", "says"), [("here", "is in no audit log below"), ("nowhere", "not there")])
def test_a_number_that_is_not_found_says_where_to_look(tmp_path, where, says):
    (tmp_path / "here").mkdir()
    result = CliRunner().invoke(main, ["explain", "R-AAAAAAAAAAAA", "--audit", str(tmp_path / where)])
    assert result.exit_code == 66
    assert says in result.stderr
    assert str(tmp_path / where) in result.stderr
    assert "name its log with --audit DIR" in result.stderr
