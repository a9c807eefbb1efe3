"""Rights: derived ones live, last and count no more than what they came from, whatever is done to either."""

import gc
import sys
import threading
import weakref
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caprpc.errors import LimitExceeded
from caprpc.policy import MOST_DERIVATIONS, OVER, REVOKED, Right

TERMS = st.fixed_dictionaries(
    {},
    optional={
        "expires_at": st.sampled_from([5.0, 10.0, inf]),
        "uses": st.integers(1, 4),
        "rate": st.sampled_from([1.0, 3.0]),
    },
)


def test_unlimited_right_permits():
    right = Right()
    assert right.refusal(1e9) == right.take(1e9) == ""


@given(
    above=st.lists(TERMS, min_size=1, max_size=4),
    joined=TERMS,
    takes=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=20),
    ended=st.none() | st.integers(0, 4),
)
@settings(deadline=None)
def test_what_a_right_permits_every_right_above_permits(above, joined, takes, ended):
    chain = [Right(**above[0])]
    for terms in above[1:]:
        chain.append(Right((chain[-1],), **terms))
    other = Right(**joined)
    chain.append(Right((chain[-1], other)))
    if ended is not None:
        chain[ended % len(chain)].revoke()
    limits = [(right, right.uses_left) for right in [*chain, other] if right.uses_left is not None]
    for now, index in sorted(takes):
        right = chain[index % len(chain)]
        before = [one.refusal(now, 1) for one in right.lineage]
        if right.take(now) == "":
            assert before == [""] * len(before)
    assert all(right.uses_left >= 0 for right, _ in limits)


def test_uses_are_counted_in_all_of_the_lineage_or_in_none():
    wide = Right(uses=5)
    narrow = Right((wide,), uses=1)
    assert narrow.take(0.0) == ""
    assert narrow.take(0.0) == "uses"
    assert (wide.uses_left, narrow.uses_left) == (4, 0)


def test_rate_refuses_and_counts_nothing_then():
    right = Right(uses=5, rate=1.0)
    assert [right.take(0.0), right.take(0.5), right.take(1.0)] == ["", "rate", ""]
    assert right.uses_left == 3


def test_end_reaches_everything_below_and_nothing_above():
    top, other = Right(), Right()
    middle = Right((top,))
    below = [Right((middle,)), Right((middle, other))]
    assert set(middle.revoke()) == {middle, *below}
    assert middle.revoke() == []
    assert [right.refusal(0.0) for right in (top, other, middle, *below)] == ["", "", *["revoked"] * 3]


def test_right_derived_of_an_ended_one_is_dead_at_once():
    top = Right()
    top.revoke()
    assert Right((top,)).refusal(0.0) == "revoked"


def test_time_is_that_of_the_shortest():
    assert Right((Right(expires_at=5.0),), expires_at=9.0).refusal(5.0) == "expired"


def test_derivations_are_bounded():
    right = Right()
    for _ in range(MOST_DERIVATIONS - 1):
        right = Right((right,))
    with pytest.raises(LimitExceeded, match="16 times"):
        Right((right,))


def test_rights_go_with_their_last_reference():
    gc.disable()
    try:
        top = Right(uses=1)
        below = Right((top,), uses=1)
        gone = weakref.ref(below)
        del below
        assert gone() is None
        assert top.revoke() == [top]
    finally:
        gc.enable()


def test_rights_of_dead_exports_stay_dead():
    assert (REVOKED.refusal(0.0), OVER.refusal(0.0)) == ("revoked", "expired")


def test_threads_take_no_more_than_there_is():
    top = Right(uses=1000)
    rights = [Right((top,)) for _ in range(4)]
    taken = []

    def take(right):
        taken.append(sum(right.take(0.0) == "" for _ in range(500)))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=take, args=(right,)) for right in rights]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sum(taken) == 1000
    assert top.uses_left == 0


def test_the_chain_is_the_own_one_or_else_the_nearest_above():
    plain, passed = Right(), Right(chain=("spiffe://b.example/x",))
    assert Right((plain, passed)).chain == ("spiffe://b.example/x",)
    assert Right((passed,), chain=("spiffe://c.example/x",)).chain == ("spiffe://c.example/x",)
    assert Right((Right((passed,)),)).chain == ("spiffe://b.example/x",)
    assert Right((plain,)).chain == ()
