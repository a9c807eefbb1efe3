"""The capability protocol of one connection, sans I/O: bytes in, events and bytes out.

No socket, clock, thread or logger in here; time is an argument. Neither side of a session knows who dialed.
"""

from typing import Final

from caprpc.errors import ConnectionLost, LimitExceeded, LocalProtocolError, RemoteProtocolError
from caprpc.ids import new_reference
from caprpc.limits import FIRST_FRAME_BYTES
from caprpc.peer import PeerIdentity
from caprpc.policy import Facet, Guard
from caprpc.session.calls import Answer, BatchAnswer, CancelRequest, Ended, Event, Question
from caprpc.session.incoming import HANDLERS
from caprpc.session.liveness import GlitchBudget, Liveness
from caprpc.session.opening import Opening
from caprpc.session.references import Announced, Export, Exports, Import, Imports, Scope
from caprpc.session.states import State
from caprpc.session.tables import Announcements, Asked
from caprpc.wire import messages as m
from caprpc.wire.codec import decode_message, encode_message
from caprpc.wire.frame import FrameBuffer

ENVELOPE_BYTES: Final = 1024
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
        self.enter(State.AWAIT_HELLO if opening.acceptor else State.AWAIT_WELCOME)
        self.exports = Exports(root, limits.exports)
        self.imports = Imports(limits.imports, peer.principal)
        self.asked = Asked()
        self.answers: dict[int, Answer | BatchAnswer] = {}
        self.liveness = Liveness(limits, now)
        self.frames = FrameBuffer(FIRST_FRAME_BYTES)
        self._glitches = GlitchBudget(limits, now)
        self.facets = Announcements()
        self._out: list[bytes] = []
        if opening.acceptor:
            self.queue(opening.greeting(limits))

    # -- bytes -------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take received plaintext; return what happened, in order.

        A protocol error of the peer ends the session: the last event is then ``Ended``.
        """
        events: list[Event] = []
        self.now = now
        frames = self.frames
        try:
            for frame in frames.feed(data):
                if self.state is State.CLOSED:
                    return events
                message = decode_message(frame)
                handler = self._handlers.get(type(message))
                if handler is None:
                    name = type(message).__name__.upper()
                    raise RemoteProtocolError(f"{name} may not come in state {self.state.value}")
                handler(self, message, now, events)
        except RemoteProtocolError as exc:
            self.abort("protocol-error", str(exc), events)
        self.liveness.heard(now, frames.partial_bytes if frames.partial else 0)
        return events

    def data_to_send(self) -> list[bytes]:
        """Return the frames to send, in order, and forget them; RELEASE for dropped references is among them."""
        if self.imports.dropped and self.state is not State.CLOSED:
            pairs = self.imports.collect()
            if pairs:
                self.queue(m.Release(pairs))
        out = self._out
        if out:
            self._out = []
        return out

    @property
    def wants_to_send(self) -> bool:
        """Whether ``data_to_send`` would return something."""
        return bool(self._out) or bool(self.imports.dropped)

    def enter(self, state: State) -> None:
        """Go to another state: from now on only what ``TRANSITIONS`` lists for it may come."""
        self.state = state
        self._handlers = HANDLERS[state]

    def queue(self, message: m.Message) -> None:
        """Put a message behind those that wait to be sent."""
        self._out.append(encode_message(message))

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
            encode_message(m.Call(question.question_id, target.export_id, operation, member, meta, payload))
        )
        return question

    def ask_batch(self, runs: list[m.Run]) -> Question:
        """Make many calls under one question."""
        self._check_ask(nested=False, size=sum(len(run.payload) for run in runs))
        question = self.asked.new(None, 0, [])
        self.queue(m.Batch(question.question_id, None, runs))
        return question

    def may_ask(self, on_behalf_of: Answer | BatchAnswer | None) -> bool:
        """Whether the peer has announced room for one more call; nested ones have room of their own."""
        room = self.opening.peer_limits.max_in_flight
        return len(self.asked.open) < (room if on_behalf_of is None else 2 * room)

    def cancel(self, question: Question) -> None:
        """Tell the peer that nobody waits for this answer any more; what was lent for the call ends now."""
        question.abandoned = True
        if question.scope is not None:
            question.scope.end()
        if question.outcome is None and self.state is not State.CLOSED:
            self.queue(m.Cancel(question.question_id))

    def return_(self, answer: Answer, payload: bytes) -> None:
        """End an answer with a value."""
        if self._finish(answer):
            self._out.append(encode_message(m.Return(answer.answer_id, payload)))

    def return_batch(self, answer: BatchAnswer, failures: list[m.Failure], payload: bytes) -> None:
        """End a batch."""
        if self._finish(answer):
            self.queue(m.BatchReturn(answer.answer_id, failures, payload))

    def raise_(self, answer: Answer, code: str, *, reference: str, type_: str = "", text: str = "") -> None:
        """End an answer with an error; ``text`` is only what was declared public."""
        if self._finish(answer):
            cut = text.encode("utf-8", "replace")[: self.limits.max_error_text_bytes].decode("utf-8", "ignore")
            self.queue(m.Raise(answer.answer_id, answer.taken, code, type_, cut, reference))

    def announce(self, facet: Facet, lifetime: int) -> Announced:
        """Return the announced form of a facet, sending FACET if the peer does not know it yet."""
        announced, message = self.facets.announce(facet, lifetime)
        if message is not None:
            self.queue(message)
        return announced

    def announced_by_peer(self, facet_id: int) -> Announced:
        """Return a facet that the peer has announced.

        Raises:
            RemoteProtocolError: It has not.
        """
        return self.facets.received(facet_id)

    def revoke(self, exports: list[Export]) -> None:
        """End exports now and tell the holder."""
        for export in exports:
            export.die()
        if exports and self.state is not State.CLOSED:
            self.queue(m.Revoked([export.export_id for export in exports]))

    def drain(self) -> None:
        """Announce that we end: running calls finish, new ones are answered ``unavailable``."""
        if self.state in (State.OPEN, State.PEER_DRAINING):
            self.enter(State.DRAINING)
            self.queue(m.GoAway("drain", "", ""))

    @property
    def largest(self) -> int:
        """A text or byte string shorter than this fits into a frame of the peer, whatever its encoding."""
        return (self.opening.peer_limits.max_frame_bytes - ENVELOPE_BYTES) // 4

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
        """Do what is due at this time: ask for a sign of life, or give up."""
        if self.state is State.CLOSED:
            return
        verdict = self.liveness.check(now)
        if verdict == "ping":
            self.queue(m.Ping(0))
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
        if size > self.opening.peer_limits.max_frame_bytes - ENVELOPE_BYTES:
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

    def finish_with(self, ended: Ended, events: list[Event]) -> None:
        self.enter(State.CLOSED)
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
