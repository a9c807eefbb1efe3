"""``with deadline(...)``: it travels, it is inherited, and at its end both sides are free."""

import concurrent.futures
import threading
import time

import pytest

import caprpc
import caprpc.aio
from caprpc import DeadlineExceeded

WAIT_S = 10.0


def slots(ledgers):
    return [session.answers.room - len(session.answers) for session in ledgers.sessions()]


def test_call_within_a_deadline_knows_it(both):
    async def scenario(face, ledger):
        none = await face(ledger.time_left())
        with caprpc.deadline(60):
            some = await face(ledger.time_left())
        return none, some, await face(ledger.time_left())

    none, some, again = both.run(scenario)
    assert none == again == -1.0
    assert 0 < some <= 60.1


def test_inner_block_never_gives_more_time(ledgers):
    async def scenario(face, ledger):
        with caprpc.deadline(60):
            with caprpc.deadline(1000):
                outer = await face(ledger.time_left())
            with caprpc.deadline(30):
                inner = await face(ledger.time_left())
            return outer, inner, await face(ledger.time_left())

    outer, inner, after = ledgers.run(scenario)
    assert outer <= 60.1
    assert inner <= 30.1
    assert 30.1 < after <= 60.1


def test_at_its_end_the_caller_goes_on_and_the_callee_is_told(both):
    async def scenario(face, ledger):
        with pytest.raises(DeadlineExceeded) as caught, caprpc.deadline(0.1):
            await face(ledger.wait())
        await face.pause(both.impl.told.is_set)
        await face.pause(lambda: slots(both) == [64])
        return caught.value, await face(ledger.balance("abc"))

    error, balance = both.run(scenario)
    assert error.code == "deadline"
    assert balance == 3


def test_callee_ends_the_call_by_its_own_clock(both):
    """No CANCEL is needed: one that is told when to stop stops."""

    async def scenario(face, ledger):
        session = face.peer._connection.link.session
        started = time.monotonic()
        with caprpc.deadline(0.1):
            waiting = face.submit(ledger.wait)
        await face.pause(both.impl.told.is_set)
        took = time.monotonic() - started
        with pytest.raises(DeadlineExceeded):
            await face.result(waiting)
        return took, [type(m).__name__ for m in session.asked.open.values()]

    took, _open = both.run(scenario)
    assert took < 1.0


def test_late_answer_is_dropped_and_its_references_are_given_back(ledgers):
    async def scenario(face, ledger):
        with pytest.raises(DeadlineExceeded), caprpc.deadline(0.05):
            await face(ledger.slow_history("A"))
        ledgers.impl.gate.set()
        await face.pause(lambda: slots(ledgers) == [64])
        await face.pause(lambda: not face.peer._connection.link.session.asked.open)
        await face(ledger.balance("A"))
        return [len(session.exports) for session in ledgers.sessions()]

    assert ledgers.run(scenario) == [1]


def test_callback_inherits_what_is_left(both):
    async def scenario(face, ledger):
        left = []

        def function():
            left.append(caprpc.current().deadline - time.monotonic())
            return left[0]

        with caprpc.deadline(60):
            told = await face(ledger.ask_back(function))
        return left, told

    (left,), told = both.run(scenario)
    assert 0 < left <= 60.1
    assert left == told


def test_calls_of_a_batch_have_it_too(ledgers):
    async def scenario(face, ledger):
        with caprpc.deadline(60):
            return await face.batch([(ledger.time_left, ())] * 2)

    assert all(0 < left <= 60.1 for left in ledgers.run(scenario))


def test_batch_inside_a_method_carries_its_deadline(both):
    async def scenario(face, ledger):
        def function():
            return caprpc.current().deadline - time.monotonic()

        with caprpc.deadline(60):
            return await face(ledger.time_left_of_batch(function))

    assert all(0 < left <= 60.1 for left in both.run(scenario))


def test_time_that_is_over_sends_nothing(ledgers):
    async def scenario(face, ledger):
        with pytest.raises(DeadlineExceeded, match="nothing was sent"), caprpc.deadline(0):
            await face(ledger.note(1))
        return await face(ledger.noted())

    assert ledgers.run(scenario) == []


def test_endless_and_huge_deadlines_are_harmless(ledgers):
    async def scenario(face, ledger):
        with caprpc.deadline(float("inf")):
            assert await face(ledger.time_left()) == -1.0
        with caprpc.deadline(1e300):
            return await face(ledger.time_left())

    assert ledgers.run(scenario) > 1e9


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan")])
def test_senseless_deadlines_are_refused(seconds):
    with pytest.raises(ValueError, match="0 or more"):
        caprpc.deadline(seconds)


def test_deadline_is_of_this_thread_alone(make_ledgers):
    ledgers = make_ledgers("blocking", "blocking")

    async def scenario(face, ledger):
        found = []
        with caprpc.deadline(60):
            thread = threading.Thread(target=lambda: found.append(ledger.time_left()))
            thread.start()
            thread.join()
        return found

    assert ledgers.run(scenario) == [-1.0]


def test_future_that_nobody_reads_for_ends_in_time(make_ledgers):
    ledgers = make_ledgers("aio", "blocking")

    async def scenario(face, ledger):
        with caprpc.deadline(0.1):
            future = caprpc.submit(ledger.gated)
        done, _ = concurrent.futures.wait([future], timeout=WAIT_S)
        ledgers.impl.gate.set()
        return [type(future.exception()) for future in done]

    assert ledgers.run(scenario) == [DeadlineExceeded]


def test_smaller_of_policy_and_caller_holds(make_ledgers):
    policy = "[offer.Ledger.limit.time_left]\ntimeout_s = 5.0\n"
    ledgers = make_ledgers("blocking", "blocking", server_more=policy)

    async def scenario(face, ledger):
        alone = ledger.time_left()
        with caprpc.deadline(60):
            longer = ledger.time_left()
        with caprpc.deadline(2):
            shorter = ledger.time_left()
        return alone, longer, shorter

    alone, longer, shorter = ledgers.run(scenario)
    assert alone <= 5
    assert longer <= 5
    assert shorter <= 2.1
