"""The tighter of two rules, piece by piece; a reload may take away from a live connection and never add."""

from collections.abc import Mapping
from dataclasses import asdict

from caprpc.policy.model import Lend, LendKey, Lifetime, MemberLimit
from caprpc.policy.names import OPAQUE


def narrower_limit(old: MemberLimit, new: MemberLimit) -> MemberLimit:
    """Return limits that let through only what both let through."""
    tight: dict[str, float] = {name: bound for name, bound in asdict(old).items() if bound is not None}
    for name, bound in asdict(new).items():
        if bound is not None:
            tight[name] = min(tight.get(name, bound), bound)
    bursts = [_burst(limit) for limit in (old, new) if limit.per_second is not None]
    if bursts:
        # A rate without a burst has one all the same, and it must not grow because the other names a larger.
        tight["burst"] = min(bursts)
    return MemberLimit(**tight)  # type: ignore[arg-type]  # each field keeps the type it had


def narrower_result(old: str | None, new: str | None) -> str | None:
    """Return the facet of results that gives no more than either; ``opaque`` where they differ."""
    if old is None or new is None:
        return None
    return new if old == new else OPAQUE


def narrower_lends(old: Mapping[LendKey, Lend], new: Mapping[LendKey, Lend]) -> dict[LendKey, Lend]:
    """Return the lends that both policies have, each with the shorter life."""
    lends: dict[LendKey, Lend] = {}
    for key, lend in new.items():
        before = old.get(key)
        if before is None or before.facet != lend.facet:
            continue
        uses = [bound for bound in (before.max_uses, lend.max_uses) if bound is not None]
        lends[key] = Lend(
            interface=lend.interface,
            member=lend.member,
            parameter=lend.parameter,
            facet=lend.facet,
            lifetime=_shorter(before.lifetime, lend.lifetime),
            max_uses=min(uses, default=None),
            rule=lend.rule,
        )
    return lends


def _burst(limit: MemberLimit) -> float:
    if limit.burst is not None:
        return limit.burst
    return max(1.0, limit.per_second or 0.0)


def _shorter(one: Lifetime, other: Lifetime) -> Lifetime:
    if "call" in (one, other):
        return "call"
    if one == "connection":
        return other
    if other == "connection":
        return one
    return min(float(one), float(other))
