"""The transitive authority of a peer: what it can come to hold, through what, and what it may do with it.

A peer holds a facet through a root, through a sturdy reference, through the result of a member that it may call on a
facet it holds, or because we lend it an object when we call one of its members. Calls on its own objects need an
accept, or we never make them.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal

from caprpc.contract import InterfaceContract
from caprpc.ids import OP_CALL, OP_COMPARE, OP_INVOKE, OP_ROOT, OP_SET, OPERATION_NAMES
from caprpc.policy import ENDINGS, NO_LIMIT, OPAQUE, ArgumentRule, Grant, Lend, MemberLimit, Offer, Policy, Restorable


@dataclass(frozen=True, slots=True)
class Step:
    """One hand-over of a reference: how, under which rule, and which facet it has then."""

    text: str
    """Such as ``root ledger``, ``call history`` or ``lent to LineCounter.line_counter (fileobj) for the call``."""
    facet: str
    rule: str


@dataclass(frozen=True, slots=True)
class Held:
    """A facet that a peer can hold, and a shortest way to it."""

    offer: Offer
    path: tuple[Step, ...]

    @property
    def way(self) -> str:
        """The path as a line: ``root ledger > call history``."""
        return " > ".join(step.text for step in self.path)


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that a peer may do: an operation on a facet it can hold."""

    policy: Policy
    held: Held
    grant: Grant

    @property
    def name(self) -> str:
        """``Ledger.post``, or ``TextLines (iterate)`` for operations without a name."""
        return member_name(self.held.offer.interface, self.grant.operation, self.grant.member)

    @property
    def limits(self) -> str:
        """Its limits, and those that it shares with all members of the facet; empty if there are none."""
        return limits_text(self.held.offer, self.grant)


def member_name(interface: str, operation: int, member: str) -> str:
    """Return how reports name a member: ``Ledger.post``, ``Ledger.currency (get)``, ``TextLines (iterate)``."""
    word = OPERATION_NAMES[operation]
    if not member:
        return f"{interface} ({word})"
    return f"{interface}.{member}" if operation == OP_CALL else f"{interface}.{member} ({word})"


def roots_of(policy: Policy) -> Iterator[Step]:
    """Yield the first references that a peer gets: by name, or for a sturdy reference that it was granted."""
    for root in policy.roots.values():
        yield Step(f"root {root.name}", root.facet, root.rule)
    for entry in policy.restores.values():
        yield Step(f"restore {entry.name}{terms_text(entry)}", entry.facet, entry.rule)


def terms_text(entry: Restorable) -> str:
    """Return how far something may be restored: `` for at most 30 s, as bearer, too``, or an empty text."""
    most = "" if entry.max_for_s is None else f" for at most {number_text(entry.max_for_s)} s"
    return most + ", as bearer, too" * entry.bearer


def passing_text(offer: Offer) -> str:
    """Return what crosses more than one connection under a facet, or an empty text.

    Such as ``may be passed on to third parties; stands for objects of spiffe://org-c.example/vault``.
    """
    parts = ["may be passed on to third parties"] if offer.passing.onward else []
    if offer.passing.sources:
        parts.append(f"stands for objects of {', '.join(sorted(offer.passing.sources))}")
    return "; ".join(parts)


def lends_of(policy: Policy) -> Iterator[Step]:
    """Yield what we lend to a peer in calls that we may make; a lend whose call is not accepted never happens."""
    for lend in policy.lends.values():
        if is_made(policy, lend):
            yield Step(f"lent to {lend_name(lend)} {lifetime_text(lend)}", lend.facet, lend.rule)


def is_made(policy: Policy, lend: Lend) -> bool:
    """Say whether we may make the call in which something is lent."""
    operations = (OP_CALL, OP_SET, OP_COMPARE) if lend.member else (OP_INVOKE,)
    return any((lend.interface, operation, lend.member) in policy.accepts for operation in operations)


def lend_name(lend: Lend) -> str:
    """Return ``LineCounter.line_counter (fileobj)``."""
    return f"{lend.interface}.{lend.member} ({lend.parameter})"


def lifetime_text(lend: Lend) -> str:
    """Return for how long something is lent: ``for the call``, ``for 30 s, at most 5 uses``."""
    span = f"for the {lend.lifetime}" if isinstance(lend.lifetime, str) else f"for {number_text(lend.lifetime)} s"
    return span if lend.max_uses is None else f"{span}, at most {lend.max_uses} uses"


def returned(offer: Offer) -> Iterator[Step]:
    """Yield the references that the granted members of a facet give."""
    for grant in offer.grants.values():
        if grant.returns is not None and grant.returns != OPAQUE:
            word = f"{OPERATION_NAMES[grant.operation]} {grant.member}".strip()
            yield Step(word, grant.returns, grant.rule)


def held_by(policy: Policy) -> Mapping[str, Held]:
    """Return every facet that the peer of a policy can come to hold, by name, each with a shortest way to it."""
    found: dict[str, Held] = {}
    pending: deque[tuple[Step, ...]] = deque((step,) for step in (*roots_of(policy), *lends_of(policy)))
    while pending:
        path = pending.popleft()
        offer = policy.offers.get(path[-1].facet)
        if offer is None or offer.name in found:
            continue
        found[offer.name] = Held(offer, path)
        pending.extend((*path, step) for step in returned(offer))
    return found


def ways_of(policy: Policy) -> Mapping[str, list[tuple[Step, ...]]]:
    """Return for each facet that a peer can hold every hand-over by which it gets it, behind a shortest way there.

    Other ways pass through the same hand-overs: who takes all of them away takes the facet away.
    """
    held = held_by(policy)
    found: dict[str, list[tuple[Step, ...]]] = {name: [] for name in held}
    for step in (*roots_of(policy), *lends_of(policy)):
        found[step.facet].append((step,))
    for one in held.values():
        for step in returned(one.offer):
            # What leads back to where it came from is no way to it.
            if all(before.facet != step.facet for before in one.path):
                found[step.facet].append((*one.path, step))
    return found


def opaque_of(policy: Policy, contracts: Mapping[str, InterfaceContract]) -> Iterator[tuple[str, tuple[Step, ...]]]:
    """Yield what a peer can hold without any right, and hand back: the interface that is declared, and the way."""
    for held in held_by(policy).values():
        contract = contracts.get(held.offer.interface)
        for key, grant in held.offer.grants.items():
            if grant.returns == OPAQUE:
                declared = None if contract is None else contract.members.get(key)
                interface = None if declared is None else declared.returns_reference
                word = f"{OPERATION_NAMES[grant.operation]} {grant.member}".strip()
                yield interface or "object", (*held.path, Step(word, OPAQUE, grant.rule))


def rights_of(policy: Policy) -> Iterator[Right]:
    """Yield everything that the peer of a policy may do, facet by facet, in the order of the file."""
    for held in held_by(policy).values():
        for grant in held.offer.grants.values():
            yield Right(policy, held, grant)


def accepted_of(policy: Policy) -> Iterator[str]:
    """Yield what we may call on objects of the peer, as reports name it."""
    for interface, operation, member in policy.accepts:
        if operation != OP_ROOT:
            yield member_name(interface, operation, member)


def limit_text(limit: MemberLimit) -> str:
    """Return the limits of a member as reports show them: ``per_second = 2, in_flight = 4``, or an empty text."""
    if limit == NO_LIMIT:
        # Most members have none, and to take one apart costs more than all the rest of a line of a report.
        return ""
    bounds = ((name, bound) for name, bound in asdict(limit).items() if bound is not None)
    return ", ".join(f"{name} = {number_text(bound)}" for name, bound in bounds)


def number_text(number: float) -> str:
    """Return a number as a policy writes it, with every digit: two that differ never read alike."""
    return str(int(number)) if number == int(number) else repr(number)


def limits_text(offer: Offer, grant: Grant) -> str:
    """Return the limits of a member and of its facet: ``per_second = 2; facet: per_day = 500``."""
    own, together = limit_text(grant.limit), limit_text(together_of(offer, grant))
    return "; ".join(part for part in (own, f"facet: {together}" if together else "") if part)


def together_of(offer: Offer, grant: Grant) -> MemberLimit:
    """Return the limit of a facet as far as it is one of this member: what gives something up is never limited."""
    return NO_LIMIT if grant.operation in ENDINGS else offer.limit


def rule_text(grant: Grant) -> str:
    """Return the argument rules of a grant in one line: ``amount { max = 10000 }; currency { in = ["EUR"] }``."""
    return "; ".join(f"{parameter} {rule_toml(rule)}" for parameter, rule in grant.arguments.items())


def rule_toml(rule: ArgumentRule) -> str:
    """Return an argument rule as it would be written: ``{ min = 0.01, max = 10000 }``."""
    parts = {
        "min": None if rule.minimum is None else str(rule.minimum),
        "max": None if rule.maximum is None else str(rule.maximum),
        "in": None if rule.values is None else _list(_value(value) for _, value in rule.values),
        "prefix": None if rule.prefix is None else quoted(rule.prefix),
        "max_len": None if rule.max_len is None else str(rule.max_len),
        "chars": None if rule.chars is None else _list(map(quoted, _ranges(rule.chars))),
    }
    return "{ " + ", ".join(f"{name} = {part}" for name, part in parts.items() if part is not None) + " }"


def quoted(text: str) -> str:
    """Return a text as a TOML string of printable ASCII."""
    parts = []
    for character in text:
        if character in '"\\':
            parts.append("\\" + character)
        else:
            parts.append(character if " " <= character <= "~" else f"\\U{ord(character):08X}")
    return f'"{"".join(parts)}"'


def _ranges(characters: Iterable[str]) -> Iterator[str]:
    """Yield characters as a policy writes them: three or more in a row as a range such as ``A-Z``."""
    run: list[str] = []
    for character in (*sorted(characters), ""):
        if run and (not character or ord(character) != ord(run[-1]) + 1):
            yield from (f"{run[0]}-{run[-1]}",) if len(run) > 2 else run
            run = []
        run.append(character)


def _list(words: Iterable[str]) -> str:
    return f"[{', '.join(sorted(words))}]"


def _value(value: str | int | Decimal | bool) -> str:
    if type(value) is bool:
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str) else str(value)
