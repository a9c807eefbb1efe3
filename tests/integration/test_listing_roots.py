"""Which roots there are for whom: from the policy, for this peer only."""

import pytest

import caprpc
from caprpc import Denied, Interface, method
from caprpc.ids import OP_ROOT
from caprpc.session import State
from caprpc.testing.deployment import Deployment
from caprpc.testing.pair import Pair
from caprpc.wire import codec
from caprpc.wire.messages import Raise

PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
SHELF = '[offer.{0}]\ninterface = "{0}"\ncall = ["count"]\n'


class Books(Interface):
    @method(effect="read")
    def count(self) -> int: ...


class Films(Interface):
    @method(effect="read")
    def count(self) -> int: ...


class BookShelf(Books):
    def count(self):
        return 3


class FilmShelf(Films):
    made = 0

    def __init__(self, _peer):
        type(self).made += 1

    def count(self):
        return 5


ROOTS = {"books": BookShelf(), "films": FilmShelf, "vault": BookShelf()}
BOTH = (
    PEER.format("alice") + '[roots]\nbooks = "Books"\nfilms = "Films"\n' + SHELF.format("Books") + SHELF.format("Films")
)
BOOKS = PEER.format("bob") + '[roots]\nbooks = "Books"\n' + SHELF.format("Books")
NONE = PEER.format("carol") + SHELF.format("Books")
CLIENT = PEER.format("server") + '[accept.Books]\ncall = ["count"]\n[accept.Films]\ncall = ["count"]\n'


class Library:
    def __init__(self, root):
        self.deployment = Deployment(root)
        interfaces = [Books, Films]
        self.server = self.deployment.side("server", {"alice": BOTH, "bob": BOOKS, "carol": NONE}, interfaces)
        self.clients = {
            name: self.deployment.side(name, {"server": CLIENT}, interfaces) for name in ("alice", "bob", "carol")
        }


@pytest.fixture
def library(tmp_path):
    FilmShelf.made = 0
    return Library(tmp_path / "library")


@pytest.fixture
def pair(library, tmp_path):
    made = []

    def make(client):
        made.append(Pair(library.server, library.clients[client], ROOTS, audit=tmp_path / client, interfaces=[Films]))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ask(pair, name):
    """Return the answer to a call of ``root`` as it crosses."""
    question = pair.client.link.outgoing.ask_root(name)
    pair.run_until(question)
    return question.outcome


def test_peer_is_told_its_own_roots_and_nothing_is_made_by_asking(pairing, library, tmp_path):
    pairing.deployment = library
    host = pairing.serve(ROOTS)

    async def scenario(face):
        return await face(face.peer.roots())

    assert host.address
    assert pairing.run(scenario) == {"books": "Books", "films": "Films"}
    assert pairing.run(scenario, side="bob") == {"books": "Books"}
    assert FilmShelf.made == 0


def test_peer_without_roots_is_answered_as_for_a_root_that_is_not_there(pair):
    carol = pair("carol")
    answers = [ask(carol, name) for name in ("", "books", "nosuch")]
    assert all(isinstance(answer, Raise) for answer in answers)
    shapes = {codec.encode_message(Raise(0, a.taken, a.code, a.type, a.text, "R-AAAAAAAAAAAA")) for a in answers}
    assert len(shapes) == 1
    with pytest.raises(Denied):
        carol.client.link.outgoing.conclude_roots(_asked(carol, ""))


def _asked(pair, name):
    question = pair.client.link.outgoing.ask_root(name)
    pair.run_until(question)
    return question


def test_list_follows_a_reload_that_takes_a_root_away(pair, library):
    alice = pair("alice")
    outgoing = alice.client.link.outgoing
    assert set(outgoing.conclude_roots(_asked(alice, ""))) == {"books", "films"}
    narrower = PEER.format("alice") + '[roots]\nfilms = "Films"\n' + SHELF.format("Films")
    library.deployment.rewrite(library.server, {"alice": narrower, "bob": BOOKS, "carol": NONE}, 2)
    alice.server.admission.reload()
    assert outgoing.conclude_roots(_asked(alice, "")) == {"films": "Films"}


def test_asking_for_the_list_is_decided_and_recorded_as_every_operation(pair, tmp_path):
    alice = pair("alice")
    ask(alice, "")
    carol = pair("carol")
    ask(carol, "")
    alice.close()
    carol.close()

    def decisions(name):
        lines = [
            line for path in (tmp_path / name / "server").rglob("*.jsonl") for line in path.read_text().splitlines()
        ]
        return [line for line in lines if '"kind":"decision"' in line]

    assert len(decisions("alice")) == len(decisions("carol")) == 1
    assert '"facet":"root","decision":"permit","rule":"alice.toml:' in decisions("alice")[0]
    assert '"operation":"root"' in decisions("alice")[0]
    assert '"decision":"deny","reason":"not-granted","rule":"carol.toml:' in decisions("carol")[0]


@pytest.mark.parametrize(
    "listed",
    [["books"], {"books": 1}, {"_books": "Books"}, {"books": "Bo\x1b[31mks"}, {"b\u202eooks": "Books"}, {"books": ""}],
    ids=["list", "number", "underscore", "terminal-codes", "bidirectional", "empty"],
)
def test_list_of_a_hostile_server_ends_the_connection_and_is_never_shown(pair, listed):
    alice = pair("alice")
    alice.server.holds = True
    question = alice.client.link.outgoing.ask_root("")
    alice.run()
    job = alice.server.jobs.popleft()
    alice.server.session.return_(job.answer, codec.pack(listed))
    alice.run()
    with pytest.raises(caprpc.ProtocolError):
        alice.client.link.outgoing.conclude_roots(question)
    assert alice.client.session.state is State.BROKEN


def test_call_of_root_takes_no_arguments_when_it_asks_for_the_list(pair):
    alice = pair("alice")
    outgoing = alice.client.link.outgoing
    question = alice.client.session.ask(outgoing._root, OP_ROOT, "", codec.pack([["books"], {}]), [], None, None)
    alice.run_until(question)
    assert question.outcome.code == "invalid-arguments"
