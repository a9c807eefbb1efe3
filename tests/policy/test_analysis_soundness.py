"""What the analysis says of policies is what the guard does, over ten thousand pairs of generated ones."""

import re
from collections.abc import Iterator
from itertools import chain
from math import inf
from random import Random

import pytest

from caprpc.analysis.authority import held_by, rights_of, ways_of
from caprpc.analysis.changes import WIDENING
from caprpc.analysis.decide import Answer, Request, decide
from caprpc.analysis.difference import difference
from caprpc.policy import PolicySet
from tests.policy.generated_policies import SAMPLES, Draft, allowed, handed_over, lets_more_through, load, passed_on

PAIRS_FOR_A_SEED = 1_000
TERMS = re.compile(r" for the (call|connection)| for (at most )?[0-9]+ s|, as bearer, too")
"""What a way says of how long, and is no part of it."""


def pairs(seed: int, count: int) -> Iterator[tuple[PolicySet, PolicySet]]:
    random = Random(seed)
    for _ in range(count):
        draft = Draft(random)
        yield load(draft.text()), load(draft.changed().text())


@pytest.mark.parametrize("seed", range(10))
def test_nothing_newly_allowed_is_missing_from_a_difference(seed):
    widenings = 0
    for old, new in pairs(seed, PAIRS_FOR_A_SEED):
        before, after = allowed(old), allowed(new)
        found = difference(old, new)
        named = {(one.peer, one.subject.split(":")[0]) for one in found if one.verdict in WIDENING}
        lost = {(one.peer, one.subject.split(":")[0]) for one in found if one.verdict != "new"}
        for (peer, way, member), passing in after.items():
            if lets_more_through(before.get((peer, way, member)), passing):
                widenings += 1
                assert (peer, member) in named, f"{member} of {peer} through {way} is new and not in the difference"
        for (peer, way, member), passing in before.items():
            if lets_more_through(after.get((peer, way, member)), passing):
                assert (peer, member) in lost, f"{member} of {peer} through {way} is gone and not in the difference"
    assert widenings > PAIRS_FOR_A_SEED, "the generated pairs hardly differ: the test says nothing"


@pytest.mark.parametrize("seed", range(300, 303))
def test_what_is_newly_passed_on_or_restored_is_in_a_difference(seed):
    widenings = {"passing on": 0, "restore": 0}
    for old, new in pairs(seed, PAIRS_FOR_A_SEED):
        found = difference(old, new)
        named = {(one.peer, one.way, one.subject.split(": ")[-1]) for one in found if one.verdict in WIDENING}
        before, after = passed_on(old), passed_on(new)
        for (peer, way), whom in after.items():
            # A pair of facets is compared on the first way to it: the others are named by the same subject.
            if whom - before.get((peer, way), frozenset()):
                widenings["passing on"] += 1
                assert any((who, what) == (peer, "passing on") for who, _, what in named), f"{whom} of {way}"
        was, now = old.policies[0], new.policies[0]
        for name in was.restores.keys() & now.restores.keys():
            one, other = was.restores[name], now.restores[name]
            longest = (one.max_for_s or inf, other.max_for_s or inf)
            if longest[1] > longest[0] or other.bearer > one.bearer:
                widenings["restore"] += 1
                for peer in was.principals & now.principals:
                    assert (peer, "", "restore kind") in named
    assert min(widenings.values()) > 10, "the generated pairs hardly differ: the test says nothing"


@pytest.mark.parametrize("seed", range(100, 104))
def test_rights_and_facets_are_what_the_guard_lets_a_peer_come_to(seed):
    for policies, _ in pairs(seed, 250):
        policy = policies.policies[0]
        reached = allowed(policies, longest=6)
        members = {member for _, _, member in reached}
        assert {right.name for right in rights_of(policy)} == members
        ways = {way for _, way, _ in reached}
        for held in held_by(policy).values():
            assert TERMS.sub("", held.way) in ways


@pytest.mark.parametrize("seed", range(400, 410))
def test_what_is_reached_and_listed_is_what_the_guard_hands_over(seed):
    """Of ten thousand policies: every facet, every hand-over of it, and every member that may be used, and no other."""
    others = 0
    for policies in chain.from_iterable(pairs(seed, PAIRS_FOR_A_SEED // 2)):
        policy = policies.policies[0]
        handed, members = handed_over(policies)
        held, ways = held_by(policy), ways_of(policy)
        assert held.keys() == ways.keys() == handed.keys()
        assert {right.name for right in rights_of(policy)} == members
        for name, paths in ways.items():
            shown = {(path[-2].facet if len(path) > 1 else "", TERMS.sub("", path[-1].text)) for path in paths}
            others += len(shown) > 1
            assert shown <= handed[name]
            for holder, _ in handed[name] - shown:
                # What leads back to where it came from is no way to it.
                assert any(step.facet == name for step in held[holder].path)
    assert others > 100, "hardly anything is reached in two ways: the test says little"


@pytest.mark.parametrize("seed", range(200, 204))
def test_the_answer_to_a_question_is_what_the_guard_does(seed):
    random = Random(seed)
    answers: dict[Answer, int] = dict.fromkeys(Answer, 0)
    for policies, _ in pairs(seed, 300):
        reached = allowed(policies, longest=6)
        policy = policies.policies[0]
        for interface in ("Ledger", "History", "Account"):
            for name in ("alpha", "beta", "gamma"):
                given = {key: random.randrange(len(SAMPLES)) for key in ("n", "s")}
                request = Request(
                    sorted(policy.principals)[0],
                    interface,
                    name,
                    arguments={key: SAMPLES[position] for key, position in given.items()},
                )
                passes = any(
                    given["n"] in passing[0] and given["s"] in passing[1]
                    for (_, _, member), passing in reached.items()
                    if member == f"{interface}.{name}"
                )
                answer = decide(policies, request).answer
                answers[answer] += 1
                assert answer is (Answer.YES if passes else Answer.NO)
                left_out = decide(policies, Request(policy.name, interface, name)).answer
                if passes:
                    assert left_out is not Answer.NO
    assert min(answers[Answer.YES], answers[Answer.NO]) > 100
