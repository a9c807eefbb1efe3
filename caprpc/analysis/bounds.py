"""Whether one constraint lets through no more than another.

Every answer errs on one side: ``no_wider`` says yes only where it is proved. A difference between policies can
therefore name something that is not new, and never leave out something that is.
"""

from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from enum import Enum
from typing import Final

from caprpc.policy import NO_LIMIT, ArgumentRule, Lend, MemberLimit, Restorable

NOTHING: Final[Mapping[str, ArgumentRule]] = {}


class Change(Enum):
    """How a constraint compares with the one before."""

    SAME = "same"
    NARROWER = "narrower"
    WIDER = "wider"
    """It may let through something that did not pass before; what passed may be refused, too."""


def compare(*, forward: bool, backward: bool) -> Change:
    """Return the change if the new is within the old (``forward``) and the old within the new (``backward``)."""
    if not forward:
        return Change.WIDER
    return Change.SAME if backward else Change.NARROWER


def rules_no_wider(new: Mapping[str, ArgumentRule], old: Mapping[str, ArgumentRule]) -> bool:
    """Say whether all arguments that pass the new rules pass the old ones."""
    if any(is_empty(rule) for rule in new.values()):
        return True
    return all(parameter in new and rule_no_wider(new[parameter], rule) for parameter, rule in old.items())


def rule_no_wider(new: ArgumentRule, old: ArgumentRule) -> bool:
    """Say whether every value that passes the new rule passes the old one."""
    if is_empty(new):
        return True
    if new.values is not None:
        return all(not _passes(new, value) or _passes(old, value) for tagged in new.values for value in _forms(tagged))
    if old.values is not None:
        return False
    if _is_numeric(new):
        return not _is_textual(old) and old.max_len is None and _bounds_within(new, old)
    if _is_numeric(old):
        return False
    if not _is_textual(new) and _is_textual(old):
        return False
    return (
        (old.prefix is None or (new.prefix is not None and new.prefix.startswith(old.prefix)))
        and (old.max_len is None or (new.max_len is not None and new.max_len <= old.max_len))
        and (old.chars is None or (new.chars is not None and new.chars <= old.chars))
    )


def is_empty(rule: ArgumentRule) -> bool:
    """Say whether it is certain that no value passes a rule."""
    if rule.values is not None:
        return not any(_passes(rule, value) for tagged in rule.values for value in _forms(tagged))
    if _is_numeric(rule):
        if _is_textual(rule) or rule.max_len is not None:
            return True
        return rule.minimum is not None and rule.maximum is not None and float(rule.minimum) > float(rule.maximum)
    if rule.prefix is None:
        return False
    too_long = rule.max_len is not None and len(rule.prefix) > rule.max_len
    return too_long or (rule.chars is not None and not rule.chars.issuperset(rule.prefix))


def limit_no_wider(new: MemberLimit, old: MemberLimit) -> bool:
    """Say whether the new limits let through no more than the old ones, whenever it is asked."""
    if old in (NO_LIMIT, new):
        return True
    before, after = _effective(old), _effective(new)
    return all(name in after and after[name] <= bound for name, bound in before.items())


def lend_no_wider(new: Lend, old: Lend) -> bool:
    """Say whether a lent object lives no longer, and for no more uses, than before."""
    uses = old.max_uses is None or (new.max_uses is not None and new.max_uses <= old.max_uses)
    return uses and _lifetime_no_longer(new, old)


def restore_no_wider(new: Restorable, old: Restorable) -> bool:
    """Say whether grants may be restored no longer, and by nobody else, than before."""
    shorter = old.max_for_s is None or (new.max_for_s is not None and new.max_for_s <= old.max_for_s)
    return shorter and (old.bearer or not new.bearer)


def _lifetime_no_longer(new: Lend, old: Lend) -> bool:
    if old.lifetime in (new.lifetime, "connection"):
        # Nothing that a peer holds outlives its connection.
        return True
    if isinstance(new.lifetime, float) and isinstance(old.lifetime, float):
        return new.lifetime <= old.lifetime
    return False


def _effective(limit: MemberLimit) -> dict[str, float]:
    bounds: dict[str, float] = {name: bound for name, bound in asdict(limit).items() if bound is not None}
    if limit.per_second is not None and limit.burst is None:
        bounds["burst"] = max(1.0, limit.per_second)
    return bounds


def _is_numeric(rule: ArgumentRule) -> bool:
    return rule.minimum is not None or rule.maximum is not None


def _is_textual(rule: ArgumentRule) -> bool:
    return rule.prefix is not None or rule.chars is not None


def _bounds_within(new: ArgumentRule, old: ArgumentRule) -> bool:
    low = old.minimum is None or (new.minimum is not None and new.minimum >= old.minimum)
    high = old.maximum is None or (new.maximum is not None and new.maximum <= old.maximum)
    return low and high


def _forms(tagged: tuple[str, object]) -> list[object]:
    """Return the values of every type that stand for one element of ``in``: 1 is also 1.0 and Decimal(1)."""
    _, value = tagged
    if type(value) is int or isinstance(value, Decimal):
        forms: list[object] = [Decimal(value), float(value)]
        if value == int(value):
            forms.append(int(value))
        if not value:
            # A zero with a sign equals zero, and is below ``min = 0``.
            forms += [-0.0, Decimal("-0")]
        return forms
    return [value]


def _passes(rule: ArgumentRule, value: object) -> bool:
    return not rule.fault(value)
