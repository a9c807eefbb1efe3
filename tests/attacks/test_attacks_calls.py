"""Calls on answers, deadlines and cancels of a peer that means no good. CAP-HD-15, CAP-RE-17, CAP-CB-18."""

import random
import time

import pytest
from hostile_peer import reference

from caprpc.ids import OP_INVOKE, OP_NEXT
from caprpc.wire import messages as m
from caprpc.wire.codec import pack

FEATURES = ("deadline", "pipeline")
KEEP = m.Meta(None, None, True)
NOTHING = pack([[], {}])


@pytest.fixture
def hostile(world, driver):
    """Return a maker of hostile clients that speak every extension; they share one server."""
    running = []

    def make(name="mallory", **limits):
        if not running:
            running.append(world.serve(driver, **limits))
        return world.dial(running[0], name).open(features=FEATURES)

    make.running = lambda: running[0]
    return make


def on(peer, question, member="text", *, operation=1, meta=None):
    """Return a call on the answer to a question."""
    return m.Call(peer.next_question(), ~question, operation, member, meta, NOTHING)


def refused(peer):
    """Return whether the connection ends as one that broke the protocol."""
    return any(isinstance(message, m.GoAway) and message.code == "protocol-error" for message in peer.rest())


def good_peer_is_served(world, running):
    peer = world.open(running, "alice")
    assert peer.value(peer.root(), "noop") is None
    peer.close()


def test_steps_on_a_failed_answer_are_broken(world, hostile):
    peer = hostile()
    vault = peer.root()
    failing = peer.call(vault, "fail", ["internal"], meta=KEEP)
    chain = [failing]
    for _ in range(10):
        chain.append(on(peer, chain[-1].question, meta=KEEP))
    peer.send(*chain, *(m.Finish(call.question) for call in chain))
    assert peer.answer(failing.question).code == "internal"
    assert [peer.answer(call.question).code for call in chain[1:]] == ["broken"] * 10
    assert peer.value(vault, "noop") is None


def test_denied_and_absent_steps_look_alike(hostile):
    peer = hostile()
    vault = peer.root()
    slip = peer.call(vault, "slip", meta=KEEP)
    steps = [on(peer, slip.question, name) for name in ("hidden", "nothing", "__class__", "text2")]
    peer.send(slip, *steps)
    answers = [peer.answer(step.question) for step in steps]
    assert {(a.code, a.taken, a.type, a.text) for a in answers} == {("denied", False, "", "")}


def test_values_and_own_objects_are_nothing_to_call(hostile):
    peer = hostile()
    vault = peer.root()
    for name, args in (("add", [1]), ("noop", [])):
        call = peer.call(vault, name, args, meta=KEEP)
        step = on(peer, call.question)
        peer.send(call, step)
        assert peer.answer(step.question).code == "broken"


MISUSE = {
    "itself": lambda peer, _first: [on(peer, peer._question + 1)],
    "of the future": lambda peer, _first: [on(peer, 10**6)],
    "never existed": lambda peer, _first: [m.Call(peer.next_question(), -(2**53), 1, "text", None, NOTHING)],
    "finished": lambda peer, first: [m.Finish(first), on(peer, first)],
    "finished twice": lambda peer, first: [m.Finish(first), m.Finish(first)],
    "finish of nothing": lambda _peer, _first: [m.Finish(77)],
    "in a batch": lambda peer, first: [
        m.Batch(peer.next_question(), None, [m.Run(~first, 1, "text", 1, pack([[[], {}]]))])
    ],
    "kept batch": lambda peer, _first: [
        m.Batch(peer.next_question(), KEEP, [m.Run(0, 1, "text", 1, pack([[[], {}]]))])
    ],
    "a cause as target": lambda peer, first: [on(peer, first, meta=m.Meta(first))],
}


@pytest.mark.parametrize("kind", MISUSE)
def test_answers_that_are_not_kept_end_the_connection(kind, world, hostile):
    peer = hostile()
    first = peer.call(peer.root(), "slip", meta=KEEP)
    peer.send(first)
    assert isinstance(peer.answer(first.question), m.Return)
    peer.try_to_send(*MISUSE[kind](peer, first.question))
    assert refused(peer)
    good_peer_is_served(world, hostile.running())


def test_answers_of_another_connection_cannot_be_named(world, hostile):
    one, other = hostile(), hostile("alice")
    first = one.call(one.root(), "slip", meta=KEEP)
    one.send(first)
    assert isinstance(one.answer(first.question), m.Return)
    other.root()
    other.try_to_send(on(other, first.question))
    assert refused(other)
    assert isinstance(one.ask(~first.question, "text"), m.Return)


def test_endless_chains_are_cut_off(world, hostile):
    peer = hostile(connection="in_flight = 64")
    call = peer.call(peer.root(), "slip", meta=KEEP)
    chain = [call]
    for _ in range(20_000):
        call = on(peer, call.question, meta=KEEP)
        chain.append(call)
    for start in range(0, len(chain), 500):
        peer.try_to_send(*chain[start : start + 500])
    assert refused(peer)
    good_peer_is_served(world, hostile.running())


def test_kept_answers_that_nobody_finishes_end_the_connection(world, hostile):
    peer = hostile(connection="in_flight = 8")
    vault = peer.root()
    for _ in range(16):
        assert isinstance(peer.ask(vault, "slip", meta=KEEP), m.Return)
    peer.try_to_send(peer.call(vault, "slip", meta=KEEP))
    assert refused(peer)
    good_peer_is_served(world, hostile.running())


def test_operations_that_no_step_makes_are_refused_on_answers_too(hostile):
    peer = hostile()
    slip = peer.call(peer.root(), "slip", meta=KEEP)
    step = on(peer, slip.question, "", operation=OP_NEXT)
    peer.send(slip, step)
    assert peer.answer(step.question).code in ("denied", "invalid-arguments")


def test_deadlines_of_every_size_are_harmless(world, hostile):
    peer = hostile(connection="glitch_burst = 10000")
    vault = peer.root()
    dice = random.Random(17)
    for _ in range(20):
        sizes = [dice.choice([0, 1, 2, 1000, 10**9, 2**53 - 1, dice.randrange(2**53)]) for _ in range(50)]
        calls = [peer.call(vault, "noop", meta=m.Meta(None, size)) for size in sizes]
        peer.send(*calls)
        for call, size in zip(calls, sizes, strict=True):
            answer = peer.answer(call.question)
            if size == 0:
                assert answer.code == "deadline"
            elif size > 10**5:
                assert isinstance(answer, m.Return)
    good_peer_is_served(world, hostile.running())


def test_deadline_frees_the_caller_in_time_and_the_slot_when_the_method_ends(world, hostile):
    peer = hostile()
    vault = peer.root()
    began = time.monotonic()
    assert peer.ask(vault, "wait", meta=m.Meta(None, 100)).code == "deadline"
    assert time.monotonic() - began < 1.0
    world.service.gate.set()
    assert peer.value(vault, "noop") is None


def test_cancels_of_everything_at_once_end_each_call_once(world, hostile):
    peer = hostile(connection="glitch_burst = 1000")
    vault = peer.root()
    for _ in range(20):
        slip = peer.call(vault, "slip", meta=KEEP)
        steps = [on(peer, slip.question) for _ in range(5)]
        calls = [slip, *steps]
        peer.send(*calls, *(m.Cancel(call.question) for call in reversed(calls)), m.Finish(slip.question))
        for call in calls:
            answer = peer.answer(call.question)
            assert isinstance(answer, m.Return) or answer.code in ("cancelled", "broken")
    assert not peer._answers
    assert peer.value(vault, "noop") is None


def test_a_callback_that_is_never_answered_ends_in_time_and_a_late_answer_is_dropped_once(world, driver):
    running = world.serve(driver, connection="call_timeout_s = 0.3")
    peer = world.open(running)
    vault = peer.root()
    peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
    call = peer.call(vault, "call_back", [reference(1, 1)])
    peer.send(call)
    ours = peer.next_call()
    assert peer.answer(call.question).code == "internal"
    good_peer_is_served(world, running)
    # Nobody waits any more: the answer says nothing to anybody, and the question is closed by it.
    peer.send(m.Return(ours.question, pack(7)))
    assert peer.value(vault, "noop") is None
    assert ("got", 7) not in world.service.ran
    peer.send(m.Return(ours.question, pack(7)))
    assert refused(peer)
    good_peer_is_served(world, running)


@pytest.mark.parametrize("count", [10_000_000, 60_000])
def test_millions_of_objects_in_one_list_are_not_taken(world, driver, count):
    """The first names more than a message may hold; the second fits a message, and is more than we hold."""
    running = world.serve(driver, connection="max_frame_bytes = 4194304")
    peer = world.open(running)
    vault = peer.root()
    peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 0))
    one = pack(reference(7, 1))
    many = b"\xdd" + count.to_bytes(4, "big") + one * min(count, 60_000)
    call = peer.call(vault, "echo", payload=b"\x92\x91" + many + b"\x80")
    peer.send(call)
    answer = peer.answer(call.question)
    if answer is None:
        assert peer.closed
    else:
        assert answer.code in ("invalid-arguments", "limit")
        assert peer.value(vault, "noop") is None
    good_peer_is_served(world, running)


def test_a_ping_pong_over_two_connections_ends_at_the_calls_of_the_principal(world, driver):
    """Depth is not seen across connections: each link is a call, and those are counted for the principal."""
    running = world.serve(driver, connection="connections = 2\nin_flight = 4\nprincipal_in_flight = 6")
    peers = []
    for _ in range(2):
        peer = world.open(running)
        peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
        peers.append((peer, peer.root()))
    links = []
    for turn in range(20):
        peer, vault = peers[turn % 2]
        call = peer.call(vault, "call_back", [reference(100 + turn, 1)])
        peer.send(call)
        message = peer.receive()
        while not isinstance(message, m.Call | m.Raise):
            message = peer.receive()
        if isinstance(message, m.Raise):
            assert message.code == "limit"
            break
        links.append((peer, call, message))
    assert len(links) == 6
    for peer, call, ours in reversed(links):
        peer.send(m.Return(ours.question, pack(1)))
        assert isinstance(peer.answer(call.question), m.Return)
    assert peers[0][0].value(peers[0][1], "noop") is None
