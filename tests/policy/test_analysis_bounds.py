"""One constraint within another: no false yes, whatever value is tried; and yes where a reader would expect it."""

from itertools import product
from random import Random

import pytest

from caprpc.analysis.bounds import is_empty, lend_no_wider, limit_no_wider, rule_no_wider, rules_no_wider
from caprpc.policy import ArgumentRule, Lend, MemberLimit
from caprpc.policy.document import Table
from caprpc.policy.problems import Problems
from caprpc.policy.rules import argument_rule
from caprpc.policy.text import TomlDocument
from tests.policy.generated_policies import RULE_PARTS, SAMPLES


def rule(text: str) -> ArgumentRule:
    problems = Problems()
    table = Table.top(TomlDocument(f"x = {{ {text} }}"), "r.toml", problems).table("x")
    assert table is not None
    return argument_rule(table, None)


def lend(lifetime, uses=None) -> Lend:
    return Lend("I", "m", "p", "F", lifetime, uses, "r.toml:1")


def test_no_value_passes_a_rule_that_is_said_to_be_within_another_and_fails_that():
    random = Random(7)
    pairs = [(a, b) for a, b in product(RULE_PARTS, repeat=2) if a.split(" = ")[0] != b.split(" = ")[0]]
    texts = [*RULE_PARTS, *(", ".join(pair) for pair in pairs)]
    rules = [rule(text) for text in random.sample(texts, 150)]
    within = 0
    for new, old in product(rules, rules):
        if rule_no_wider(new, old):
            within += 1
            for value in SAMPLES:
                assert new.fault(value) or not old.fault(value), (new, old, value)
        if is_empty(new):
            assert all(new.fault(value) for value in SAMPLES)
    assert within > len(rules)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("max = 5", "max = 10"),
        ("min = 1, max = 5", "max = 5"),
        ("in = [1, 5]", "max = 5"),
        ('in = ["ab"]', 'prefix = "a"'),
        ('const = "a"', 'in = ["a", "b"]'),
        ('prefix = "ab"', 'prefix = "a"'),
        ('prefix = "a", max_len = 3', "max_len = 4"),
        ('chars = ["a-c"]', 'chars = ["a-z"]'),
        ("min = 3, max = 2", 'prefix = "a"'),
        ('prefix = "abc", max_len = 2', "max = 1"),
    ],
)
def test_a_narrower_rule_is_seen_to_be_within_the_other(new, old):
    assert rule_no_wider(rule(new), rule(old))


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("max = 10", "max = 5"),
        ("min = 0", "min = 0.5"),
        ("in = [0]", "min = 0"),  # a zero with a sign is in the one and below the other
        ("max_len = 3", 'prefix = "a"'),  # bytes and lists have lengths, too
        ("max_len = 3", "max = 5"),
        ('prefix = "a"', 'prefix = "ab"'),
        ('in = ["a", "b"]', 'const = "a"'),
        ("in = [1]", "in = [true]"),
    ],
)
def test_a_wider_rule_is_not_within_the_other(new, old):
    assert not rule_no_wider(rule(new), rule(old))


def test_a_parameter_without_a_rule_is_wider_than_one_with_a_rule():
    assert rules_no_wider({"n": rule("max = 5")}, {})
    assert not rules_no_wider({}, {"n": rule("max = 5")})
    assert not rules_no_wider({"s": rule("max = 5")}, {"n": rule("max = 5")})


def test_a_rate_without_a_burst_has_that_of_one_second():
    assert limit_no_wider(MemberLimit(per_second=2), MemberLimit(per_second=2, burst=2))
    assert not limit_no_wider(MemberLimit(per_second=2, burst=3), MemberLimit(per_second=2))
    assert not limit_no_wider(MemberLimit(), MemberLimit(in_flight=4))
    assert limit_no_wider(MemberLimit(per_second=1, max_items=5), MemberLimit(per_second=1))
    assert not limit_no_wider(MemberLimit(per_hour=5), MemberLimit(per_second=1))


def test_a_call_may_last_longer_than_seconds_and_seconds_longer_than_a_call():
    assert lend_no_wider(lend("call"), lend("connection"))
    assert not lend_no_wider(lend("connection"), lend("call"))
    assert not lend_no_wider(lend("call"), lend(5.0))
    assert not lend_no_wider(lend(5.0), lend("call"))
    assert lend_no_wider(lend(5.0), lend(6.0))
    assert not lend_no_wider(lend("call"), lend("call", 3))
    assert lend_no_wider(lend("call", 2), lend("call", 3))
