"""Rules for argument values: bounds, sets, prefixes and lengths, all in linear time and all failing closed.

There are no patterns, so no argument can make a rule slow (ReDoS). A value of another type than the rule speaks of
fails it, and so do NaN, the infinities, and an argument that is left out. A ``bool`` is no number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import copysign
from typing import Final, Literal

Value = str | int | Decimal | bool
Tagged = tuple[Literal["text", "number", "flag"], Value]
"""A value with its kind: without it, ``true`` and ``1`` would be the same to a set."""

_LARGEST: Final = 1.7976931348623157e308
"""The largest finite float."""


@dataclass(frozen=True, slots=True)
class ArgumentRule:
    """What a policy demands of one argument; every part that is set must hold.

    Attributes:
        minimum: Smallest number; exact for integers and decimals, for floats the nearest float.
        maximum: Largest number, likewise.
        values: The only values there are; empty: none passes.
        prefix: What a text must begin with.
        max_len: Most characters of a text, or most bytes or items.
        chars: The only characters a text may have.
        rule: The line that says so, such as ``org-b.toml:31``.
    """

    minimum: int | Decimal | None = None
    maximum: int | Decimal | None = None
    values: frozenset[Tagged] | None = None
    prefix: str | None = None
    max_len: int | None = None
    chars: frozenset[str] | None = None
    rule: str = ""

    def fault(self, value: object) -> str:
        """Return which part of the rule the value fails, empty if none; never the value itself.

        Exact types only: a bool is an int to ``isinstance``, and a subclass could bring its own comparison.
        """
        if (self.minimum is not None or self.maximum is not None) and (fault := self._bound_fault(value)):
            return fault
        if self.values is not None and not _is_one_of(value, self.values):
            return "in"
        if self.prefix is not None and not (type(value) is str and value.startswith(self.prefix)):
            return "prefix"
        if self.max_len is not None and not _has_at_most(value, self.max_len):
            return "max_len"
        if self.chars is not None and not (type(value) is str and self.chars.issuperset(value)):
            return "chars"
        return ""

    def narrowed_by(self, other: "ArgumentRule") -> "ArgumentRule":
        """Return the rule that passes exactly what both pass; its line is that of ``other``."""
        values = self.values if other.values is None else other.values
        if self.values is not None and other.values is not None:
            values = self.values & other.values
        prefix = self.prefix if other.prefix is None else other.prefix
        if self.prefix is not None and other.prefix is not None:
            prefix = max(self.prefix, other.prefix, key=len)
            if not (prefix.startswith(self.prefix) and prefix.startswith(other.prefix)):
                values = frozenset()
        chars = self.chars if other.chars is None else other.chars
        if self.chars is not None and other.chars is not None:
            chars = self.chars & other.chars
        minima = [bound for bound in (self.minimum, other.minimum) if bound is not None]
        maxima = [bound for bound in (self.maximum, other.maximum) if bound is not None]
        lengths = [length for length in (self.max_len, other.max_len) if length is not None]
        return ArgumentRule(
            minimum=max(minima, default=None),
            maximum=min(maxima, default=None),
            values=values,
            prefix=prefix,
            max_len=min(lengths, default=None),
            chars=chars,
            rule=other.rule,
        )

    def _bound_fault(self, value: object) -> str:
        if type(value) is float:
            return self._float_fault(value)
        if type(value) is Decimal:
            if not value.is_finite():
                return "finite"
            return self._exact_fault(value, is_negative_zero=value.is_zero() and value.is_signed())
        if type(value) is int:
            return self._exact_fault(value, is_negative_zero=False)
        return "number"

    def _exact_fault(self, value: int | Decimal, *, is_negative_zero: bool) -> str:
        # Each comparison is written so that what is not provably inside is outside.
        if self.minimum is not None and (not value >= self.minimum or (is_negative_zero and self.minimum >= 0)):
            return "min"
        if self.maximum is not None and not value <= self.maximum:
            return "max"
        return ""

    def _float_fault(self, value: float) -> str:
        # NaN fails both comparisons, and an infinity one of them.
        if not -_LARGEST <= value <= _LARGEST:
            return "finite"
        # A float is compared with the float that the reviewer wrote: 0.1 is within max = 0.1.
        if self.minimum is not None:
            is_negative_zero = value == 0 and copysign(1.0, value) < 0
            if not value >= float(self.minimum) or (is_negative_zero and self.minimum >= 0):
                return "min"
        if self.maximum is not None and not value <= float(self.maximum):
            return "max"
        return ""


def intersection(old: Mapping[str, ArgumentRule], new: Mapping[str, ArgumentRule]) -> dict[str, ArgumentRule]:
    """Return rules that pass exactly the arguments which pass both; one for each parameter named in either."""
    merged = dict(old)
    for parameter, rule in new.items():
        previous = merged.get(parameter)
        merged[parameter] = rule if previous is None else previous.narrowed_by(rule)
    return merged


def _is_one_of(value: object, values: frozenset[Tagged]) -> bool:
    if type(value) is str:
        return ("text", value) in values
    if type(value) is bool:
        return ("flag", value) in values
    if type(value) is float:
        # NaN equals nothing, and no candidate is infinite.
        return any(tag == "number" and float(candidate) == value for tag, candidate in values)
    if type(value) is int or (type(value) is Decimal and value.is_finite()):
        return any(tag == "number" and candidate == value for tag, candidate in values)
    return False


def _has_at_most(value: object, count: int) -> bool:
    if type(value) is str or type(value) is bytes:
        return len(value) <= count
    if type(value) in {list, tuple, set, frozenset, dict}:
        return len(value) <= count  # type: ignore[arg-type]  # the line above says it has a length
    return False
