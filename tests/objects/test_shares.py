"""One principal may not occupy all workers."""

from math import inf

from caprpc.objects.shares import Shares


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def full(workers=4, wait_s=1.0):
    """Return shares of which two principals hold all, and their clock."""
    clock = Clock()
    shares = Shares(workers, wait_s, clock)
    for name in ("mallory", "bob"):
        assert all(shares.take(name, f"{name} {number}") for number in range(workers // 2))
    return shares, clock


def test_a_principal_occupies_half_of_the_workers_at_most():
    shares = Shares(8)
    assert [shares.take("mallory", number) for number in range(5)] == [True] * 4 + [False]
    assert shares.take("alice", "alice")


def test_a_place_goes_to_whoever_of_the_principal_has_waited_longest():
    shares = Shares(4)
    for number in range(5):
        shares.take("mallory", number)
    assert [shares.give_back("mallory") for _ in range(5)] == [2, 3, 4, None, None]
    assert shares.take("mallory", "again")


def test_one_worker_can_still_be_had():
    shares = Shares(1)
    assert shares.take("alice", "alice")
    assert not shares.take("alice", "second")


def test_a_call_waits_for_others_until_its_time_is_over_and_not_longer():
    shares, clock = full()
    assert shares.due == inf
    assert not shares.take("alice", "alice")
    assert shares.crowded
    assert shares.due == 101.0
    clock.now = 100.999
    assert shares.overdue(10) == []
    clock.now = 101.0
    assert shares.overdue(10) == ["alice"]
    assert not shares.crowded
    assert shares.due == inf
    assert shares.overdue(10) == []


def test_a_worker_that_becomes_free_goes_to_whoever_has_waited_for_others_longest():
    shares, clock = full()
    for name in ("alice", "carol"):
        assert not shares.take(name, name)
        clock.now += 0.1
    assert shares.give_back("mallory") == "alice"
    assert shares.give_back("bob") == "carol"
    assert shares.give_back("alice") is None
    assert shares.take("dave", "dave")


def test_whoever_has_waited_for_its_own_principal_waits_for_others_behind_them():
    shares, clock = full()
    assert not shares.take("mallory", "mallory late")
    clock.now = 100.5
    assert not shares.take("alice", "alice")
    clock.now = 100.7
    assert shares.give_back("mallory") == "alice"
    # From now on, and not from when it came.
    assert shares.due == 101.7
    clock.now = 101.7
    assert shares.overdue(10) == ["mallory late"]


def test_one_that_waits_for_others_counts_in_the_share_of_its_principal():
    shares, clock = full()
    assert [shares.take("alice", number) for number in range(3)] == [False] * 3
    clock.now = 101.0
    # The third has waited for the two before it: its time begins now.
    assert shares.overdue(10) == [0, 1]
    assert shares.due == 102.0
    clock.now = 102.0
    assert shares.overdue(10) == [2]
    assert shares.give_back("bob") is None
    assert shares.take("alice", "again")


def test_no_more_than_wanted_are_turned_away_at_a_time():
    shares, clock = full()
    for name in ("alice", "carol", "dave"):
        shares.take(name, name)
    clock.now = 200.0
    assert shares.overdue(2) == ["alice", "carol"]
    assert shares.overdue(2) == ["dave"]


def test_whoever_withdraws_leaves_its_place_to_the_next_of_its_principal():
    shares, _ = full()
    for number in range(4):
        shares.take("alice", number)
    shares.withdraw("alice", 3)
    shares.withdraw("alice", 0)
    shares.withdraw("alice", "nobody")
    shares.withdraw("nobody", 0)
    assert [shares.give_back(name) for name in ("mallory", "bob", "mallory", "bob")] == [1, 2, None, None]
    assert [shares.give_back("alice") for _ in range(2)] == [None, None]


def test_a_thread_that_is_busy_anyway_counts_as_a_worker():
    shares, _ = full()
    shares.occupy("mallory")
    assert not shares.take("alice", "alice")
    # One of mallory's five has ended, and there are four workers: all are taken.
    assert shares.give_back("mallory") is None
    assert shares.give_back("mallory") == "alice"


def test_a_thread_that_is_busy_anyway_counts_in_the_share_of_its_principal():
    shares = Shares(4)
    shares.occupy("mallory")
    assert [shares.take("mallory", number) for number in range(2)] == [True, False]
    assert shares.give_back("mallory") == 1


def test_calls_that_were_there_wait_from_then_on_and_those_that_came_later_from_when_the_others_have_begun():
    shares, clock = full(8)
    calls = ["first", "second", "third"]
    assert not shares.take("alice", "alice", calls)
    clock.now = 100.4
    assert shares.give_back("bob") == "alice"
    # The first has begun, and another has come.
    del calls[0]
    calls.append("fourth")
    assert not shares.take("alice", "alice", calls)
    assert shares.due == 101.0
    clock.now = 100.6
    assert shares.give_back("bob") == "alice"
    # All that were there have begun, but for the third.
    del calls[0]
    assert not shares.take("alice", "alice", calls)
    assert shares.due == 101.0
    clock.now = 100.9
    assert shares.give_back("bob") == "alice"
    del calls[0]
    assert not shares.take("alice", "alice", calls)
    clock.now = 101.5
    assert shares.overdue(10) == []
    clock.now = 101.9
    assert shares.overdue(10) == ["alice"]


def test_whoever_comes_back_stands_behind_the_others():
    shares, _ = full()
    calls = ["first", "second"]
    assert not shares.take("alice", "alice", calls)
    assert not shares.take("carol", "carol")
    assert shares.give_back("bob") == "alice"
    assert not shares.take("alice", "alice", calls[1:])
    assert [shares.give_back("bob"), shares.give_back("mallory")] == ["carol", "alice"]


def test_the_time_of_calls_that_were_refused_is_not_that_of_the_next():
    shares, clock = full()
    calls = ["first", "second"]
    assert not shares.take("alice", "alice", calls)
    clock.now = 101.0
    assert shares.overdue(10) == ["alice"]
    assert not shares.take("alice", "alice", calls)
    assert shares.due == 102.0
