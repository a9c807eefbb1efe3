"""The capability protocol of one connection, sans I/O: bytes in, events and bytes out.

No socket, clock, thread or logger in here; time is an argument. Neither side of a session knows who dialed.
"""

from typing import Final

from caprpc.errors import ConnectionLost, LimitExceeded, LocalProtocolError, RemoteProtocolError
from caprpc.ids import NAMED_OPERATIONS, OPERATION_NAMES, new_reference
from caprpc.limits import FIRST_FRAME_BYTES
from caprpc.peer import PeerIdentity
from caprpc.policy import Facet, Guard, Refused
from caprpc.session.calls import (
    Answer,
    BatchAnswer,
    CancelRequest,
    Ended,
    Event,
    Opened,
    Question,
    Refusal,
)
from caprpc.session.liveness import GlitchBudget, Liveness
from caprpc.session.opening import Opening
from caprpc.session.references import Announced, Export, Exports, Import, Imports, Scope
from caprpc.session.states import TRANSITIONS, State
from caprpc.session.tables import Announcements, Asked
from caprpc.wire import codec
from caprpc.wire import messages as m
from caprpc.wire.frame import FrameBuffer

_ENVELOPE_BYTES: Final = 1024
"""Room in a frame for everything but the payload."""


class Session:
    """Owns the tables of one connection and the order in which they change.

    The driver gives it bytes and the time, takes ``events`` in order, and sends what ``data_to_send`` returns.
    """

    def __init__(self, peer: PeerIdentity, guard: Guard, root: Export, opening: Opening, now: float) -> None:
        if not isinstance(peer, PeerIdentity):
            raise LocalProtocolError("a session needs the identity that a finished handshake proved")
        self.peer = peer
        self.guard = guard
        self.limits = limits = guard.limits
        self.now = now
        self.opening = opening
        self.state = State.AWAIT_HELLO if opening.acceptor else State.AWAIT_WELCOME
        self.exports = Exports(root, limits.exports)
        self.imports = Imports(limits.imports, peer.principal)
        self.asked = Asked()
        self.answers: dict[int, Answer | BatchAnswer] = {}
        self.liveness = Liveness(limits, now)
        self.frames = FrameBuffer(FIRST_FRAME_BYTES)
        self._glitches = GlitchBudget(limits, now)
        self._facets = Announcements()
        self._out: list[bytes] = []
        if opening.acceptor:
            self._send(opening.greeting(limits))

    # -- bytes -------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take received plaintext; return what happened, in order.

        A protocol error of the peer ends the session: the last event is then ``Ended``.
        """
        events: list[Event] = []
        self.now = now
        self.liveness.heard(now)
        try:
            for frame in self.frames.feed(data):
                self.receive_frame(frame, now, events)
        except RemoteProtocolError as exc:
            self.abort("protocol-error", str(exc), events)
        if self.frames.partial:
            self.liveness.frame_partial(now, len(data))
        else:
            self.liveness.frame_complete()
        return events

    def receive_frame(self, frame: bytes, now: float, events: list[Event]) -> None:
        """Take one frame body: decode it, find its handler for this state, run it."""
        message = codec.decode_message(frame)
        handler = _HANDLERS[self.state].get(type(message))
        if handler is None:
            if self.state is State.CLOSED:
                return
            raise RemoteProtocolError(f"{type(message).__name__.upper()} may not come in state {self.state.value}")
        handler(self, message, now, events)

    def data_to_send(self) -> list[bytes]:
        """Return the frames to send, in order, and forget them; RELEASE for dropped references is among them."""
        if self.imports.dropped and self.state is not State.CLOSED:
            pairs = self.imports.collect()
            if pairs:
                self._send(m.Release(pairs))
        out = self._out
        if out:
            self._out = []
        return out

    @property
    def wants_to_send(self) -> bool:
        """Whether ``data_to_send`` would return something."""
        return bool(self._out) or bool(self.imports.dropped)

    def _send(self, message: m.Message) -> None:
        self._out.append(codec.encode_message(message))

    # -- what we do --------------------------------------------------------------------------------------------

    def ask(
        self,
        target: Import,
        operation: int,
        member: str,
        payload: bytes,
        handed_over: list[Export],
        scope: Scope | None,
        on_behalf_of: Answer | BatchAnswer | None,
    ) -> Question:
        """Make a call on an import; its answer will be a ``Question`` event.

        Raises:
            LimitExceeded: The payload is more than the peer accepts in one frame.
            ConnectionLost: The session is over, or the peer is draining.
        """
        nested = on_behalf_of is not None and on_behalf_of.answer_id in self.answers
        self._check_ask(nested=nested, size=len(payload))
        depth = on_behalf_of.depth + 1 if on_behalf_of is not None else 0
        if depth > self.limits.callback_depth:
            raise LimitExceeded(f"calls nested deeper than {self.limits.callback_depth} (limits.callback_depth)")
        question = self.asked.new(target, depth, handed_over)
        question.scope = scope
        meta = m.Meta(on_behalf_of.answer_id) if nested and on_behalf_of is not None else None
        self._out.append(
            codec.encode_message(m.Call(question.question_id, target.export_id, operation, member, meta, payload))
        )
        return question

    def ask_batch(self, runs: list[m.Run]) -> Question:
        """Make many calls under one question."""
        self._check_ask(nested=False, size=sum(len(run.payload) for run in runs))
        question = self.asked.new(None, 0, [])
        self._send(m.Batch(question.question_id, None, runs))
        return question

    def may_ask(self, *, nested: bool) -> bool:
        """Whether the peer has announced room for one more call; nested ones have their own room."""
        room = self.opening.peer_limits.max_in_flight
        return len(self.asked.open) < (2 * room if nested else room)

    def cancel(self, question: Question) -> None:
        """Tell the peer that nobody waits for this answer any more; what was lent for the call ends now."""
        question.abandoned = True
        if question.scope is not None:
            question.scope.end()
        if question.outcome is None and self.state is not State.CLOSED:
            self._send(m.Cancel(question.question_id))

    def accept_arguments(self, answer: Answer) -> None:
        """The arguments were decoded and found good: the references in them are ours to release."""
        answer.taken = True

    def return_(self, answer: Answer, payload: bytes) -> None:
        """End an answer with a value."""
        if self._finish(answer):
            self._out.append(codec.encode_message(m.Return(answer.answer_id, payload)))

    def return_batch(self, answer: BatchAnswer, failures: list[m.Failure], payload: bytes) -> None:
        """End a batch."""
        if self._finish(answer):
            self._send(m.BatchReturn(answer.answer_id, failures, payload))

    def raise_(self, answer: Answer, code: str, *, reference: str, type_: str = "", text: str = "") -> None:
        """End an answer with an error; ``text`` is only what was declared public."""
        if self._finish(answer):
            cut = text.encode("utf-8", "replace")[: self.limits.max_error_text_bytes].decode("utf-8", "ignore")
            self._send(m.Raise(answer.answer_id, answer.taken, code, type_, cut, reference))

    def announce(self, facet: Facet, lifetime: int) -> Announced:
        """Return the announced form of a facet, sending FACET if the peer does not know it yet."""
        announced, message = self._facets.announce(facet, lifetime)
        if message is not None:
            self._send(message)
        return announced

    def announced_by_peer(self, facet_id: int) -> Announced:
        """Return a facet that the peer has announced.

        Raises:
            RemoteProtocolError: It has not.
        """
        return self._facets.received(facet_id)

    def revoke(self, exports: list[Export]) -> None:
        """End exports now and tell the holder."""
        for export in exports:
            export.die()
        if exports and self.state is not State.CLOSED:
            self._send(m.Revoked([export.export_id for export in exports]))

    def drain(self) -> None:
        """Announce that we end: running calls finish, new ones are answered ``unavailable``."""
        if self.state in (State.OPEN, State.PEER_DRAINING):
            self.state = State.DRAINING
            self._send(m.GoAway("drain", "", ""))

    @property
    def drained(self) -> bool:
        """Nothing runs and nothing is awaited."""
        return not self.answers and not self.asked.open

    def abort(self, code: str, detail: str, events: list[Event], *, tell_peer: bool = True) -> str:
        """End the session from our side; returns the reference number the peer was given."""
        if self.state is State.CLOSED:
            return ""
        reference = new_reference()
        if tell_peer:
            self._send(m.GoAway(code, "", reference))
        self._end(Ended(code, detail, by_peer=False, reference=reference), events)
        return reference

    def connection_lost(self, detail: str, events: list[Event]) -> None:
        """The transport has ended; without GOAWAY and an orderly end of TLS it counts as lost."""
        if self.state is not State.CLOSED:
            self._end(Ended("lost", detail, by_peer=True), events)

    def tick(self, now: float, events: list[Event]) -> None:
        """Do what is due at this time: ask for a sign of life, or give up."""
        if self.state is State.CLOSED:
            return
        verdict = self.liveness.check(now)
        if verdict == "ping":
            self._send(m.Ping(0))
        elif verdict is not None:
            self.abort("idle", verdict, events)

    def deadline(self) -> float:
        """Return the time of the next ``tick``."""
        return self.liveness.deadline()

    def glitch(self, now: float) -> None:
        """Count something that is legal and useless.

        Raises:
            RemoteProtocolError: The budget is spent.
        """
        if not self._glitches.spend(now):
            raise RemoteProtocolError(f"more than {self.limits.glitch_burst} useless messages (limits.glitch_burst)")

    def _check_ask(self, *, nested: bool, size: int) -> None:
        if self.state is not State.OPEN and not (nested and self.state in (State.DRAINING, State.PEER_DRAINING)):
            raise ConnectionLost(f"no new calls: the session is {self.state.value}", code="drain")
        if size > self.opening.peer_limits.max_frame_bytes - _ENVELOPE_BYTES:
            raise LimitExceeded(
                f"arguments of {size} bytes, the peer takes {self.opening.peer_limits.max_frame_bytes} "
                "in a frame (limits.max_frame_bytes)"
            )

    def _finish(self, answer: Answer | BatchAnswer) -> bool:
        if self.answers.pop(answer.answer_id, None) is None:
            return False
        if answer.scope is not None:
            self.imports.end_scope(answer.scope)
        return self.state is not State.CLOSED

    def _end(self, ended: Ended, events: list[Event]) -> None:
        self.state = State.CLOSED
        reason = ended.detail or f"the peer ended the connection ({ended.code})"
        for question in self.asked.end_all():
            question.outcome = ConnectionLost(reason, code=ended.code, reference=ended.reference)
            events.append(question)
        for answer in self.answers.values():
            answer.cancelled = True
            events.append(CancelRequest(answer))
        self.answers.clear()
        self.imports.clear()
        for export in self.exports.clear():
            if export.scope is not None:
                export.scope.alive = False
        events.append(ended)

    # -- what the peer does; only _HANDLERS calls these ----------------------------------------------------------

    def on_welcome(self, message: m.Welcome, _now: float, events: list[Event]) -> None:
        """Take the acceptor's greeting and answer it."""
        self.opening.receive(message)
        self._send(self.opening.greeting(self.limits))
        self._open(events)

    def on_hello(self, message: m.Hello, _now: float, events: list[Event]) -> None:
        """Take the dialer's greeting."""
        self.opening.receive(message)
        self._open(events)

    def _open(self, events: list[Event]) -> None:
        self.state = State.OPEN
        self.frames.max_frame_bytes = self.limits.max_frame_bytes
        self.liveness.opened()
        events.append(Opened())

    def on_facet(self, message: m.Facet, _now: float, _events: list[Event]) -> None:
        """Learn what we may do with references of a facet."""
        self._facets.learn(message, self.limits.imports)

    def on_call(self, message: m.Call, now: float, events: list[Event]) -> None:
        """Guard one call; what is permitted becomes an ``Answer`` event, the rest is refused here."""
        question_id = message.question
        self.asked.seen_from_peer(question_id)
        operation = message.operation
        if operation not in OPERATION_NAMES or bool(message.member) != (operation in NAMED_OPERATIONS):
            raise RemoteProtocolError(f"operation {operation} with a member name of {len(message.member)} characters")
        meta = message.meta
        cause = None
        if meta is not None:
            cause = self._cause(meta)
        try:
            export = self._target(message, now)
            permit = self.guard.check(export.facet, operation, message.member, now)
        except Refused as refused:
            self._refuse(message, refused.code, refused, now, events)
            return
        answer = Answer(question_id, export, permit, message.payload, meta, cause)
        objection = self._objection(answer)
        if objection is None:
            self.answers[question_id] = answer
            events.append(answer)
        else:
            code, reason, rule = objection
            if permit.limiter is not None:
                permit.limiter.give_back()
            self._refuse(message, code, self._refusal(export, message, reason, rule), now, events)

    def _objection(self, answer: Answer) -> tuple[str, str, str] | None:
        """Return code, reason and rule if this connection has no room for a permitted call now."""
        room = self.limits.in_flight
        cause = answer.cause
        if len(self.answers) >= (room if cause is None else 2 * room):
            return "limit", "in_flight", "limits.in_flight"
        if answer.depth > self.limits.callback_depth:
            return "limit", "depth", "limits.callback_depth"
        if cause is not None and cause.abandoned:
            return "cancelled", "cancelled", ""
        if cause is None and self.state is State.DRAINING:
            return "unavailable", "draining", ""
        return None

    def _refusal(self, export: Export | None, message: m.Call | m.Run, reason: str, rule: str) -> Refused:
        facet = "" if export is None else export.facet.name
        return Refused(
            reason,
            rule=rule,
            facet=facet,
            operation=message.operation,
            member=message.member,
            policy=self.guard.policy.digest,
        )

    def on_batch(self, message: m.Batch, now: float, events: list[Event]) -> None:
        """Guard each call of a batch."""
        self.asked.seen_from_peer(message.question)
        cause = None if message.meta is None else self._cause(message.meta)
        count = sum(run.count for run in message.runs)
        if count > self.limits.in_flight or min((run.count for run in message.runs), default=0) < 1:
            raise RemoteProtocolError(f"a batch of {count} calls, 1 to {self.limits.in_flight} accepted (limits.in_flight)")
        answer = BatchAnswer(message.question, [], message.meta, cause)
        for run in message.runs:
            if run.operation not in OPERATION_NAMES or bool(run.member) != (run.operation in NAMED_OPERATIONS):
                raise RemoteProtocolError(f"operation {run.operation} in a batch")
            export = None
            try:
                export = self._target(run, now)
                permit = self.guard.check(export.facet, run.operation, run.member, now)
            except Refused as refused:
                for _ in range(run.count):
                    self.glitch(now)
                answer.runs.append((run, export, refused))
            else:
                answer.runs.append((run, export, permit))
        self.answers[message.question] = answer
        events.append(answer)

    def on_return(self, message: m.Return | m.Raise | m.BatchReturn, _now: float, events: list[Event]) -> None:
        """End one of our questions."""
        question = self.asked.close(message.question)
        if question.scope is not None:
            self.exports.end_scope(question.scope)
        question.outcome = message
        events.append(question)

    def on_raise(self, message: m.Raise, now: float, events: list[Event]) -> None:
        """End one of our questions with an error; take back what the peer did not take."""
        question = self.asked.open.get(message.question)
        if question is not None and not message.taken:
            self.exports.take_back(question.handed_over)
        self.on_return(message, now, events)

    on_batch_return = on_return

    def on_cancel(self, message: m.Cancel, now: float, events: list[Event]) -> None:
        """Remember that nobody waits for an answer; a late cancel is legal and useless."""
        self.glitch(now)
        answer = self.answers.get(message.question)
        if answer is not None:
            answer.cancelled = True
            events.append(CancelRequest(answer))

    def on_release(self, message: m.Release, _now: float, _events: list[Event]) -> None:
        """Take counts back."""
        for export_id, count in message.counts:
            self.exports.release(export_id, count)

    def on_finish(self, message: m.Finish, _now: float, _events: list[Event]) -> None:
        """Kept answers belong to pipelining, which this version does not offer."""
        raise RemoteProtocolError(f"FINISH of answer {message.question}, which was not kept")

    def on_revoked(self, message: m.Revoked, _now: float, _events: list[Event]) -> None:
        """Learn that references died."""
        self.imports.revoke(message.exports)

    def on_ping(self, message: m.Ping, now: float, _events: list[Event]) -> None:
        """Answer a sign of life; pings cost glitch budget."""
        self.glitch(now)
        self._send(m.Pong(message.number))

    def on_pong(self, _message: m.Pong, now: float, _events: list[Event]) -> None:
        """The bytes themselves were the sign of life."""
        self.glitch(now)

    def on_goaway(self, message: m.GoAway, _now: float, events: list[Event]) -> None:
        """The peer drains or has ended the session."""
        if message.code == "drain" and self.state is State.OPEN:
            self.state = State.PEER_DRAINING
        elif message.code != "drain":
            detail = f"the peer ended the connection: {message.code} {message.text}".rstrip()
            self._end(Ended(message.code, detail, by_peer=True, reference=message.reference), events)

    def _target(self, message: m.Call | m.Run, now: float) -> Export:
        export = self.exports.get(message.target)
        if export is None:
            if message.target < 0:
                raise RemoteProtocolError("a promised answer as target: this version keeps no answers")
            raise self._refusal(None, message, "no-reference", "")
        if now >= export.expires_at:
            raise self._refusal(export, message, "expired", export.facet.permits.rule)
        if export.uses_left is not None:
            if export.uses_left <= 0:
                raise self._refusal(export, message, "uses", export.facet.permits.rule)
            export.uses_left -= 1
        return export

    def _cause(self, meta: m.Meta) -> Question | None:
        if meta.deadline_ms is not None or meta.keep or meta.trace is not None:
            raise RemoteProtocolError("deadline, keep or trace in a call: features that were not offered")
        if meta.cause is None:
            return None
        question = self.asked.open.get(meta.cause)
        if question is None:
            raise RemoteProtocolError(f"a call on behalf of question {meta.cause}, which is not open")
        return question

    def _refuse(self, message: m.Call, code: str, refused: Refused, now: float, events: list[Event]) -> None:
        self.glitch(now)
        reference = new_reference()
        self._send(m.Raise(message.question, False, code, "", "", reference))
        events.append(Refusal(message, code, refused, reference))


_HANDLERS = {
    state: {kind: getattr(Session, name) for kind, name in row.items()} for state, row in TRANSITIONS.items()
}
