"""Calls by the other kind of code after a loss: by a loop over a blocking peer, by a thread over an asyncio peer."""

import asyncio
import threading

import pytest

import caprpc
import caprpc.aio
from caprpc import ConnectionLost, Reconnect, ReferenceDead
from tests.integration.test_reconnect import SOON, WAIT_S, Ledger, open_bank, stop


@pytest.fixture
def bank(pairing, tmp_path):
    bank = open_bank(pairing, tmp_path)
    yield bank
    bank.book.gate.set()


async def across(face, in_loop, in_thread):
    """Run what a loop does with a blocking peer, or what a thread does with an asyncio peer."""
    if face.is_async:
        return await asyncio.to_thread(in_thread)
    return asyncio.run(in_loop())


async def call(face, method, *args):
    async def in_loop():
        return await caprpc.aio.submit(method, *args)

    return await across(face, in_loop, lambda: caprpc.submit(method, *args).result(WAIT_S))


def test_call_made_while_nobody_is_there_waits_and_runs_once(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await stop(face, pairing.host)
        threading.Timer(0.1, bank.again).start()
        return await call(face, ledger.post, 7)

    assert pairing.run(scenario, reconnect=SOON) == 7
    assert bank.book.ran == ["post"]


def test_idempotent_call_under_way_is_made_again(pairing, bank):
    def cut():
        assert bank.book.arrived.acquire(timeout=WAIT_S)
        pairing.host.sever()
        assert bank.book.arrived.acquire(timeout=WAIT_S)
        bank.book.gate.set()

    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        cutter = threading.Thread(target=cut)
        cutter.start()
        assert await call(face, ledger.slow_balance) == 0
        cutter.join()

    pairing.run(scenario, reconnect=SOON)
    assert bank.book.ran == ["slow_balance", "slow_balance"]


def test_other_call_under_way_is_not_and_its_caller_is_told(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        cutter = threading.Thread(target=lambda: (bank.book.arrived.acquire(timeout=WAIT_S), pairing.host.sever()))
        cutter.start()
        with pytest.raises(ConnectionLost, match="may or may not have run"):
            await call(face, ledger.slow_post, 3)
        cutter.join()

    pairing.run(scenario, reconnect=SOON)
    bank.book.gate.set()
    assert bank.book.ran.count("slow_post") == 1


def test_reference_that_is_no_root_dies_and_says_what_to_do(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        account = await face(ledger.account())
        pairing.host.sever()
        await face(ledger.balance())
        with pytest.raises(ReferenceDead, match="get it anew from the root it came from"):
            await call(face, account.name)

    pairing.run(scenario, reconnect=SOON)


def test_pipeline_that_begins_without_a_connection_waits_for_the_next(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)

        async def in_loop():
            return await caprpc.aio.pipe(ledger).account().name(), await caprpc.aio.pipe(ledger).balance()

        def in_thread():
            piped = caprpc.pipe(ledger)
            return piped.account().name().result(WAIT_S), piped.balance().result(WAIT_S)

        assert await across(face, in_loop, in_thread) == ("A-1", 0)
        await stop(face, pairing.host)
        threading.Timer(0.1, bank.again).start()
        return await across(face, in_loop, in_thread)

    assert pairing.run(scenario, reconnect=SOON) == ("A-1", 0)


def test_one_way_call_and_batch_wait_for_the_next_connection(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)

        async def in_loop():
            await caprpc.aio.oneway(ledger.post, 1)
            return await caprpc.aio.batch([(ledger.post, (10,)), (ledger.post, (100,))])

        def in_thread():
            caprpc.oneway(ledger.post, 1)
            return caprpc.batch([(ledger.post, (10,)), (ledger.post, (100,))])

        await stop(face, pairing.host)
        threading.Timer(0.1, bank.again).start()
        results = await across(face, in_loop, in_thread)
        await face.pause(lambda: bank.book.total == 111)
        return results

    first, second = pairing.run(scenario, reconnect=SOON)
    assert second - first == 100


def test_whoever_waits_is_told_when_the_attempts_end(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await stop(face, pairing.host)
        with pytest.raises(ConnectionLost, match="not connected again after 2 attempts"):
            await call(face, ledger.balance)

    pairing.run(scenario, reconnect=Reconnect(first_s=0.001, most_s=0.002, attempts=2))


def test_whoever_waits_no_longer_than_its_deadline(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await stop(face, pairing.host)

        async def in_loop():
            with caprpc.aio.deadline(0.05):
                await caprpc.aio.submit(ledger.balance)

        def in_thread():
            with caprpc.deadline(0.05):
                caprpc.submit(ledger.balance).result(WAIT_S)

        with pytest.raises(ConnectionLost, match="not connected again in time"):
            await across(face, in_loop, in_thread)

    pairing.run(scenario, reconnect=Reconnect(first_s=20.0))


def test_call_that_was_cancelled_while_it_waited_is_never_made(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)
        await stop(face, pairing.host)

        async def in_loop():
            waiting = asyncio.ensure_future(caprpc.aio.submit(ledger.post, 1))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait([waiting])
            return waiting.cancelled()

        def in_thread():
            return caprpc.submit(ledger.post, 1).cancel()

        assert await across(face, in_loop, in_thread)
        bank.again()
        return await call(face, ledger.balance)

    assert pairing.run(scenario, reconnect=SOON) == 0
    assert bank.book.ran == ["balance"]


def test_call_that_is_cancelled_under_way_is_cancelled_at_the_peer(pairing, bank):
    async def scenario(face):
        ledger = await face.root("ledger", Ledger)

        async def in_loop():
            at_once = caprpc.aio.submit(ledger.slow_balance)
            at_once.cancel()
            waiting = asyncio.ensure_future(caprpc.aio.submit(ledger.slow_balance))
            await asyncio.to_thread(bank.book.arrived.acquire, timeout=WAIT_S)
            waiting.cancel()
            await asyncio.wait([waiting, at_once])

        def in_thread():
            waiting = caprpc.submit(ledger.slow_balance)
            assert bank.book.arrived.acquire(timeout=WAIT_S)
            assert waiting.cancel()

        await across(face, in_loop, in_thread)
        asked = face.peer._connection.link.session.asked.open.values()
        # A cancelled question stays until the peer has answered it, and its method still waits.
        await face.pause(lambda: asked and all(question.abandoned for question in list(asked)))
        bank.book.gate.set()
        return await call(face, ledger.balance)

    assert pairing.run(scenario, reconnect=SOON) == 0
