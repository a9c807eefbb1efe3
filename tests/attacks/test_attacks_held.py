"""CAP-RE-13: what the arguments of calls hold while the calls are queued, wait or run; at the edge, and afterwards."""

import socket
import struct
from dataclasses import replace

import pytest
from hostile_peer import until
from vault_service import QUICK, SCALE

from caprpc.limits import KIB, MIB
from caprpc.wire import messages as m
from caprpc.wire.codec import pack
from caprpc.wire.weight import memory_of

FRAME = "max_frame_bytes = 65536\nconnections = 2\nin_flight = 200\nprincipal_argument_bytes = 1048576"
"""Of one MiB, two shares of a quarter; half of it is for whoever needs more."""
HEAVY = bytes(50_000)
WEIGHT = memory_of([[HEAVY], {}], 50_010, plain=True)
EMPTY = [{}, 1] * 1_500
KEEP = m.Meta(None, None, True)


def held(running):
    """Return what all peers hold together."""
    return running.server._admission._quotas.arguments.held


def hold(peer, vault, value, count):
    """Make calls that do not end, and one that tells when they are there; return what was refused, and with what."""
    calls = [peer.call(vault, "hold", [value]) for _ in range(count)]
    for call in calls:
        peer.send(call)
    assert peer.ask(vault, "echo", [1]) is not None
    return {call.question: peer._answers.pop(call.question, None) for call in calls}


def ran(answers):
    """Return how many were not refused."""
    assert {answer.code for answer in answers.values() if answer is not None} <= {"limit"}
    return sum(answer is None for answer in answers.values())


def test_arguments_of_calls_in_flight_at_their_edge(world, driver):
    """Those of one connection: its share and half of the budget; of the other then only its share."""
    running = world.serve(driver, connection=FRAME)
    first, second, good = world.open(running), world.open(running), world.open(running, "alice")
    vault = first.root()
    answers = hold(first, vault, HEAVY, 20)
    assert ran(answers) == (MIB * 3 // 4) // WEIGHT
    assert ran(hold(second, second.root(), HEAVY, 20)) == (MIB // 4) // WEIGHT
    assert 0.9 * MIB < held(running) <= MIB
    # Nobody else is concerned, and no small call.
    assert first.value(vault, "echo", ["x" * 1_000]) == "x" * 1_000
    assert good.value(good.root(), "echo", ["x" * 50_000]) == "x" * 50_000
    world.service.gate.set()
    assert all(isinstance(first.answer(q), m.Return) for q, answer in answers.items() if answer is None)
    until(lambda: held(running) == 0)
    assert first.value(vault, "echo", ["x" * 50_000]) == "x" * 50_000
    assert "limits.principal_argument_bytes" in {fields["rule"] for fields in running.records(decision="deny")}


def test_arguments_of_all_principals_at_their_edge(world, driver):
    """They are refused at once, and what is small is served as before."""
    running = world.serve(driver, connection=FRAME, limits=replace(QUICK, argument_bytes=MIB))
    peers = [world.open(running, name) for name in ("mallory", "alice") for _ in range(2)]
    assert sum(ran(hold(peer, peer.root(), HEAVY, 20)) for peer in peers) == MIB // WEIGHT
    assert held(running) <= MIB
    for peer in peers:
        assert peer.value(peer.root(), "echo", ["x" * 500]) == "x" * 500
        assert peer.ask(peer.root(), "echo", [HEAVY]).code == "limit"
    world.service.gate.set()
    until(lambda: held(running) == 0)
    assert peers[0].value(peers[0].root(), "echo", [HEAVY]) == HEAVY
    rules = {fields["rule"] for fields in running.records(decision="deny")}
    assert "ServerLimits.argument_bytes" in rules


def test_a_small_message_that_makes_a_large_heap_counts_as_what_it_makes(world, driver):
    running = world.serve(driver, connection=FRAME)
    peer = world.open(running)
    payload = len(pack([[EMPTY], {}]))
    takes = memory_of([[EMPTY], {}], payload, plain=True)
    assert takes > 60 * payload, "with a number beside each map, or the codec refuses it"
    assert ran(hold(peer, peer.root(), EMPTY, 20)) == (MIB * 3 // 4) // takes
    world.service.gate.set()
    until(lambda: held(running) == 0)


def batch(peer, vault, values):
    run = m.Run(vault, 1, "hold", len(values), pack([[[value], {}] for value in values]))
    return m.Batch(peer.next_question(), None, [run])


def test_batches_count_as_a_whole(world, driver):
    running = world.serve(driver, connection=FRAME)
    peer = world.open(running)
    vault = peer.root()
    # What is small and makes much, too.
    many = batch(peer, vault, [EMPTY] * 10)
    assert len(many.runs[0].payload) < WEIGHT
    peer.send(many)
    assert {failure.code for failure in peer.answer(many.question).failures} == {"limit"}
    batches = [batch(peer, vault, [bytes(12_500)] * 4) for _ in range(20)]
    for one in batches:
        peer.send(one)
    assert peer.value(vault, "echo", [1]) == 1
    refused = [peer._answers.get(one.question) for one in batches if one.question in peer._answers]
    assert {failure.code for answer in refused for failure in answer.failures} == {"limit"}
    assert all(len(answer.failures) == 4 for answer in refused)
    assert 20 - len(refused) == (MIB * 3 // 4) // WEIGHT
    world.service.gate.set()
    until(lambda: held(running) == 0)


def test_calls_that_wait_for_an_answer_count(world, driver):
    running = world.serve(driver, connection=FRAME)
    peer = world.dial(running).open(features=("pipeline",))
    vault = peer.root()
    first = peer.call(vault, "wait", meta=KEEP)
    waiting = [peer.call(~first.question, "hold", [HEAVY]) for _ in range(20)]
    peer.send(first)
    for call in waiting:
        peer.send(call)
    assert peer.value(vault, "echo", [1]) == 1
    refused = [peer._answers[call.question].code for call in waiting if call.question in peer._answers]
    assert refused == ["limit"] * (20 - (MIB * 3 // 4) // 50_009)
    world.service.gate.set()
    # What they waited for gives no reference.
    assert {peer.answer(call.question).code for call in waiting} == {"broken", "limit"}
    until(lambda: held(running) == 0)


def answered(world, peer, vault):
    world.service.gate.set()


def cancelled(world, peer, vault):
    peer.send(*(m.Cancel(number) for number in range(2, 6)))
    assert peer.value(vault, "echo", [1]) == 1


def reset(world, peer, vault):
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def broke_the_protocol(world, peer, vault):
    # Behind a call that is not begun yet.
    peer.try_to_send(peer.call(vault, "hold", [HEAVY]), peer.call(vault, "hold", payload=b"\xc1" * 5_000))


def wrong_arguments(world, peer, vault):
    assert peer.ask(vault, "add", ["x" * 5_000]).code == "invalid-arguments"
    assert peer.ask(vault, "hidden", ["x" * 5_000]).code == "denied"


def overdue(world, peer, vault):
    call = peer.call(vault, "hold", [HEAVY], meta=m.Meta(None, 50, False))
    peer.send(call)
    assert peer.answer(call.question).code == "deadline"


ENDS = [answered, cancelled, reset, broke_the_protocol, wrong_arguments, overdue]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_nothing_is_counted_once_the_calls_have_ended(world, driver, end):
    """And everything until then: also of a caller that has gone, while the methods run."""
    running = world.serve(driver, connection=FRAME)
    peer = world.dial(running).open(features=("deadline",))
    vault = peer.root()
    assert ran(hold(peer, vault, HEAVY, 4)) == 4
    # A call that has its worker and is not in its method yet ends with its connection.
    until(lambda: world.service.holds == 4)
    (connection,) = list(running.server._connections)
    admitted = connection.link.admitted
    del connection
    assert held(running) == 4 * WEIGHT
    end(world, peer, vault)
    if end is not answered:
        if end in (reset, broke_the_protocol):
            until(lambda: not running.server._connections)
        # The answer that came in time is no end of the method.
        assert held(running) == (5 if end is overdue else 4) * WEIGHT
    world.service.gate.set()
    until(lambda: held(running) == 0)
    peer.close()
    until(lambda: not admitted.pools.arguments._tables)


def test_who_comes_back_again_and_again_holds_no_more(world, driver):
    """What the methods of ended connections hold is nobody's share."""
    running = world.serve(driver, connection=FRAME + "\n", limits=replace(QUICK, workers=128))
    for _ in range(8):
        peer = world.open(running)
        hold(peer, peer.root(), HEAVY, 4)
        reset(world, peer, None)
        until(lambda: not running.server._connections)
    assert held(running) <= MIB
    world.service.gate.set()
    until(lambda: held(running) == 0)


THREAD_BYTES = 128 * KIB
KINDS = {
    "bytes": bytes(250_000),
    "maps": [{}, 1] * 8_000,
    "wide texts": ["\U0001f600" + "x" * 200] * 500,
    "numbers": list(range(1_000, 16_000)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_memory_of_calls_in_flight_stays_within_the_budget(world, driver, kind):
    """RE-13: every connection has as many calls in flight as it may, of as much as it may; most are refused."""
    budget = int(12 * MIB * SCALE)
    names = tuple(f"peer-{number}" for number in range(int(2 * SCALE)))
    limits = f"connections = 2\nglitch_burst = 10000\nprincipal_argument_bytes = {int(budget // SCALE)}"
    alone = world.serve_alone(driver, connection=limits, limits=replace(QUICK, argument_bytes=budget), who=names)
    payload = pack([[KINDS[kind]], {}])
    warm = world.open(alone, names[0])
    assert warm.ask(warm.root(), "echo", payload=payload) is not None
    warm.close()
    peers = [world.open(alone, name) for name in names for _ in range(2)]
    vaults = [peer.root() for peer in peers]
    before, refused = alone.ask(), 0
    for peer, vault in zip(peers, vaults, strict=True):
        calls = [peer.call(vault, "hold", payload=payload) for _ in range(20)]
        for call in calls:
            peer.send(call)
        assert peer.value(vault, "echo", [1]) == 1
        refused += sum(call.question in peer._answers for call in calls)
    full = alone.ask()
    assert refused
    assert 0.5 * budget < full.held <= budget
    # Beside that a frame is under way on each connection, arguments of one were read before they were weighed and found
    # too heavy, and each method has a thread with a stack and an arena.
    read = memory_of([[KINDS[kind]], {}], len(payload), plain=True)
    beside = len(peers) * 2 * len(payload) + 2 * read + (full.threads - before.threads) * THREAD_BYTES
    assert 0.4 * full.held < full.rss - before.rss <= budget + beside, (full, before)
    alone.ask("open")
    until(lambda: alone.ask().held == 0)
