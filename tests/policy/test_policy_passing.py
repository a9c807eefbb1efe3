"""What a policy says of references that cross more than one connection: nothing, unless it is written."""

import pytest

from caprpc.errors import PolicyError
from caprpc.policy import Guard, PrincipalQuotas, may_pass_on, sources

OFFER = "[offer.FeedLedger]"
SOURCE = "spiffe://org-c.example/vault"


def facet_of(guard, name="FeedLedger"):
    return guard.facet(name)


def guard_with(load_with, *lines):
    return Guard(load_with((OFFER, "\n".join((OFFER, *lines)))).policies[0], PrincipalQuotas())


def test_nothing_is_passed_on_unless_it_is_written(load_with):
    guard = guard_with(load_with)
    for facet in guard._facets.values():
        assert not may_pass_on(facet)
        assert sources(facet) == frozenset()


def test_written_words_hold_for_their_facet_and_its_iterators_alone(load_with):
    guard = guard_with(load_with, "forward = true", f'forward_from = ["{SOURCE}"]')
    passing = {name for name, facet in guard._facets.items() if may_pass_on(facet)}
    assert {name.split("/")[0] for name in passing} == {"FeedLedger"}
    assert {name for name, facet in guard._facets.items() if SOURCE in sources(facet)} == passing


@pytest.mark.parametrize(
    "line",
    [
        "forward = false", 'forward = "yes"', "forward = 1", "forward_from = []", "forward_from = true",
        'forward_from = "spiffe://org-c.example/vault"', 'forward_from = ["spiffe://*/vault"]',
        'forward_from = ["org-c.example"]', f'forward_from = ["{SOURCE}", "{SOURCE}"]', "forwards = true",
        'forward_to = ["spiffe://org-c.example/vault"]',
    ],
)  # fmt: skip
def test_words_that_are_none_are_refused(load_with, line):
    with pytest.raises(PolicyError):
        guard_with(load_with, line)


def test_reload_takes_away_and_never_adds(load_with):
    with_both = ("forward = true", f'forward_from = ["{SOURCE}", "spiffe://org-d.example/vault"]')
    guard = guard_with(load_with, *with_both)
    narrower = load_with(("\n".join(with_both), f'forward_from = ["{SOURCE}"]')).policies[0]
    guard.narrow(narrower)
    facet = facet_of(guard)
    assert (may_pass_on(facet), sources(facet)) == (False, frozenset({SOURCE}))
    guard.narrow(load_with((f'forward_from = ["{SOURCE}"]', "\n".join(with_both))).policies[0])
    assert (may_pass_on(facet), sources(facet)) == (False, frozenset({SOURCE}))
    guard.narrow(None)
    assert sources(facet) == frozenset()
