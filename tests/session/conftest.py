"""Two sessions over nothing: messages go in as bytes, come out as bytes, and time is an argument."""

from datetime import UTC, datetime

import pytest

from caprpc import Interface, method
from caprpc.interface import shape_of
from caprpc.objects.roots import ROOT_SHAPE
from caprpc.peer import PeerIdentity
from caprpc.policy import Guard, PolicySet, PrincipalQuotas
from caprpc.session import Export, Opening, Origin, Session, State
from caprpc.testing.deployment import Deployment
from caprpc.wire import messages as m
from caprpc.wire.codec import decode_message, encode_message
from caprpc.wire.frame import FrameBuffer

T0 = 1000.0

POLICY = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/peer"]
[roots]
box = "Box"
[offer.Box]
interface = "Box"
call = ["put", "limited"]
[offer.Box.limit.limited]
in_flight = 1
"""


class Box(Interface):
    @method(effect="write")
    def put(self, item: int) -> None: ...

    @method(effect="write")
    def limited(self) -> None: ...

    @method(effect="write")
    def hidden(self) -> None: ...


class Thing(Box):
    def put(self, item):
        pass

    def limited(self):
        pass

    def hidden(self):
        pass


@pytest.fixture(scope="session")
def policy_of(tmp_path_factory):
    """Return a compiled policy, with the given [limits]; the same text is loaded once."""
    deployment = Deployment(tmp_path_factory.mktemp("sessions"))
    known = {}

    def make(limits=""):
        if limits not in known:
            text = POLICY + (f"[limits]\n{limits}\n" if limits else "")
            side = deployment.side(f"side{len(known)}", {"peer": text}, [Box])
            known[limits] = PolicySet.load(side.policies, now=datetime.now(UTC)).policies[0]
        return known[limits]

    return make


class Half:
    """One session and what a test does to it."""

    def __init__(self, policy, *, acceptor=True, now=T0, ours="sha256:" + "a" * 64, theirs="sha256:" + "b" * 64):
        self.guard = Guard(policy, PrincipalQuotas())
        self.now = now
        peer = PeerIdentity("spiffe://test.example/peer", "sha256:" + "c" * 64, theirs, (), 4e9, "memory")
        root = Export(0, self, self, ROOT_SHAPE, self.guard.roots, None)
        opening = Opening(acceptor=acceptor, our_leaf_key=ours, peer_leaf_key=theirs)
        self.session = Session(peer, self.guard, root, opening, now)
        self.events = []
        self._frames = FrameBuffer(1 << 24)
        self._next = 1

    def hear(self, *messages):
        """Give messages to the session; return the events."""
        return self.hear_bytes(b"".join(encode_message(message) for message in messages))

    def hear_bytes(self, data):
        events = self.session.receive_data(data, self.now)
        self.events += events
        return events

    def said(self):
        """Return the messages that the session wants to send, and forget them."""
        data = b"".join(self.session.data_to_send())
        return [decode_message(bytes(body)) for body in self._frames.feed(data)]

    def open(self, limits=None, features=()):
        """Bring the session into OPEN."""
        accepted = limits or m.PeerLimits(1_114_112, 64, 4_096, 32)
        kind = m.Hello if self.session.opening.acceptor else m.Welcome
        self.hear(kind([1], b"n" * 32, accepted, list(features)))
        assert self.session.state is State.OPEN
        self.said()
        return self

    def question(self):
        self._next += 1
        return self._next - 1

    def call(self, target=0, operation=0, member="box", *, meta=None, question=None, payload=b"\x92\x90\x80"):
        """Return a CALL of the peer; by default it asks for the root."""
        return m.Call(self.question() if question is None else question, target, operation, member, meta, payload)

    def hand_over(self, obj=None, scope=None):
        """Export an object to the peer, as a message that is being written does it."""
        obj = obj if obj is not None else Thing()
        facet = self.guard.facet("Box")
        announced = self.session.announce(facet, m.LIFETIME_CONNECTION if scope is None else m.LIFETIME_CALL)
        return self.session.exports.hand_over(obj, shape_of(Box), facet, announced, scope)

    def learn_facet(self, number=1, lifetime=0, members=((1, "put"),)):
        """Have the peer announce a facet; return what the session knows of it."""
        self.hear(m.Facet(number, "Box", list(members), lifetime))
        return self.session.announced_by_peer(number)

    def import_(self, export_id=1, announced=None, scope=None):
        """Read one occurrence of a reference of the peer."""
        announced = announced or self.learn_facet()
        return self.session.imports.receive(export_id, announced, scope)

    def ask(self, target, *, handed_over=(), scope=None, behalf=None, member="put"):
        origin = Origin(behalf) if behalf is not None else None
        return self.session.ask(target, 1, member, b"\x92\x90\x80", list(handed_over), scope, origin)

    @property
    def ended(self):
        """The code that the session ended with, None while it goes on."""
        codes = [event.code for event in self.events if type(event).__name__ == "Ended"]
        return codes[0] if codes else None


@pytest.fixture
def half(policy_of):
    """Return a maker of sessions that are open."""

    def make(limits="", *, peer_limits=None, features=(), **options):
        return Half(policy_of(limits), **options).open(peer_limits, features)

    return make


@pytest.fixture
def fresh(policy_of):
    """Return a maker of sessions that have exchanged nothing."""

    def make(limits="", **options):
        return Half(policy_of(limits), **options)

    return make
