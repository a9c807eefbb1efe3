"""One principal may not occupy all workers."""

from caprpc.objects.shares import Shares


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
