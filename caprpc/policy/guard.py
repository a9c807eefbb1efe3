"""The reference monitor: every operation of a peer passes ``Guard.check``, or does not happen.

A policy is compiled into one table for each facet, ``{(operation, member): permit}``; a decision is one dictionary
look-up. Permits are made in this module only; a permit is the evidence that dispatch demands. A permit is good for the
operation it was returned for, now: it is asked for anew for each operation and not kept.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from caprpc.ids import OP_ATTENUATE, OP_RESTORE, OP_REVOKE, OP_ROOT
from caprpc.policy.arguments import ArgumentRule, intersection
from caprpc.policy.limits import tighter
from caprpc.policy.model import (
    NO_LIMIT,
    OPAQUE_INTERFACE,
    Accepted,
    Grant,
    Key,
    Lend,
    MemberLimit,
    Offer,
    Policy,
    Restorable,
)
from caprpc.policy.names import OPAQUE
from caprpc.policy.narrowing import narrower_lends, narrower_limit, narrower_result
from caprpc.policy.quotas import BothLimiters, Limiter, Usages
from caprpc.policy.refused import Refused
from caprpc.policy.restores import narrower_restores
from caprpc.policy.tables import PermitTable

ROOT_FACET: Final = "root"
"""Name of the facet of export 0, for the audit log."""
_NO_ARGUMENTS: Final[Mapping[str, ArgumentRule]] = {}
_IMPLICIT: Final = (OP_ATTENUATE, OP_REVOKE)


@dataclass(frozen=True, slots=True, eq=False)
class Permit:
    """Evidence that the policy lets the peer do one thing; constructed in this module and nowhere else.

    If ``limiter`` is not None, ``give_back()`` must be called once when the operation has ended, however it ended.
    """

    facet: str
    """The facet it was asked of; for a root, the facet that the root hands out."""
    operation: int
    member: str
    rule: str
    """The line that grants it, such as ``org-b.toml:23``."""
    policy: str
    """Digest of the policy that granted it."""
    limiter: Limiter | BothLimiters | None
    in_flight: int | None
    timeout_s: float | None
    max_items: int | None
    max_bytes: int | None
    returns: str | None
    """Facet of a returned reference, ``opaque``, or None: nothing may be returned by reference."""
    record: frozenset[str]
    """Names of arguments that the audit log may keep in clear."""
    arguments: Mapping[str, ArgumentRule]
    limit: MemberLimit
    origin: "Permit | None" = None
    """The permit of the policy that a derived reference has narrowed; None: it is that itself."""

    def check_arguments(self, values: Mapping[str, object]) -> None:
        """Check decoded arguments against the policy's rules; call it if ``arguments`` is not empty.

        Args:
            values: Arguments by the name of their parameter. One that is left out fails its rule: a default could be
                more than what the policy allows.

        Raises:
            Refused: An argument fails its rule, or a rule cannot be evaluated.
        """
        for parameter, rule in self.arguments.items():
            if parameter not in values:
                raise self._refused("argument", rule, f"{parameter}: missing")
            try:
                fault = rule.fault(values[parameter])
            except Exception as exc:  # Whatever goes wrong while deciding, the decision is no (fail closed).
                raise self._refused("rule-error", rule, f"{parameter}: {type(exc).__name__}") from exc
            if fault:
                raise self._refused("argument", rule, f"{parameter}: {fault}")

    def give_back(self, calls: int = 1) -> None:
        """Note that the operation has ended; only needed if ``limiter`` is not None."""
        if self.limiter is not None:
            self.limiter.give_back(calls)

    def _refused(self, reason: str, rule: ArgumentRule, detail: str) -> Refused:
        return Refused(
            reason,
            rule=rule.rule,
            facet=self.facet,
            operation=self.operation,
            member=self.member,
            policy=self.policy,
            detail=detail,
        )


class Facet:
    """What one peer may do with one kind of reference, on one connection; the same object for as long as that lives.

    Invariant: ``permits`` is replaced as a whole, and each table permits no more than the one before.
    """

    __slots__ = ("interface", "name", "permits")

    def __init__(self, name: str, interface: str, permits: PermitTable) -> None:
        self.name = name
        self.interface = interface
        self.permits = permits


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy as the tables in which a guard looks things up."""

    policy: Policy
    facets: Mapping[str, PermitTable]
    opaque: PermitTable
    roots: PermitTable


class PrincipalQuotas:
    """What all connections of one principal share: its counters, and the compiled permits of its policy.

    Keep one for each principal, for as long as the process runs: dropping it when the last connection closes would let
    a peer refill its buckets by reconnecting. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.usages = Usages()
        self._compiled: CompiledPolicy | None = None
        self._connections = 0

    def open_connection(self, limit: int) -> bool:
        """Count one more connection; False, and not counted, if there are ``limit`` already."""
        with self._lock:
            if self._connections >= limit:
                return False
            self._connections += 1
            return True

    def close_connection(self) -> None:
        """Note that a connection which was counted has ended."""
        with self._lock:
            if self._connections > 0:
                self._connections -= 1

    def compiled(self, policy: Policy) -> CompiledPolicy:
        """Return what a policy permits, compiled once for all connections of the principal."""
        compiled = self._compiled
        if compiled is None or compiled.policy is not policy:
            compiled = self._compiled = CompiledPolicy(
                policy=policy,
                facets={name: _table(offer, policy, self) for name, offer in policy.offers.items()},
                opaque=PermitTable({}, policy.peer_rule, policy.digest),
                roots=_root_table(policy),
            )
        return compiled


class Guard:
    """Decides for one connection, both ways, by the policy of its peer.

    Attributes:
        policy: The newest policy that it enforces; what it enforces is never more than any before allowed.
        closed: Whether a reload took the peer's policy away: nothing is permitted any more.
        limits: The limits of the connection; they only ever become tighter.
        roots: The facet of export 0.
        restores: What the peer may restore by a sturdy reference, and how far.
        accepts: What we may do with what is theirs; another object after each ``narrow``, so that an answer which was
            kept beside the object it came from is known to be old.
    """

    __slots__ = (
        "_facets",
        "_lends",
        "_narrowing",
        "_opaque",
        "_quotas",
        "accepts",
        "closed",
        "limits",
        "policy",
        "restores",
        "roots",
    )

    def __init__(self, policy: Policy, quotas: PrincipalQuotas) -> None:
        self.policy = policy
        self.closed = False
        self.limits = policy.limits
        self._quotas = quotas
        compiled = quotas.compiled(policy)
        self._facets = {
            name: Facet(name, policy.offers[name].interface, table) for name, table in compiled.facets.items()
        }
        self._facets[OPAQUE] = Facet(OPAQUE, OPAQUE_INTERFACE, compiled.opaque)
        self._opaque = {OPAQUE_INTERFACE: self._facets[OPAQUE]}
        self.roots = Facet(ROOT_FACET, "Root", compiled.roots)
        self.accepts = policy.accepts
        self.restores: Mapping[str, Restorable] = policy.restores
        self._lends = policy.lends
        self._narrowing = threading.Lock()

    def check(self, facet: Facet, operation: int, member: str, now: float, calls: int = 1) -> Permit:
        """Decide one operation of the peer; the only way to a permit.

        Args:
            facet: The facet of the reference that the operation is on.
            operation: A code of ``caprpc.ids``.
            member: Empty for operations without a name.
            now: Seconds of a monotonic clock.
            calls: How many equal calls the decision is for (a run of a batch); limits let through all or none.

        Raises:
            Refused: The peer may not do this, or not now.
        """
        permits = facet.permits
        permit: Permit | None = permits.get((operation, member)) or permits.implicit.get((operation, member))
        if permit is None:
            reason = "closed" if self.closed else "not-granted"
            raise Refused(
                reason,
                rule=permits.rule,
                facet=facet.name,
                operation=operation,
                member=member,
                policy=permits.policy,
            )
        if permit.limiter is not None:
            exhausted = permit.limiter.take(now, calls)
            if exhausted:
                raise Refused(
                    exhausted,
                    rule=permit.rule,
                    facet=permit.facet,
                    operation=operation,
                    member=member,
                    policy=permit.policy,
                )
        return permit

    def granted_roots(self) -> dict[str, str]:
        """Return the name and the interface of each root that the peer may ask for now."""
        permits = self.roots.permits
        asked = {name: permit for (code, name), permit in permits.items() if code == OP_ROOT and name}
        return {name: self._facets[permit.facet].interface for name, permit in asked.items()}

    def facet(self, name: str) -> Facet:
        """Return the facet of that name; ``opaque`` permits nothing.

        Raises:
            KeyError: The policy has no such facet.
        """
        return self._facets[name]

    def facet_for_result(self, permit: Permit, interface: str = OPAQUE_INTERFACE) -> Facet | None:
        """Return the facet of a reference to such an object that the operation returns; None: it may return none."""
        if permit.returns != OPAQUE:
            return None if permit.returns is None else self._facets[permit.returns]
        with self._narrowing:
            # The peer takes no reference of another interface than the declared one, and may nothing with it.
            return self._opaque.setdefault(interface, Facet(OPAQUE, interface, self._facets[OPAQUE].permits))

    def accept(self, interface: str, operation: int, member: str) -> Accepted | None:
        """Return the rule by which we may make this call on an object of theirs, or None: we may not.

        For ``OP_ROOT`` the name is free: any call on the interface being accepted lets us ask for such a root.
        """
        return self.accepts.get((interface, operation, "" if operation == OP_ROOT else member))

    def lend(self, interface: str, member: str, parameter: str) -> Lend | None:
        """Return the rule by which our object may be passed to a parameter of theirs, or None: it may not."""
        return self._lends.get((interface, member, parameter))

    def narrow(self, policy: Policy | None) -> None:
        """Enforce a reloaded policy on top of what was enforced before; at once, on references that are out, too.

        What the new one adds is not granted here: it needs a new connection. None: there is no policy for this peer any
        more, and nothing is permitted from now on.
        """
        with self._narrowing:
            if policy is None:
                self.closed = True
            else:
                self.policy = policy
                self.limits = tighter(self.limits, policy.limits)
            digest = self.policy.digest
            for facet in (*self._facets.values(), *self._opaque.values()):
                offer = None if policy is None else policy.offers.get(facet.name)
                facet.permits = _narrower(facet, offer, self.policy, self._quotas)
            roots = {} if policy is None else _root_table(policy)
            kept = {
                key: permit
                for key, permit in roots.items()
                if (old := self.roots.permits.get(key)) is not None and old.returns == permit.returns
            }
            self.roots.permits = PermitTable(kept, self.policy.roots_rule, digest)
            accepts = {} if policy is None else policy.accepts
            self.accepts = {key: rule for key, rule in accepts.items() if key in self.accepts}
            self.restores = narrower_restores(self.restores, {} if policy is None else policy.restores)
            self._lends = narrower_lends(self._lends, {} if policy is None else policy.lends)


def _root_table(policy: Policy) -> PermitTable:
    entries = [(OP_ROOT, root.name, root.rule, root.facet) for root in policy.roots.values()]
    entries += [(OP_RESTORE, entry.name, entry.rule, entry.facet) for entry in policy.restores.values()]
    grants = {
        (operation, name): Grant(operation, name, rule, _NO_ARGUMENTS, NO_LIMIT, facet, frozenset())
        for operation, name, rule, facet in entries
    }
    if policy.roots:
        # Who may ask for a root by its name may ask which names those are, and learns of no other.
        grants[OP_ROOT, ""] = Grant(OP_ROOT, "", policy.roots_rule, _NO_ARGUMENTS, NO_LIMIT, None, frozenset())
    permits = {key: _permit(grants[key].returns or ROOT_FACET, grants[key], policy.digest, None) for key in grants}
    return PermitTable(permits, policy.roots_rule, policy.digest)


def _table(offer: Offer, policy: Policy, quotas: PrincipalQuotas) -> PermitTable:
    permits = {
        key: _permit(offer.name, grant, policy.digest, quotas.usages.limiter(offer.name, grant, offer.limit))
        for key, grant in offer.grants.items()
    }
    return _with_implicit(permits, offer, policy)


def _with_implicit(permits: dict[Key, Permit], offer: Offer, policy: Policy) -> PermitTable:
    """Return the table of a facet, with what every holder of a reference may do: make a lesser one, and end that."""
    grants = (Grant(code, "", offer.rule, _NO_ARGUMENTS, NO_LIMIT, None, frozenset()) for code in _IMPLICIT)
    narrow, end = (_permit(offer.name, grant, policy.digest, None) for grant in grants)
    implicit = {(OP_ATTENUATE, ""): narrow}
    return PermitTable(
        permits, offer.rule, policy.digest, implicit=implicit, ending=end, passing=offer.passing, limit=offer.limit
    )


def narrowed(permit: Permit, arguments: Mapping[str, ArgumentRule]) -> Permit:
    """Return a permit for less: with rules for arguments that pass only what its own pass."""
    rules = intersection(permit.arguments, arguments)
    return permit if rules == permit.arguments else replace(permit, arguments=rules, origin=permit.origin or permit)


def _permit(facet: str, grant: Grant, digest: str, limiter: Limiter | BothLimiters | None) -> Permit:
    return Permit(
        facet=facet,
        operation=grant.operation,
        member=grant.member,
        rule=grant.rule,
        policy=digest,
        limiter=limiter,
        in_flight=grant.limit.in_flight,
        timeout_s=grant.limit.timeout_s,
        max_items=grant.limit.max_items,
        max_bytes=grant.limit.max_bytes,
        returns=grant.returns,
        record=grant.record,
        arguments=grant.arguments,
        limit=grant.limit,
    )


def _narrower(facet: Facet, offer: Offer | None, policy: Policy, quotas: PrincipalQuotas) -> PermitTable:
    """Return what both the table in force and the new offer permit."""
    if offer is None or offer.interface != facet.interface:
        return PermitTable({}, policy.peer_rule, policy.digest)
    permits: dict[Key, Permit] = {}
    old = facet.permits
    together = narrower_limit(old.limit, offer.limit)
    for key, was in old.items():
        new = offer.grants.get(key)
        if new is None:
            continue
        grant = Grant(
            operation=new.operation,
            member=new.member,
            rule=new.rule,
            arguments=intersection(was.arguments, new.arguments),
            limit=narrower_limit(was.limit, new.limit),
            returns=narrower_result(was.returns, new.returns),
            record=was.record & new.record,
        )
        limiter = quotas.usages.limiter(facet.name, grant, together)
        permits[key] = _permit(facet.name, grant, policy.digest, limiter)
    if not old.implicit:
        return PermitTable(permits, offer.rule, policy.digest, limit=together)
    narrower = replace(offer, passing=offer.passing.within(old.passing), limit=together)
    return _with_implicit(permits, narrower, policy)
