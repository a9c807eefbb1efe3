"""The facet of a derived reference: the intersection of a facet's current table with what narrows the reference."""

from collections.abc import Sequence
from typing import Any

from caprpc.ids import OP_REVOKE
from caprpc.policy.attenuation import Narrowing
from caprpc.policy.guard import Facet, narrowed
from caprpc.policy.model import Key
from caprpc.policy.tables import PermitTable


class DerivedFacet(Facet):
    """What one peer may do with one derived reference.

    Invariant: it permits nothing that its base does not permit *now*: a reload that narrows the base narrows this too.
    """

    __slots__ = ("_current", "_narrowings", "base", "revocable")

    def __init__(self, base: Facet, narrowings: Sequence[Narrowing], *, revocable: bool) -> None:
        """Take a facet of the policy, everything that narrows the reference, and whether its holder may end it."""
        self.name = base.name
        self.interface = base.interface
        self.base = base
        self.revocable = revocable
        self._narrowings = narrowings
        self._current: tuple[PermitTable | None, PermitTable] = (None, PermitTable({}, "", ""))
        """A table of the base and what was made of it: replaced together."""

    @property
    def permits(self) -> PermitTable:  # type: ignore[override]
        """What is permitted now; made anew when the base has been narrowed."""
        made_of, table = self._current
        base = self.base.permits
        if made_of is not base:
            table = _table(base, self._narrowings, revocable=self.revocable)
            self._current = (base, table)
        return table


def base_of(facet: Facet) -> Facet:
    """Return the facet of the policy behind a facet."""
    return facet.base if isinstance(facet, DerivedFacet) else facet


def keys(facet: Facet) -> frozenset[tuple[int, str]]:
    """Return what a facet permits now."""
    return frozenset(facet.permits)


def may_pass_on(facet: Facet) -> bool:
    """Whether the peer may pass references of a facet on to third parties."""
    return facet.permits.passing.onward


def sources(facet: Facet) -> frozenset[str]:
    """Return the principals whose objects may be handed to the peer as this facet."""
    return facet.permits.passing.sources


def _table(base: PermitTable, narrowings: Sequence[Narrowing], *, revocable: bool) -> PermitTable:
    kept: dict[Key, Any] = {}
    for key, permit in base.items():
        if all(narrowing.keeps(key) for narrowing in narrowings):
            kept[key] = permit
            for narrowing in narrowings:
                kept[key] = narrowed(kept[key], narrowing.rules_for(key))
    implicit = base.implicit
    if revocable and base.ending is not None:
        implicit = {**implicit, (OP_REVOKE, ""): base.ending}
    return PermitTable(kept, base.rule, base.policy, implicit=implicit, ending=base.ending, passing=base.passing)
