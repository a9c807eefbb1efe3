"""Batches that hold more than one message may, and refusals inside of a batch."""

import time
from datetime import date
from decimal import Decimal

import pytest

from caprpc.ids import OP_ATTENUATE, OP_CALL, OP_ENTER, OP_NEXT
from caprpc.wire import messages as m
from caprpc.wire.codec import pack

BURST = 200
"""``limits.glitch_burst``."""


def run(target, member, calls, operation=OP_CALL):
    return m.Run(target, operation, member, len(calls), pack([[args, {}] for args in calls]))


def answer_to(peer, runs):
    batch = m.Batch(peer.next_question(), None, runs)
    peer.send(batch)
    return peer.answer(batch.question)


@pytest.mark.parametrize(
    "value", [0, [0], date(2000, 1, 1), frozenset({1})], ids=["numbers", "lists", "dates", "hashed members"]
)
def test_the_runs_of_a_batch_hold_no_more_together_than_a_message_may(world, driver, value):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    count = {int: 33_000, list: 16_500, date: 8_400, frozenset: 520}[type(value)]
    one = run(vault, "hold", [[[value] * count]])
    world.service.gate.set()
    assert isinstance(answer_to(peer, [one]), m.BatchReturn)
    assert answer_to(peer, [one, one]) is None
    assert [fields["reason"] for fields in running.records(kind="close")] == ["protocol-error"]


def test_a_batch_of_many_runs_takes_no_longer_than_any_other_message(world, driver):
    peer = world.open(world.serve(driver))
    vault = peer.root()
    one = run(vault, "echo", [[[Decimal(1)] * 5_400]])
    runs = [one] * 64
    assert len(one.payload) * 64 > 1_000_000
    before = time.process_time()
    assert answer_to(peer, runs) is None
    # All of it are 345,600 values that count as four each: more than a second of decoding.
    assert time.process_time() - before < 0.5


def test_batches_of_few_values_and_many_bytes_are_taken(world, driver):
    peer = world.open(world.serve(driver))
    vault = peer.root()
    answer = answer_to(peer, [run(vault, "echo", [[b"." * 10_000]]) for _ in range(64)])
    assert isinstance(answer, m.BatchReturn)
    assert not answer.failures


@pytest.mark.parametrize("operation", [OP_NEXT, OP_ENTER, OP_ATTENUATE], ids=["next", "enter", "attenuate"])
def test_calls_that_no_batch_may_hold_are_refused_each_at_its_price(world, driver, operation):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    target = {
        OP_NEXT: lambda: peer.value(vault, "numbers", [9]).export,
        OP_ENTER: lambda: peer.value(vault, "door").export,
        OP_ATTENUATE: lambda: vault,
    }[operation]()
    refused = 0
    for _ in range(2 * BURST // 50):
        answer = answer_to(peer, [run(target, "", [[]] * 50, operation)])
        if answer is None:
            break
        assert {failure.code for failure in answer.failures} == {"limit"}
        refused += 50
    # It refills by 20 a second.
    assert refused <= BURST + 50
    assert refused <= running.denials() <= refused + 50
