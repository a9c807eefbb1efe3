"""Calls at the level of the session: numbers, order, refusals, limits, cancel, batches."""

import pytest

from caprpc.errors import ConnectionLost, LimitExceeded
from caprpc.policy import Right
from caprpc.session import Origin, State
from caprpc.wire import messages as m
from caprpc.wire.codec import encode_message

EMPTY = b"\x92\x90\x80"


def kinds(messages):
    return [type(message).__name__ for message in messages]


@pytest.mark.parametrize("numbers", [(0,), (1, 1), (2, 1), (5, 3)])
def test_question_numbers_of_the_peer_must_go_up(numbers, half):
    one = half()
    for number in numbers:
        one.hear(one.call(question=number))
    assert one.ended == "protocol-error"


def test_question_numbers_may_leave_gaps(half):
    one = half()
    one.hear(one.call(question=3), one.call(question=900))
    assert one.ended is None
    assert sorted(one.session.answers) == [3, 900]


def test_batches_share_the_numbers_of_calls(half):
    one = half()
    one.hear(one.call(question=3), m.Batch(3, None, [m.Run(0, 0, "box", 1, b"\x91" + EMPTY)]))
    assert one.ended == "protocol-error"


@pytest.mark.parametrize(
    ("operation", "member"),
    [(20, ""), (14, "put"), (255, "put"), (1, ""), (2, ""), (3, ""), (4, "put"), (6, "x"), (8, "put")],
)
def test_operation_without_or_with_a_member_where_it_must_not_ends_the_session(operation, member, half):
    one = half()
    export = one.hand_over()
    one.hear(one.call(export.export_id, operation, member))
    assert one.ended == "protocol-error"


@pytest.mark.parametrize(
    "meta",
    [m.Meta(None, 1_000, False, None), m.Meta(None, None, True, None), m.Meta(None, None, False, b"trace")],
    ids=["deadline", "keep", "trace"],
)
@pytest.mark.parametrize("kind", ["call", "batch"])
def test_features_that_are_reserved_end_the_session(kind, meta, half):
    one = half()
    if kind == "call":
        one.hear(one.call(meta=meta))
    else:
        one.hear(m.Batch(1, meta, [m.Run(0, 0, "box", 1, b"\x91" + EMPTY)]))
    assert one.ended == "protocol-error"


@pytest.mark.parametrize("features", [(), ("pipeline",)])
def test_finish_of_an_answer_that_is_not_kept_ends_the_session(features, half):
    one = half(features=features)
    one.hear(m.Finish(1))
    assert one.ended == "protocol-error"


@pytest.mark.parametrize("features", [(), ("pipeline",)])
@pytest.mark.parametrize("target", [-1, -2, -(2**53)])
def test_promised_answer_that_is_not_kept_ends_the_session(target, features, half):
    one = half(features=features)
    one.hear(one.call(target, 1, "put"))
    assert one.ended == "protocol-error"


def test_promised_answer_as_target_in_a_batch_ends_the_session(half):
    one = half()
    one.hear(m.Batch(1, None, [m.Run(-2, 1, "put", 1, b"\x91" + EMPTY)]))
    assert one.ended == "protocol-error"


def test_cause_that_is_not_open_ends_the_session(half):
    one = half()
    one.hear(one.call(meta=m.Meta(77)))
    assert one.ended == "protocol-error"


def test_cause_that_has_been_answered_ends_the_session(half):
    one = half()
    question = one.ask(one.import_())
    one.hear(m.Return(question.question_id, b"\xc0"), one.call(meta=m.Meta(question.question_id)))
    assert one.ended == "protocol-error"


def test_forbidden_absent_and_unknown_are_the_same_bytes(half):
    one = half()
    export = one.hand_over()
    one.said()
    number = export.export_id
    tried = [
        (number, 1, "hidden"),  # declared by the interface, not granted
        (number, 1, "no_such"),
        (number, 1, "__class__"),
        (number, 2, "put"),  # an operation of another kind
        (number, 6, ""),
        (number, 0, "box"),  # root, on something else
        (number + 1, 1, "put"),  # no such export
        (0, 0, "no_such_root"),
        (0, 1, "put"),
    ]
    answers = []
    for target, operation, member in tried:
        one.hear(one.call(target, operation, member, question=1_000 + len(answers)))
        (answer,) = one.said()
        answers.append(answer)
    references = {answer.reference for answer in answers}
    assert len(references) == len(tried)
    same = {encode_message(m.Raise(0, a.taken, a.code, a.type, a.text, "")) for a in answers}
    assert same == {encode_message(m.Raise(0, False, "denied", "", "", ""))}
    assert len({len(encode_message(answer)) for answer in answers}) == 1


def test_refusal_is_an_event_with_the_rule_that_decided(half):
    one = half()
    export = one.hand_over()
    (refusal,) = one.hear(one.call(export.export_id, 1, "hidden"))
    assert refusal.refused.reason == "not-granted"
    assert refusal.refused.rule.startswith("peer.toml:")
    assert one.said()[-1].reference == refusal.reference


def test_export_with_a_number_of_uses_is_refused_after_them(half):
    one = half()
    export = one.hand_over()
    export.right = Right(uses=2)
    one.hear(*(one.call(export.export_id, 1, "put") for _ in range(3)))
    assert [event.refused.reason for event in one.events if hasattr(event, "refused")] == ["uses"]
    assert len(one.session.answers) == 2


def test_export_is_refused_from_its_end_on(half):
    one = half()
    export = one.hand_over()
    export.right = Right(expires_at=one.now + 10)
    one.now += 9.999
    one.hear(one.call(export.export_id, 1, "put"))
    one.now += 0.001
    one.hear(one.call(export.export_id, 1, "put"))
    assert kinds(one.events[-2:]) == ["Answer", "Refusal"]
    assert one.events[-1].refused.reason == "expired"


def test_refused_call_gives_its_slot_back(half):
    one = half("in_flight = 1")
    export = one.hand_over()
    (first,) = one.hear(one.call())
    one.hear(one.call(export.export_id, 1, "limited"))
    assert one.events[-1].refused.reason == "in_flight"
    one.session.return_(first, b"\xc0")
    one.hear(one.call(export.export_id, 1, "limited"))
    assert kinds(one.events[-1:]) == ["Answer"]


def test_reasons_of_the_session_are_on_the_closed_list(half):
    from caprpc.policy.refused import REASONS

    assert {
        "no-reference",
        "expired",
        "uses",
        "in_flight",
        "depth",
        "cancelled",
        "draining",
        "imports",
        "batch",
    } <= REASONS


def test_calls_beyond_in_flight_are_refused_with_limit(half):
    one = half("in_flight = 3")
    one.hear(*(one.call() for _ in range(4)))
    assert len(one.session.answers) == 3
    (refused,) = [message for message in one.said() if type(message) is m.Raise]
    assert (refused.code, refused.taken) == ("limit", False)
    assert one.ended is None


def test_answered_calls_make_room(half):
    one = half("in_flight = 1")
    for _ in range(5):
        (answer,) = one.hear(one.call())
        assert kinds([answer]) == ["Answer"]
        one.session.return_(answer, b"\xc0")


def test_calls_with_a_cause_have_room_of_their_own(half):
    one = half("in_flight = 1")
    question = one.ask(one.import_())
    one.hear(one.call())
    one.hear(one.call(meta=m.Meta(question.question_id)))
    assert kinds(one.events[-1:]) == ["Answer"]
    one.hear(one.call(meta=m.Meta(question.question_id)))
    assert one.events[-1].refused.reason == "in_flight"


def test_we_know_when_the_peer_has_room(half):
    one = half(peer_limits=m.PeerLimits(1_114_112, 2, 4_096, 32))
    target = one.import_()
    (answer,) = one.hear(one.call())
    asked = [one.ask(target), one.ask(target)]
    assert not one.session.may_ask(None)
    assert one.session.may_ask(Origin(answer))
    one.session.cancel(asked[0])
    assert not one.session.may_ask(None), "a cancelled call runs until it is answered"
    one.hear(m.Raise(asked[0].question_id, True, "cancelled", "", "", "R-1"))
    assert one.session.may_ask(None)


def test_nesting_to_the_limit_and_one_beyond(half):
    one = half("callback_depth = 2")
    target = one.import_()
    first = one.ask(target)
    (one_deep,) = one.hear(one.call(meta=m.Meta(first.question_id)))
    assert one_deep.depth == 1
    two_deep = one.ask(target, behalf=one_deep)
    assert two_deep.depth == 2
    one.hear(one.call(meta=m.Meta(two_deep.question_id)))
    assert one.events[-1].refused.reason == "depth"
    assert one.said()[-1].code == "limit"


def test_we_do_not_ask_beyond_the_nesting_limit(half):
    one = half("callback_depth = 1")
    target = one.import_()
    first = one.ask(target)
    (answer,) = one.hear(one.call(meta=m.Meta(first.question_id)))
    before = len(one.session.asked.open)
    with pytest.raises(LimitExceeded, match="callback_depth"):
        one.ask(target, behalf=answer)
    assert len(one.session.asked.open) == before


def test_call_on_behalf_of_an_answer_that_was_given_names_no_cause(half):
    one = half()
    target = one.import_()
    (answer,) = one.hear(one.call())
    one.session.return_(answer, b"\xc0")
    one.said()
    one.ask(target, behalf=answer)
    assert one.said()[0].meta is None


def test_arguments_that_the_peer_cannot_take_in_a_frame_are_not_sent(half):
    one = half(peer_limits=m.PeerLimits(2_048, 64, 4_096, 32))
    target = one.import_()
    one.said()
    with pytest.raises(LimitExceeded, match="max_frame_bytes"):
        one.session.ask(target, 1, "put", b"x" * 1_100, [], None, None)
    assert one.session.asked.open == {}
    assert one.said() == []


def test_questions_are_numbered_upwards_from_one(half):
    one = half()
    target = one.import_()
    assert [one.ask(target).question_id for _ in range(3)] == [1, 2, 3]
    assert [message.question for message in one.said() if type(message) is m.Call] == [1, 2, 3]


@pytest.mark.parametrize(
    "message",
    [m.Return(1, b"\xc0"), m.Raise(1, True, "internal", "", "", "R-1"), m.BatchReturn(1, [], b"\x90")],
    ids=["RETURN", "RAISE", "BATCH_RETURN"],
)
def test_answer_to_a_question_that_is_not_open_ends_the_session(message, half):
    one = half()
    one.hear(message)
    assert one.ended == "protocol-error"


def test_second_answer_ends_the_session(half):
    one = half()
    question = one.ask(one.import_())
    one.hear(m.Return(question.question_id, b"\xc0"))
    assert one.ended is None
    one.hear(m.Raise(question.question_id, True, "internal", "", "", "R-1"))
    assert one.ended == "protocol-error"
    assert type(question.outcome) is m.Return


def test_answers_may_come_in_any_order(half):
    one = half()
    target = one.import_()
    first, second = one.ask(target), one.ask(target)
    one.hear(m.Return(second.question_id, b"\x02"), m.Return(first.question_id, b"\x01"))
    assert (first.outcome.payload, second.outcome.payload) == (b"\x01", b"\x02")


def test_return_to_a_batch_ends_the_session(half):
    one = half()
    question = one.session.ask_batch([m.Run(1, 1, "put", 1, b"\x91" + EMPTY)])
    one.hear(m.Return(question.question_id, b"\x90"))
    assert one.ended == "protocol-error"
    assert isinstance(question.outcome, ConnectionLost)


def test_batch_return_to_a_call_ends_the_session(half):
    one = half()
    question = one.ask(one.import_())
    one.hear(m.BatchReturn(question.question_id, [], b"\x90"))
    assert one.ended == "protocol-error"
    assert isinstance(question.outcome, ConnectionLost)


def test_raise_may_end_a_batch_as_a_whole(half):
    one = half()
    question = one.session.ask_batch([m.Run(1, 1, "put", 1, b"\x91" + EMPTY)])
    one.hear(m.Raise(question.question_id, False, "unavailable", "", "", "R-1"))
    assert question.outcome.code == "unavailable"


def test_cancel_marks_the_answer_and_it_is_still_given_once(half):
    one = half()
    (answer,) = one.hear(one.call())
    events = one.hear(m.Cancel(answer.answer_id))
    assert kinds(events) == ["CancelRequest"]
    assert answer.cancelled
    one.session.raise_(answer, "cancelled", reference="R-1")
    one.session.return_(answer, b"\xc0")
    assert kinds(one.said()) == ["Raise"]


def test_late_cancel_is_legal(half):
    one = half()
    (answer,) = one.hear(one.call())
    one.session.return_(answer, b"\xc0")
    assert one.hear(m.Cancel(answer.answer_id)) == []
    assert one.ended is None


def test_cancel_is_sent_once_and_the_question_stays_open(half):
    one = half()
    question = one.ask(one.import_())
    one.said()
    one.session.cancel(question)
    one.session.cancel(question)
    assert one.said() == [m.Cancel(question.question_id)]
    assert one.session.asked.open == {question.question_id: question}


def test_callback_for_a_cancelled_call_is_refused(half):
    one = half()
    question = one.ask(one.import_())
    one.session.cancel(question)
    one.said()
    one.hear(one.call(meta=m.Meta(question.question_id)))
    assert one.said()[-1].code == "cancelled"


def run(target, member, count, operation=1):
    return m.Run(target, operation, member, count, b"\x90")


def test_each_run_of_a_batch_is_guarded(half):
    one = half()
    number = one.hand_over().export_id
    (answer,) = one.hear(m.Batch(1, None, [run(number, "put", 2), run(number, "hidden", 3), run(number + 1, "put", 1)]))
    verdicts = [verdict for _, _, verdict in answer.runs]
    assert [permit.member for permit in verdicts[0]] == ["put", "put"]
    assert [verdict.reason for verdict in verdicts[1:]] == ["not-granted", "no-reference"]
    assert one.session.answers == {1: answer}


def test_batch_of_more_calls_than_in_flight_ends_the_session(half):
    one = half("in_flight = 4")
    number = one.hand_over().export_id
    one.hear(m.Batch(1, None, [run(number, "put", 2), run(number, "put", 2)]))
    assert one.ended is None
    one.hear(m.Batch(2, None, [run(number, "put", 2), run(number, "put", 3)]))
    assert one.ended == "protocol-error"


def test_batch_with_a_wrong_operation_ends_the_session(half):
    one = half()
    one.hear(m.Batch(1, None, [run(1, "", 1)]))
    assert one.ended == "protocol-error"


def test_we_send_no_batch_that_the_peer_would_not_take(half):
    one = half(peer_limits=m.PeerLimits(1_114_112, 4, 4_096, 32))
    with pytest.raises(LimitExceeded, match="in_flight"):
        one.session.ask_batch([run(1, "put", 5)])
    assert one.said() == []
    assert one.session.asked.open == {}


def test_batch_without_room_is_refused_call_by_call(half):
    one = half("in_flight = 1")
    number = one.hand_over().export_id
    one.hear(one.call())
    (answer,) = one.hear(m.Batch(2, None, [run(number, "put", 1)]))
    assert answer.runs[0][2].reason == "in_flight"


def test_limited_member_in_a_batch_gives_its_slots_back_when_refused(half):
    one = half()
    number = one.hand_over().export_id
    (answer,) = one.hear(m.Batch(1, None, [run(number, "limited", 2)]))
    assert answer.runs[0][2].reason == "in_flight"
    (answer,) = one.hear(m.Batch(2, None, [run(number, "limited", 1)]))
    assert len(answer.runs[0][2]) == 1


def test_nothing_is_asked_after_the_end(half):
    one = half()
    target = one.import_()
    one.session.connection_lost("gone", one.events)
    with pytest.raises(ConnectionLost):
        one.ask(target)
    assert one.session.state is State.CLOSED


@pytest.mark.parametrize(("code", "may_have_run"), [("refused", False), ("internal", True), ("made-up", True)])
def test_whoever_is_refused_knows_that_nothing_of_it_has_run(code, may_have_run, half):
    one = half()
    question = one.ask(one.import_())
    one.hear(m.GoAway(code, "", "R-AAAAAAAAAAAA"))
    assert (question.outcome.may_have_run, question.outcome.reference) == (may_have_run, "R-AAAAAAAAAAAA")
    assert ("may or may not have run" in str(question.outcome)) is may_have_run


def test_a_session_needs_a_proved_identity(fresh):
    from caprpc.errors import LocalProtocolError
    from caprpc.session import Session

    one = fresh()
    with pytest.raises(LocalProtocolError):
        Session("spiffe://test.example/peer", one.guard, one.session.exports.get(0), one.session.opening, 0.0)
