"""Refusals that the session itself decides, and how the peer learns of any refusal."""

from typing import TYPE_CHECKING, Final

from caprpc.ids import new_reference
from caprpc.policy import LIGHT_BYTES, Permit, Refused
from caprpc.session.calls import Answer, BatchAnswer, Event, Refusal
from caprpc.session.references import Export
from caprpc.session.states import State
from caprpc.wire import messages as m

if TYPE_CHECKING:
    from caprpc.session.kept import WaitingCall
    from caprpc.session.session import Session

_NO_FAULT: Final = frozenset({"broken", "deadline"})
"""Codes that cost the peer no budget: what has failed is another call, or the time is over for one that has waited."""


def refusal(session: "Session", export: Export | None, message: m.Call | m.Run, reason: str, rule: str) -> Refused:
    """Return a refusal that the session itself decides: a dead reference, or no room."""
    return Refused(
        reason,
        rule=rule,
        facet="" if export is None else export.facet.name,
        operation=message.operation,
        member=message.member,
        policy=session.guard.policy.digest,
    )


def refusal_of(permit: Permit, reason: str, rule: str, detail: str = "") -> Refused:
    """Return the refusal of a call that the guard had permitted and its arguments, a limit or a revocation forbids."""
    return Refused(
        reason,
        rule=rule,
        facet=permit.facet,
        operation=permit.operation,
        member=permit.member,
        policy=permit.policy,
        detail=detail,
    )


def refuse(session: "Session", message: m.Call, code: str, refused: Refused, now: float, events: list[Event]) -> None:
    """Answer a call whose arguments nobody has looked at."""
    session.answers.arguments.let_go(message.question)
    if code not in _NO_FAULT or message.target >= 0:
        session.glitch(now, session.exports.get(message.target))
    reference = new_reference()
    session.queue(m.Raise(message.question, False, code, "", "", reference))
    if session.kept:
        session.kept.settle(message.question, None)
    events.append(Refusal(message.question, code, refused, reference))


def too_heavy(session: "Session", message: m.Call | m.Batch) -> tuple[str, str, str] | None:
    """Count what a call holds; return code, reason and rule if that is more than there is room for.

    Until somebody has read them, its arguments are as long as they were on the wire.
    """
    size = len(message.payload) if isinstance(message, m.Call) else sum(len(run.payload) for run in message.runs)
    if size <= LIGHT_BYTES:
        return None
    rule = session.answers.arguments.weigh(message.question, size)
    return ("limit", rule.partition(".")[2], rule) if rule else None


def objection(session: "Session", answer: "Answer | BatchAnswer | WaitingCall") -> tuple[str, str, str] | None:
    """Return code, reason and rule if this connection has no room for a permitted call now."""
    room, cause = session.answers.room, answer.cause
    if len(session.answers) >= (room if cause is None else room + session.limits.in_flight):
        return "limit", "in_flight", "limits.in_flight"
    pool = session.answers.pool
    if cause is None and pool is not None and not pool.has_room(session.answers):
        return "limit", pool.knob, f"limits.{pool.knob}"
    if cause is not None:
        if answer.depth > session.limits.callback_depth:
            return "limit", "depth", "limits.callback_depth"
        full = session.answers.callbacks.full()
        if full:
            return "limit", full, f"limits.{full}"
    if cause is not None and cause.abandoned:
        return "cancelled", "cancelled", ""
    if answer.meta is not None and answer.meta.deadline_ms == 0:
        return "deadline", "deadline", ""
    if cause is None and session.state is State.DRAINING:
        return "unavailable", "draining", ""
    return None
