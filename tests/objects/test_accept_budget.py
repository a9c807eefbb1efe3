"""The budget of accepts at its edges, with a clock of its own: N passes, N + 1 waits, and the operator is told why."""

import pytest

from caprpc.limits import ServerLimits
from caprpc.objects.accepting import FULL_POLL_S, SAY_S, AcceptBudget, source_of
from caprpc.objects.sources import WASTED

NOW = 1000.0
PLENTY = {"accept_per_s": 1000.0, "accept_burst": 10_000}


def budget(**limits):
    return AcceptBudget(ServerLimits(**limits), NOW)


def come(budget, now=NOW, host="127.0.0.1"):
    """Accept one if there is room now."""
    return None if budget.wait(now) else budget.come(host)


def speak(budget, name, host="127.0.0.1"):
    """Have one come and say something."""
    place = budget.come(host)
    budget.speaks(name, place)
    return place


def begun(budget, now=NOW):
    """Let begin all whose turn it is."""
    names = []
    while (chosen := budget.next(now)) is not None:
        names.append(chosen[0])
        budget.begin(chosen[1], now)
    return names


def test_accept_burst_connections_begin_at_once_and_the_next_waits():
    made = budget(accept_burst=3, accept_per_s=2.0)
    for name in range(4):
        speak(made, name)
    assert begun(made) == [0, 1, 2]
    assert made.due() == pytest.approx(0.5)
    assert made.wait(NOW) == 0.0, "whoever comes next may be of another source"


def test_accept_per_s_is_earned_back_and_no_more_than_the_burst():
    made = budget(accept_burst=3, accept_per_s=2.0)
    for name in range(10):
        speak(made, name)
    assert begun(made) == [0, 1, 2]
    assert begun(made, NOW + 0.49) == []
    assert begun(made, NOW + 0.5) == [3]
    assert begun(made, NOW + 3600) == [4, 5, 6]


def test_who_has_gone_or_says_nothing_takes_no_token():
    made = budget(accept_burst=2, accept_per_s=0.001)
    for _ in range(10):
        made.leave(come(made), NOW)
        made.next(NOW)
    assert made.due() is None
    gone = speak(made, "gone")
    assert made.next(NOW) == ("gone", gone)
    made.leave(gone, NOW)
    for name in "ab":
        speak(made, name)
    assert begun(made) == ["a", "b"]
    assert (made.open, made.unauthenticated) == (2, 2)


def test_sources_take_turns():
    made = budget(accept_burst=1, accept_per_s=1.0)
    for number in range(20):
        speak(made, f"flood {number}")
    speak(made, "good", "192.0.2.1")
    speak(made, "other", "192.0.2.2")
    assert begun(made) == ["flood 0"]
    assert [name for second in (1, 2, 3) for name in begun(made, NOW + second)] == ["good", "other", "flood 1"]


def test_a_source_that_wastes_its_turns_gets_fewer_places_and_is_not_waited_for():
    made = budget(unauthenticated_per_address=8, **PLENTY)
    places = [speak(made, number) for number in range(8)]
    assert made.wait(NOW) == FULL_POLL_S, "they will make use of it, and those behind them are in order"
    for number in range(WASTED):
        begun(made)
        made.leave(places.pop(0), NOW)
        places.append(speak(made, number))
    begun(made)
    assert made.wait(NOW) == 0.0
    assert made.refuses("127.0.0.1", NOW)
    assert not made.refuses("192.0.2.1", NOW)
    newest = come(made)
    assert made.crowded(newest, NOW) == "127.0.0.1"
    assert made.crowded(come(made, host="192.0.2.1"), NOW) is None
    # And is like others again after a while.
    for place in (*places, newest):
        made.leave(place, NOW)
    later = NOW + 60
    assert not made.refuses("127.0.0.1", NOW)
    eight = [come(made, later) for _ in range(8)]
    assert not any(made.crowded(place, later) for place in eight)


def test_a_source_whose_peers_prove_themselves_may_go_on_for_ever():
    made = budget(unauthenticated_per_address=8, **PLENTY)
    for number in range(10 * WASTED):
        place = speak(made, number)
        begun(made)
        made.prove(place)
    assert all(made.crowded(come(made), NOW) is None for _ in range(8))


def test_wasteful_sources_give_way_when_all_places_are_taken():
    made = budget(unauthenticated_per_address=8, max_unauthenticated=32, **PLENTY)
    for host in range(4):
        for number in range(8):
            speak(made, number, f"192.0.2.{host}")
    assert made.wait(NOW) == FULL_POLL_S
    for host in range(4):
        for _ in range(WASTED):
            made.leave(come(made, host=f"192.0.2.{host}") or made.come(f"192.0.2.{host}"), NOW)
    assert made.wait(NOW) == 0.0
    good = made.come("198.51.100.1")
    crowded = made.crowded(good, NOW)
    assert crowded.startswith("192.0.2.")
    assert made.give_up(crowded)[1].source == crowded


def test_the_past_of_sources_takes_bounded_memory():
    made = budget(**PLENTY)
    for number in range(5_000):
        made.leave(made.come(f"10.0.{number >> 8}.{number & 255}"), NOW)
    assert len(made._sources._sources) <= 1_024


def test_what_waits_no_more_is_forgotten():
    made = budget(accept_burst=1, accept_per_s=0.001)
    places = [speak(made, name) for name in ("a", "b", "c")]
    assert made.forget("b") is places[1]
    assert made.forget("b") is None
    assert made.give_up("127.0.0.1") == ("c", places[2])
    assert made.give_up("127.0.0.2") is None
    assert [name for name, _ in made.waiting()] == ["a"]
    assert begun(made) == ["a"]
    assert made.due() is None


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
    made.leave(places[0], NOW)
    assert come(made)


def test_a_peer_that_has_proved_itself_leaves_its_place_to_a_stranger_and_stays_counted():
    made = budget(max_unauthenticated=1, max_connections=2, **PLENTY)
    first = come(made)
    assert come(made) is None
    made.prove(first)
    assert come(made)
    assert (made.open, made.unauthenticated) == (2, 1)
    made.leave(first, NOW)
    made.leave(first, NOW)
    assert (made.open, made.unauthenticated) == (1, 1)


def test_share_of_one_address_at_its_edge(caplog):
    made = budget(unauthenticated_per_address=2, **PLENTY)
    places = [come(made) for _ in range(2)]
    assert not any(made.crowded(place, NOW) for place in places)
    third = come(made)
    assert made.crowded(third, NOW) == "127.0.0.1"
    assert "2 reached (ServerLimits.unauthenticated_per_address)" in caplog.text
    assert not made.crowded(come(made, host="127.0.0.2"), NOW)
    made.leave(places[0], NOW)
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
