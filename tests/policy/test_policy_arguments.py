"""Argument rules: exact, linear, and closed to everything they do not speak of."""

import time
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caprpc import ids
from caprpc.policy import Guard, PrincipalQuotas, Refused
from caprpc.policy.arguments import ArgumentRule, intersection

NAN, INF = float("nan"), float("inf")


class Level(IntEnum):
    LOW = 5


class Colour(StrEnum):
    RED = "EUR"


class LyingInt(int):
    def __ge__(self, other):
        return True

    __le__ = __gt__ = __lt__ = __ge__


class LyingText(str):
    def startswith(self, *_):
        return True

    def __eq__(self, _):
        return True

    __hash__ = str.__hash__


BOUNDS = ArgumentRule(minimum=Decimal("0.01"), maximum=10_000)


@pytest.mark.parametrize(
    "value",
    [
        NAN, INF, -INF, 1e309, -0.0, 0.0, 0, 5e-324, True, False, None, "5", b"5", [5],
        5j, Fraction(5), Level.LOW, LyingInt(7),
        Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-Infinity"), Decimal("1e999999"),
        Decimal("-0"),
        Decimal("0.00999999999999999999999999999"), Decimal("10000.0000000000000000000000000000000001"),
        10_001, 10**4096, -(10**4096), 10_000.000000000002, 0.009999999999999998, Decimal("1e-999999"), object(),
    ],
    ids=lambda value: f"{type(value).__name__} {str(value)[:12]}" if type(value) is not object else "object",
)  # fmt: skip
def test_value_outside_the_bounds_fails(value):
    assert BOUNDS.fault(value)


@pytest.mark.parametrize(
    "value", [1, 10_000, 0.01, 10_000.0, Decimal("0.01"), Decimal("1E4"), Decimal("9999.999999"), 5e3]
)
def test_value_inside_the_bounds_passes(value):
    assert BOUNDS.fault(value) == ""


def test_float_is_compared_with_the_float_that_was_written():
    """0.1 is not a tenth, but a reviewer who writes max = 0.1 means the caller's 0.1 to pass."""
    assert ArgumentRule(maximum=Decimal("0.1")).fault(0.1) == ""
    assert ArgumentRule(maximum=Decimal("0.1")).fault(0.10000000000000002) == "max"
    assert ArgumentRule(minimum=Decimal("0.1")).fault(Decimal("0.1")) == ""


@pytest.mark.parametrize("zero", [-0.0, Decimal("-0"), Decimal("-0.00")])
def test_negative_zero_is_not_at_least_zero(zero):
    assert ArgumentRule(minimum=0).fault(zero) == "min"
    assert ArgumentRule(minimum=-1).fault(zero) == ""
    assert ArgumentRule(maximum=1).fault(zero) == ""


def values(*found):
    tags = {str: "text", bool: "flag", int: "number", Decimal: "number"}
    return ArgumentRule(values=frozenset((tags[type(value)], value) for value in found))


@pytest.mark.parametrize(
    ("rule", "value", "passes"),
    [
        (values("EUR"), "EUR", True),
        (values("EUR"), "EUR ", False),
        (values("EUR"), "eur", False),
        (values("EUR"), "\u0415UR", False),
        (values("EUR"), LyingText("x"), False),
        (values("EUR"), Colour.RED, False),
        (values("EUR"), ["EUR"], False),
        (values("EUR"), None, False),
        (values("1"), 1, False),
        (values(1), "1", False),
        (values(1), 1, True),
        (values(1), 1.0, True),
        (values(1), Decimal(1), True),
        (values(1), True, False),
        (values(1), NAN, False),
        (values(1), Decimal("sNaN"), False),
        (values(1), Level.LOW, False),
        (values(True), True, True),
        (values(True), 1, False),
        (values(True), False, False),
        (values(True, 1), 1, True),
        (values(Decimal("0.1")), 0.1, True),
        (values(Decimal("0.1")), Decimal("0.1"), True),
        (values(), "x", False),
        (ArgumentRule(prefix="EU"), "EUR", True),
        (ArgumentRule(prefix="EU"), "xEUR", False),
        (ArgumentRule(prefix="EU"), LyingText("x"), False),
        (ArgumentRule(prefix="EU"), b"EUR", False),
        (ArgumentRule(max_len=3), "abc", True),
        (ArgumentRule(max_len=3), "abcd", False),
        (ArgumentRule(max_len=3), b"abcd", False),
        (ArgumentRule(max_len=3), [1, 2, 3], True),
        (ArgumentRule(max_len=3), {1: 1, 2: 2, 3: 3, 4: 4}, False),
        (ArgumentRule(max_len=3), 1, False),
        (ArgumentRule(max_len=3), None, False),
        (ArgumentRule(chars=frozenset("AB")), "ABBA", True),
        (ArgumentRule(chars=frozenset("AB")), "", True),
        (ArgumentRule(chars=frozenset("AB")), "ABC", False),
        (ArgumentRule(chars=frozenset("AB")), ["A"], False),
        (ArgumentRule(chars=frozenset("AB")), "A\n", False),
    ],
    ids=[f"case {number}" for number in range(40)],
)
def test_rule_and_value(rule, value, passes):
    assert (rule.fault(value) == "") is passes


@pytest.mark.parametrize(
    "rule",
    [
        ArgumentRule(prefix="a" * 100),
        ArgumentRule(chars=frozenset("a")),
        values("a", "aa", "aaa"),
        ArgumentRule(max_len=10**9, chars=frozenset("ab"), prefix="a"),
    ],
    ids=["prefix", "chars", "in", "all"],
)
def test_time_is_linear_in_the_argument(rule):
    """CAP-TY-08: twice the text, at most about twice the time; texts that blow up patterns among them."""

    def seconds(length: int) -> float:
        text = "a" * length + "!"
        best = INF
        for _ in range(5):
            fresh = text[:1] + text[1:]
            started = time.process_time()
            rule.fault(fresh)
            best = min(best, time.process_time() - started)
        return best

    assert seconds(2_000_000) <= 2.5 * seconds(1_000_000) + 0.01


numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-5, 5),
    st.floats(),
    st.decimals(),
    st.decimals(-5, 5, places=2),
    st.sampled_from([0.0, -0.0, Decimal("-0"), True, False]),
)
anything = st.one_of(
    numbers, st.text("ab", max_size=4), st.binary(max_size=4), st.lists(st.integers(), max_size=4), st.none()
)
tagged = st.one_of(
    st.tuples(st.just("text"), st.text("ab", max_size=3)),
    st.tuples(st.just("number"), st.integers(-3, 3)),
    st.tuples(st.just("flag"), st.booleans()),
)
parts = {
    "minimum": st.one_of(st.integers(-5, 5), st.decimals(-5, 5, places=2)),
    "maximum": st.one_of(st.integers(-5, 5), st.decimals(-5, 5, places=2)),
    "values": st.frozensets(tagged, max_size=4),
    "prefix": st.text("ab", min_size=1, max_size=3),
    "max_len": st.integers(0, 4),
    "chars": st.frozensets(st.sampled_from("ab")),
}


@st.composite
def rule_pairs(draw):
    """Draw two rules with few parts, mostly the same ones: rules with all parts pass nothing, and show nothing."""
    chosen = draw(st.sets(st.sampled_from(sorted(parts)), min_size=1, max_size=2))
    return tuple(
        ArgumentRule(**{part: draw(parts[part]) for part in chosen if draw(st.integers(0, 3))}) for _ in range(2)
    )


rules = rule_pairs().map(lambda pair: pair[0])


@settings(max_examples=400)
@given(rule_pairs(), anything)
def test_narrowed_rule_passes_exactly_what_both_pass(pair, value):
    one, other = pair
    both = one.fault(value) == "" and other.fault(value) == ""
    assert (one.narrowed_by(other).fault(value) == "") is both
    assert (other.narrowed_by(one).fault(value) == "") is both


@given(st.dictionaries(st.sampled_from("xyz"), rules), st.dictionaries(st.sampled_from("xyz"), rules), anything)
def test_intersection_keeps_every_parameter_of_both(one, other, value):
    merged = intersection(one, other)
    assert merged.keys() == one.keys() | other.keys()
    for name, rule in merged.items():
        both = all(rules[name].fault(value) == "" for rules in (one, other) if name in rules)
        assert (rule.fault(value) == "") is both


@given(rules, anything)
def test_rule_never_raises_and_never_names_the_value(rule, value):
    assert rule.fault(value) in {"", "finite", "number", "min", "max", "in", "prefix", "max_len", "chars"}


@given(st.one_of(st.integers(-100, 100), st.decimals(-100, 100, places=3)), numbers)
def test_bound_agrees_with_exact_arithmetic(bound, value):
    """For integers and decimals; for floats the bound is the nearest float."""
    passes = ArgumentRule(maximum=bound).fault(value) == ""
    if isinstance(value, bool):
        assert not passes
    elif isinstance(value, float):
        assert passes == (value <= float(bound) and value > -INF)
    elif isinstance(value, Decimal) and not value.is_finite():
        assert not passes
    else:
        assert passes == (Fraction(value) <= Fraction(bound)) if abs(value) < 10**60 or value > 0 else passes


class TestPermit:
    """Rules as the object floor meets them."""

    @pytest.fixture
    def permit(self, load_with):
        guard = Guard(load_with().policies[0], PrincipalQuotas())
        return guard.check(guard.facet("FeedLedger"), ids.OP_CALL, "post", 0.0)

    def test_good_arguments_pass(self, permit):
        permit.check_arguments({"account": "x", "amount": Decimal(5), "currency": "EUR"})

    @pytest.mark.parametrize(
        ("values", "detail", "rule"),
        [
            ({"amount": Decimal("10000.01"), "currency": "EUR"}, "amount: max", "org-b.toml:21"),
            ({"amount": True, "currency": "EUR"}, "amount: number", "org-b.toml:21"),
            ({"amount": NAN, "currency": "EUR"}, "amount: finite", "org-b.toml:21"),
            ({"amount": 5, "currency": "XYZ"}, "currency: in", "org-b.toml:22"),
            ({"amount": 5}, "currency: missing", "org-b.toml:22"),
            ({}, "amount: missing", "org-b.toml:21"),
        ],
        ids=["max", "bool", "nan", "in", "one missing", "all missing"],
    )
    def test_refusal_names_rule_and_parameter_but_no_value(self, permit, values, detail, rule):
        with pytest.raises(Refused) as caught:
            permit.check_arguments(values)
        assert (caught.value.reason, caught.value.code) == ("argument", "invalid-arguments")
        assert (caught.value.detail, caught.value.rule) == (detail, rule)
        assert (caught.value.facet, caught.value.member) == ("FeedLedger", "post")

    def test_rule_that_breaks_refuses(self, permit, monkeypatch):
        """CAP-PO-14: whatever goes wrong while deciding, the decision is no."""

        def broken(_rule, _value):
            raise RecursionError

        monkeypatch.setattr(ArgumentRule, "fault", broken)
        with pytest.raises(Refused) as caught:
            permit.check_arguments({"amount": 5, "currency": "EUR"})
        assert (caught.value.reason, caught.value.code) == ("rule-error", "denied")
        assert caught.value.detail == "amount: RecursionError"


@pytest.mark.parametrize(
    ("one", "other", "passing", "failing"),
    [
        (values("a", "b"), values("b", "c"), "b", ["a", "c"]),
        (ArgumentRule(prefix="a"), ArgumentRule(prefix="ab"), "abc", ["a", "ac", "b"]),
        (ArgumentRule(prefix="ab"), ArgumentRule(prefix="a"), "abc", ["a", "ac", "b"]),
        (ArgumentRule(minimum=1), ArgumentRule(minimum=2), 2, [1, 0]),
        (ArgumentRule(maximum=1), ArgumentRule(maximum=2), 1, [2, 3]),
        (ArgumentRule(max_len=1), ArgumentRule(max_len=2), "a", ["aa", "aaa"]),
        (ArgumentRule(chars=frozenset("ab")), ArgumentRule(chars=frozenset("bc")), "b", ["a", "c"]),
    ],
    ids=["in", "prefix", "longer prefix", "min", "max", "max_len", "chars"],
)
def test_narrowed_rule_is_the_tighter(one, other, passing, failing):
    for narrowed in (one.narrowed_by(other), other.narrowed_by(one)):
        assert narrowed.fault(passing) == ""
        assert all(narrowed.fault(value) for value in failing)


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("b", "ab"), ("ab", "b"), ("abc", "abd")])
def test_prefixes_that_exclude_each_other_let_nothing_through(one, other):
    narrowed = ArgumentRule(prefix=one).narrowed_by(ArgumentRule(prefix=other))
    assert all(narrowed.fault(value) for value in (one, other, one + other, other + one, "", "abcd"))
