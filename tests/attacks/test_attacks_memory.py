"""Floods of every kind, and what is left of them: tables, counters of the principal and memory are what they were."""

import gc
import logging
import tracemalloc

import pytest
from hostile_peer import dial, own, reference, until

from caprpc.ids import OP_INVOKE, OP_NEXT
from caprpc.policy import Pool, Pools
from caprpc.wire import messages as m
from caprpc.wire.codec import pack

MALLORY = "spiffe://test.example/mallory"
KEEP = m.Meta(None, None, True)
MOST_BYTES = 256 * 1024
"""Growth of Python's memory over three floods; each sends or asks for a multiple of it, or thousands of entries."""


def streams_never_pulled(peer, vault):
    """Begin as many iterators as there is room for, and more, and pull none."""
    for _ in range(50):
        calls = [peer.call(vault, "numbers", [1_000_000]) for _ in range(8)]
        peer.try_to_send(*calls)
        assert all(isinstance(peer.answer(call.question), m.Return) for call in calls)


def streams_pulled_and_left(peer, vault):
    for _ in range(50):
        iterator = peer.value(vault, "numbers", [1_000_000]).export
        assert isinstance(peer.ask(iterator, "", [5, 1_000], operation=OP_NEXT), m.Return)


def answers_never_read(peer, vault):
    for _ in range(40):
        peer.try_to_send(peer.call(vault, "blob", [500_000]))


def answers_nobody_asked_for(peer, vault):
    peer.try_to_send(*(m.Return(number, pack("x" * 1_000)) for number in range(1, 500)))


def releases_of_too_much(peer, vault):
    slips = [peer.value(vault, "slip").export for _ in range(20)]
    peer.try_to_send(m.Release([(slip, 1) for slip in slips]), m.Release([(slip, 1) for slip in slips]))


def references_handed_over(peer, vault):
    peer.send(m.Facet(1, "Slip", [(1, "text")], 0))
    for start in range(1, 1_000, 100):
        payload = [[reference(number, 1) for number in range(start, start + 100)]]
        peer.try_to_send(peer.call(vault, "echo", payload))


def forged_references(peer, vault):
    for number in range(500, 700):
        peer.try_to_send(peer.call(vault, "take", [own(number)]))


def cancels(peer, vault):
    for _ in range(300):
        call = peer.call(vault, "noop")
        peer.try_to_send(call, m.Cancel(call.question))


def refusals(peer, vault):
    for number in range(300):
        peer.try_to_send(peer.call(vault, f"made_up_{number}", ["x" * 1_000]))


def steps_on_what_has_failed(peer, vault):
    first = peer.call(vault, "made_up", meta=KEEP)
    arguments = pack([["x" * 1_000], {}])
    steps = [m.Call(peer.next_question(), ~first.question, 1, "text", None, arguments) for _ in range(300)]
    peer.try_to_send(first, *steps)


def frames_that_never_end(peer, vault):
    peer.try_to_send((1_000_000).to_bytes(4, "big") + b"\x97" + bytes(900_000))


def callbacks_never_answered(peer, vault):
    peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
    for number in range(1, 5):
        peer.try_to_send(peer.call(vault, "call_back", [reference(number, 1)]))


def objects_in_one_list(peer, vault):
    """First more than we hold, then more than a message may; the second ends the connection."""
    peer.send(m.Facet(1, "Slip", [(1, "text")], 0))
    one = pack(reference(7, 1))
    for count in (60_000, 10_000_000):
        many = b"\xdd" + count.to_bytes(4, "big") + one * 60_000
        peer.try_to_send(peer.call(vault, "echo", payload=b"\x92\x91" + many + b"\x80"))


def ping_pong(peer, vault):
    """Each call is made within the callback of the one before, until that is refused; nobody answers any."""
    peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
    cause = None
    for number in range(1, 100):
        peer.send(peer.call(vault, "call_back", [reference(number, 1)], meta=cause))
        message = peer.receive()
        while not isinstance(message, m.Call | m.Raise | None):
            message = peer.receive()
        if not isinstance(message, m.Call):
            break
        cause = m.Meta(message.question)
    assert number in range(5, 99), "until the depth that calls may have"


FLOODS = [
    streams_never_pulled,
    streams_pulled_and_left,
    answers_never_read,
    answers_nobody_asked_for,
    releases_of_too_much,
    references_handed_over,
    forged_references,
    cancels,
    refusals,
    steps_on_what_has_failed,
    frames_that_never_end,
    callbacks_never_answered,
    objects_in_one_list,
    ping_pong,
]


def until_let_go(condition):
    """Wait until something has become true that may take the collection of cycles."""

    def looked():
        gc.collect()
        return condition()

    until(looked, 10.0)


class Watched:
    """A server, its good client, and what the server holds for the bad one."""

    def __init__(self, world, driver):
        self.world = world
        self.running = world.serve(driver, connection="glitch_burst = 1000\ncall_timeout_s = 1")
        self.good = world.open(self.running, "alice")
        self.vault = self.good.root()
        self.floods = 0

    def flood(self, send):
        # Not by ``world.open``, which keeps what a peer has heard until the end of the test.
        peer = dial(self.running.address, self.world.side("mallory")).open()
        vault = peer.root()
        (connection,) = [one for one in list(self.running.server._connections) if one.principal == MALLORY]
        session = connection.link.session
        admitted = connection.link.admitted
        try:
            send(peer, vault)
        finally:
            peer.close()
        del connection
        until_let_go(lambda: not [one for one in list(self.running.server._connections) if one.principal == MALLORY])
        until_let_go(lambda: not admitted.quotas._connections)
        until_let_go(lambda: not admitted.relation._floods)
        # What still runs ends with its own time; what it was for has ended.
        until_let_go(lambda: not session.answers and not session.asked.open)
        tables = (len(session.exports), len(session.imports), len(session.kept), session.queued_bytes)
        assert tables == (0, 0, 0, 0), tables
        pools = [pool for name in Pools.__slots__ if isinstance(pool := getattr(admitted.pools, name), Pool)]
        assert len(pools) == 6
        assert not admitted.pools.arguments.total.held
        for pool in pools:
            assert not pool._tables
            assert pool.has_room(session.answers)
        assert self.good.value(self.vault, "noop") is None

    def memory(self):
        until(lambda: not gc.collect(), 10.0)
        return tracemalloc.get_traced_memory()[0]


@pytest.mark.parametrize("send", FLOODS, ids=lambda send: send.__name__)
def test_nothing_is_left_of_a_flood(world, driver, send, monkeypatch):
    # Refusals are counted for ten seconds; so long no test shall wait.
    monkeypatch.setattr("caprpc.audit.flood.WINDOW_S", 0.1)
    # pytest keeps every log record, and with its traceback what has failed.
    monkeypatch.setattr(logging.getLogger("caprpc"), "disabled", True)
    watched = Watched(world, driver)
    (good,) = list(watched.running.server._connections)
    before = (len(good.link.session.exports), len(good.link.session.imports))
    # The first fills what is made once: shapes, templates, buffers.
    watched.flood(send)
    world.service.ran.clear()
    tracemalloc.start()
    try:
        watched.flood(send)
        world.service.ran.clear()
        start = watched.memory()
        for _ in range(3):
            watched.flood(send)
            world.service.ran.clear()
        growth = watched.memory() - start
    finally:
        tracemalloc.stop()
    assert growth < MOST_BYTES, growth
    assert (len(good.link.session.exports), len(good.link.session.imports)) == before
    assert not good.link.session.answers
