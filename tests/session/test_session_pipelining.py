"""Kept answers in the session: who may call them, what waits, and what is left when they are finished."""

import pytest

from caprpc.policy import Permit
from caprpc.session import Answer, Overdue, Refusal
from caprpc.session.kept import WaitingCall
from caprpc.wire import messages as m

PIPELINE = ("deadline", "pipeline")
KEEP = m.Meta(None, None, True)


@pytest.fixture
def one(half):
    return half(features=PIPELINE)


def on(number, question, *, member="put", meta=None):
    """Return a call on the answer to a question."""
    return m.Call(question, ~number, 1, member, meta, b"\x92\x90\x80")


def give(one, answer):
    """End an answer with a reference to an object of ours, as the object floor does; return the export and events."""
    export = one.hand_over()
    one.session.return_(answer, b"", export)
    return export, one.session.run_resolved(one.now)


def give_value(one, answer):
    one.session.return_(answer, b"\x01")
    return one.session.run_resolved(one.now)


def raised(messages):
    return [(message.question, message.code) for message in messages if type(message) is m.Raise]


def empty(one):
    session = one.session
    return not (session.kept or session.answers or session.kept.resolved or len(session.exports))


def test_call_on_an_answer_waits_and_then_runs_on_what_it_has_become(one):
    (first,) = one.hear(one.call(meta=KEEP))
    assert one.hear(on(1, 2)) == []
    assert type(one.session.answers[2]) is WaitingCall
    export, (second,) = give(one, first)
    assert type(second) is Answer
    assert type(second.permit) is Permit
    assert (second.answer_id, second.export) == (2, export)


def test_call_on_an_answer_that_is_there_runs_at_once(one):
    (first,) = one.hear(one.call(meta=KEEP))
    export, _ = give(one, first)
    (second,) = one.hear(on(1, 2))
    assert second.export is export


def test_policy_is_asked_when_the_step_runs(one):
    (first,) = one.hear(one.call(meta=KEEP))
    one.hear(on(1, 2, member="hidden"), on(1, 3, member="absent"))
    one.said()
    give(one, first)
    said = [message for message in one.said() if type(message) is m.Raise]
    assert raised(said) == [(2, "denied"), (3, "denied")]
    assert said[0].text == said[1].text == ""


def test_calls_on_an_answer_start_in_their_order(one):
    (first,) = one.hear(one.call(meta=KEEP))
    one.hear(*(on(1, number) for number in range(2, 10)))
    _, events = give(one, first)
    assert [event.answer_id for event in events] == list(range(2, 10))


def test_failed_answer_breaks_all_that_stands_on_it(one):
    (first,) = one.hear(one.call(meta=KEEP))
    one.hear(on(1, 2, meta=KEEP), on(2, 3, meta=KEEP), on(3, 4))
    one.session.raise_(first, "internal", reference="R")
    events = one.session.run_resolved(one.now)
    assert raised(one.said()) == [(1, "internal"), (2, "broken"), (3, "broken"), (4, "broken")]
    assert all(type(event) is Refusal for event in events)
    one.hear(on(3, 5))
    assert raised(one.said()) == [(5, "broken")]
    one.hear(m.Finish(1), m.Finish(2), m.Finish(3))
    assert empty(one)


def test_value_is_nothing_to_call(one):
    (first,) = one.hear(one.call(meta=KEEP))
    one.hear(on(1, 2))
    give_value(one, first)
    assert raised(one.said()) == [(2, "broken")]


def test_refused_call_is_kept_as_failed(one):
    one.hear(one.call(member="none", meta=KEEP))
    one.said()
    one.hear(on(1, 2))
    assert raised(one.said()) == [(2, "broken")]


def test_broken_calls_cost_no_budget(half):
    one = half("glitch_burst = 1\nglitch_per_s = 0.1", features=PIPELINE)
    (first,) = one.hear(one.call(meta=KEEP))
    one.session.raise_(first, "internal", reference="R")
    for number in range(2, 40):
        one.hear(on(1, number))
    assert one.ended is None


def test_finish_lets_go_of_what_was_released_before(one):
    (first,) = one.hear(one.call(meta=KEEP))
    export, _ = give(one, first)
    one.hear(m.Release([(export.export_id, 1)]))
    assert len(one.session.exports) == 1
    (second,) = one.hear(on(1, 2))
    one.session.return_(second, b"\xc0")
    one.hear(m.Finish(1))
    assert empty(one)


def test_more_than_is_held_cannot_be_released_although_it_is_kept(one):
    (first,) = one.hear(one.call(meta=KEEP))
    export, _ = give(one, first)
    one.hear(m.Release([(export.export_id, 2)]))
    assert one.ended == "protocol-error"


def test_finish_before_the_answer_lets_what_waits_run(one):
    (first,) = one.hear(one.call(meta=KEEP))
    one.hear(on(1, 2), m.Finish(1))
    export, (second,) = give(one, first)
    assert second.export is export
    one.session.return_(second, b"\xc0")
    one.hear(m.Release([(export.export_id, 1)]))
    assert empty(one)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda one: [m.Finish(1), m.Finish(1)],
        lambda one: [m.Finish(2)],
        lambda one: [m.Finish(1), on(1, 2)],
        lambda one: [on(2, 2)],
        lambda one: [on(3, 2)],
        lambda one: [on(0, 2)],
        lambda one: [one.call(question=2), on(2, 3)],
    ],
    ids=["finish twice", "finish unknown", "after finish", "itself", "of the future", "zero", "not kept"],
)
@pytest.mark.parametrize("answered", [True, False])
def test_answer_that_is_not_kept_ends_the_session(misuse, answered, one):
    (first,) = one.hear(one.call(meta=KEEP))
    if answered:
        give(one, first)
    one.hear(*misuse(one))
    assert one.ended == "protocol-error"


def test_kept_answers_are_limited(half):
    one = half("in_flight = 2\nglitch_burst = 100", features=PIPELINE)
    for _ in range(4):
        one.hear(one.call(member="none", meta=KEEP))
    assert one.ended is None
    one.hear(one.call(member="none", meta=KEEP))
    assert one.ended == "protocol-error"


def test_finished_answers_make_room(half):
    one = half("in_flight = 1\nglitch_burst = 1000", features=PIPELINE)
    for number in range(1, 50):
        one.hear(one.call(member="none", meta=KEEP), m.Finish(number))
    assert one.ended is None
    assert empty(one)


@pytest.mark.parametrize(("depth", "code"), [(3, None), (2, "limit")])
def test_depth_is_limited(depth, code, half):
    one = half(f"pipeline_depth = {depth}", features=PIPELINE)
    one.hear(one.call(meta=KEEP))
    one.hear(on(1, 2, meta=KEEP), on(2, 3, meta=KEEP))
    one.hear(on(3, 4))
    assert raised(one.said()) == ([] if code is None else [(4, code)])


def test_answers_that_are_there_do_not_count_as_depth(half):
    one = half("pipeline_depth = 1", features=PIPELINE)
    (answer,) = one.hear(one.call(meta=KEEP))
    for number in range(2, 10):
        give(one, answer)
        (answer,) = one.hear(on(number - 1, number, meta=KEEP))
    assert one.ended is None


def test_what_waits_is_in_flight(half):
    one = half("in_flight = 3", features=PIPELINE)
    one.hear(one.call(meta=KEEP), on(1, 2), on(1, 3), on(1, 4))
    assert raised(one.said()) == [(4, "limit")]


def test_cancelled_while_it_waits(one):
    (first,) = one.hear(one.call(meta=KEEP))
    one.hear(on(1, 2), on(1, 3), m.Cancel(2))
    assert raised(one.said()) == [(2, "cancelled")]
    _, events = give(one, first)
    assert [event.answer_id for event in events] == [3]


def test_time_is_over_while_it_waits(one):
    (first,) = one.hear(one.call(meta=KEEP))
    one.hear(on(1, 2, meta=m.Meta(None, 100, False)))
    assert one.session.deadline() == one.now + 0.1
    one.now += 0.1
    one.session.tick(one.now, one.events)
    assert raised(one.said()) == [(2, "deadline")]
    assert give(one, first)[1] == []


def test_time_that_was_waited_is_gone(one):
    (first,) = one.hear(one.call(meta=KEEP))
    one.hear(on(1, 2, meta=m.Meta(None, 100, False)))
    one.now += 0.06
    give(one, first)
    one.now += 0.05
    one.session.tick(one.now, one.events)
    assert raised(one.said()) == [(2, "deadline")]
    assert [event.answer.answer_id for event in one.events if type(event) is Overdue] == [2]


def test_overdue_answer_breaks_what_stands_on_it(one):
    one.hear(one.call(meta=m.Meta(None, 100, True)), on(1, 2))
    one.now += 0.1
    one.session.tick(one.now, one.events)
    assert raised(one.said()) == [(1, "deadline"), (2, "broken")]


def test_revoked_object_is_refused_although_its_answer_is_kept(one):
    (first,) = one.hear(one.call(meta=KEEP))
    export, _ = give(one, first)
    one.session.revoke([export], [])
    one.said()
    one.hear(on(1, 2))
    assert raised(one.said()) == [(2, "denied")]


def test_end_of_the_session_leaves_nothing(one):
    (first,) = one.hear(one.call(meta=KEEP))
    one.hear(on(1, 2, meta=KEEP), on(2, 3), one.call(question=4, meta=KEEP))
    give(one, first)
    one.session.connection_lost("gone", one.events)
    assert empty(one)
    assert one.session.run_resolved(one.now) == []


def test_batch_is_not_kept_and_calls_no_answers(half):
    for batch in (
        m.Batch(2, KEEP, [m.Run(0, 0, "box", 1, b"\x91\x92\x90\x80")]),
        m.Batch(2, None, [m.Run(-2, 1, "put", 1, b"\x91\x92\x90\x80")]),
    ):
        one = half(features=PIPELINE)
        one.hear(one.call(meta=KEEP))
        one.hear(batch)
        assert one.ended == "protocol-error"


def test_step_on_behalf_of_a_question_that_has_ended_is_cancelled(one):
    question = one.ask(one.import_())
    (first,) = one.hear(one.call(meta=KEEP))
    one.hear(on(1, 2, meta=m.Meta(question.question_id, None, False)))
    one.hear(m.Return(question.question_id, b"\xc0"))
    one.said()
    give(one, first)
    assert raised(one.said()) == [(2, "cancelled")]


def test_release_and_finish_go_before_the_next_kept_call(one):
    target = one.import_()
    lent = ([], None)
    kept = one.session.ask_kept(target, 1, "put", b"\x92\x90\x80", lent, None)
    one.session.imports.promised.append(kept.question_id)
    one.session.ask_kept(target, 1, "put", b"\x92\x90\x80", lent, None)
    assert [type(message) for message in one.said()] == [m.Call, m.Finish, m.Call]
    assert one.session.asked.kept == 1
