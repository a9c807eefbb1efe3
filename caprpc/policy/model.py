"""A policy as plain, immutable data: what its files say, checked, with the line of every rule.

Nothing here decides; ``guard`` does. Rules are texts such as ``org-b.toml:23``, ready for the audit log.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

from caprpc.ids import OP_CLOSE, OP_EXIT
from caprpc.limits import Limits
from caprpc.policy.arguments import ArgumentRule

Key = tuple[int, str]
"""An operation of ``caprpc.ids`` and a member name, empty for operations without one."""

OPAQUE_INTERFACE: Final = "Opaque"
"""Interface of the facet that permits nothing."""
ITERATOR: Final = "Iterator"
CALLABLE: Final = "Callable"
ENDINGS: Final = frozenset({OP_CLOSE, OP_EXIT})
"""Operations that only give something up: limits never keep a peer from them."""


@dataclass(frozen=True, slots=True)
class MemberLimit:
    """How often, how long and how much for one member; None where the policy sets nothing.

    Rates are token buckets that refill all the time: ``per_day = 100`` never lets more than 100 through at once, and
    gives one back every 14.4 minutes; it is not reset at midnight.
    """

    per_second: float | None = None
    per_hour: float | None = None
    per_day: float | None = None
    burst: int | None = None
    in_flight: int | None = None
    timeout_s: float | None = None
    max_items: int | None = None
    max_bytes: int | None = None
    callbacks: int | None = None
    """How many calls of ours one call may cause; 0: none."""

    @property
    def is_counted(self) -> bool:
        """Whether calls must be counted, that is, whether a limiter is needed."""
        return any(value is not None for value in (self.per_second, self.per_hour, self.per_day, self.in_flight))


NO_LIMIT: Final = MemberLimit()
FACET_LIMITS: Final = ("per_second", "per_hour", "per_day", "burst", "in_flight")
"""What may be limited for all members of a facet together; the others are about one call."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One operation on one member that an offer lists."""

    operation: int
    member: str
    rule: str
    arguments: Mapping[str, ArgumentRule]
    limit: MemberLimit
    returns: str | None
    """Facet of a returned reference, ``opaque``, or None: nothing may be returned by reference."""
    record: frozenset[str]


@dataclass(frozen=True, slots=True)
class Passing:
    """What crosses more than one connection under a facet."""

    onward: bool = False
    """Whether the peer may pass such references on to third parties, telling us to whom."""
    sources: frozenset[str] = frozenset()
    """Principals whose objects we may hand to the peer as this facet."""

    def within(self, other: "Passing") -> "Passing":
        """Return what both allow."""
        return Passing(self.onward and other.onward, self.sources & other.sources)


NO_PASSING: Final = Passing()


@dataclass(frozen=True, slots=True)
class Offer:
    """A facet: what the peer may do with such a reference to an object of ours."""

    name: str
    interface: str
    rule: str
    """The line of the table header: what an audit record of a denial points at."""
    grants: Mapping[Key, Grant]
    passing: Passing = NO_PASSING
    limit: MemberLimit = NO_LIMIT
    """Of all its members together, iterators that come from them included; nothing but ``FACET_LIMITS``."""
    limit_rule: str = ""
    """The line of that limit."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A call that we may make on an object of theirs."""

    interface: str
    operation: int
    member: str
    rule: str


Lifetime = Literal["call", "connection"] | float


@dataclass(frozen=True, slots=True)
class Lend:
    """An object of ours that may be passed to one parameter of one of their members."""

    interface: str
    member: str
    parameter: str
    facet: str
    lifetime: Lifetime
    """``call``: until the call it was passed to has ended; ``connection``; or seconds from then on."""
    max_uses: int | None
    rule: str


LendKey = tuple[str, str, str]
"""Interface, member and parameter."""


@dataclass(frozen=True, slots=True)
class Root:
    """A name under which the peer gets a first reference."""

    name: str
    facet: str
    rule: str


@dataclass(frozen=True, slots=True)
class Restorable:
    """What a peer may restore by a sturdy reference: a root by its name, or objects of one kind."""

    name: str
    facet: str
    bearer: bool
    """Whether it may restore what is sealed to nobody."""
    max_for_s: float | None
    """Longest life of a grant, from the moment it was given; None: as long as the grant says."""
    rule: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything one peer may do, and everything we may do with what is theirs."""

    name: str
    file: str
    owner: str
    reason: str
    tags: tuple[str, ...]
    not_before: datetime | None
    """Until then the policy matches nobody."""
    not_after: datetime | None
    """The connection must end then at the latest."""
    anchors: frozenset[str]
    principals: frozenset[str]
    peer_rule: str
    """The line of ``[peer]``."""
    roots_rule: str
    """The line of ``[roots]``, or of ``[peer]`` if there are none."""
    roots: Mapping[str, Root]
    offers: Mapping[str, Offer]
    """Facets by name; those that follow from ``iterate = true`` included."""
    accepts: Mapping[tuple[str, int, str], Accepted]
    lends: Mapping[LendKey, Lend]
    restores: Mapping[str, Restorable]
    limits: Limits
    connections: int | None
    audit_level: Literal["deny", "decision", "outcome"]
    audit_on_failure: Literal["refuse"]
    audit_durability: Literal["os", "group", "sync"]
    """What a record survives when the call that it permits runs: the process, or also the machine."""
    audit_arguments: Literal["none", "digest"]
    """What stands in a record for argument values that the policy does not record."""
    digest: str
    """``sha256:`` and the digest of the file, or of the file and the shared ones that it uses."""


Number = int | Decimal
