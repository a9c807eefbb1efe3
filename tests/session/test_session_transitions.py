"""Which message may come when: every pair of state and message, and how a session opens and closes."""

from typing import get_args

import pytest

from caprpc.session import TRANSITIONS, State
from caprpc.session.opening import FEATURE_WITNESS, FEATURES
from caprpc.wire import messages as m

LIMITS = m.PeerLimits(1_114_112, 64, 4_096, 32)
NONCE = b"p" * 32
EMPTY = b"\x92\x90\x80"
KINDS = sorted(get_args(m.AnyMessage), key=lambda kind: kind.__name__)

LEGAL = {
    State.AWAIT_WELCOME: {m.Welcome, m.GoAway},
    State.AWAIT_HELLO: {m.Hello, m.GoAway},
    State.OPEN: set(KINDS) - {m.Welcome, m.Hello},
    State.DRAINING: set(KINDS) - {m.Welcome, m.Hello},
    State.PEER_DRAINING: set(KINDS) - {m.Welcome, m.Hello},
    State.BROKEN: set(),
    State.CLOSED: set(),
}
"""Written out by hand from section 4.4 of the wire protocol, so that a change of the table fails here."""


def half_in(state, fresh):
    half = fresh(acceptor=state is not State.AWAIT_WELCOME)
    if state in (State.AWAIT_WELCOME, State.AWAIT_HELLO):
        half.said()
        return half
    half.open()
    if state is State.DRAINING:
        half.session.drain()
    elif state is State.PEER_DRAINING:
        half.hear(m.GoAway("drain", "", ""))
    elif state is State.BROKEN:
        half.session.broken("a result that cannot be read")
    elif state is State.CLOSED:
        half.session.connection_lost("gone", half.events)
    assert half.session.state is state
    half.said()
    half.events.clear()
    return half


def message_of(kind, half):
    """Return a message of a kind that is fine in itself for this session as it stands."""
    if kind in (m.Welcome, m.Hello):
        return kind([1], NONCE, LIMITS, [])
    if kind is m.Facet:
        return m.Facet(1, "Box", [(1, "put")], 0)
    if kind in (m.Return, m.Raise, m.BatchReturn):
        question = half.session.asked.new(None if kind is m.BatchReturn else object(), 0, []).question_id
        if kind is m.Return:
            return m.Return(question, b"\xc0")
        if kind is m.Raise:
            return m.Raise(question, True, "internal", "", "", "R-1")
        return m.BatchReturn(question, [], b"\x90")
    if kind is m.Release:
        return (
            m.Release([(half.hand_over().export_id, 1)])
            if half.session.state is not State.CLOSED
            else m.Release([(1, 1)])
        )
    return {
        m.Call: half.call(),
        m.Cancel: m.Cancel(7),
        m.Finish: m.Finish(7),
        m.Revoked: m.Revoked([7]),
        m.Ping: m.Ping(7),
        m.Pong: m.Pong(7),
        m.GoAway: m.GoAway("drain", "", ""),
        m.Checkpoint: m.Checkpoint(b"note", 0, [], ["key"]),
        m.Cosigned: m.Cosigned("origin", 0, "", "key"),
        m.Batch: m.Batch(half.question(), None, [m.Run(0, 0, "box", 1, b"\x91\x92\x90\x80")]),
    }[kind]


def test_table_is_that_of_the_specification():
    assert {state: set(kinds) for state, kinds in TRANSITIONS.items()} == LEGAL


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", list(State), ids=lambda state: state.value)
def test_each_message_is_taken_or_ends_the_session(state, kind, fresh):
    half = half_in(state, fresh)
    half.session.opening.features = frozenset({FEATURE_WITNESS})
    half.hear(message_of(kind, half))
    if state is State.CLOSED:
        assert half.events == []
        assert half.said() == []
    elif kind in LEGAL[state] and kind is not m.Finish:
        assert half.ended is None
    else:
        assert half.ended == "protocol-error"
        assert [type(message) for message in half.said()][-1] is m.GoAway
        assert half.session.state is State.CLOSED


@pytest.mark.parametrize("kind", [m.Checkpoint, m.Cosigned], ids=lambda kind: kind.__name__)
def test_checkpoints_without_the_feature_end_the_session(kind, fresh):
    half = half_in(State.OPEN, fresh)
    half.hear(message_of(kind, half))
    assert half.ended == "protocol-error"


def test_a_flood_of_checkpoints_ends_the_session(fresh):
    half = half_in(State.OPEN, fresh)
    half.session.opening.features = frozenset({FEATURE_WITNESS})
    for _ in range(half.session.limits.glitch_burst):
        half.hear(message_of(m.Checkpoint, half))
    assert half.ended is None
    half.hear(message_of(m.Checkpoint, half))
    assert half.ended == "protocol-error"


def test_acceptor_speaks_first(fresh):
    assert [type(message) for message in fresh(acceptor=True).said()] == [m.Welcome]
    assert fresh(acceptor=False).said() == []


def test_dialer_answers_welcome_with_hello(fresh):
    half = fresh(acceptor=False)
    half.hear(m.Welcome([1, 2], NONCE, LIMITS, []))
    (hello,) = half.said()
    assert type(hello) is m.Hello
    assert hello.versions == [1]
    assert hello.features == []


def test_calls_may_stand_right_behind_hello(fresh):
    half = fresh()
    half.hear(m.Hello([1], NONCE, LIMITS, []), half.call())
    assert [type(event).__name__ for event in half.events] == ["Opened", "Answer"]


def test_connection_id_is_the_same_on_both_sides(fresh):
    server = fresh(acceptor=True, ours="sha256:" + "1" * 64, theirs="sha256:" + "2" * 64)
    client = fresh(acceptor=False, ours="sha256:" + "2" * 64, theirs="sha256:" + "1" * 64)
    client.hear(*server.said())
    server.hear(*client.said())
    assert server.session.state is client.session.state is State.OPEN
    assert server.session.opening.connection_id == client.session.opening.connection_id
    assert len(server.session.opening.connection_id) == 32


def test_connection_id_differs_for_the_same_keys(fresh):
    ids = set()
    for _ in range(2):
        server, client = fresh(acceptor=True), fresh(acceptor=False)
        client.hear(*server.said())
        server.hear(*client.said())
        ids.add(server.session.opening.connection_id)
    assert len(ids) == 2


@pytest.mark.parametrize("versions", [[2], [1, 2], [2, 3]])
def test_dialer_that_chose_not_exactly_our_version_is_ended(versions, fresh):
    half = fresh()
    half.hear(m.Hello(versions, NONCE, LIMITS, []))
    assert half.ended == "protocol-error"


def test_acceptor_without_our_version_is_ended(fresh):
    half = fresh(acceptor=False)
    half.hear(m.Welcome([2, 3], NONCE, LIMITS, []))
    assert half.ended == "protocol-error"


@pytest.mark.parametrize(
    "limits",
    [
        (1_023, 64, 64, 32),
        (1_024, 0, 64, 32),
        (1_024, 1, 0, 32),
        (1_024, 1, 1, 0),
        (1_024, 1, 1, 1, 15, 64, 32, 0),
        (1_024, 1, 1, 1, 16, 63, 32, 0),
        (1_024, 1, 1, 1, 16, 64, 31, 0),
    ],
    ids=["frame", "in_flight", "references", "depth", "items", "int_bits", "key_bytes"],
)
def test_limits_below_the_least_end_the_session(limits, fresh):
    half = fresh()
    half.hear(m.Hello([1], NONCE, m.PeerLimits(*limits), []))
    assert half.ended == "protocol-error"


def test_least_limits_are_accepted(fresh):
    half = fresh()
    half.hear(m.Hello([1], NONCE, m.PeerLimits(1_024, 1, 1, 1, 16, 64, 32, 0), []))
    assert half.session.state is State.OPEN
    sends = half.session.opening.sends
    assert (sends.max_depth, sends.max_items, sends.max_int_bits) == (1, 16, 64)
    assert (sends.max_key_bytes, sends.max_pair_keys) == (32, 0)


def test_features_that_were_not_offered_end_the_session(fresh):
    half = fresh()
    half.hear(m.Hello([1], NONCE, LIMITS, ["keep"]))
    assert half.ended == "protocol-error"


@pytest.mark.parametrize("acceptor", [True, False])
def test_feature_that_is_named_twice_ends_the_session(acceptor, fresh):
    half = fresh(acceptor=acceptor)
    kind = m.Hello if acceptor else m.Welcome
    half.hear(kind([1], NONCE, LIMITS, ["deadline", "deadline"]))
    assert half.ended == "protocol-error"


def test_dialer_chooses_what_both_sides_speak(fresh):
    half = fresh(acceptor=False)
    half.hear(m.Welcome([1], NONCE, LIMITS, ["deadline", "of-a-later-version"]))
    (hello,) = half.said()
    assert hello.features == ["deadline"]
    assert half.session.opening.features == {"deadline"}


def test_acceptor_uses_what_the_dialer_has_chosen(fresh):
    half = fresh()
    (welcome,) = half.said()
    assert welcome.features == sorted(FEATURES)
    half.hear(m.Hello([1], NONCE, LIMITS, []))
    assert half.session.opening.features == set()


def test_first_frame_is_bounded_before_its_body_comes(fresh):
    half = fresh()
    half.hear_bytes((16_385).to_bytes(4, "big"))
    assert half.ended == "protocol-error"


def test_later_frames_may_be_as_large_as_announced(half):
    one = half()
    most = one.session.limits.max_frame_bytes
    one.hear_bytes(most.to_bytes(4, "big"))
    assert one.ended is None
    two = half()
    two.hear_bytes((most + 1).to_bytes(4, "big"))
    assert two.ended == "protocol-error"


def test_nothing_behind_a_bad_message_is_looked_at(half):
    one = half()
    events = one.hear(m.Finish(1), one.call())
    assert [type(event).__name__ for event in events] == ["Ended"]


def test_protocol_error_ends_only_its_own_session(half):
    one, other = half(), half()
    one.hear(m.Finish(1))
    other.hear(other.call())
    assert one.ended == "protocol-error"
    assert other.ended is None
    assert type(other.events[-1]).__name__ == "Answer"


def test_reason_of_a_protocol_error_stays_here(half):
    one = half()
    one.hear(m.Finish(1))
    (goaway,) = one.said()
    assert goaway.text == ""
    assert goaway.reference.startswith("R-")


def test_goaway_ends_questions_and_imports(half):
    one = half()
    imported = one.import_()
    question = one.ask(imported)
    one.hear(m.GoAway("expired", "", "R-7"))
    assert question.outcome.code == "expired"
    assert question.outcome.reference == "R-7"
    assert not imported.alive
    assert len(one.session.imports) == 0


def test_text_of_a_peers_goaway_cannot_steer_a_terminal(half):
    one = half()
    question = one.ask(one.import_())
    one.hear(m.GoAway("closed\x1b[2J", "\x1b[31mred\n", "R-\x1b"))
    assert "\x1b" not in str(question.outcome)
    assert "\n" not in str(question.outcome)
    assert question.outcome.code == "internal"
    assert "\x1b" not in question.outcome.reference


def test_unknown_code_of_goaway_is_internal(half):
    one = half()
    one.hear(m.GoAway("whatever", "", ""))
    assert one.ended == "internal"


def test_lost_connection_ends_questions_with_lost(half):
    one = half()
    question = one.ask(one.import_())
    one.session.connection_lost("gone", one.events)
    assert question.outcome.code == "lost"


def test_end_cancels_what_runs(half):
    one = half()
    (answer,) = one.hear(one.call())
    one.session.connection_lost("gone", one.events)
    assert answer.cancelled
    one.session.return_(answer, b"\xc0")
    assert one.said() == []


def test_broken_session_ends_at_its_next_tick(half):
    one = half()
    question = one.ask(one.import_())
    one.session.broken("a result that cannot be read")
    assert one.session.deadline() <= one.now
    one.session.tick(one.now, one.events)
    assert one.ended == "protocol-error"
    assert "a result that cannot be read" in str(question.outcome)
    assert type(one.said()[-1]) is m.GoAway


def test_draining_announces_itself_once(half):
    one = half()
    one.session.drain()
    one.session.drain()
    assert [(type(message), message.code) for message in one.said()] == [(m.GoAway, "drain")]


def test_new_calls_are_unavailable_while_draining(half):
    one = half()
    one.session.drain()
    one.said()
    one.hear(one.call())
    (answer,) = one.said()
    assert (answer.code, answer.taken) == ("unavailable", False)


def test_callbacks_still_come_while_draining(half):
    one = half()
    question = one.ask(one.import_())
    one.session.drain()
    events = one.hear(one.call(meta=m.Meta(question.question_id)))
    assert [type(event).__name__ for event in events] == ["Answer"]


def test_nothing_new_is_asked_of_a_peer_that_drains(half):
    from caprpc.errors import ConnectionLost

    one = half()
    imported = one.import_()
    one.hear(m.GoAway("drain", "", ""))
    with pytest.raises(ConnectionLost) as caught:
        one.ask(imported)
    assert caught.value.code == "drain"


def test_callbacks_are_still_made_to_a_peer_that_drains(half):
    one = half()
    imported = one.import_()
    (answer,) = one.hear(one.call())
    one.hear(m.GoAway("drain", "", ""))
    one.said()
    one.ask(imported, behalf=answer)
    (call,) = one.said()
    assert call.meta.cause == answer.answer_id


def test_drained_when_nothing_runs_and_nothing_is_awaited(half):
    one = half()
    (answer,) = one.hear(one.call())
    one.session.drain()
    assert not one.session.drained
    one.session.return_(answer, b"\xc0")
    assert one.session.drained


def test_nothing_is_exported_on_a_session_that_has_ended(half):
    from caprpc.errors import ConnectionLost

    one = half()
    one.session.connection_lost("gone", one.events)
    with pytest.raises(ConnectionLost):
        one.hand_over()
    assert len(one.session.exports) == 0
    assert one.said() == []
