"""Any thread and any task may use any stub; the number of calls is raised by CAPRPC_CALLS (10,000 by hand)."""

import asyncio
import os
import threading

import pytest

import caprpc
import caprpc.aio

WAIT_S = 60.0
THREADS = 32
TASKS = 1_000
CALLS = int(os.environ.get("CAPRPC_CALLS", "20"))


def in_threads(count, work):
    """Run ``work(number)`` on threads that start together; return what each returned or raised."""
    together = threading.Barrier(count)
    found = [None] * count

    def run(number):
        together.wait()
        try:
            found[number] = work(number)
        except Exception as exc:
            found[number] = exc

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture(params=["blocking", "aio"])
def blocking(request, make_ledgers):
    return make_ledgers(request.param, "blocking")


@pytest.fixture(params=["blocking", "aio"])
def aio(request, make_ledgers):
    return make_ledgers(request.param, "aio")


def left(face, ledgers):
    session = face.peer._connection.link.session
    return len(session.asked.open), [len(one.answers) for one in ledgers.sessions()]


def test_threads_lose_and_cross_no_answer(blocking):
    async def scenario(face, ledger):
        def work(number):
            return sum(ledger.balance("x" * (number * 7 + call % 5)) != number * 7 + call % 5 for call in range(CALLS))

        return in_threads(THREADS, work), left(face, blocking)

    assert blocking.run(scenario) == ([0] * THREADS, (0, [0]))


def test_threads_with_futures_lose_and_cross_no_answer(blocking):
    async def scenario(face, ledger):
        def work(number):
            futures = [caprpc.submit(ledger.balance, "x" * (number + call)) for call in range(20)]
            return [future.result(WAIT_S) for future in futures] == [number + call for call in range(20)]

        return in_threads(8, work), left(face, blocking)

    assert blocking.run(scenario) == ([True] * 8, (0, [0]))


def test_tasks_lose_and_cross_no_answer(aio):
    async def scenario(face, ledger):
        async def work(number):
            return await ledger.balance("x" * number)

        found = await asyncio.gather(*(work(number) for number in range(TASKS)))
        return found, left(face, aio)

    assert aio.run(scenario) == (list(range(TASKS)), (0, [0]))


def test_callbacks_of_several_threads_run_on_the_thread_that_waits(blocking):
    async def scenario(face, ledger):
        def work(number):
            mine, ran_on = threading.get_ident(), set()

            def function(value):
                ran_on.add(threading.get_ident())
                return value + number

            results = [ledger.relay(function, value) - value for value in range(10)]
            return results == [number] * 10 and ran_on == {mine}

        return in_threads(8, work), left(face, blocking)

    assert blocking.run(scenario) == ([True] * 8, (0, [0]))


def test_callbacks_that_call_again_do_not_deadlock(blocking):
    """The function that is called back calls the same server on the same connection, from many threads at once."""

    async def scenario(face, ledger):
        def work(number):
            def function(value):
                return ledger.relay(lambda inner: inner * 2, value) if value else ledger.balance("x" * number)

            return ledger.relay(function, 21), ledger.relay(function, 0)

        return in_threads(8, work), left(face, blocking)

    assert blocking.run(scenario) == ([(42, number) for number in range(8)], (0, [0]))


def test_nested_callbacks_of_many_tasks(aio):
    async def scenario(face, ledger):
        async def work(number):
            async def function(value):
                return await ledger.balance("x" * value)

            return await ledger.relay(function, number)

        found = await asyncio.gather(*(work(number) for number in range(40)))
        return found, left(face, aio)

    assert aio.run(scenario) == (list(range(40)), (0, [0]))
