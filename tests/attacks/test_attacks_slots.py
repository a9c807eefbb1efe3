"""What a policy lets run at once is free again whatever becomes of the calls: nobody can lock its principal out."""

import time
from contextlib import suppress
from dataclasses import replace

import pytest
from hostile_peer import reference, until
from vault_service import QUICK, SERVER, Safe

from caprpc.ids import OP_CALL
from caprpc.wire import messages as m
from caprpc.wire.codec import pack

LIMITED = SERVER.replace(
    "[offer.Limited.returns]",
    "".join(f"[offer.Limited.limit.{name}]\nin_flight = 4\n" for name in ("add", "take", "wait"))
    + "[offer.Limited.returns]",
)
FEW = replace(QUICK, workers=8)
"""Half of them are for one principal: four calls that block have those behind them wait."""

BROKEN = b"\xc1"
"""A payload that breaks the encoding."""


def broken_payload(peer, vault):
    peer.send(peer.call(vault, "add", payload=BROKEN))


def unknown_facet(peer, vault):
    peer.send(peer.call(vault, "take", [reference(5, 77)]))


def broken_payload_behind_good_calls(peer, vault):
    peer.send(*(peer.call(vault, "add", [1, 2]) for _ in range(2)), peer.call(vault, "add", payload=BROKEN))


def bad_message_behind_good_calls(peer, vault):
    peer.send(*(peer.call(vault, "add", [1, 2]) for _ in range(4)), m.Release([(999, 1)]))


def end_behind_good_calls(peer, vault):
    peer.send(*(peer.call(vault, "add", [1, 2]) for _ in range(4)), m.GoAway("closed", "", ""))


def calls_behind_one_that_blocks(peer, vault):
    peer.send(*(peer.call(vault, "nap", [200]) for _ in range(4)), *(peer.call(vault, "add", [1, 2]) for _ in range(4)))
    time.sleep(0.05)
    peer.close()


def blocking_calls_that_are_left(peer, vault):
    peer.send(*(peer.call(vault, "wait") for _ in range(4)))
    time.sleep(0.05)
    peer.close()


def batch(peer, *runs):
    return m.Batch(peer.next_question(), None, list(runs))


def broken_run_of_a_batch(peer, vault):
    good = m.Run(vault, OP_CALL, "add", 2, pack([[[1, 2], {}]] * 2))
    peer.send(batch(peer, good, m.Run(vault, OP_CALL, "add", 2, BROKEN)))


def broken_call_behind_a_good_batch(peer, vault):
    good = m.Run(vault, OP_CALL, "add", 4, pack([[[1, 2], {}]] * 4))
    peer.send(batch(peer, good), peer.call(vault, "noop", payload=BROKEN))


def run_without_a_place_to_be_on(peer, vault):
    good = m.Run(vault, OP_CALL, "add", 4, pack([[[1, 2], {}]] * 4))
    peer.send(batch(peer, good, m.Run(-5, OP_CALL, "add", 1, pack([[[1, 2], {}]]))))


def run_that_does_not_hold_as_many(peer, vault):
    peer.send(batch(peer, m.Run(vault, OP_CALL, "add", 4, pack([[[1, 2], {}]] * 3))))


def batch_behind_one_that_blocks(peer, vault):
    good = m.Run(vault, OP_CALL, "add", 4, pack([[[1, 2], {}]] * 4))
    peer.send(*(peer.call(vault, "nap", [200]) for _ in range(4)), batch(peer, good))
    time.sleep(0.05)
    peer.close()


def wrong_arguments_that_spend_the_budget(peer, vault):
    for _ in range(70):
        run = m.Run(vault, OP_CALL, "add", 4, pack([[["x", 2], {}]] * 4))
        peer.try_to_send(batch(peer, run))


WAYS = [
    broken_payload,
    unknown_facet,
    broken_payload_behind_good_calls,
    bad_message_behind_good_calls,
    end_behind_good_calls,
    calls_behind_one_that_blocks,
    blocking_calls_that_are_left,
    broken_run_of_a_batch,
    broken_call_behind_a_good_batch,
    run_without_a_place_to_be_on,
    run_that_does_not_hold_as_many,
    batch_behind_one_that_blocks,
    wrong_arguments_that_spend_the_budget,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_calls_that_never_end_do_not_hold_what_may_run_at_once(world, driver, way):
    running = world.serve(driver, policy=LIMITED, limits=FEW)
    for _ in range(3):
        peer = world.open(running)
        way(peer, peer.root())
        world.service.gate.set()
        with suppress(OSError):
            peer.rest(0.5)
        peer.close()
    good = world.open(running)
    vault = good.root()
    _await_room(good, vault)
    for name, args in (("add", [1, 2]), ("wait", [])):
        calls = [good.call(vault, name, args) for _ in range(4)]
        good.send(*calls)
        assert [type(good.answer(call.question)) for call in calls] == [m.Return] * 4


def _await_room(peer, vault):
    """Wait until what still ran on the connections that were left has ended."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        calls = [peer.call(vault, "add", [1, 2]) for _ in range(4)]
        peer.send(*calls)
        if all(isinstance(peer.answer(call.question), m.Return) for call in calls):
            return
        time.sleep(0.1)


@pytest.mark.parametrize("way", [calls_behind_one_that_blocks, batch_behind_one_that_blocks])
def test_what_runs_on_a_connection_that_was_left_still_counts(world, driver, way):
    """The other way round: giving back too much would let more run at once than the policy says."""
    running = world.serve(driver, policy=LIMITED)
    peer = world.open(running)
    vault = peer.root()
    peer.send(*(peer.call(vault, "wait") for _ in range(4)))
    until(lambda: world.service.running == 4)
    other = world.open(running)
    way(other, other.root())
    peer.close()
    third = world.open(running)
    vault = third.root()
    time.sleep(0.3)
    assert third.ask(vault, "wait").code == "limit"
    world.service.gate.set()
    until(lambda: world.service.running == 0)
    assert world.service.most_running == 4


def test_a_call_that_was_refused_and_dropped_gives_its_place_back_once(world, driver):
    running = world.serve(driver, policy=LIMITED)
    peer = world.open(running)
    vault = peer.root()
    peer.send(*(peer.call(vault, "wait") for _ in range(3)))
    until(lambda: world.service.running == 3)
    other = world.open(running)
    vault = other.root()
    other.send(other.call(vault, "wait", ["too much"]), other.call(vault, "noop", payload=BROKEN))
    other.rest()
    third = world.open(running)
    vault = third.root()
    calls = [third.call(vault, "wait") for _ in range(2)]
    third.send(*calls)
    assert third.answer(calls[1].question).code == "limit"
    world.service.gate.set()
    assert isinstance(third.answer(calls[0].question), m.Return)


class Later(Safe):
    async def add(self, a, b=0):
        return a + b


@pytest.mark.parametrize(
    "way", [broken_payload_behind_good_calls, bad_message_behind_good_calls, end_behind_good_calls]
)
def test_coroutines_that_are_cancelled_before_they_begin_hold_nothing(world, driver, way):
    running = world.serve(driver, policy=LIMITED, roots={"vault": Later()})
    for _ in range(3):
        peer = world.open(running)
        way(peer, peer.root())
        peer.rest()
    good = world.open(running)
    vault = good.root()
    _await_room(good, vault)
    calls = [good.call(vault, "add", [1, 2]) for _ in range(4)]
    good.send(*calls)
    assert [type(good.answer(call.question)) for call in calls] == [m.Return] * 4
