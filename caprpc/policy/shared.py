"""Shared facets: ``[offer.NAME]`` in files of their own, which every policy may name as if it were its own."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from caprpc.contract import InterfaceContract
from caprpc.policy.document import Table
from caprpc.policy.model import Offer, Policy
from caprpc.policy.names import name_fault
from caprpc.policy.offers import Elsewhere, peek_interface, read_offers
from caprpc.policy.problems import Problems

FACETS_KEYS: Final = ("caprpc", "kind", "offer")


class SharedFacets:
    """The facets of all files of the kind ``facets``; no name stands in it twice.

    Attributes:
        offers: Facets by name, those of iterators included.
        elsewhere: What the files offer, for those that may name it.
    """

    __slots__ = ("_digests", "elsewhere", "offers")

    def __init__(self, offers: Mapping[str, Offer], elsewhere: Elsewhere, digests: Mapping[str, str]) -> None:
        self.offers = offers
        self.elsewhere = elsewhere
        self._digests = digests

    @classmethod
    def read(
        cls, tables: Sequence[tuple[str, str, Table]], contracts: Mapping[str, InterfaceContract] | None
    ) -> "SharedFacets":
        """Return the facets of files, each with its name and digest; complaints go to the problems of the tables."""
        inner: dict[str, Table | None] = {}
        for file, _, top in tables:
            inner[file] = top.table("offer")
            top.finish(FACETS_KEYS)
            if not top.has("offer"):
                top.missing("offer", '[offer.NAME] with interface = "..."')
        found: dict[str, Offer] = {}
        standing = {file: _standing(table) for file, table in inner.items()}
        for file, table in inner.items():
            others = {name: entry for other in standing if other != file for name, entry in standing[other].items()}
            found |= read_offers(table, contracts, others)
        everything = {name: entry for names in standing.values() for name, entry in names.items()}
        digests = {name: digest for file, digest, _ in tables for name in standing[file]}
        return cls(MappingProxyType(found), everything, digests)

    def used(self, own: Mapping[str, Offer], named: Iterable[str]) -> dict[str, Offer]:
        """Return the facets that a policy uses: those it names, and those that these lead to."""
        pending = [*named, *(grant.returns for offer in own.values() for grant in offer.grants.values())]
        used: dict[str, Offer] = {}
        while pending:
            name = pending.pop()
            offer = None if name is None or name in own else self.offers.get(name)
            if offer is None or offer.name in used:
                continue
            used[offer.name] = offer
            pending += (grant.returns for grant in offer.grants.values())
        return {name: used[name] for name in self.offers if name in used}

    def digest(self, digest: str, used: Iterable[str]) -> str:
        """Return the digest of a policy: of its file, and of every shared file that it uses."""
        files = sorted({self._digests[name] for name in used if name in self._digests})
        if not files:
            return digest
        return "sha256:" + sha256("".join(f"{one}\n" for one in (digest, *files)).encode()).hexdigest()

    def warn_unused(self, policies: Sequence[Policy], problems: Problems) -> None:
        """Warn once of each facet that no policy uses."""
        used = {name for policy in policies for name in policy.offers}
        for name, offer in self.offers.items():
            if name not in used and "/" not in name:
                problems.warn(
                    offer.rule, f"no policy uses the facet {name}", "use it or delete it", code="unreachable-facet"
                )


NO_SHARED: Final = SharedFacets(MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))


def _standing(table: Table | None) -> dict[str, tuple[str, str]]:
    """Return what a file offers, before any of it is checked."""
    if table is None:
        return {}
    return {name: (peek_interface(inner), inner.where()) for name, inner in _quietly(table).items()}


def _quietly(table: Table) -> dict[str, Table]:
    """Return the tables whose names are good; ``read_offers`` complains about the others."""
    names = [name for name in table.keys if not name_fault(name) and isinstance(table.take(name), dict)]
    return {name: inner for name in names if (inner := table.table(name)) is not None}
