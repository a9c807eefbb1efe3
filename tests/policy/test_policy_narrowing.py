"""Random sequences of reloads: nothing is ever allowed that one of the versions so far did not allow (CAP-PO-15)."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfile
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caprpc import ids
from caprpc.policy import OPAQUE, Guard, MemberLimit, PolicySet, PrincipalQuotas, Refused
from caprpc.policy.arguments import ArgumentRule
from caprpc.policy.model import Accepted, Grant, Lend, Offer, Root
from caprpc.policy.narrowing import narrower_limit, narrower_result
from caprpc.policy.quotas import Usage

FACETS = ("A", "B")
KEYS = [(ids.OP_CALL, "x"), (ids.OP_CALL, "y"), (ids.OP_GET, "x"), (ids.OP_INVOKE, "")]
VALUES = [0, 1, 3, True]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return any loaded policy; the strategies replace what it grants."""
    directory = tmp_path_factory.mktemp("narrowing") / "policies"
    directory.mkdir(mode=0o755)
    for file in (Path(__file__).resolve().parents[2] / "policies" / "demo-client").iterdir():
        copyfile(file, directory / file.name)
        (directory / file.name).chmod(0o644)
    return PolicySet.load(directory, now=datetime(2026, 11, 22, tzinfo=UTC)).policies[0]


argument_rules = st.builds(
    ArgumentRule, minimum=st.one_of(st.none(), st.integers(0, 3)), maximum=st.one_of(st.none(), st.integers(0, 3))
)
limits = st.builds(
    MemberLimit,
    per_day=st.one_of(st.none(), st.integers(1, 3).map(float)),
    in_flight=st.one_of(st.none(), st.integers(1, 3)),
    timeout_s=st.one_of(st.none(), st.integers(1, 3).map(float)),
)


@st.composite
def grants(draw):
    found = {}
    for operation, member in draw(st.sets(st.sampled_from(KEYS))):
        found[operation, member] = Grant(
            operation=operation,
            member=member,
            rule="x.toml:1",
            arguments=MappingProxyType(draw(st.dictionaries(st.sampled_from("pq"), argument_rules, max_size=2))),
            limit=draw(limits),
            returns=draw(st.sampled_from([None, OPAQUE, *FACETS])),
            record=frozenset(draw(st.sets(st.sampled_from("pq")))),
        )
    return MappingProxyType(found)


@st.composite
def parts(draw):
    """Draw what a version of the policy grants."""
    names = draw(st.sets(st.sampled_from(FACETS)))
    offers = {
        name: Offer(name, draw(st.sampled_from(["I", "I", "J"])), "x.toml:2", draw(grants()))
        for name in FACETS
        if name in names
    }
    first = next(iter(offers), None)
    lifetime, uses = draw(st.sampled_from(["call", "connection", 1.0, 2.0])), draw(st.sampled_from([None, 1, 2]))
    accepted = [Accepted(i, ids.OP_CALL, "x", "x.toml:4") for i in draw(st.sets(st.sampled_from("IJ")))]
    return {
        "offers": MappingProxyType(offers),
        "roots": {} if first is None else {"r": Root("r", first, "x.toml:3")},
        "accepts": {(one.interface, one.operation, one.member): one for one in accepted},
        "lends": {} if first is None else {("I", "x", "p"): Lend("I", "x", "p", first, lifetime, uses, "x.toml:5")},
    }


def rights(guard: Guard) -> set[object]:
    """Return everything the guard lets happen, as facts that can be compared."""
    facts: set[object] = set()
    for name in FACETS:
        try:
            facet = guard.facet(name)
        except KeyError:
            continue
        for key in KEYS:
            for permit in permits(guard, facet, key):
                facts.add((name, *key))
                if permit.returns not in {None, OPAQUE}:
                    facts.add((name, *key, "returns", permit.returns))
                facts |= {(name, *key, "records", parameter) for parameter in permit.record}
                facts |= {
                    (name, *key, "takes", repr(p), repr(q)) for p in VALUES for q in VALUES if takes(permit, p, q)
                }
    for permit in permits(guard, guard.roots, (ids.OP_ROOT, "r")):
        facts.add(("root", permit.facet))
    facts |= {("accept", i) for i in "IJ" if guard.accept(i, ids.OP_CALL, "x") is not None}
    lend = guard.lend("I", "x", "p")
    if lend is not None:
        facts |= {("lend", lend.facet)}
    return facts


def permits(guard, facet, key):
    try:
        permit = guard.check(facet, *key, 0.0)
    except Refused as refused:
        if refused.code == "limit":
            # Counters are not what is compared here: the grant is there.
            yield facet.permits[key]
        return
    permit.give_back()
    yield permit


def takes(permit, p, q) -> bool:
    try:
        permit.check_arguments({"p": p, "q": q})
    except Refused:
        return False
    return True


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(parts(), parts(), st.none()), min_size=1, max_size=5))
def test_guard_allows_only_what_every_version_so_far_allowed(base, versions):
    guard = None
    agreed: set[object] = set()
    for number, version in enumerate(versions):
        policy = None if version is None else dataclasses.replace(base, digest=f"v{number}", **version)
        if guard is None:
            if policy is None:
                continue
            guard = Guard(policy, PrincipalQuotas())
            agreed = rights(guard)
            continue
        guard.narrow(policy)
        alone = set() if policy is None else rights(Guard(policy, PrincipalQuotas()))
        agreed &= alone
        assert rights(guard) <= agreed
        if policy is not None and not guard.closed:
            assert {facet.permits.policy for facet in guard._facets.values()} == {policy.digest}


@settings(max_examples=60, deadline=None)
@given(parts(), parts())
def test_narrowing_takes_away_no_more_than_it_must(base, first, second):
    """What both versions grant alike stays, so that a reload does not break what nobody changed."""
    old, new = (dataclasses.replace(base, **version) for version in (first, second))
    guard = Guard(old, PrincipalQuotas())
    guard.narrow(new)
    for name in set(old.offers) & set(new.offers):
        if old.offers[name].interface != new.offers[name].interface:
            continue
        kept = set(guard.facet(name).permits)
        assert kept == set(old.offers[name].grants) & set(new.offers[name].grants)


full_limits = st.builds(
    MemberLimit,
    per_second=st.one_of(st.none(), st.sampled_from([0.5, 1.0, 5.0])),
    burst=st.one_of(st.none(), st.sampled_from([1, 3, 9])),
    per_hour=st.one_of(st.none(), st.sampled_from([1.0, 4.0])),
    max_items=st.one_of(st.none(), st.integers(1, 3)),
).map(lambda limit: limit if limit.per_second is not None else dataclasses.replace(limit, burst=None))


@given(full_limits, full_limits, st.lists(st.sampled_from([0.0, 0.3, 1.0, 5.0, 4000.0]), max_size=30))
def test_narrowed_limit_lets_no_more_through_than_either(one, other, waits):
    def passed(limit):
        if not limit.is_counted:
            return len(waits)
        limiter, now, count = Usage().limiter(limit), 0.0, 0
        for wait in waits:
            now += wait
            count += limiter.take(now) == ""
        return count

    assert passed(narrower_limit(one, other)) <= min(passed(one), passed(other))
    assert narrower_limit(one, other) == narrower_limit(other, one)


@pytest.mark.parametrize(
    ("old", "new", "burst"),
    [
        (MemberLimit(per_second=5), MemberLimit(per_second=5, burst=9), 5),
        (MemberLimit(per_second=0.1), MemberLimit(per_second=5, burst=9), 1),
        (MemberLimit(per_second=5, burst=3), MemberLimit(per_second=5), 3),
        (MemberLimit(), MemberLimit(per_second=5, burst=9), 9),
    ],
)
def test_burst_that_follows_from_a_rate_does_not_grow(old, new, burst):
    assert narrower_limit(old, new).burst == burst


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        (None, None, None),
        (None, "A", None),
        ("A", None, None),
        ("A", "A", "A"),
        ("A", "B", "opaque"),
        ("A", "opaque", "opaque"),
        ("opaque", "A", "opaque"),
    ],
)
def test_a_result_is_what_both_give(old, new, left):
    assert narrower_result(old, new) == left
