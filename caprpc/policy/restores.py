"""``[restore.NAME]``: which sturdy references the peer may restore, as which facet."""

from collections.abc import Mapping
from typing import Final

from caprpc.policy.document import Table
from caprpc.policy.model import Offer, Restorable
from caprpc.policy.names import name_fault
from caprpc.policy.problems import suggest

LEAST_SECONDS: Final = 1.0
MOST_SECONDS: Final = 10 * 31_536_000.0
"""Ten years: a grant that lasts longer is one that nobody looks at again."""


def read_restores(table: Table | None, offers: Mapping[str, Offer]) -> dict[str, Restorable]:
    """Return what the peer may restore, by name."""
    found: dict[str, Restorable] = {}
    if table is None:
        return found
    for name, inner in table.subtables(name_fault).items():
        facet = inner.word("as", name_fault)
        bearer = inner.flag("bearer")
        most = inner.number("max_for_s", LEAST_SECONDS, MOST_SECONDS)
        inner.finish(("as", "bearer", "max_for_s"))
        if not inner.has("as"):
            inner.missing("as", 'as = "AccountRO"')
        if facet is None:
            continue
        if facet not in offers:
            written = [offer for offer in offers if "/" not in offer]
            inner.complain("as", f"there is no [offer.{facet}]", suggest(facet, written), code="no-such-facet")
            continue
        found[name] = Restorable(name, facet, bearer is not None, most, inner.where())
    return found


def narrower_restores(old: Mapping[str, Restorable], new: Mapping[str, Restorable]) -> dict[str, Restorable]:
    """Return what both let the peer restore, each as far as both do."""
    kept: dict[str, Restorable] = {}
    for name, restorable in new.items():
        before = old.get(name)
        if before is not None and before.facet == restorable.facet:
            bounds = [bound for bound in (before.max_for_s, restorable.max_for_s) if bound is not None]
            kept[name] = Restorable(
                name, restorable.facet, before.bearer and restorable.bearer, min(bounds, default=None), restorable.rule
            )
    return kept
