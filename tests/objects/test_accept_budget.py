"""The budget of accepts at its edges, with a clock of its own: N passes, N + 1 waits, and the operator is told why."""

import pytest

from caprpc.limits import ServerLimits
from caprpc.objects.accepting import FULL_POLL_S, SAY_S, AcceptBudget, source_of

NOW = 1000.0
PLENTY = {"accept_per_s": 1000.0, "accept_burst": 10_000}


def budget(**limits):
    return AcceptBudget(ServerLimits(**limits), NOW)


def come(budget, now=NOW, host="127.0.0.1"):
    """Accept one if there is room now."""
    return None if budget.wait(now) else budget.come(host)


def test_accept_burst_connections_come_at_once_and_the_next_waits():
    made = budget(accept_burst=3, accept_per_s=2.0)
    assert all(come(made) for _ in range(3))
    assert made.wait(NOW) == pytest.approx(0.5)


def test_accept_per_s_is_earned_back_and_no_more_than_the_burst():
    made = budget(accept_burst=3, accept_per_s=2.0)
    for _ in range(3):
        come(made)
    assert made.wait(NOW + 0.49) > 0
    assert come(made, NOW + 0.5)
    assert made.wait(NOW + 0.5) > 0
    assert [come(made, NOW + 3600) is not None for _ in range(4)] == [True, True, True, False]


def test_a_look_that_finds_nobody_costs_nothing():
    made = budget(accept_burst=3, accept_per_s=0.001)
    assert [made.wait(NOW) for _ in range(10)] == [0.0] * 10
    assert (made.open, made.unauthenticated) == (0, 0)


@pytest.mark.parametrize(
    ("knob", "limits"),
    [
        ("max_connections", {"max_connections": 3}),
        ("max_unauthenticated", {"max_unauthenticated": 3}),
    ],
)
def test_places_at_their_edge(knob, limits, caplog):
    made = budget(**limits, **PLENTY)
    places = [come(made) for _ in range(3)]
    assert all(places)
    assert not caplog.records
    assert made.wait(NOW) == FULL_POLL_S
    assert f"3 reached (ServerLimits.{knob})" in caplog.text
    made.leave(places[0])
    assert come(made)


def test_a_peer_that_has_proved_itself_leaves_its_place_to_a_stranger_and_stays_counted():
    made = budget(max_unauthenticated=1, max_connections=2, **PLENTY)
    first = come(made)
    assert come(made) is None
    made.prove(first)
    assert come(made)
    assert (made.open, made.unauthenticated) == (2, 1)
    made.leave(first)
    made.leave(first)
    assert (made.open, made.unauthenticated) == (1, 1)


def test_share_of_one_address_at_its_edge(caplog):
    made = budget(unauthenticated_per_address=2, **PLENTY)
    places = [come(made) for _ in range(2)]
    assert not any(made.crowded(place, NOW) for place in places)
    third = come(made)
    assert made.crowded(third, NOW)
    assert "2 reached (ServerLimits.unauthenticated_per_address)" in caplog.text
    assert not made.crowded(come(made, host="127.0.0.2"), NOW)
    made.leave(places[0])
    assert not made.crowded(third, NOW)


def test_the_operator_is_told_once_a_minute(caplog):
    made = budget(max_connections=1, **PLENTY)
    come(made)
    for step in range(3):
        made.wait(NOW + step)
    assert len(caplog.records) == 1
    made.wait(NOW + SAY_S)
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_what_counts_as_one_source(address, source):
    assert source_of(address) == source
