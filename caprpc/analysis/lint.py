"""``lint``: what loads and is likely a mistake, or more than somebody meant to give."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from caprpc.analysis.authority import held_by, is_made, lend_name, member_name
from caprpc.contract import InterfaceContract, ParameterContract
from caprpc.errors import PolicyError
from caprpc.policy import MemberLimit, Policy, PolicySet
from caprpc.policy.contracts import GENERIC
from caprpc.policy.names import PLACEHOLDER

EXPIRES_SOON: Final = timedelta(days=30)
"""A month: long enough to get a renewal reviewed."""

EXTERNAL_TAG: Final = "external"
"""Marks policies for other organizations; they are held to more."""

CODES: Final[Mapping[str, str]] = {
    "unreachable-facet": "a facet that no root, lend or result gives to the peer",
    "idle-lend": "a lend in a call that no accept lets us make",
    "idle-accept": "an accept for an interface that we never come to hold an object of",
    "no-expiry": "a policy for another organization (tag external) without not_after",
    "expires-soon": "a policy that ends within 30 days",
    "expired": "a policy that has ended",
    "callback-without-timeout": "a granted member calls the peer back, and no timeout_s says how long that may take",
    "write-without-rate": "a member with an effect that another organization may use as often as it likes",
    "shared-ca": "a CA that may speak for the peers of more than one trust domain",
    "bearer-restore": "another organization may restore grants that are sealed to nobody",
    "takes-own": "a granted member takes an interface of ours that the peer holds, and may hand back",
    "no-owner": "nobody is named who answers for the policy",
    "no-reason": "nothing says why the policy exists",
    "contract-drift": "the code declares something else than what was reviewed",
    "placeholder": "a fingerprint of no key",
    "no-such-policy": "an exception for a policy that does not exist",
}
"""Every code that a finding may have, and what it means."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at."""

    code: str
    where: str
    message: str
    hint: str = ""
    column: int | None = None

    @property
    def key(self) -> str:
        """What a baseline file names: no line numbers, so that it survives edits elsewhere."""
        return f"{self.code} {self.where.partition(':')[0]} {self.message}"


def lint(policies: PolicySet, *, now: datetime, code: Mapping[str, InterfaceContract] | None = None) -> list[Finding]:
    """Return all findings in the order of files and lines.

    Args:
        policies: A set that has loaded, its invariants checked.
        now: The time, with its offset from UTC.
        code: What the code declares now, to be compared with what was reviewed; None leaves that out.
    """
    found = [finding for policy in policies.policies for finding in _policy(policies, policy, now)]
    found += _shared_anchors(policies)
    known = {(finding.where, finding.code) for finding in found}
    found += [
        Finding(warning.code, warning.where, warning.message, warning.hint, warning.column)
        for warning in policies.warnings
        # What has ended is found above, with its line; so are most facets that nothing gives.
        if warning.code != "expired" and (warning.where, warning.code) not in known
    ]
    if code is not None:
        found += _drift(policies, code)
    return sorted(found, key=_place)


def _shared_anchors(policies: PolicySet) -> Iterator[Finding]:
    """Yield a CA that two trust domains share: whoever can have it issue for one of them can be a peer of the other."""
    for anchor, domains in policies.anchors.items():
        if len(domains) < 2 or anchor == PLACEHOLDER:
            continue
        users = [policy for policy in policies.policies if anchor in policy.anchors]
        text = f"the CA {anchor} may speak for {', '.join(sorted(domains))} (policies {_names(users)})"
        yield Finding("shared-ca", users[0].peer_rule, text, "have each organization use a CA of its own")


def _names(policies: Iterable[Policy]) -> str:
    return ", ".join(sorted(policy.name for policy in policies))


def _policy(policies: PolicySet, policy: Policy, now: datetime) -> Iterator[Finding]:
    yield from _frame(policy, now)
    yield from _unused(policies, policy)
    yield from _granted(policies, policy)


def _frame(policy: Policy, now: datetime) -> Iterator[Finding]:
    if policy.not_after is None:
        if EXTERNAL_TAG in policy.tags:
            text = f"policy {policy.name} is for another organization and never ends"
            yield Finding("no-expiry", policy.peer_rule, text, "write: not_after = 2027-06-30T00:00:00Z")
    elif now >= policy.not_after:
        text = f"policy {policy.name} ended at {policy.not_after.isoformat()}"
        yield Finding("expired", policy.peer_rule, text, "renew it, or take it out of caprpc.toml")
    elif policy.not_after - now < EXPIRES_SOON:
        days = (policy.not_after - now).days
        text = f"policy {policy.name} ends in {days} {'day' if days == 1 else 'days'}"
        yield Finding("expires-soon", policy.peer_rule, text, "have its renewal reviewed")
    if not policy.owner:
        yield Finding("no-owner", policy.peer_rule, f"policy {policy.name} has no owner", 'write: owner = "..."')
    if not policy.reason:
        yield Finding("no-reason", policy.peer_rule, f"policy {policy.name} has no reason", 'write: reason = "..."')


def _unused(policies: PolicySet, policy: Policy) -> Iterator[Finding]:
    held = held_by(policy)
    for name, offer in policy.offers.items():
        if name not in held and "/" not in name:
            text = f"no root, lend or result gives the peer the facet {name}"
            yield Finding("unreachable-facet", offer.rule, text, "use it or delete it")
    for lend in policy.lends.values():
        if not is_made(policy, lend):
            hint = f'write in [accept.{lend.interface}]: call = ["{lend.member}"], or delete the lend'
            yield Finding("idle-lend", lend.rule, f"nothing is ever lent to {lend_name(lend)}", hint)
    taken = {
        parameter.reference
        for offer in policy.offers.values()
        for key in offer.grants
        for parameter in _parameters(policies, offer.interface, key)
    }
    returned = {
        member.returns_reference
        for interface, operation, name in policy.accepts
        if (contract := policies.contracts.get(interface)) is not None
        and (member := contract.members.get((operation, name))) is not None
    }
    first: dict[str, str] = {}
    for (interface, operation, _), accepted in policy.accepts.items():
        if operation:
            first.setdefault(interface, accepted.rule)
    for interface, rule in first.items():
        # Any interface may be that of a root of theirs; only the built-in kinds cannot.
        if interface in {"Callable", "Iterator"} and interface not in taken | returned:
            text = f"we never come to hold a {interface} of theirs"
            yield Finding("idle-accept", rule, text, f"delete [accept.{interface}]")


def _granted(policies: PolicySet, policy: Policy) -> Iterator[Finding]:
    accepted = {interface for interface, _, _ in policy.accepts}
    external = EXTERNAL_TAG in policy.tags
    for entry in policy.restores.values():
        if entry.bearer and external:
            text = f"policy {policy.name} lets whoever has the secret of a grant restore {entry.name} as {entry.facet}"
            yield Finding("bearer-restore", entry.rule, text, "delete: bearer = true")
    own = {held.offer.interface for held in held_by(policy).values()} - GENERIC.keys()
    for held in held_by(policy).values():
        for key, grant in held.offer.grants.items():
            name = member_name(held.offer.interface, *key)
            if not grant.rule.startswith(f"{policy.file}:"):
                # What is let pass for one policy that uses a shared facet is not let pass for the next one.
                name = f"{name} (policy {policy.name})"
            taken = {p.reference for p in _parameters(policies, held.offer.interface, key)} - {None}
            if taken & accepted and grant.limit.timeout_s is None:
                text = f"{name} may call the peer back, and nothing says how long that may take"
                yield Finding("callback-without-timeout", grant.rule, text, _limit_hint(held.offer.name, key))
            for interface in sorted(own & taken):
                text = f"{name} takes a {interface}, and gets our own object if the peer hands back one that it holds"
                yield Finding("takes-own", grant.rule, text, "grant it only if it may be done to each of them")
            contract = policies.contracts.get(held.offer.interface)
            declared = None if contract is None else contract.members.get(key)
            effect = "" if declared is None else declared.effect
            unlimited = not (_has_rate(grant.limit) or _has_rate(held.offer.limit))
            if external and key[1] and effect not in {"", "read"} and unlimited:
                text = f"{name} has the effect {effect!r} and no rate"
                yield Finding("write-without-rate", grant.rule, text, _limit_hint(held.offer.name, key, "per_hour"))


def _parameters(policies: PolicySet, interface: str, key: tuple[int, str]) -> tuple[ParameterContract, ...]:
    contract = policies.contracts.get(interface)
    declared = None if contract is None else contract.members.get(key)
    return () if declared is None else declared.parameters


def _has_rate(limit: MemberLimit) -> bool:
    return limit.per_second is not None or limit.per_hour is not None or limit.per_day is not None


def _limit_hint(facet: str, key: tuple[int, str], bound: str = "timeout_s") -> str:
    word = key[1] or "invoke"
    return f"write in [offer.{facet}.limit.{word}]: {bound} = {30 if bound == 'timeout_s' else 1000}"


def _drift(policies: PolicySet, code: Mapping[str, InterfaceContract]) -> Iterator[Finding]:
    try:
        policies.verify_contracts(code, complete=False)
    except PolicyError as exc:
        for problem in exc.problems:
            yield Finding("contract-drift", problem.where, problem.message, problem.hint)


def _place(finding: Finding) -> tuple[str, int, str]:
    file, _, line = finding.where.partition(":")
    return file, int(line) if line.isdecimal() else 0, finding.code
