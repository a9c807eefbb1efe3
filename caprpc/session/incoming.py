"""What each message of the peer does to a session. ``TRANSITIONS`` has let it through before it comes here.

Wire protocol, section 4.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from caprpc.errors import CLOSE_CODES, RemoteProtocolError, printable
from caprpc.ids import NAMED_OPERATIONS, OP_ROOT, OPERATION_NAMES, UNCOUNTED_OPERATIONS
from caprpc.policy import LIGHT_BYTES, Permit, Refused, may_pass_on
from caprpc.session.calls import Answer, BatchAnswer, CancelRequest, Ended, Event, Opened, Question
from caprpc.session.kept import WaitingCall, call_answer, give_up
from caprpc.session.opening import FEATURE_DEADLINE, FEATURE_PIPELINE, FEATURE_WITNESS
from caprpc.session.references import ENDED, Export
from caprpc.session.refusing import objection, refusal, refuse, too_heavy
from caprpc.session.revoking import revoke
from caprpc.session.states import TRANSITIONS, State
from caprpc.wire import messages as m

if TYPE_CHECKING:
    from caprpc.session.session import Session

ENVELOPE_BYTES: Final = 1024
"""Room in a frame for everything but the payload."""

Handler = Callable[["Session", Any, float, list[Event]], None]


def on_call(session: "Session", message: m.Call, now: float, events: list[Event]) -> None:
    """Guard one call; what is permitted becomes an ``Answer`` event, the rest is refused here."""
    question_id, asked = message.question, session.asked
    if question_id > asked.last_from_peer:
        asked.last_from_peer = question_id
    else:
        asked.seen_again(question_id)
    operation, member, meta = message.operation, message.member, message.meta
    if (operation not in OPERATION_NAMES or bool(member) != (operation in NAMED_OPERATIONS)) and operation != OP_ROOT:
        raise RemoteProtocolError(f"operation {operation} with a member name of {len(member)} characters")
    cause = None
    if meta is not None:
        cause = _cause(session, meta)
        if meta.keep and message.target >= 0 and question_id not in session.kept:
            session.kept.keep(question_id, 0)
    export = session.exports.get(message.target)
    try:
        if export is None or export.right is not None:
            if message.target < 0:
                call_answer(session, message, cause, now, events)
                return
            export = _usable(session, export, message, now)
        permit = session.guard.check(export.facet, operation, member, now)
    except Refused as refused:
        refuse(session, message, refused.code, refused, now, events)
        return
    answer = Answer(question_id, export, permit, message.payload, meta, cause)
    answers = session.answers
    if (
        meta is not None
        or session.state is not State.OPEN
        or len(answers) >= answers.easy
        or len(message.payload) > LIGHT_BYTES
    ):
        objected = objection(session, answer) or too_heavy(session, message)
        if objected is not None:
            code, reason, rule = objected
            if permit.limiter is not None:
                permit.limiter.give_back()
            refuse(session, message, code, refusal(session, export, message, reason, rule), now, events)
            return
    if (export.right is not None or export.scope is not None) and operation not in UNCOUNTED_OPERATIONS:
        reason = _take(session, export, now, 1)
        if reason:
            if permit.limiter is not None:
                permit.limiter.give_back()
            spent = refusal(session, export, message, reason, _rule_of(export, reason))
            refuse(session, message, spent.code, spent, now, events)
            return
    if meta is not None or permit.timeout_s is not None:
        _watch(session, answer, (permit,), now)
    answers[question_id] = answer
    events.append(answer)


def on_batch(session: "Session", message: m.Batch, now: float, events: list[Event]) -> None:
    """Guard each run of a batch; ``endpoint`` checks and records each call of it."""
    session.asked.seen_from_peer(message.question)
    cause = None if message.meta is None else _cause(session, message.meta)
    if message.meta is not None and message.meta.keep:
        raise RemoteProtocolError("a batch whose answer is to be kept")
    count = sum(run.count for run in message.runs)
    most = session.opening.accepted.max_in_flight
    if count > most or min((run.count for run in message.runs), default=0) < 1:
        raise RemoteProtocolError(f"a batch of {count} calls, 1 to {most} accepted (limits.in_flight)")
    answer = BatchAnswer(message.question, [], message.meta, cause)
    for run in message.runs:
        if run.operation not in OPERATION_NAMES or bool(run.member) != (run.operation in NAMED_OPERATIONS):
            raise RemoteProtocolError(f"operation {run.operation} in a batch")
    objected = objection(session, answer) or too_heavy(session, message)
    try:
        for run in message.runs:
            answer.runs.append(_guard_run(session, objected, run, now))
    except RemoteProtocolError:
        # Limits are counted for all connections of the principal: what will never run must not stay among them.
        answer.let_go()
        session.answers.arguments.let_go(message.question)
        raise
    answer.exports = [export for _, export, _ in answer.runs]
    permits = [permit for _, _, permits in answer.runs if isinstance(permits, list) for permit in permits]
    answer.permit = permits[0] if permits else None
    _watch(session, answer, permits, now)
    session.answers[message.question] = answer
    events.append(answer)


def on_return(session: "Session", message: m.Return, _now: float, events: list[Event]) -> None:
    """End one of our questions; what nobody waits for any more is given back."""
    question = session.asked.open.get(message.question)
    if question is None:
        raise RemoteProtocolError(f"an answer to question {message.question}, which is not open")
    if question.is_batch:
        raise RemoteProtocolError(f"RETURN to question {message.question}, which was a BATCH")
    if question.homes is not None:
        question.homes = session.homes_in(message.payload)
    # Closed only now: a question that is open when the session ends gets its end from there.
    del session.asked.open[message.question]
    if question.scope is not None:
        session.exports.end_scope(question.scope)
    if question.abandoned:
        session.discard(question, message)
    if question.outcome is None:
        question.outcome = message
    events.append(question)


def on_batch_return(session: "Session", message: m.BatchReturn, _now: float, events: list[Event]) -> None:
    """End one of our batches."""
    question = _asked(session, message.question)
    if not question.is_batch:
        raise RemoteProtocolError(f"BATCH_RETURN to question {message.question}, which was a CALL")
    del session.asked.open[message.question]
    if question.outcome is None:
        question.outcome = message
    events.append(question)


def on_raise(session: "Session", message: m.Raise, _now: float, events: list[Event]) -> None:
    """End one of our questions with an error; take back what the peer did not take."""
    question = _asked(session, message.question)
    if not message.taken:
        for export in question.handed_over:
            if export.count - export.kept < 1:
                raise RemoteProtocolError(f"export {export.export_id} was released, and is now said not to be taken")
            session.exports.take_back((export,))
    del session.asked.open[message.question]
    if question.scope is not None:
        session.exports.end_scope(question.scope)
    if question.outcome is None:
        question.outcome = message
    events.append(question)


def on_cancel(session: "Session", message: m.Cancel, now: float, events: list[Event]) -> None:
    """Remember that nobody waits for an answer; a late cancel is legal and useless."""
    answer = session.answers.get(message.question)
    session.glitch(now, answer.export if isinstance(answer, Answer) else None)
    if isinstance(answer, WaitingCall):
        give_up(session, answer, "cancelled", now, events)
    elif answer is not None:
        answer.cancelled = True
        events.append(CancelRequest(answer))


def on_facet(session: "Session", message: m.Facet, _now: float, _events: list[Event]) -> None:
    """Learn what we may do with references of a facet."""
    session.facets.learn(message, session.opening.accepted.max_references)


def on_release(session: "Session", message: m.Release, _now: float, _events: list[Event]) -> None:
    """Take counts back."""
    for export_id, count in message.counts:
        session.exports.release(export_id, count)


def on_finish(session: "Session", message: m.Finish, _now: float, _events: list[Event]) -> None:
    """Forget a kept answer once the calls on it that came before have started."""
    session.kept.finish(message.question)


def on_revoked(session: "Session", message: m.Revoked, now: float, _events: list[Event]) -> None:
    """Learn that references died; to be told so again is useless."""
    if not session.imports.revoke(message.exports):
        session.glitch(now)


def on_ping(session: "Session", message: m.Ping, now: float, _events: list[Event]) -> None:
    """Answer a sign of life; pings cost glitch budget."""
    session.glitch(now)
    session.queue(m.Pong(message.number))


def on_pong(session: "Session", _message: m.Pong, now: float, _events: list[Event]) -> None:
    """The bytes themselves were the sign of life."""
    session.glitch(now)


def on_goaway(session: "Session", message: m.GoAway, now: float, events: list[Event]) -> None:
    """The peer drains or has ended the session; to say again that it drains is useless."""
    if message.code != "drain":
        code = message.code if message.code in CLOSE_CODES else "internal"
        detail = f"the peer ended the connection: {code} {printable(message.text)}".rstrip()
        session.finish_with(Ended(code, detail, by_peer=True, reference=printable(message.reference, 32)), events)
    elif session.state is State.OPEN:
        session.enter(State.PEER_DRAINING)
    else:
        session.glitch(now)


def on_checkpoint(session: "Session", message: m.Checkpoint | m.Cosigned, now: float, events: list[Event]) -> None:
    """Hand on what concerns the audit logs; looking at it costs: it comes out of the budget for useless things."""
    if FEATURE_WITNESS not in session.opening.features:
        raise RemoteProtocolError(f"{type(message).__name__.upper()}: a feature that was not agreed on")
    session.glitch(now)
    events.append(message)


def on_welcome(session: "Session", message: m.Welcome, _now: float, events: list[Event]) -> None:
    """Take the acceptor's greeting and answer it."""
    session.opening.receive(message)
    session.queue(session.opening.greeting(session.limits))
    _open(session, events)


def on_hello(session: "Session", message: m.Hello, _now: float, events: list[Event]) -> None:
    """Take the dialer's greeting."""
    session.opening.receive(message)
    _open(session, events)


def _asked(session: "Session", number: int) -> Question:
    question = session.asked.open.get(number)
    if question is None:
        raise RemoteProtocolError(f"an answer to question {number}, which is not open")
    return question


def _open(session: "Session", events: list[Event]) -> None:
    session.enter(State.OPEN)
    session.frames.max_frame_bytes = session.limits.max_frame_bytes
    session.largest_payload = session.opening.peer_limits.max_frame_bytes - ENVELOPE_BYTES
    session.liveness.opened()
    session.keep_limits_of_peer()
    events.append(Opened())


def _usable(session: "Session", export: Export | None, message: m.Call | m.Run, now: float, uses: int = 1) -> Export:
    """Return an export that is neither absent nor dead, and is good for so many uses; they are counted later."""
    if export is None:
        if message.target < 0:
            raise RemoteProtocolError("a promised answer as target in a batch")
        raise refusal(session, None, message, "no-reference", "")
    if export.right is not None:
        reason = export.right.refusal(now, 0 if message.operation in UNCOUNTED_OPERATIONS else uses)
        if reason:
            if reason in ENDED:
                # Its holder learns of it before the refusal, and can tell what happened from a lack of rights.
                revoke(session, (export,), [], cut=False)
            raise refusal(session, export, message, reason, export.facet.permits.rule)
        chain = export.right.chain
        if chain and message.operation not in UNCOUNTED_OPERATIONS:
            # The peer asks for somebody else.
            if not may_pass_on(export.facet):
                # It got this through a reference that it passed on, or before a reload.
                raise refusal(session, export, message, "not-granted", export.facet.permits.rule)
            if session.liveness.budget_of(chain, now).spent(now):
                raise refusal(session, export, message, "rate", "limits.glitch_burst")
    return export


def _take(session: "Session", export: Export, now: float, uses: int) -> str:
    """Count operations on an export whose life or use is bounded; return why there may be no more, or nothing.

    What was lent for one call is counted together: the peer need not say that it acts on behalf of that call.
    """
    scope, right = export.scope, export.right
    if scope is not None and scope.uses + uses > session.limits.callbacks:
        return "callbacks"
    reason = "" if right is None else right.take(now, uses)
    if scope is not None and not reason:
        scope.uses += uses
    return reason


def _rule_of(export: Export, reason: str) -> str:
    return "limits.callbacks" if reason == "callbacks" else export.facet.permits.rule


def _watch(session: "Session", answer: Answer | BatchAnswer, permits: Sequence[Permit], now: float) -> None:
    """Have a permitted call answered in time: the least of what its caller and the policy of each member give it."""
    times = [(permit.timeout_s, permit, "timeout_s") for permit in permits if permit.timeout_s is not None]
    meta = answer.meta
    if meta is not None and meta.deadline_ms is not None and permits:
        times.append((meta.deadline_ms / 1000, permits[0], "deadline"))
    if times:
        # One answer for all calls of a batch: it comes before the time of any is over.
        seconds, permit, reason = min(times, key=itemgetter(0))
        session.answers.watch(answer, permit, now + seconds, reason)


def _guard_run(
    session: "Session", objected: tuple[str, str, str] | None, run: m.Run, now: float
) -> tuple[m.Run, Export | None, list[Permit] | Refused]:
    """Return a run with its export and either as many permits as it has calls, or the refusal of all of them."""
    export = session.exports.get(run.target)
    permits: list[Permit] = []
    try:
        if objected is not None:
            raise refusal(session, export, run, objected[1], objected[2])
        export = _usable(session, export, run, now, run.count)
        permits.append(session.guard.check(export.facet, run.operation, run.member, now))
        if permits[0].limiter is None:
            # Nothing is counted: the decision is the same for all of them.
            permits *= run.count
        while len(permits) < run.count:
            # One by one: those before a refused one are given back.
            permits.append(session.guard.check(export.facet, run.operation, run.member, now))
        if run.operation not in UNCOUNTED_OPERATIONS:
            reason = _take(session, export, now, run.count)
            if reason:
                raise refusal(session, export, run, reason, _rule_of(export, reason))
    except Refused as refused:
        for permit in permits:
            if permit.limiter is not None:
                permit.limiter.give_back()
        for _ in range(run.count):
            session.glitch(now, export)
        return run, export, refused
    return run, export, permits


def _cause(session: "Session", meta: m.Meta) -> Question | None:
    if meta.trace is not None or (meta.keep and FEATURE_PIPELINE not in session.opening.features):
        raise RemoteProtocolError("keep or trace in a call: features that were not chosen")
    if meta.deadline_ms is not None and FEATURE_DEADLINE not in session.opening.features:
        raise RemoteProtocolError("a deadline in a call: a feature that was not chosen")
    if meta.cause is None:
        return None
    question = session.asked.open.get(meta.cause)
    if question is None:
        raise RemoteProtocolError(f"a call on behalf of question {meta.cause}, which is not open")
    return question


_HANDLER_OF: Final[dict[type[m.Message], Handler]] = {
    m.Welcome: on_welcome,
    m.Hello: on_hello,
    m.Facet: on_facet,
    m.Call: on_call,
    m.Return: on_return,
    m.Raise: on_raise,
    m.Cancel: on_cancel,
    m.Release: on_release,
    m.Finish: on_finish,
    m.Revoked: on_revoked,
    m.Ping: on_ping,
    m.Pong: on_pong,
    m.GoAway: on_goaway,
    m.Batch: on_batch,
    m.BatchReturn: on_batch_return,
    m.Checkpoint: on_checkpoint,
    m.Cosigned: on_checkpoint,
}

HANDLERS: Final[dict[State, dict[type[m.Message], Handler]]] = {
    state: {kind: _HANDLER_OF[kind] for kind in kinds} for state, kinds in TRANSITIONS.items()
}
"""State and message -> handler: the gate in front of all of them."""
