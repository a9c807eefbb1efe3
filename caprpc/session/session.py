"""The capability protocol of one connection, sans I/O: bytes in, events and bytes out.

No socket, clock, thread or logger in here; time is an argument. Neither side of a session knows who dialed.
"""

from collections.abc import Callable, Iterable

from caprpc.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError, cut_text
from caprpc.ids import new_reference
from caprpc.limits import FIRST_FRAME_BYTES, within
from caprpc.peer import PeerIdentity
from caprpc.policy import Facet, Guard
from caprpc.session.asking import Asking
from caprpc.session.calls import Answer, BatchAnswer, CancelRequest, Ended, Event
from caprpc.session.costs import UNBOUNDED, cost_of
from caprpc.session.incoming import HANDLERS
from caprpc.session.kept import WaitingCall, run_resolved
from caprpc.session.liveness import Liveness
from caprpc.session.opening import Opening
from caprpc.session.references import Announced, Export
from caprpc.session.revoking import revoke, sweep
from caprpc.session.states import State
from caprpc.wire import messages as m
from caprpc.wire.codec import decode_message, encode_message
from caprpc.wire.frame import SPARE_S, FrameBuffer


class Session(Asking):
    """Owns the order in which the tables of one connection change.

    The driver gives it bytes and the time, takes ``events`` in order, and sends what ``data_to_send`` returns.
    """

    def __init__(self, peer: PeerIdentity, guard: Guard, root: Export, opening: Opening, now: float) -> None:
        if not isinstance(peer, PeerIdentity):
            raise LocalProtocolError("a session needs the identity that a finished handshake proved")
        limits = guard.limits
        super().__init__(root, limits, peer.principal)
        self.peer = peer
        self.guard = guard
        self.limits = limits
        opening.sends = limits
        self.now = now
        self.opening = opening
        self.enter(State.AWAIT_HELLO if opening.acceptor else State.AWAIT_WELCOME)
        self.liveness = Liveness(limits, now)
        self.frames = FrameBuffer(FIRST_FRAME_BYTES)
        self.largest_payload = 0
        """Bytes of arguments or of a result that the peer takes in one frame."""
        self._out: list[bytes] = []
        self.queued_bytes = 0
        """Bytes of the frames that wait to be encrypted."""
        if opening.acceptor:
            self.queue(opening.greeting(limits))

    def receive_data(self, data: bytes, now: float, most: int = UNBOUNDED) -> list[Event]:
        """Take received plaintext; return what happened, in order.

        A protocol error of the peer ends the session: the last event is then ``Ended``. Once the messages have cost
        ``most`` (``cost_of``), the rest is left for ``go_on``, which comes before more is received.
        """
        bodies = self.frames.feed(data)
        if most > 0 or not bodies:
            return self._handle(bodies, len(data), now, most)
        self.frames.rest = bodies
        self.now = self.liveness.heard_at = now
        self.liveness.frame_since = None
        return []

    def go_on(self, now: float, most: int = UNBOUNDED) -> list[Event]:
        """Handle messages that ``receive_data`` has left (``frames.rest``); return what happened, in order."""
        rest, self.frames.rest = self.frames.rest, None
        return [] if rest is None else self._handle(rest, 0, now, most)

    def _handle(self, bodies: Iterable[bytes | bytearray], size: int, now: float, most: int) -> list[Event]:
        events: list[Event] = []
        self.now = now
        frames = self.frames
        sliced = most is not UNBOUNDED and type(bodies) is not tuple
        try:
            for frame in bodies:
                message = decode_message(frame)
                handler = self._handlers.get(type(message))
                if handler is None:
                    if self.state is State.CLOSED:
                        return events
                    name = type(message).__name__.upper()
                    raise RemoteProtocolError(f"{name} may not come in state {self.state.value}")
                handler(self, message, now, events)
                if sliced:
                    most -= cost_of(message, len(frame))
                    if most <= 0:
                        frames.rest = bodies
                        break
            if self.kept.resolved:
                run_resolved(self, now, events)
        except RemoteProtocolError as exc:
            self.abort("protocol-error", self.liveness.broken or str(exc), events)
        liveness = self.liveness
        liveness.heard_at = now
        if not frames.missing or frames.rest is not None:
            liveness.frame_since = None
        elif liveness.frame_since is None or frames.partial_bytes <= size:
            liveness.frame_since = now
        return events

    def receive_bulk(self, read_into: Callable[[memoryview], int], now: float) -> list[Event]:
        """Have received plaintext written where a large frame (``frames.awaits_bulk``) wants it; return what happened.

        ``read_into`` fills as much of a view as it can, and returns how much. It is left with what is behind the frame.
        """
        self.liveness.heard_at = now
        body = self.frames.fill(read_into)
        return [] if body is None else self._handle((body,), 0, now, UNBOUNDED)

    def data_to_send(self) -> list[bytes]:
        """Return the frames to send, in order, and forget them; RELEASE for dropped references is among them."""
        if self.imports.dropped and self.state is not State.CLOSED:
            self.let_go()
        if self.exports.gone:
            self.exports.gone.clear()
        out = self._out
        if out:
            self._out = []
            self.queued_bytes = 0
        return out

    @property
    def wants_to_send(self) -> bool:
        """Whether ``data_to_send`` would return something."""
        return bool(self._out) or bool(self.imports.dropped)

    def enter(self, state: State) -> None:
        """Go to another state: from now on only what ``TRANSITIONS`` lists for it may come."""
        self.state = state
        self._handlers = HANDLERS[state]

    def queue(self, message: m.AnyMessage) -> None:
        """Put a message behind those that wait to be sent."""
        frame = encode_message(message)
        self._out.append(frame)
        self.queued_bytes += len(frame)

    def broken(self, detail: str) -> None:
        """Take note that the peer broke the protocol in something that was read late; ``tick`` ends the session."""
        if self.state is not State.CLOSED:
            self.liveness.broken = detail
            self.enter(State.BROKEN)

    def resume(self, message: m.Call, now: float, events: list[Event]) -> None:
        """Look at a call of the peer again that has waited; it passes the gate of all calls."""
        handler = self._handlers.get(m.Call)
        if handler is not None:
            self.asked.resumed = message.question
            handler(self, message, now, events)
        else:
            self.answers.arguments.let_go(message.question)

    def run_resolved(self, now: float) -> list[Event]:
        """Start the calls that waited for answers which we have given; the driver calls it if ``kept.resolved``."""
        events: list[Event] = []
        self.now = now
        try:
            run_resolved(self, now, events)
        except RemoteProtocolError as exc:
            self.abort("protocol-error", str(exc), events)
        return events

    def return_(self, answer: Answer, payload: bytes, result: Export | None = None) -> None:
        """End an answer with a value; ``result`` is what it is a reference to, if it is one to an object of ours."""
        if answer.scope is not None:
            self.imports.end_scope(answer.scope)
        if self.answers.arguments.weights:
            self.answers.arguments.let_go(answer.answer_id)
        if self.answers.pop(answer.answer_id, None) is not None:
            self._queue_with_payload(m.Return(answer.answer_id, payload))
            if self.kept:
                self.kept.settle(answer.answer_id, result)
        else:
            self.answers.ended(answer.answer_id)

    def return_batch(self, answer: BatchAnswer, failures: list[m.Failure], payload: bytes) -> None:
        """End a batch."""
        if self.finish_answer(answer):
            self.queue(m.BatchReturn(answer.answer_id, failures, payload))

    def raise_(self, answer: Answer, code: str, *, reference: str, type_: str = "", text: str = "") -> None:
        """End an answer with an error; ``text`` is only what was declared public."""
        if self.finish_answer(answer):
            cut = cut_text(text, self.limits.max_error_text_bytes)
            self.queue(m.Raise(answer.answer_id, answer.taken, code, type_, cut, reference))
            self.kept.settle(answer.answer_id, None)

    def announce(self, facet: Facet, lifetime: int) -> Announced:
        """Return the announced form of a facet, sending FACET if the peer does not know it yet.

        Raises:
            LimitExceeded: The peer takes no more facets.
            ConnectionLost: The session is over.
        """
        if self.state is State.CLOSED:
            raise ConnectionLost("nothing can be handed over: the session is closed", code="closed")
        announced, message = self.facets.announce(facet, lifetime, self.opening.peer_limits.max_references)
        if message is not None:
            self.queue(message)
        return announced

    def announced_by_peer(self, facet_id: int) -> Announced:
        """Return a facet that the peer has announced.

        Raises:
            RemoteProtocolError: It has not.
        """
        return self.facets.received(facet_id)

    def revoke(self, exports: Iterable[Export], events: list[Event], *, cut: bool = False) -> list[Export]:
        """End exports now and tell the holder; ``cut`` ends running calls on them, too. Returns what was alive."""
        return revoke(self, exports, events, cut=cut)

    def drain(self) -> None:
        """Announce that we end: running calls finish, new ones are answered ``unavailable``."""
        if self.state in (State.OPEN, State.PEER_DRAINING):
            self.enter(State.DRAINING)
            self.queue(m.GoAway("drain", "", ""))

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
            self.queue(m.GoAway(code, "", reference))
        self.finish_with(Ended(code, detail, by_peer=False, reference=reference), events)
        return reference

    def connection_lost(self, detail: str, events: list[Event]) -> None:
        """The transport has ended; without GOAWAY and an orderly end of TLS it counts as lost."""
        if self.state is not State.CLOSED:
            self.finish_with(Ended("lost", detail, by_peer=True), events)

    def tick(self, now: float, events: list[Event]) -> None:
        """Do what is due at this time: answer calls whose time is over, ask for a sign of life, or give up."""
        if self.state is State.CLOSED:
            return
        if self.state is State.BROKEN:
            self.abort("protocol-error", self.liveness.broken, events)
            return
        self.answers.expire(self, now, events)
        sweep(self, now, events)
        if self.kept.resolved:
            events += self.run_resolved(now)
        if now >= self.liveness.heard_at + SPARE_S:
            self.frames.spare = None
        verdict = self.liveness.check(now, self.frames.partial_bytes)
        if verdict == "ping":
            self.queue(m.Ping(0))
        elif verdict is not None:
            self.abort("idle", verdict, events)

    def deadline(self) -> float:
        """Return the time of the next ``tick``."""
        if self.state is State.BROKEN:
            return 0.0
        spare = self.liveness.heard_at + SPARE_S if self.frames.spare is not None else float("inf")
        due = min(self.answers.soonest, self.asked.soonest, self.exports.next_sweep())
        return min(self.liveness.deadline(), due, spare)

    def glitch(self, now: float, export: Export | None = None) -> None:
        """Count something that is legal and useless; on an export that was passed on, it is counted for whom it was.

        Raises:
            RemoteProtocolError: The budget is spent. That of a third party ends nothing: who has spent it is refused.
        """
        chain = () if export is None or export.right is None else export.right.chain
        budget = self.liveness.budget_of(chain, now)
        if not budget.spend(now) and budget is self.liveness.glitches:
            raise RemoteProtocolError(f"more than {self.limits.glitch_burst} useless messages (limits.glitch_burst)")

    def glitch_late(self, export: Export) -> None:
        """Count a call likewise that was found to be useless when it had run; the next tick ends the session."""
        try:
            self.glitch(self.now, export)
        except RemoteProtocolError as spent:
            self.broken(str(spent))

    def finish_answer(self, answer: Answer | BatchAnswer) -> bool:
        """Close an answer whose method has ended; whether it was open, so that the peer is to be told of its end."""
        self.answers.arguments.let_go(answer.answer_id)
        return self.close_answer(answer)

    def close_answer(self, answer: Answer | BatchAnswer) -> bool:
        """Close an answer, while its method may go on; whether it was open."""
        if self.answers.pop(answer.answer_id, None) is None:
            self.answers.ended(answer.answer_id)
            return False
        if answer.scope is not None:
            self.imports.end_scope(answer.scope)
        return self.state is not State.CLOSED

    def keep_limits_of_peer(self) -> None:
        """Take over what the peer has announced: from now on we send nothing that it does not accept."""
        theirs = self.opening.peer_limits
        self.exports.limit = min(self.limits.exports, theirs.max_references)
        self.opening.sends = within(self.limits, theirs.values)

    def finish_with(self, ended: Ended, events: list[Event]) -> None:
        """Close every table; each question ends with ``ConnectionLost``, each answer is cancelled."""
        self.enter(State.CLOSED)
        reason = ended.detail or f"the peer ended the connection ({ended.code})"
        for question in self.asked.end_all():
            if question.outcome is None:
                # Who refuses a peer lets none of its calls begin.
                runs = ended.code != "refused"
                text = f"{reason}; the call may or may not have run" if runs else f"{reason}; the call has not run"
                question.outcome = ConnectionLost(text, code=ended.code, reference=ended.reference, may_have_run=runs)
            events.append(question)
        for answer in self.answers.values():
            answer.cancelled = True
            if isinstance(answer, WaitingCall):
                self.answers.arguments.let_go(answer.answer_id)
            else:
                events.append(CancelRequest(answer))
        self.answers.clear()
        self.kept.clear()
        self.kept.resolved.clear()
        self.imports.clear()
        for export in self.exports.clear():
            if export.scope is not None:
                export.scope.alive = False
        events.append(ended)
