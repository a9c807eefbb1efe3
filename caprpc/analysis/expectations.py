"""``test``: do the policies answer as their reviewers expect, and would anybody notice if a grant went missing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from caprpc.analysis.authority import held_by, rights_of
from caprpc.analysis.decide import Answer, Line, Request, decide, policies_of
from caprpc.ids import OP_CLOSE, OP_EXIT, OP_NEXT
from caprpc.policy import Expectation, Offer, Policy, PolicySet


@dataclass(frozen=True, slots=True)
class Result:
    """How one expectation came out."""

    expectation: Expectation
    passed: bool
    got: str
    lines: tuple[Line, ...]
    granted_by: str
    """The line that granted it; empty if nothing did."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which grants the expectations speak of, and which of them could go without a test noticing."""

    grants: int
    exercised: int
    survivors: tuple[Line, ...]
    """Grants that can be dropped, each by itself, and every expectation still passes."""


def run(policies: PolicySet) -> list[Result]:
    """Return the result of every expectation of the directory."""
    return [check(policies, one) for one in policies.expectations]


def check(policies: PolicySet, one: Expectation) -> Result:
    """Return the result of one expectation."""
    return _reaches(policies, one) if one.verb == "reaches" else _may(policies, one)


def _may(policies: PolicySet, one: Expectation) -> Result:
    request = Request(one.peer, one.interface, one.member, one.operation, one.facet, one.arguments)
    verdict = decide(policies, request)
    rule = "" if verdict.right is None else verdict.right.grant.rule
    passed = verdict.answer is (Answer.YES if one.expected else Answer.NO)
    got = verdict.answer.value
    if passed and one.rule is not None and rule != one.rule:
        passed, got = False, f"{got}, by {rule} and not by {one.rule}"
    return Result(one, passed, got, verdict.lines, rule)


def _reaches(policies: PolicySet, one: Expectation) -> Result:
    for policy in policies_of(policies, one.peer):
        for held in held_by(policy).values():
            if one.interface in (held.offer.name, held.offer.interface):
                lines = tuple(Line(step.rule, f"{step.text}: a reference of facet {step.facet}") for step in held.path)
                return Result(one, one.expected, "reaches it", lines, held.path[-1].rule)
    return Result(one, not one.expected, "does not reach it", (), "")


def coverage(policies: PolicySet) -> Coverage:
    """Return what the expectations cover, dropping one grant after the other to see whether a test notices."""
    total = 0
    results = run(policies)
    exercised = {result.granted_by for result in results}
    # One that fails already would notice nothing, and make every grant look covered.
    passing = [result.expectation for result in results if result.passed]
    survivors = []
    for policy in policies.policies:
        # The others are about peers that this policy says nothing of.
        asked = [one for one in passing if one.peer == policy.name or one.peer in policy.principals]
        for right in rights_of(policy):
            key = (right.grant.operation, right.grant.member)
            if key[0] in {OP_NEXT, OP_CLOSE, OP_EXIT}:
                # They come with what they end or continue, and cannot be dropped by themselves.
                continue
            total += 1
            mutant = _without(policies, policy, right.held.offer, key)
            if all(check(mutant, one).passed for one in asked):
                survivors.append(Line(right.grant.rule, f"{policy.name}: {right.name} ({right.held.offer.name})"))
    rules = {right.grant.rule for policy in policies.policies for right in rights_of(policy)}
    return Coverage(total, len(rules & exercised), tuple(survivors))


def _without(policies: PolicySet, policy: Policy, offer: Offer, key: tuple[int, str]) -> PolicySet:
    grants = MappingProxyType({other: grant for other, grant in offer.grants.items() if other != key})
    offers: Mapping[str, Offer] = MappingProxyType({**policy.offers, offer.name: replace(offer, grants=grants)})
    mutant = replace(policy, offers=offers)
    return replace(policies, policies=tuple(mutant if one is policy else one for one in policies.policies))
