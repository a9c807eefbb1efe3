"""When to connect again, and which calls may be made again: without a clock and without a network."""

import pytest

from caprpc import ConfigurationError, ConnectionLost, Reconnect, ReferenceDead, RemoteError
from caprpc.errors import CLOSE_CODES
from caprpc.objects.reconnect import NO_ATTEMPTS, Attempts, Backoff, ended_for_good


class Declared:
    def __init__(self, *, idempotent, takes_references=False):
        self.idempotent = idempotent
        self.takes_references = takes_references


def delays(plan, count):
    backoff = Backoff(plan)
    return [backoff.next_s() for _ in range(count)]


def test_delays_double_up_to_the_longest():
    plan = Reconnect(first_s=0.1, most_s=1.0, random=lambda: 1.0)
    assert delays(plan, 6) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_delays_are_spread_between_half_and_all():
    assert delays(Reconnect(first_s=0.1, most_s=1.0, random=lambda: 0.0), 3) == pytest.approx([0.05, 0.1, 0.2])
    real = delays(Reconnect(first_s=1.0, most_s=1.0), 200)
    assert all(0.5 <= delay <= 1.0 for delay in real)
    assert len(set(real)) > 100


def test_delays_stay_finite_after_any_number_of_attempts():
    assert delays(Reconnect(first_s=0.1, most_s=30.0, random=lambda: 1.0), 5_000)[-1] == 30.0


def test_long_life_begins_again_and_a_short_one_does_not():
    backoff = Backoff(Reconnect(first_s=1.0, most_s=8.0, random=lambda: 1.0))
    assert [backoff.next_s(), backoff.next_s()] == [1.0, 2.0]
    backoff.lived(7.9)
    assert backoff.next_s() == 4.0
    backoff.lived(8.0)
    assert backoff.next_s() == 1.0


def test_attempts_are_counted_since_the_last_good_connection():
    assert delays(Reconnect(attempts=2, random=lambda: 1.0), 3)[2] is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_s": 0.0},
        {"first_s": -1.0},
        {"first_s": 40.0},
        {"most_s": float("inf")},
        {"retries": -1},
        {"attempts": 0},
    ],
)
def test_senseless_plans_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="reconnect"):
        Reconnect(**wrong)


@pytest.mark.parametrize("code", sorted(CLOSE_CODES | {"lost"}))
def test_decisions_are_final_and_losses_are_not(code):
    assert ended_for_good(code) == (code in {"refused", "version", "protocol-error", "expired", "revoked"})


def test_what_was_not_sent_may_always_be_made_again():
    attempts = Attempts(Reconnect(), Declared(idempotent=False))
    attempts.failed(ReferenceDead("dead"), over=True)
    attempts.failed(ConnectionLost("draining", may_have_run=False), over=True)


@pytest.mark.parametrize(
    ("declared", "times"),
    [
        (Declared(idempotent=False), 0),
        (Declared(idempotent=True), 3),
        (Declared(idempotent=True, takes_references=True), 0),
    ],
    ids=["other", "idempotent", "lends"],
)
@pytest.mark.parametrize("error", [ConnectionLost("lost"), RemoteError("stopping", code="unavailable")], ids=type)
def test_what_may_have_run_is_made_again_as_often_as_declared_and_said(declared, times, error):
    attempts = Attempts(Reconnect(retries=3), declared)
    for _ in range(times):
        attempts.failed(error, over=True)
    with pytest.raises(type(error)):
        attempts.failed(error, over=True)


def test_answer_of_the_peer_is_never_a_loss():
    for error in (RemoteError("no", code="internal"), RemoteError("no", code="denied")):
        with pytest.raises(RemoteError):
            Attempts(Reconnect(retries=3), Declared(idempotent=True)).failed(error, over=True)


def test_failure_while_the_connection_lives_is_no_loss():
    for error in (ReferenceDead("revoked"), ConnectionLost("odd"), RemoteError("busy", code="unavailable")):
        with pytest.raises(type(error)):
            Attempts(Reconnect(retries=3), Declared(idempotent=True)).failed(error, over=False)


def test_what_is_made_once_is_shared_and_stays_so():
    for _ in range(3):
        with pytest.raises(ConnectionLost):
            NO_ATTEMPTS.failed(ConnectionLost("lost"), over=True)
