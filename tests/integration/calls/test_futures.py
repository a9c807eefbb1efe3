"""Futures: those of the standard library, one-way calls, and who reads while nobody asks."""

import asyncio
import concurrent.futures
import logging
import threading

import pytest

import caprpc
import caprpc.aio
from caprpc import RemoteError

WAIT_S = 10.0


@pytest.fixture(params=["blocking", "aio"])
def blocking(request, make_ledgers):
    """A blocking client of either kind of server."""
    return make_ledgers(request.param, "blocking")


@pytest.fixture(params=["blocking", "aio"])
def aio(request, make_ledgers):
    """An asyncio client of either kind of server."""
    return make_ledgers(request.param, "aio")


def test_submit_gives_a_future_of_the_standard_library(blocking):
    async def scenario(face, ledger):
        future = caprpc.submit(ledger.gated)
        assert isinstance(future, concurrent.futures.Future)
        assert future.running()
        assert not future.done()
        with pytest.raises(TimeoutError):
            future.result(0.01)
        blocking.impl.gate.set()
        assert future.exception(WAIT_S) is None
        return future.result(), future.done(), future.cancel()

    assert blocking.run(scenario) == ("open", True, False)


def test_plain_wait_is_read_for(blocking):
    """Nobody is in ``result``: a thread waits for a condition, and the answers come all the same."""

    async def scenario(face, ledger):
        futures = [caprpc.submit(ledger.balance, "x" * n) for n in range(20)]
        done, left = concurrent.futures.wait(futures, WAIT_S)
        assert not left
        return sorted(future.result() for future in done)

    assert blocking.run(scenario) == list(range(20))


def test_as_completed_yields_in_the_order_of_the_answers(blocking):
    async def scenario(face, ledger):
        slow = caprpc.submit(ledger.gated)
        await face.pause(blocking.impl.waiting.is_set)
        fast = [caprpc.submit(ledger.balance, "x" * n) for n in range(5)]
        results = []
        for future in concurrent.futures.as_completed([slow, *fast], WAIT_S):
            results.append(future.result())
            if len(results) == 5:
                blocking.impl.gate.set()
        return results

    *fast, slow = blocking.run(scenario)
    assert sorted(fast) == list(range(5))
    assert slow == "open"


def test_first_exception_ends_a_wait(blocking):
    async def scenario(face, ledger):
        slow, failing = caprpc.submit(ledger.gated), caprpc.submit(ledger.find, "x")
        done, _ = concurrent.futures.wait([slow, failing], WAIT_S, return_when=concurrent.futures.FIRST_EXCEPTION)
        blocking.impl.gate.set()
        return failing in done, slow in done, type(failing.exception())

    assert blocking.run(scenario) == (True, False, blocking.NoAccount)


def test_callbacks_run_although_nobody_waits(blocking):
    async def scenario(face, ledger):
        heard = threading.Event()
        future = caprpc.submit(ledger.balance, "abc")
        future.add_done_callback(lambda _: 1 / 0)
        future.add_done_callback(lambda done: heard.set() if done.result() == 3 else None)
        return heard.wait(WAIT_S)

    logging.getLogger("caprpc").disabled = True
    try:
        assert blocking.run(scenario)
    finally:
        logging.getLogger("caprpc").disabled = False


def test_future_of_a_thread_is_awaited_by_a_loop(blocking):
    async def scenario(face, ledger):
        future = caprpc.submit(ledger.balance, "abc")

        async def main():
            return await asyncio.wrap_future(future)

        found = []
        thread = threading.Thread(target=lambda: found.append(asyncio.run(main())))
        thread.start()
        thread.join()
        return found

    assert blocking.run(scenario) == [3]


def test_cancelled_future_wakes_whoever_waits(blocking):
    async def scenario(face, ledger):
        future = caprpc.submit(ledger.gated)
        await face.pause(blocking.impl.waiting.is_set)
        timer = threading.Timer(0.02, future.cancel)
        timer.start()
        done, _ = concurrent.futures.wait([future], WAIT_S)
        timer.join()
        blocking.impl.gate.set()
        with pytest.raises(concurrent.futures.CancelledError):
            future.exception()
        return future in done, future.cancelled()

    assert blocking.run(scenario) == (True, True)


def test_end_of_the_connection_ends_futures(blocking):
    async def scenario(face, ledger):
        future = caprpc.submit(ledger.gated)
        await face.pause(blocking.impl.waiting.is_set)
        timer = threading.Timer(0.02, face.peer.close)
        timer.start()
        concurrent.futures.wait([future], WAIT_S)
        timer.join()
        blocking.impl.gate.set()
        return type(future.exception())

    assert blocking.run(scenario) is caprpc.ConnectionLost


def test_coalesced_futures_are_read_by_who_asks(blocking):
    async def scenario(face, ledger):
        with face.peer.coalesce():
            futures = [caprpc.submit(ledger.balance, "x" * n) for n in range(30)]
        results = [future.result(WAIT_S) for future in futures]
        return results, face.peer._connection.attended

    assert blocking.run(scenario) == (list(range(30)), set())


def test_gather_as_completed_and_wait_for(aio):
    async def scenario(face, ledger):
        gathered = await asyncio.gather(*(caprpc.aio.submit(ledger.balance, "x" * n) for n in range(5)))
        completed = [await one for one in asyncio.as_completed([ledger.balance("ab"), ledger.balance("ab")])]
        return gathered, completed, await asyncio.wait_for(ledger.balance("abc"), WAIT_S)

    assert aio.run(scenario) == ([0, 1, 2, 3, 4], [2, 2], 3)


async def oneway(face, *call):
    await caprpc.aio.oneway(*call) if face.is_async else caprpc.oneway(*call)


def test_one_way_calls_all_arrive(ledgers):
    async def scenario(face, ledger):
        for number in range(100):
            await oneway(face, ledger.note, number)
        return await face(ledger.noted())

    noted = ledgers.run(scenario)
    assert sorted(noted) == list(range(100))
    if ledgers.host.kind == "blocking":
        # An asyncio server starts them in order, too, but runs a method on several threads until it has proved fast.
        assert noted == sorted(noted)


def test_failed_one_way_calls_are_counted_and_logged(ledgers, caplog):
    async def scenario(face, ledger):
        await oneway(face, ledger.find, "x")
        await oneway(face, ledger.note, 1)
        await face(ledger.noted())
        await face.pause(lambda: not face.peer._connection.link.session.asked.open)
        return face.peer.one_way_failures

    with caplog.at_level(logging.WARNING, "caprpc"):
        assert ledgers.run(scenario) == 1
    (said,) = [record.getMessage() for record in caplog.records if "one-way" in record.getMessage()]
    assert said.startswith("a one-way call has failed: x")


def test_one_way_call_that_may_not_be_made_says_so_at_once(ledgers):
    async def scenario(face, ledger):
        with pytest.raises(TypeError):
            await oneway(face, ledger.note, "text")

    ledgers.run(scenario)


def test_references_in_an_answer_that_nobody_waits_for_are_given_back(ledgers):
    async def scenario(face, ledger):
        await oneway(face, ledger.history, "A")
        await face(ledger.balance("A"))
        await face.pause(lambda: not face.peer._connection.link.session.asked.open)
        await face(ledger.balance("A"))
        return [len(session.exports) for session in ledgers.sessions()]

    assert ledgers.run(scenario) == [1]


def test_one_way_calls_wait_while_the_peer_has_no_room(make_ledgers):
    """Back-pressure: no more are under way than the peer takes."""
    for client in ("blocking", "aio"):
        ledgers = make_ledgers("blocking", client, server_more="[limits]\nin_flight = 4\n")

        async def scenario(face, ledger):
            asked = face.peer._connection.link.session.asked
            most = 0
            for number in range(50):
                await oneway(face, ledger.note, number)
                most = max(most, len(asked.open))
            return most, await face(ledger.noted())

        most, noted = ledgers.run(scenario)
        assert most <= 4
        assert noted == list(range(50))


def test_exception_of_a_future_is_raised_as_what_it_is(ledgers):
    async def scenario(face, ledger):
        future = face.submit(ledger.find, "x")
        with pytest.raises(ledgers.NoAccount):
            await face.result(future)
        with pytest.raises(RemoteError):
            await face.result(face.submit(ledger.ask_back, lambda: "no float"))

    logging.getLogger("caprpc").disabled = True
    try:
        ledgers.run(scenario)
    finally:
        logging.getLogger("caprpc").disabled = False
