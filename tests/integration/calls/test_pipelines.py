"""Pipelines: many steps, one round trip, each step decided when it runs."""

import threading

import pytest

import caprpc
import caprpc.aio
from caprpc import CallRefused, Denied, LimitExceeded

WAIT_S = 10.0


def pipe(face, *what):
    return caprpc.aio.pipe(*what) if face.is_async else caprpc.pipe(*what)


def asked(face):
    return face.peer._connection.link.session.asked.count


async def settled(face, ledgers):
    """Wait until nothing is under way, and return what the server keeps and holds for this peer."""
    await face.pause(lambda: not face.peer._connection.link.session.asked.open)
    await face(face.peer.roots())
    return [(len(session.kept), len(session.exports), len(session.answers)) for session in ledgers.sessions()]


def test_steps_give_the_last_result(both):
    async def scenario(face, ledger):
        return await face.result(pipe(face, ledger).history("abc").latest().amount())

    assert both.run(scenario) == 3


def test_spelling_for_type_checkers(both):
    async def scenario(face, ledger):
        return await face.result(pipe(face, ledger, lambda ledger: ledger.history("abcd").latest().amount()))

    assert both.run(scenario) == 4


def test_attribute_is_a_step(both):
    async def scenario(face, ledger):
        return await face.result(pipe(face, ledger, lambda ledger: ledger.history("x").currency))

    assert both.run(scenario) == "EUR"


def test_call_of_asyncio_is_piped_as_it_is(make_ledgers):
    for server in ("blocking", "aio"):
        ledgers = make_ledgers(server, "aio")

        async def scenario(face, ledger):
            return await caprpc.aio.pipe(ledger.history("abc")).latest().amount()

        assert ledgers.run(scenario) == 3


def test_call_with_large_arguments_is_piped_as_it_is(make_ledgers):
    ledgers = make_ledgers("aio", "aio")

    async def scenario(face, ledger):
        return await caprpc.aio.pipe(ledger.history("x" * 100_000)).latest().amount()

    assert ledgers.run(scenario) == 100_000


def test_call_that_was_sent_before_is_not_piped(make_ledgers):
    ledgers = make_ledgers("blocking", "aio")

    async def scenario(face, ledger):
        call = ledger.history("abc")
        await call
        with pytest.raises(ValueError, match="in one go"):
            caprpc.aio.pipe(call)
        with pytest.raises(TypeError, match="one reference"):
            caprpc.aio.pipe(ledger.balance("abc"))

    ledgers.run(scenario)


def test_all_steps_are_sent_before_any_answer(both):
    """The first step waits at the server; the others are there before it is answered."""

    async def scenario(face, ledger):
        before = asked(face)
        last = pipe(face, ledger).slow_history("abc").latest().amount()
        await face.pause(both.impl.waiting.is_set)
        (session,) = both.sessions()
        await face.pause(lambda: len(session.answers) == 3)
        assert asked(face) - before == 3
        both.impl.gate.set()
        return await face.result(last)

    assert both.run(scenario) == 3


def test_steps_on_a_promise_start_in_order(make_ledgers):
    for client in ("blocking", "aio"):
        ledgers = make_ledgers("blocking", client)

        async def scenario(face, ledger, ledgers=ledgers):
            history = pipe(face, ledger).slow_history("abc")
            notes = [history.note(number) for number in range(20)]
            await face.pause(ledgers.impl.waiting.is_set)
            ledgers.impl.gate.set()
            for note in notes:
                await face.result(note)
            # A direct call after the answer comes behind all of them.
            await face(ledger.note(99))
            return await face(ledger.noted())

        assert ledgers.run(scenario) == [*range(20), 99]


def test_promise_can_be_taken_and_used_further(both):
    async def scenario(face, ledger):
        if face.is_async:
            promise = caprpc.aio.pipe(ledger).history("abc")
            history = await promise
        else:
            promise = caprpc.pipe(ledger).history("abc")
            history = caprpc.pipe(ledger, lambda _: promise).result(WAIT_S)
        size = await face(history.size())
        return size, await face.result(promise.size())

    assert both.run(scenario) == (3, 3)


def test_failed_step_breaks_what_stands_on_it_with_its_own_error(both):
    async def scenario(face, ledger):
        with pytest.raises(both.NoAccount) as caught:
            await face.result(pipe(face, ledger).find("gone").latest().amount())
        notes = caught.value.__notes__
        assert any("the step find of a pipeline has failed; amount" in note for note in notes)
        return await settled(face, both)

    assert both.run(scenario) == [(0, 1, 0)]


def test_denied_step_is_said_to_be_denied(ledgers):
    async def scenario(face, ledger):
        with pytest.raises(Denied) as caught:
            await face.result(pipe(face, ledger).history("abc").latest().hidden())
        return str(caught.value)

    assert "hidden" in ledgers.run(scenario)


def test_nothing_is_kept_behind(both):
    async def scenario(face, ledger):
        for _ in range(30):
            assert await face.result(pipe(face, ledger).history("abc").latest().amount()) == 3
        return await settled(face, both)

    assert both.run(scenario) == [(0, 1, 0)]


def test_promises_that_nobody_uses_leave_nothing(ledgers):
    async def scenario(face, ledger):
        for _ in range(10):
            pipe(face, ledger).history("abc").latest()
        return await settled(face, ledgers)

    assert ledgers.run(scenario) == [(0, 1, 0)]


def test_steps_inherit_a_deadline(ledgers):
    async def scenario(face, ledger):
        with pytest.raises(caprpc.DeadlineExceeded), caprpc.deadline(0.1):
            await face.result(pipe(face, ledger).slow_history("abc").latest().amount())
        ledgers.impl.gate.set()
        return await settled(face, ledgers)

    assert ledgers.run(scenario) == [(0, 1, 0)]


def test_cancelled_step_does_not_run(ledgers):
    async def scenario(face, ledger):
        history = pipe(face, ledger).slow_history("abc")
        noted, cancelled = history.note(1), history.note(2)
        await face.pause(ledgers.impl.waiting.is_set)
        cancelled.cancel()
        await face(face.peer.roots())
        ledgers.impl.gate.set()
        await face.result(noted)
        del history
        assert await settled(face, ledgers) == [(0, 1, 0)]
        return await face(ledger.noted())

    assert ledgers.run(scenario) == [1]


def test_promises_held_are_limited(make_ledgers):
    for client in ("blocking", "aio"):
        ledgers = make_ledgers("blocking", client, server_more="[limits]\nin_flight = 4\n")

        async def scenario(face, ledger):
            held = []
            for _ in range(8):
                held.append(pipe(face, ledger).history("abc"))
                await face.result(held[-1].size())
            with pytest.raises(LimitExceeded, match="let go"):
                await face.result(pipe(face, ledger).history("abc").size())
            held.pop()
            return await face.result(pipe(face, ledger).history("abc").size())

        assert ledgers.run(scenario) == 3


@pytest.mark.parametrize("extra", [0, 1])
def test_depth_is_limited(extra, ledgers):
    async def scenario(face, ledger):
        page = pipe(face, ledger).slow_history("abc")
        for _ in range(15):
            page = page.next_page()
        await face.pause(ledgers.impl.waiting.is_set)
        try:
            if not extra:
                size = page.size()
                ledgers.impl.gate.set()
                return await face.result(size)
            with pytest.raises(LimitExceeded, match="pipeline_depth"):
                await face.result(page.next_page().size())
            return 3
        finally:
            ledgers.impl.gate.set()

    assert ledgers.run(scenario) == 3


@pytest.mark.parametrize("room", [1, 2, 3])
def test_more_steps_than_there_is_room_for_wait_for_it(room, make_ledgers):
    for client in ("blocking", "aio"):
        ledgers = make_ledgers("blocking", client, server_more=f"[limits]\nin_flight = {room}\n")

        async def scenario(face, ledger):
            page = pipe(face, ledger).history("abc")
            for _ in range(10):
                page = page.next_page()
            return await face.result(page.latest().amount())

        assert ledgers.run(scenario) == 3


def test_promise_is_no_argument_and_no_part_of_a_batch(ledgers):
    async def scenario(face, ledger):
        promise = pipe(face, ledger).history("abc")
        with pytest.raises(TypeError, match="batch"):
            await face.batch([(promise.size, ())])
        with pytest.raises((TypeError, CallRefused)):
            await face(ledger.relay(promise, 1))
        return await face.result(promise.size())

    assert ledgers.run(scenario) == 3


def test_last_step_by_submit_and_one_way(ledgers):
    async def scenario(face, ledger):
        history = pipe(face, ledger).history("abc")
        if face.is_async:
            await caprpc.aio.oneway(history.note, 7)
        else:
            caprpc.oneway(history.note, 7)
        size = await face.result(face.submit(history.size))
        # Calls start in their order; where one has met a slow moment and runs on a worker, it may end behind the next.
        await face.pause(lambda: ledgers.impl.numbers)
        return size, await face(ledger.noted())

    assert ledgers.run(scenario) == (3, [7])


def test_pipeline_within_a_method_is_on_behalf_of_its_call(make_ledgers):
    """The server pipes on what the client has lent it."""
    for server in ("blocking", "aio"):
        ledgers = make_ledgers(server, "blocking")

        class Piping(type(ledgers.impl)):
            def relay(self, function, number):
                return caprpc.pipe(function)(number).result(WAIT_S)

        ledgers.impl.__class__ = Piping

        async def scenario(face, ledger):
            return ledger.relay(lambda number: number + 1, 1)

        assert ledgers.run(scenario) == 2


def test_many_threads_pipe_at_once(make_ledgers):
    ledgers = make_ledgers("blocking", "blocking")

    async def scenario(face, ledger):
        found = []

        def work():
            for n in range(20):
                found.append(caprpc.pipe(ledger).history("x" * n).latest().amount().result(WAIT_S) - n)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found, await settled(face, ledgers)

    assert ledgers.run(scenario) == ([0] * 80, [(0, 1, 0)])
