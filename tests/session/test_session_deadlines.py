"""Deadlines in the session: what travels, what is answered when the time is over, and by whom."""

import pytest

from caprpc.errors import DeadlineExceeded
from caprpc.session import FOREVER, Origin, Overdue
from caprpc.wire import messages as m

DEADLINE = ("deadline",)


def within(milliseconds, cause=None):
    return m.Meta(cause, milliseconds)


def tick(one, seconds):
    one.now += seconds
    one.session.tick(one.now, one.events)


def test_call_is_answered_when_its_deadline_has_passed(half):
    one = half(features=DEADLINE)
    (answer,) = one.hear(one.call(meta=within(500)))
    tick(one, 0.499)
    assert one.said() == []
    tick(one, 0.001)
    (reply,) = one.said()
    assert (type(reply), reply.question, reply.code) == (m.Raise, answer.answer_id, "deadline")
    assert answer.cancelled
    (overdue,) = [event for event in one.events if type(event) is Overdue]
    assert overdue.reason == "deadline"


def test_answer_after_the_deadline_is_not_sent(half):
    one = half(features=DEADLINE)
    (answer,) = one.hear(one.call(meta=within(10)))
    tick(one, 0.01)
    one.said()
    one.session.return_(answer, b"\xc0")
    assert one.said() == []
    assert one.session.answers.room == 64


def test_method_that_overstays_holds_its_slot(half):
    one = half("in_flight = 2", features=DEADLINE)
    for _ in range(2):
        one.hear(one.call(meta=within(10)))
    tick(one, 0.01)
    one.said()
    one.hear(one.call())
    assert [reply.code for reply in one.said()] == ["limit"]


def test_deadline_of_nothing_does_not_run_and_costs_budget(half):
    one = half("glitch_burst = 2\nglitch_per_s = 1.0", features=DEADLINE)
    for _ in range(2):
        one.hear(one.call(meta=within(0)))
        (reply,) = one.said()
        assert (reply.code, reply.taken) == ("deadline", False)
    assert not one.session.answers
    one.hear(one.call(meta=within(0)))
    assert one.ended == "protocol-error"


def test_refusal_of_a_member_looks_the_same_with_a_deadline_of_nothing(half):
    one = half(features=DEADLINE)
    for member in ("hidden", "absent"):
        one.hear(one.call(member=member, meta=within(0)))
    first, second = one.said()
    assert (first.code, first.text, first.type) == (second.code, second.text, second.type) == ("denied", "", "")


def test_largest_deadline_is_no_deadline_that_ever_comes(half):
    one = half(features=DEADLINE)
    one.hear(one.call(meta=within(m.MAX_ID)))
    assert one.session.answers.soonest > one.now + 1e9
    tick(one, 1)
    assert one.session.answers


def test_many_deadlines_leave_nothing_behind(half):
    one = half(features=DEADLINE)
    for number in range(5_000):
        (answer,) = one.hear(one.call(meta=within(60_000 - number)))
        one.session.return_(answer, b"\xc0")
    assert len(one.session.answers._timed) <= 65
    tick(one, 0)
    one.session.answers.expire(one.session, one.now + 60, one.events)
    assert one.session.answers.soonest == FOREVER
    assert not one.session.answers._timed


def test_deadline_that_was_not_chosen_ends_the_session(half):
    one = half()
    one.hear(one.call(meta=within(5)))
    assert one.ended == "protocol-error"


def test_what_is_left_travels_rounded_up(half):
    one = half(features=DEADLINE)
    target = one.import_()
    one.said()
    one.session.ask(target, 1, "put", b"\x92\x90\x80", [], None, Origin(None, one.now + 1.2341, one.now))
    (call,) = one.said()
    assert call.meta == m.Meta(None, 1235)


def test_peer_without_the_feature_is_told_nothing_and_gets_a_cancel(half):
    one = half()
    target = one.import_()
    question = one.session.ask(target, 1, "put", b"\x92\x90\x80", [], None, Origin(None, one.now + 1, one.now))
    assert question.due == one.now + 1
    one.session.cancel(question, one.now + 1)
    call, cancel = one.said()
    assert call.meta is None
    assert type(cancel) is m.Cancel


@pytest.mark.parametrize(("early", "sent"), [(0.0, []), (0.001, [m.Cancel])])
def test_peer_that_knows_the_deadline_gets_a_cancel_only_before_it(early, sent, half):
    one = half(features=DEADLINE)
    target = one.import_()
    due = one.now + 1
    question = one.session.ask(target, 1, "put", b"\x92\x90\x80", [], None, Origin(None, due, one.now))
    one.said()
    one.session.cancel(question, due - early)
    assert list(map(type, one.said())) == sent


def test_time_that_is_over_opens_no_question(half):
    one = half(features=DEADLINE)
    target = one.import_()
    with pytest.raises(DeadlineExceeded, match="nothing was sent"):
        one.session.ask(target, 1, "put", b"\x92\x90\x80", [], None, Origin(None, one.now, one.now))
    assert not one.session.asked.open


def test_overdue_questions_are_those_whose_time_is_over(half):
    one = half(features=DEADLINE)
    target = one.import_()
    asked = [
        one.session.ask(target, 1, "put", b"\x92\x90\x80", [], None, Origin(None, one.now + n, one.now)) for n in (1, 2)
    ]
    assert one.session.deadline() == one.now + 1
    assert one.session.asked.overdue(one.now + 0.9) == []
    assert one.session.asked.overdue(one.now + 1) == asked[:1]
    assert one.session.deadline() == one.now + 2


def test_batch_carries_a_deadline_for_all_its_calls(half):
    one = half(features=DEADLINE)
    one.hear(m.Batch(1, within(100), [m.Run(0, 0, "box", 2, b"\x92\x92\x90\x80\x92\x90\x80")]))
    tick(one, 0.1)
    (reply,) = one.said()
    assert (type(reply), reply.question, reply.code) == (m.Raise, 1, "deadline")
