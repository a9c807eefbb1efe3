"""What a log says of the policies: which grants were used, what a candidate would change, and what would be enough."""

import contextlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

from caprpc.analysis.authority import held_by, member_name, number_text
from caprpc.analysis.events import Event, Owners
from caprpc.audit.redact import DIGEST_MARK
from caprpc.ids import OP_CLOSE, OP_EXIT, OP_RESTORE, OP_ROOT, OPERATION_NAMES
from caprpc.policy import ENDINGS, ArgumentRule, Grant, Key, MemberLimit, Offer, Policy, PolicySet
from caprpc.policy.arguments import Value

_RATES: Final[Mapping[str, float]] = {"per_second": 1.0, "per_hour": 3_600.0, "per_day": 86_400.0}
_NO_LIMIT: Final = MemberLimit()
_WHOLE: Final[Key] = (-1, "")
"""Stands for all members of a facet together."""
_NEAR: Final = 0.5
"""A limit is never approached if the most that was seen is below half of it."""
_MOST_VALUES: Final = 1_000
"""Different values of an argument that are kept, so that a log of any length takes bounded memory."""


@dataclass(frozen=True, slots=True)
class Unused:
    """A grant or a limit that a log has not needed."""

    kind: Literal["grant", "limit", "root", "policy", "rule"]
    where: str
    text: str


@dataclass(slots=True)
class _Values:
    """What a log has kept of one argument: how often, the largest number, the longest text, and the first values."""

    known: int = 0
    largest: Decimal | None = None
    longest: int = 0
    distinct: set[str] = field(default_factory=set)

    def note(self, text: str) -> None:
        """Take a recorded value; a digest, and the rest of a text that was cut, are not known."""
        if text.startswith(DIGEST_MARK) or text.endswith(" characters]"):
            return
        self.known += 1
        self.longest = max(self.longest, len(text))
        if len(self.distinct) < _MOST_VALUES:
            self.distinct.add(text)
        with contextlib.suppress(InvalidOperation):
            number = Decimal(text)
            if number.is_finite():
                self.largest = number if self.largest is None else max(self.largest, number)


@dataclass(slots=True)
class _Seen:
    """How one grant was used: how often, and how many calls fell into the busiest second, hour and day."""

    calls: int = 0
    peaks: dict[str, int] = field(default_factory=dict)
    values: dict[str, _Values] = field(default_factory=dict)
    _windows: dict[str, deque[float]] = field(default_factory=dict)

    def note(self, at: float, args: Mapping[str, str]) -> None:
        """Count a call, and look at what was kept of its arguments."""
        self.calls += 1
        for name, text in args.items():
            self.values.setdefault(name, _Values()).note(text)
        for name, length in _RATES.items():
            window = self._windows.setdefault(name, deque())
            window.append(at)
            while window[0] <= at - length:
                window.popleft()
            self.peaks[name] = max(self.peaks.get(name, 0), len(window))


_Uses = dict[tuple[str, Key], _Seen]
"""How the grants of one policy were used: by facet, operation and member."""


def unused(policies: PolicySet, events: Iterable[Event]) -> list[Unused]:
    """Return what no event of a log has used: grants, roots, whole policies, and limits that were never approached.

    What may have been used is not named: a call counts for each policy that it may have been made under, and one under
    a CA that no policy names any more for those that name the peer now.
    """
    owners = Owners(policies)
    seen: dict[str, _Uses] = {}
    for event in events:
        for policy in (owners.of(event) or owners.named(event.peer)) if event.permitted else ():
            uses = seen.setdefault(policy.name, {})
            uses.setdefault((event.facet, event.key), _Seen()).note(event.at, event.args)
            if event.key[0] not in {OP_ROOT, OP_RESTORE, *ENDINGS}:
                uses.setdefault((event.facet.partition("/")[0], _WHOLE), _Seen()).note(event.at, {})
    return [line for policy in policies.policies for line in _unused_of(policy, seen.get(policy.name))]


def _unused_of(policy: Policy, seen: _Uses | None) -> Iterator[Unused]:
    if seen is None:
        yield Unused("policy", policy.peer_rule, f"policy {policy.name}: its peer has done nothing")
        return
    for root in policy.roots.values():
        if (root.facet, (OP_ROOT, root.name)) not in seen:
            yield Unused("root", root.rule, f"{policy.name}: root {root.name} was never asked for")
    for entry in policy.restores.values():
        if (entry.facet, (OP_RESTORE, entry.name)) not in seen:
            yield Unused("root", entry.rule, f"{policy.name}: nothing was restored by the name {entry.name}")
    for held in held_by(policy).values():
        for key, grant in held.offer.grants.items():
            used = seen.get((held.offer.name, key))
            name = member_name(held.offer.interface, *key)
            if used is None:
                if key[0] not in {OP_CLOSE, OP_EXIT}:
                    yield Unused("grant", grant.rule, f"{policy.name}: {name} ({held.offer.name}) was never used")
                continue
            for text in _far(grant.limit, used):
                yield Unused("limit", grant.rule, f"{policy.name}: {name} has {text}")
            for parameter, rule in grant.arguments.items():
                for text in _loose(rule, used.calls, used.values.get(parameter)):
                    yield Unused("rule", rule.rule, f"{policy.name}: {name}: {parameter} {text}")
        together = seen.get((held.offer.name, _WHOLE))
        if together is not None and "/" not in held.offer.name:
            for text in _far(held.offer.limit, together):
                yield Unused("limit", held.offer.limit_rule, f"{policy.name}: facet {held.offer.name} has {text}")


def _far(limit: MemberLimit, used: _Seen) -> Iterator[str]:
    """Yield the rates that the log never came near."""
    bounds = {"per_second": limit.per_second, "per_hour": limit.per_hour, "per_day": limit.per_day}
    for name, bound in bounds.items():
        peak = used.peaks[name]
        if bound is not None and peak < _NEAR * bound:
            yield f"{name} = {number_text(bound)}, and at most {peak} were seen"


def _loose(rule: ArgumentRule, calls: int, values: _Values | None) -> Iterator[str]:
    """Yield what of a rule no call came near; nothing unless the log has kept the argument of every call."""
    if values is None or values.known < calls:
        return
    if rule.maximum is not None and values.largest is not None and values.largest < Decimal(rule.maximum) / 2:
        yield f"may be up to {rule.maximum}, and at most {values.largest} was seen"
    if rule.max_len is not None and values.longest < _NEAR * rule.max_len:
        yield f"may have a length of {rule.max_len}, and at most {values.longest} was seen"
    if rule.values is not None and len(values.distinct) < _MOST_VALUES:
        never = sorted(str(value) for _, value in rule.values if not _was_seen(value, values.distinct))
        if never:
            yield f"may be {', '.join(never)}, which was never seen"


def _was_seen(value: Value, texts: Iterable[str]) -> bool:
    return any(value in (reading, str(reading)) for text in texts for reading in _readings(text))


@dataclass(frozen=True, slots=True)
class Shadowed:
    """Logged calls that a candidate would decide in another way, or may."""

    verdict: Literal["would be refused", "would be permitted", "may be refused"]
    peer: str
    subject: str
    calls: int
    was: str
    why: str


def shadow(candidate: PolicySet, events: Iterable[Event]) -> list[Shadowed]:
    """Return which logged calls a candidate would decide otherwise, equal ones counted together.

    Facets are found by their names; a facet that the candidate has not is one that it does not give.
    """
    owners = Owners(candidate)
    found: dict[tuple[str, str, str, str, str], int] = {}
    for event in events:
        verdict, why = _redecide(owners, event)
        if verdict is None:
            continue
        was = "permitted" if event.permitted else f"refused ({event.reason})"
        key = (verdict, event.peer, f"{event.facet}: {_word(event.key)}", was, why)
        found[key] = found.get(key, 0) + 1
    return [
        Shadowed(verdict, peer, subject, calls, was, why)  # type: ignore[arg-type]  # the verdicts of _redecide
        for (verdict, peer, subject, was, why), calls in found.items()
    ]


def _redecide(owners: Owners, event: Event) -> tuple[str | None, str]:
    found = owners.of(event)
    if not found:
        ca = f" with the CA key {event.anchor}" if owners.named(event.peer) else ""
        return ("would be refused", f"no policy names the peer{ca}") if event.permitted else (None, "")
    answers = list(dict.fromkeys(_redecide_under(policy, event) for policy in found))
    if len(answers) == 1:
        return answers[0]
    whys = "; ".join(why for _, why in answers if why)
    verdict = "may be refused" if event.permitted else "would be permitted"
    return verdict, f"{whys}; which policy it is the log does not say, for it does not hold the CA"


def _redecide_under(policy: Policy, event: Event) -> tuple[str | None, str]:
    grant, why = _grant(policy, event)
    if grant is None:
        return ("would be refused", why) if event.permitted else (None, "")
    faults = list(_faults(grant, event))
    if event.permitted:
        if not grant.arguments or not faults:
            return None, ""
        return "may be refused", "; ".join(faults)
    if event.reason in {"not-granted", "closed"} and not grant.arguments:
        return "would be permitted", f"{grant.rule} grants it"
    return None, ""


def _grant(policy: Policy, event: Event) -> tuple[Grant | None, str]:
    operation, member = event.key
    if operation == OP_ROOT:
        root = policy.roots.get(member)
        if root is None:
            return None, f"{policy.roots_rule} lists no root {member!r}"
        return Grant(operation, member, root.rule, {}, _NO_LIMIT, root.facet, frozenset()), ""
    if operation == OP_RESTORE:
        entry = policy.restores.get(member)
        if entry is None:
            return None, f"{policy.file} has no [restore.{member}]"
        return Grant(operation, member, entry.rule, {}, _NO_LIMIT, entry.facet, frozenset()), ""
    offer = policy.offers.get(event.facet)
    if offer is None:
        return None, f"{policy.file} has no facet {event.facet}"
    grant = offer.grants.get(event.key)
    return grant, "" if grant is not None else f"{offer.rule} does not list it"


def _faults(grant: Grant, event: Event) -> Iterator[str]:
    """Yield the rules that a logged call may fail: what the log did not keep cannot be checked."""
    for parameter, rule in grant.arguments.items():
        recorded = event.args.get(parameter)
        if recorded is None:
            yield f"{rule.rule}: {parameter!r} was not recorded"
            continue
        if all(rule.fault(value) for value in _readings(recorded)):
            yield f"{rule.rule}: {parameter!r} was {recorded}"


def _readings(text: str) -> Iterator[object]:
    """Yield what a recorded text may stand for: the text itself, a number, a flag."""
    yield text
    if text in {"True", "False"}:
        yield text == "True"
    for reading in (int, float):
        try:
            yield reading(text)
        except ValueError:
            continue


def _word(key: Key) -> str:
    return f"{OPERATION_NAMES[key[0]]} {key[1]}".strip()


@dataclass(frozen=True, slots=True)
class Need:
    """What of one facet a log has used."""

    offer: Offer
    used: Mapping[Key, int]
    """Calls for each pair of operation and member."""
    left_out: tuple[Key, ...]
    """What was used and is not proposed, because its effect is ``admin``."""


def needs(
    policies: PolicySet, events: Iterable[Event], unclear: Counter[str] | None = None
) -> dict[str, tuple[set[str], dict[str, Need]]]:
    """Return for each policy the roots and, by facet, the members that permitted calls have used.

    Refused calls propose nothing: what a peer would like to do is not what it should be allowed to do. Neither do calls
    that may have been made under one of several policies; ``unclear`` counts these by peer.
    """
    owners = Owners(policies)
    unclear = Counter() if unclear is None else unclear
    roots: dict[str, set[str]] = {}
    used: dict[str, dict[str, dict[Key, int]]] = {}
    for event in events:
        found = owners.of(event) if event.permitted else ()
        if len(found) != 1:
            if found:
                unclear[event.peer] += 1
            continue
        policy = found[0]
        if event.key[0] == OP_ROOT:
            roots.setdefault(policy.name, set()).add(event.key[1])
        elif event.facet in policy.offers and event.key in policy.offers[event.facet].grants:
            counts = used.setdefault(policy.name, {}).setdefault(event.facet, {})
            counts[event.key] = counts.get(event.key, 0) + 1
    return {
        policy.name: (
            roots.get(policy.name, set()),
            {
                facet: _need(policies, policy.offers[facet], counts)
                for facet, counts in used.get(policy.name, {}).items()
            },
        )
        for policy in policies.policies
        if policy.name in roots or policy.name in used
    }


def _need(policies: PolicySet, offer: Offer, counts: Mapping[Key, int]) -> Need:
    contract = policies.contracts.get(offer.interface)
    members = {} if contract is None else contract.members
    admin = tuple(key for key in counts if key in members and members[key].effect == "admin")
    return Need(offer, {key: count for key, count in counts.items() if key not in admin}, admin)
