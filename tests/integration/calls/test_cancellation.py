"""Cancellation from either side: by future, task, interrupt or the end of the connection."""

import asyncio
import signal
import threading

import pytest

import caprpc
import caprpc.aio
from caprpc import CallCancelled, RemoteError

WAIT_S = 10.0


def test_cancelled_future_tells_the_method(both):
    async def scenario(face, ledger):
        waiting = face.submit(ledger.wait)
        await face.pause(both.impl.waiting.is_set)
        assert waiting.cancel()
        await face.pause(both.impl.told.is_set)
        await face.pause(lambda: not face.peer._connection.link.session.asked.open)
        return waiting.cancelled(), await face(ledger.balance("abc"))

    assert both.run(scenario) == (True, 3)


def test_cancelled_task_tells_the_method(make_ledgers):
    ledgers = make_ledgers("blocking", "aio")

    async def scenario(face, ledger):
        async def call():
            return await ledger.wait()

        task = asyncio.create_task(call())
        await face.pause(ledgers.impl.waiting.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await face.pause(ledgers.impl.told.is_set)

    ledgers.run(scenario)


def test_timeout_of_asyncio_tells_the_method(make_ledgers):
    ledgers = make_ledgers("aio", "aio")

    async def scenario(face, ledger):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ledger.wait(), 0.05)
        await face.pause(ledgers.impl.told.is_set)

    ledgers.run(scenario)


@pytest.mark.parametrize("server", ["blocking", "aio"])
def test_interrupt_of_a_waiting_thread_tells_the_method(server, make_ledgers):
    ledgers = make_ledgers(server, "blocking")

    async def scenario(face, ledger):
        def interrupt():
            ledgers.impl.waiting.wait(WAIT_S)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            ledger.wait()
        thread.join()
        await face.pause(ledgers.impl.told.is_set)
        return ledger.balance("abc")

    assert ledgers.run(scenario) == 3


def test_end_of_the_connection_tells_the_method(both):
    async def scenario(face, ledger):
        face.submit(ledger.wait).add_done_callback(lambda future: future.exception())
        await face.pause(both.impl.waiting.is_set)

    both.run(scenario)
    assert both.impl.told.wait(WAIT_S)


def test_cancel_never_overtakes_its_call(ledgers):
    async def scenario(face, ledger):
        await face(ledger.note(1))
        futures = [face.submit(ledger.note, number) for number in range(2, 30)]
        for future in futures[::2]:
            future.cancel()
        await face(ledger.note(99))
        return await face(ledger.noted())

    noted = ledgers.run(scenario)
    if ledgers.host.kind == "blocking":
        assert noted == sorted(noted)
    assert set(range(3, 30, 2)) | {1, 99} <= set(noted)


def test_what_a_cancelled_call_has_under_way_is_cancelled_too(both):
    """The method waits for a callback; its caller cancels it; the callback learns of it."""

    async def scenario(face, ledger):
        inside, told, free = threading.Event(), threading.Event(), threading.Event()

        def function():
            inside.set()
            context = caprpc.current()
            while not (context.cancelled or free.wait(0.005)):
                pass
            if context.cancelled:
                told.set()
            return 1.0

        waiting = face.submit(ledger.ask_back, function)
        await face.pause(inside.is_set)
        waiting.cancel()
        try:
            await face.pause(told.is_set)
        finally:
            free.set()
        await face.pause(lambda: not any(session.answers for session in both.sessions()))
        return await face(ledger.balance("abc"))

    assert both.run(scenario) == 3


def test_method_learns_that_its_own_call_was_cancelled(make_ledgers):
    """In a ``def`` method it is an exception of the call that it waits for."""
    ledgers = make_ledgers("blocking", "blocking")
    seen = []

    class Careful(type(ledgers.impl)):
        def ask_back(self, function):
            try:
                return function()
            except RemoteError as exc:
                seen.append(exc)
                raise

    ledgers.impl.__class__ = Careful

    async def scenario(face, ledger):
        inside, free = threading.Event(), threading.Event()

        def function():
            inside.set()
            free.wait(WAIT_S)
            return 1.0

        waiting = face.submit(ledger.ask_back, function)
        await face.pause(inside.is_set)
        waiting.cancel()
        await face.pause(lambda: bool(seen))
        free.set()

    ledgers.run(scenario)
    assert [type(error) for error in seen] == [CallCancelled]


def test_calls_over_another_connection_end_with_the_call_they_are_made_for(make_ledgers):
    """Front asks back over a connection of its own; who cancels front cancels that, too."""
    back = make_ledgers("blocking", "blocking")
    front = make_ledgers("aio", "blocking")

    class Relaying(type(front.impl)):
        target = None

        def wait(self):
            return self.target.wait()

    front.impl.__class__ = Relaying

    async def inner(_face, back_ledger):
        front.impl.target = back_ledger

        async def outer(face, ledger):
            waiting = face.submit(ledger.wait)
            await face.pause(back.impl.waiting.is_set)
            waiting.cancel()
            await face.pause(back.impl.told.is_set)

        front.run(outer)

    back.run(inner)


def test_deadline_reaches_over_another_connection(make_ledgers):
    back = make_ledgers("aio", "blocking")
    front = make_ledgers("blocking", "blocking")

    class Relaying(type(front.impl)):
        target = None

        def time_left(self):
            return self.target.time_left()

    front.impl.__class__ = Relaying

    async def inner(_face, back_ledger):
        front.impl.target = back_ledger

        async def outer(face, ledger):
            with caprpc.deadline(60):
                return ledger.time_left()

        return front.run(outer)

    assert 0 < back.run(inner) <= 60.1
