"""Time in the session, which is an argument: signs of life, frame progress, and the budget for useless messages."""

import pytest

from caprpc.wire import messages as m
from caprpc.wire.codec import encode_message


def tick(one, at):
    one.now = at
    one.session.tick(at, one.events)


def test_first_message_must_come_in_time(fresh):
    one = fresh("hello_timeout_s = 2.0")
    start = one.now
    assert one.session.deadline() == start + 2.0
    tick(one, start + 1.999)
    assert one.ended is None
    tick(one, start + 2.0)
    assert one.ended == "idle"


def test_silence_is_met_with_a_ping_and_then_with_the_end(half):
    one = half("idle_s = 10")
    start = one.now
    tick(one, start + 9.9)
    assert one.said() == []
    tick(one, start + 10)
    assert one.said() == [m.Ping(0)]
    tick(one, start + 15)
    assert one.said() == []
    tick(one, start + 20)
    assert one.ended == "idle"
    assert one.said()[-1].code == "idle"


def test_any_bytes_are_a_sign_of_life(half):
    one = half("idle_s = 10")
    start = one.now
    tick(one, start + 10)
    one.said()
    one.now = start + 19
    one.hear_bytes(b"\x00")
    tick(one, start + 20)
    assert one.ended is None


def test_peer_that_answers_is_asked_again_and_not_given_up(half):
    one = half("idle_s = 10")
    for _ in range(10):
        tick(one, one.session.deadline())
        assert one.said() == [m.Ping(0)]
        one.now += 1
        one.hear(m.Pong(0))
    assert one.ended is None


def test_deadline_is_when_the_next_tick_is_due(half):
    one = half("idle_s = 10")
    start = one.now
    assert one.session.deadline() == start + 10
    tick(one, start + 10)
    assert one.session.deadline() == start + 20


def test_ping_is_answered_with_its_number(half):
    one = half()
    one.hear(m.Ping(77))
    assert one.said() == [m.Pong(77)]


def test_frame_that_makes_no_progress_ends_the_session(half):
    one = half("frame_grace_s = 5.0\nframe_bytes_per_s = 1000")
    start = one.now
    one.hear_bytes((100_000).to_bytes(4, "big") + b"x" * 999)
    tick(one, start + 5.5)
    assert one.ended is None
    tick(one, start + 6.5)
    assert one.ended == "idle"


def test_grace_of_a_frame_at_its_edge(half):
    one = half("frame_grace_s = 5.0\nframe_bytes_per_s = 1000000")
    start = one.now
    one.hear_bytes((100_000).to_bytes(4, "big") + b"x")
    tick(one, start + 5.0)
    assert one.ended is None
    tick(one, start + 5.01)
    assert one.ended == "idle"


@pytest.mark.parametrize(("received", "ended"), [(1000, None), (999, "idle")])
def test_progress_of_a_frame_at_its_edge(received, ended, half):
    one = half("frame_grace_s = 5.0\nframe_bytes_per_s = 1000")
    header = (100_000).to_bytes(4, "big")
    one.hear_bytes(header + b"x" * (received - len(header)))
    tick(one, one.now + 6.0)
    assert one.ended == ended


def test_frame_that_makes_progress_may_take_its_time(half):
    one = half("frame_grace_s = 5.0\nframe_bytes_per_s = 1000")
    start = one.now
    one.hear_bytes((100_000).to_bytes(4, "big"))
    for second in range(1, 60):
        one.now = start + second
        one.hear_bytes(b"x" * 1000)
        tick(one, one.now)
    assert one.ended is None


def test_frame_progress_begins_anew_with_each_frame(half):
    one = half("frame_grace_s = 5.0\nframe_bytes_per_s = 1000")
    pong = encode_message(m.Pong(1))
    one.hear_bytes(pong[:5])
    one.now += 4
    one.hear_bytes(pong[5:] + pong[:5])
    tick(one, one.now + 4.9)
    assert one.ended is None


def test_deadline_covers_a_frame_under_way(half):
    one = half("frame_grace_s = 5.0")
    one.hear_bytes(b"\x00\x00\x10\x00x")
    assert one.session.deadline() == one.now + 5.0


def test_tick_after_the_end_does_nothing(half):
    one = half()
    one.session.connection_lost("gone", one.events)
    tick(one, one.now + 1e9)
    assert one.said() == []


@pytest.mark.parametrize("kind", ["ping", "pong", "cancel", "refused", "batch"])
def test_useless_messages_end_the_session_when_the_budget_is_spent(kind, half):
    one = half("glitch_burst = 3\nglitch_per_s = 1.0")

    def useless():
        return {
            "ping": m.Ping(1),
            "pong": m.Pong(1),
            "cancel": m.Cancel(99),
            "refused": one.call(9, 1, "put"),
            "batch": m.Batch(one.question(), None, [m.Run(9, 1, "put", 1, b"\x90")]),
        }[kind]

    for _ in range(3):
        one.hear(useless())
        assert one.ended is None
    one.hear(useless())
    assert one.ended == "protocol-error"


def test_each_refused_call_of_a_batch_costs_budget(half):
    one = half("glitch_burst = 3\nglitch_per_s = 1.0")
    one.hear(m.Batch(1, None, [m.Run(9, 1, "put", 4, b"\x90")]))
    assert one.ended == "protocol-error"


def test_budget_is_refilled_by_time(half):
    one = half("glitch_burst = 3\nglitch_per_s = 1.0")
    for _ in range(20):
        one.hear(m.Ping(1))
        one.now += 1.0
    assert one.ended is None


def test_budget_never_holds_more_than_the_burst(half):
    one = half("glitch_burst = 3\nglitch_per_s = 1.0")
    one.now += 1_000
    one.hear(*(m.Ping(1) for _ in range(4)))
    assert one.ended == "protocol-error"


def test_clock_that_goes_backwards_gives_nothing(half):
    one = half("glitch_burst = 1\nglitch_per_s = 1.0")
    one.hear(m.Ping(1))
    one.now -= 100
    one.hear(m.Ping(1))
    assert one.ended == "protocol-error"


def test_permitted_calls_cost_no_budget(half):
    one = half("glitch_burst = 1")
    for _ in range(50):
        (answer,) = one.hear(one.call())
        one.session.return_(answer, b"\xc0")
    assert one.ended is None
