"""Ending references of ours: what the holder is told, and what becomes of calls that run on them.

Nothing here decides: a right is asked before each operation. This is for those who hold something or wait.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from caprpc.ids import OP_REVOKE, new_reference
from caprpc.session.calls import Answer, CancelRequest, Event, Refusal
from caprpc.session.kept import WaitingCall
from caprpc.session.references import Export
from caprpc.session.refusing import refusal_of
from caprpc.session.states import State
from caprpc.wire import messages as m

if TYPE_CHECKING:
    from caprpc.session.session import Session


def revoke(session: "Session", exports: Iterable[Export], events: list[Event], *, cut: bool) -> list[Export]:
    """End exports now and tell their holder; ``cut`` ends calls that run on them, too. Returns what was alive."""
    ended = [export for export in exports if export.export_id and export.source is not None]
    if not ended or session.state is State.CLOSED:
        return ended
    for export in ended:
        session.exports.revoke(export)
    most = 65_536
    numbers: list[int] = [export.export_id for export in ended]
    for start in range(0, len(numbers), most):
        session.queue(m.Revoked(numbers[start : start + most]))
    if cut:
        _cut(session, set(ended), events)
    return ended


def sweep(session: "Session", now: float, events: list[Event]) -> None:
    """Let go of exports whose right has ended meanwhile: by its time, or with what it was derived from."""
    if now >= session.exports.next_sweep():
        revoke(session, session.exports.sweep(now), events, cut=False)


def _cut(session: "Session", ended: set[Export], events: list[Event]) -> None:
    for answer in list(session.answers.values()):
        if isinstance(answer, Answer):
            # Whoever ends a reference over itself waits for the answer of that very call.
            taken, concerned = answer.taken, answer.export in ended and answer.permit.operation != OP_REVOKE
        elif isinstance(answer, WaitingCall):
            # Whether what it is on is revoked is looked at when it runs.
            continue
        else:
            taken, concerned = True, not ended.isdisjoint(export for export in answer.exports if export is not None)
        if concerned:
            reference, permit = new_reference(), answer.permit
            session.answers.end_early(session, answer, "revoked", reference, taken=taken)
            events.append(CancelRequest(answer))
            if permit is not None:
                refused = refusal_of(permit, "revoked", permit.rule)
                events.append(Refusal(answer.answer_id, "revoked", refused, reference))
