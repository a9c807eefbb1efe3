"""Answers that are kept for calls on them, and the calls that wait for such an answer.

Wire protocol, section 4.6.
"""

from math import ceil
from typing import TYPE_CHECKING, Final

from caprpc.errors import RemoteProtocolError
from caprpc.session.calls import Event, Question
from caprpc.session.references import FOREVER, Export, Exports, Scope
from caprpc.session.refusing import objection, refusal, refuse, too_heavy
from caprpc.wire import messages as m

if TYPE_CHECKING:
    from caprpc.session.session import Session

KEPT_PER_CALL: Final = 2
"""Answers that a peer may have kept for each call that it may have in flight: one to call, and one that is called."""

_PENDING: Final = "pending"
_FAILED: Final = "failed"
_READY: Final = "ready"


class WaitingCall:
    """A call of the peer on an answer that we have not given yet. Nobody has looked at it but to count it.

    ``steps`` is how many answers, one after the other, must come before it runs.
    """

    __slots__ = ("answer_id", "cancelled", "cause", "depth", "due", "kept", "message", "scope", "steps", "taken")

    def __init__(self, message: m.Call, kept: "Kept", cause: Question | None, due: float) -> None:
        self.answer_id = message.question
        self.message = message
        self.kept = kept
        self.cause = cause
        self.depth = 0 if cause is None else cause.depth + 1
        self.steps = kept.steps + 1
        self.due = due
        self.scope: Scope | None = None
        self.taken = False
        self.cancelled = False

    @property
    def meta(self) -> m.Meta | None:
        """What came beside it."""
        return self.message.meta


class Kept:
    """One kept answer: what has become of it, and the calls that wait for that, in order."""

    __slots__ = ("export", "finished", "number", "state", "steps", "waiting")

    def __init__(self, number: int, steps: int) -> None:
        self.number = number
        self.steps = steps
        """How many answers must come before this one."""
        self.state = _PENDING
        self.export: Export | None = None
        self.finished = False
        """The peer names it no more; what it has sent before still runs."""
        self.waiting: list[WaitingCall] = []


class KeptAnswers(dict[int, Kept]):
    """Kept answers by the number of their question.

    Invariant: an answer that has become an export holds one pin on it until the peer has finished it and no call
    waits for it; the peer has at most ``most`` that it has not finished.
    """

    __slots__ = ("_exports", "_most", "_unfinished", "resolved")

    def __init__(self, exports: Exports, most: int) -> None:
        super().__init__()
        self._exports = exports
        self._most = most
        self._unfinished = 0
        self.resolved: list[Kept] = []
        """Those whose waiting calls may run now, or have failed; ``run_resolved`` takes them."""

    def keep(self, number: int, steps: int) -> None:
        """Keep the answer to a question.

        Raises:
            RemoteProtocolError: The peer has as many that it has not finished as it may have calls in flight.
        """
        if self._unfinished >= self._most:
            raise RemoteProtocolError(f"more than {self._most} kept answers (twice limits.in_flight)")
        self._unfinished += 1
        self[number] = Kept(number, steps)

    def named(self, target: int) -> Kept:
        """Return the kept answer that the target of a call names.

        Raises:
            RemoteProtocolError: It was never to be kept, or is finished.
        """
        kept = self.get(~target)
        if kept is None or kept.finished:
            raise RemoteProtocolError(f"a call on the answer to question {~target}, which is not kept")
        return kept

    def finish(self, number: int) -> None:
        """Let the peer name an answer no more.

        Raises:
            RemoteProtocolError: It is not kept.
        """
        kept = self.get(number)
        if kept is None or kept.finished:
            raise RemoteProtocolError(f"FINISH of the answer to question {number}, which is not kept")
        kept.finished = True
        self._unfinished -= 1
        self.forget_if_done(kept)

    def settle(self, number: int, export: Export | None) -> None:
        """Take note of what an answer has become: a reference to an export of ours, or nothing to call."""
        kept = self.get(number)
        if kept is None or kept.state is not _PENDING:
            return
        if export is None:
            kept.state = _FAILED
        else:
            kept.state, kept.export = _READY, export
            self._exports.pin(export)
        if kept.waiting:
            self.resolved.append(kept)
        self.forget_if_done(kept)

    def released(self, kept: Kept) -> None:
        """Take note that no call waits for an answer any more."""
        kept.waiting = []
        self.forget_if_done(kept)

    def forget_if_done(self, kept: Kept) -> None:
        """Let go of an answer that the peer has finished, once nothing waits for it and it has come."""
        if kept.finished and kept.state is not _PENDING and not kept.waiting and self.pop(kept.number, None) is kept:
            export, kept.export = kept.export, None
            if export is not None:
                self._exports.unpin(export)


def call_answer(session: "Session", message: m.Call, cause: Question | None, now: float, events: list[Event]) -> None:
    """Take a call on an answer of ours: run it, have it wait, or refuse it if there is nothing to call.

    Raises:
        RemoteProtocolError: The peer keeps no such answer.
    """
    kept = session.kept.named(message.target)
    meta = message.meta
    due = FOREVER if meta is None or meta.deadline_ms is None else now + meta.deadline_ms / 1000
    call = WaitingCall(message, kept, cause, due)
    if meta is not None and meta.keep:
        session.kept.keep(message.question, call.steps if kept.state is _PENDING else 0)
    if kept.state is not _PENDING:
        _run(session, call, now, events)
        return
    objected = objection(session, call)
    if call.steps > session.limits.pipeline_depth:
        objected = "limit", "pipeline_depth", "limits.pipeline_depth"
    elif objected is None:
        full = session.answers.pipelined.full()
        objected = ("limit", full, f"limits.{full}") if full else too_heavy(session, message)
    if objected is not None:
        code, reason, rule = objected
        refuse(session, message, code, refusal(session, None, message, reason, rule), now, events)
        return
    kept.waiting.append(call)
    session.answers[message.question] = call
    session.answers.soonest = min(session.answers.soonest, due)


def run_resolved(session: "Session", now: float, events: list[Event]) -> None:
    """Start the calls whose answer has come, in the order in which they came; refuse those whose answer has failed."""
    resolved = session.kept.resolved
    while resolved:
        kept = resolved.pop(0)
        for call in kept.waiting:
            if session.answers.pop(call.answer_id, None) is not None:
                _run(session, call, now, events)
        session.kept.released(kept)


def give_up(session: "Session", call: WaitingCall, code: str, now: float, events: list[Event]) -> None:
    """Refuse a call that waits: it was cancelled, or its time is over."""
    if session.answers.pop(call.answer_id, None) is not None:
        call.kept.waiting.remove(call)
        refuse(session, call.message, code, refusal(session, None, call.message, code, ""), now, events)
        session.kept.forget_if_done(call.kept)


def _run(session: "Session", call: WaitingCall, now: float, events: list[Event]) -> None:
    """Hand a call to the gate of all calls, as one on the export that its target has become."""
    message, export = call.message, call.kept.export
    code = ""
    if export is None:
        code = "broken"
    elif call.cause is not None and call.cause.question_id not in session.asked.open:
        code = "cancelled"
    elif call.due <= now:
        code = "deadline"
    if code or export is None:
        refuse(session, message, code, refusal(session, None, message, code, ""), now, events)
        return
    meta = message.meta
    if meta is not None and meta.deadline_ms is not None:
        meta = m.Meta(meta.cause, ceil((call.due - now) * 1000), meta.keep)
    resumed = m.Call(call.answer_id, export.export_id, message.operation, message.member, meta, message.payload)
    session.resume(resumed, now, events)
