"""``can-i`` and ``explain``: the answer to one question about one peer, with the file and line of each step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from caprpc.analysis.authority import (
    Held,
    Right,
    held_by,
    limit_text,
    member_name,
    passing_text,
    rights_of,
    rule_text,
    together_of,
)
from caprpc.ids import OP_CALL, OP_COMPARE, OP_GET, OP_RESTORE, OP_ROOT, OP_SET, OPERATION_NAMES
from caprpc.policy import Policy, PolicySet


class Answer(Enum):
    """What the files say about a question."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "cannot decide"
    """It depends on something that the question leaves open, such as an argument that a rule speaks of."""


@dataclass(frozen=True, slots=True)
class Line:
    """One step of an explanation."""

    where: str
    """``file:line``, or empty for what no line says."""
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer and the steps to it."""

    answer: Answer
    lines: tuple[Line, ...]
    right: Right | None
    """The right that lets it happen; None unless the answer is yes."""

    @property
    def granting(self) -> tuple[Line, ...]:
        """The step that grants it, and what that depends on; all of them if no member is granted."""
        return self.lines if self.right is None else self.lines[1 + len(self.right.held.path) :]


@dataclass(frozen=True, slots=True)
class Request:
    """A question: may this peer do that.

    Attributes:
        peer: A SPIFFE ID or the name of a policy.
        interface: The interface of the object.
        member: Its member; empty for operations without a name.
        operation: A code of ``caprpc.ids``; None for whichever of call, get and set the member is for.
        facet: Ask only for references of this facet; None for every one that the peer can hold.
        arguments: Values by the name of their parameter; what is left out is left open.
        policy: Ask only under the policy of this name; None for every one that names the peer.
    """

    peer: str
    interface: str
    member: str
    operation: int | None = None
    facet: str | None = None
    arguments: Mapping[str, object] | None = None
    policy: str | None = None

    @property
    def text(self) -> str:
        """The question as messages name it."""
        if self.operation in {OP_ROOT, OP_RESTORE}:
            return f"{OPERATION_NAMES[self.operation or OP_ROOT]} {self.member}"
        if self.operation is not None:
            return member_name(self.interface, self.operation, self.member)
        return f"{self.interface}.{self.member}"

    def is_about(self, right: Right) -> bool:
        """Say whether a right is for the member and operation that are asked for."""
        grant, offer = right.grant, right.held.offer
        operations = (OP_CALL, OP_GET, OP_SET, OP_COMPARE) if self.operation is None else (self.operation,)
        return (
            offer.interface == self.interface
            and (self.facet is None or offer.name == self.facet)
            and grant.member == self.member
            and grant.operation in operations
        )


def policies_of(policies: PolicySet, peer: str) -> list[Policy]:
    """Return the policies that a SPIFFE ID or a policy's name stands for."""
    return [policy for policy in policies.policies if peer == policy.name or peer in policy.principals]


def out_of_time(policy: Policy, now: datetime) -> str:
    """Return ``ended at …`` or ``begins at …`` for a policy that matches nobody now; empty for one that holds."""
    if policy.not_after is not None and now >= policy.not_after:
        return f"ended at {policy.not_after.isoformat()}"
    if policy.not_before is not None and now < policy.not_before:
        return f"begins at {policy.not_before.isoformat()}"
    return ""


def decide(policies: PolicySet, request: Request, now: datetime | None = None) -> Verdict:
    """Return whether the files let a peer do something, and why.

    Args:
        policies: What the files say.
        request: The question.
        now: When; None asks what the policies say in the time in which they hold.
    """
    named = policies_of(policies, request.peer)
    found = [policy for policy in named if request.policy in (None, policy.name)]
    if not found:
        line = Line("caprpc.toml", f"no policy names {request.peer}: it is not let in at all")
        return Verdict(Answer.NO, (line,), None)
    verdicts = [_decide_for(policy, request, now) for policy in found]
    return min(verdicts, key=lambda verdict: list(Answer).index(verdict.answer))


def _decide_for(policy: Policy, request: Request, now: datetime | None) -> Verdict:
    identity = Line(policy.peer_rule, f"policy {policy.name} is for {request.peer}")
    if now is not None and (fault := out_of_time(policy, now)):
        over = Line(policy.peer_rule, f"policy {policy.name} {fault}: the peer is not let in")
        return Verdict(Answer.NO, (identity, over), None)
    if request.operation == OP_ROOT:
        return _decide_root(policy, request, identity)
    if request.operation == OP_RESTORE:
        return _decide_restore(policy, request, identity)
    rights = [right for right in rights_of(policy) if request.is_about(right)]
    refused: list[tuple[Line, ...]] = []
    open_: tuple[tuple[Line, ...], Right] | None = None
    for right in rights:
        lines = (identity, *_way(right.held), *_grant(right))
        answer, more = _check(right, request)
        lines += more
        if answer is Answer.YES:
            return Verdict(answer, lines, right)
        if answer is Answer.NO:
            refused.append(lines)
        elif open_ is None:
            open_ = lines, right
    if open_ is not None:
        return Verdict(Answer.UNKNOWN, open_[0], None)
    if refused:
        return Verdict(Answer.NO, refused[0], None)
    return Verdict(Answer.NO, (identity, *_absence(policy, request)), None)


def _decide_root(policy: Policy, request: Request, identity: Line) -> Verdict:
    root = policy.roots.get(request.member)
    if root is None:
        return Verdict(Answer.NO, (identity, Line(policy.roots_rule, f"there is no root {request.member!r}")), None)
    return Verdict(Answer.YES, (identity, Line(root.rule, f"root {root.name} as {root.facet}")), None)


def _decide_restore(policy: Policy, request: Request, identity: Line) -> Verdict:
    entry = policy.restores.get(request.member)
    if entry is None:
        there = Line(policy.peer_rule, f"there is no [restore.{request.member}]")
        return Verdict(Answer.NO, (identity, there), None)
    known = Line(entry.rule, f"restore {entry.name} as {entry.facet}, if it was granted: caprpc grants list")
    return Verdict(Answer.UNKNOWN, (identity, known), None)


def _way(held: Held) -> Iterator[Line]:
    for step in held.path:
        yield Line(step.rule, f"{step.text}: a reference of facet {step.facet}")


def _grant(right: Right) -> Iterator[Line]:
    grant = right.grant
    yield Line(grant.rule, f"facet {right.held.offer.name} grants {right.name}")
    limits = limit_text(grant.limit)
    if limits:
        yield Line(grant.rule, f"within its limits: {limits}")
    together = limit_text(together_of(right.held.offer, grant))
    if together:
        yield Line(right.held.offer.limit_rule, f"within the limits of the whole facet: {together}")
    if passing := passing_text(right.held.offer):
        yield Line(right.held.offer.rule, f"facet {right.held.offer.name} {passing}")


def _check(right: Right, request: Request) -> tuple[Answer, tuple[Line, ...]]:
    """Check the argument rules of a grant against the arguments of the question."""
    given = request.arguments or {}
    open_: list[Line] = []
    for parameter, rule in right.grant.arguments.items():
        if parameter not in given:
            text = f"it depends on {parameter!r}: {rule_text(right.grant)}; give its value"
            open_.append(Line(rule.rule, text))
            continue
        fault = rule.fault(given[parameter])
        if fault:
            return Answer.NO, (Line(rule.rule, f"{parameter!r} fails the rule's {fault!r}: {rule_text(right.grant)}"),)
    if open_:
        return Answer.UNKNOWN, tuple(open_)
    return Answer.YES, tuple(Line(rule.rule, f"{name!r} passes") for name, rule in right.grant.arguments.items())


def _absence(policy: Policy, request: Request) -> Iterator[Line]:
    """Say where what was asked for would have to stand."""
    held = held_by(policy)
    facets = [one for one in held.values() if one.offer.interface == request.interface]
    if request.facet is not None:
        facets = [one for one in facets if one.offer.name == request.facet]
    for one in facets:
        yield Line(one.offer.rule, f"facet {one.offer.name}, held through {one.way}, does not list {request.text}")
    if facets:
        return
    unheld = [offer for offer in policy.offers.values() if offer.interface == request.interface]
    for offer in unheld:
        yield Line(offer.rule, f"facet {offer.name} is for {request.interface}, and nothing gives it to the peer")
    if not unheld:
        words = ", ".join(sorted({one.offer.interface for one in held.values()})) or "nothing"
        yield Line(policy.roots_rule, f"no facet is for {request.interface}; the peer can hold: {words}")


def operation_code(word: str) -> int | None:
    """Return the code of an operation's name, or None."""
    return next((code for code, name in OPERATION_NAMES.items() if name == word), None)
