"""The calls that we make: whether they may be made now, what travels beside them, and what an unread answer leaves."""

from abc import ABC, abstractmethod
from math import ceil
from typing import Final

from caprpc.errors import ConnectionLost, DeadlineExceeded, LimitExceeded, RemoteProtocolError, printable
from caprpc.limits import Limits
from caprpc.peer import PeerIdentity
from caprpc.session.calls import Origin, Question
from caprpc.session.imports import Import
from caprpc.session.kept import KEPT_PER_CALL
from caprpc.session.opening import FEATURE_DEADLINE, Opening
from caprpc.session.references import FOREVER, Export, Home, Scope
from caprpc.session.states import State
from caprpc.session.tables import Tables
from caprpc.wire import messages as m
from caprpc.wire.codec import decode_message, encode_frames, encode_message
from caprpc.wire.frame import HEADER_BYTES
from caprpc.wire.mentions import references_in
from caprpc.wire.messages import MAX_ID, Meta
from caprpc.wire.values import OwnReference

_RUN_BYTES: Final = 32
"""Most bytes of a run in a batch beside its member and its payload."""

_BULK_BYTES: Final = 64 * 1024
"""A larger payload is sent as it is, behind its head, and not copied into a frame."""


class Asking(Tables, ABC):
    """The part of a session that asks; owns that a question is open exactly while the peer owes its answer."""

    peer: PeerIdentity
    state: State
    limits: Limits
    now: float
    opening: Opening
    largest_payload: int
    queued_bytes: int
    _out: list[bytes]

    @abstractmethod
    def queue(self, message: m.AnyMessage) -> None:
        """Put a message behind those that wait to be sent."""

    @abstractmethod
    def broken(self, detail: str) -> None:
        """Take note that the peer broke the protocol in something that was read late."""

    def ask(
        self,
        target: Import,
        operation: int,
        member: str,
        payload: bytes,
        handed_over: list[Export],
        scope: Scope | None,
        origin: Origin | None,
    ) -> Question:
        """Make a call on an import; its answer will be a ``Question`` event.

        Raises:
            LimitExceeded: The payload is more than the peer accepts in one frame.
            DeadlineExceeded: The time that ``origin`` gives it is over.
            ConnectionLost: The session is over, or the peer is draining.
        """
        meta, depth = None, 0
        if self.state is not State.OPEN or len(payload) > self.largest_payload or origin is not None:
            meta, depth = _permission(self, origin, len(payload))
        question = self.asked.new(target, depth, handed_over)
        question.scope = scope
        if origin is not None:
            self.asked.due(question, origin.due)
        self._queue_with_payload(m.Call(question.question_id, target.export_id, operation, member, meta, payload))
        return question

    def ask_kept(
        self,
        target: Import,
        operation: int,
        member: str,
        payload: bytes,
        arguments: tuple[list[Export], Scope | None],
        origin: Origin | None,
    ) -> Question:
        """Make a call whose answer the peer is to keep for calls on it; ``arguments`` are references and scope.

        Raises:
            LimitExceeded, DeadlineExceeded, ConnectionLost: As for ``ask``.
        """
        # What is finished goes first: the peer counts what it keeps.
        self.let_go()
        self._may_keep()
        meta, depth = _permission(self, origin, len(payload))
        meta = m.Meta(None, None, True) if meta is None else m.Meta(meta.cause, meta.deadline_ms, True)
        question = self.asked.new(target, depth, arguments[0])
        self.asked.kept += 1
        question.scope = arguments[1]
        if origin is not None:
            self.asked.due(question, origin.due)
        self._queue_with_payload(m.Call(question.question_id, target.export_id, operation, member, meta, payload))
        return question

    def let_go(self) -> None:
        """Queue RELEASE and FINISH for the references and promises that nobody holds any more."""
        pairs = self.imports.collect()
        if pairs:
            self.queue(m.Release(pairs))
        promised = self.imports.promised
        if promised:
            self.asked.kept -= len(promised)
            for number in promised:
                self.queue(m.Finish(number))
            promised.clear()

    def _may_keep(self) -> None:
        most = KEPT_PER_CALL * self.opening.peer_limits.max_in_flight
        if self.asked.kept >= most:
            raise LimitExceeded(
                f"{most} promises are held, and the peer keeps no more answers (its limits.in_flight): let go of some"
            )

    def keep(self, question: Question) -> bool:
        """Have the peer keep the answer to the question that was asked last; False if that call has gone already.

        Raises:
            LimitExceeded: The peer keeps no more answers.
        """
        # It is the last frame, or the last two pieces of one that is large.
        pieces = 2 if self._out and len(self._out[-1]) > _BULK_BYTES else 1
        if question.question_id != self.asked.count or len(self._out) < pieces:
            return False
        message = decode_message(b"".join(self._out[-pieces:])[HEADER_BYTES:])
        if type(message) is not m.Call or message.question != question.question_id:
            return False
        self._may_keep()
        self.asked.kept += 1
        del self._out[-pieces:]
        meta = message.meta
        message.meta = m.Meta(None, None, True) if meta is None else m.Meta(meta.cause, meta.deadline_ms, True)
        self._queue_with_payload(message)
        return True

    def ask_batch(self, runs: list[m.Run], origin: Origin | None = None) -> Question:
        """Make many calls under one question.

        Raises:
            LimitExceeded: There are more than the peer runs at a time, or more than fits into a frame.
            DeadlineExceeded: The time that ``origin`` gives them is over.
            ConnectionLost: The session is over, or the peer is draining.
        """
        count, most = sum(run.count for run in runs), self.opening.peer_limits.max_in_flight
        if count > most:
            raise LimitExceeded(f"a batch of {count} calls, the peer takes {most} (its limits.in_flight)")
        meta, depth = _permission(
            self, origin, sum(len(run.payload) + len(run.member) + _RUN_BYTES for run in runs), count
        )
        question = self.asked.new(None, depth, [])
        if origin is not None:
            self.asked.due(question, origin.due)
        self.queue(m.Batch(question.question_id, meta, runs))
        return question

    def may_ask(self, origin: Origin | None) -> bool:
        """Whether the peer has announced room for one more call; nested ones have room of their own."""
        room = self.opening.peer_limits.max_in_flight
        return len(self.asked.open) < (room if origin is None or origin.answer is None else 2 * room)

    def cancel(self, question: Question, now: float = 0.0) -> None:
        """Tell the peer that nobody waits for this answer any more; what was lent for the call ends now.

        If the answer has come meanwhile, it must not have been read, nor be read later. A peer that was told the
        deadline looks at its own clock: once that has passed ``now``, nothing is sent.
        """
        if question.abandoned:
            return
        told = FEATURE_DEADLINE in self.opening.features and question.due <= now
        if question.outcome is None and self.state is not State.CLOSED and not told:
            self.queue(m.Cancel(question.question_id))
        question.abandoned = True
        if question.scope is not None:
            question.scope.end()
        if question.outcome is not None:
            try:
                self.discard(question)
            except RemoteProtocolError as exc:
                self.broken(str(exc))

    def discard(self, question: Question, answer: m.Return | None = None) -> None:
        """Give back every reference in an answer that nobody reads: the peer counts them as held by us.

        Raises:
            RemoteProtocolError: The answer breaks the encoding, or names a facet that was not announced.
        """
        outcome, target = answer or question.outcome, question.target
        if type(outcome) is not m.Return or self.state is State.CLOSED:
            return
        in_scope = target is not None and target.scope is not None and target.scope.alive
        counts: dict[int, int] = {}
        for reference in references_in(outcome.payload, self.limits):
            if isinstance(reference, OwnReference):
                continue
            if self.facets.received(reference.facet).lifetime == m.LIFETIME_CONNECTION or in_scope:
                counts[reference.export] = counts.get(reference.export, 0) + 1
        if counts:
            self.queue(m.Release(list(counts.items())))

    def homes_in(self, payload: bytes) -> dict[int, Home]:
        """Return our own objects that an answer names while they are known: what ends them may stand behind it."""
        found = {}
        for reference in references_in(payload, self.limits):
            if isinstance(reference, OwnReference):
                home = self.exports.home(reference.export, self.now)
                if home is None:
                    raise RemoteProtocolError(f"our export {reference.export} comes home, which was not handed over")
                found[reference.export] = home
        return found

    def _queue_with_payload(self, message: m.Call | m.Return) -> None:
        if len(message.payload) > _BULK_BYTES:
            self._out.extend(encode_frames(message))
            self.queued_bytes += len(message.payload)
        else:
            frame = encode_message(message)
            self._out.append(frame)
            self.queued_bytes += len(frame)


def _permission(session: Asking, origin: Origin | None, size: int, calls: int = 1) -> tuple[Meta | None, int]:
    """Return what travels beside a call with ``size`` bytes of arguments, and how deep it is nested.

    Raises:
        ConnectionLost: The session is over, or one side is draining.
        LimitExceeded: The arguments are more than the peer takes, the call is nested too deep, or the call that it is
            made within has caused all that it may.
        DeadlineExceeded: The time for it is over.
    """
    answer = None if origin is None else origin.answer
    nested = answer is not None and answer.answer_id in session.answers
    if session.state is not State.OPEN and not (nested and session.state in (State.DRAINING, State.PEER_DRAINING)):
        raise ConnectionLost(f"no new calls: the connection is {session.state.value}", code="drain", may_have_run=False)
    if size > session.largest_payload:
        raise LimitExceeded(
            f"arguments of {size} bytes, the peer takes {session.largest_payload} (its limits.max_frame_bytes)"
        )
    if origin is None:
        return None, 0
    deadline_ms = None
    if origin.due != FOREVER:
        check_time(session, origin)
        if FEATURE_DEADLINE in session.opening.features:
            # Rounded up: the asker gives up first, and a call of half a millisecond is not refused unseen.
            deadline_ms = min(ceil(min(origin.due - origin.now, MAX_ID) * 1000), MAX_ID)
    depth = 0 if answer is None else answer.depth + 1
    if depth > session.limits.callback_depth:
        raise LimitExceeded(f"calls nested deeper than {session.limits.callback_depth} (limits.callback_depth)")
    if origin.budget is not None:
        origin.budget.spend(calls)
    cause = answer.answer_id if answer is not None and nested else None
    return (None if cause is None and deadline_ms is None else Meta(cause, deadline_ms)), depth


def check_time(session: Asking, origin: Origin) -> None:
    """Do nothing while there is time for a call.

    Raises:
        DeadlineExceeded: There is none left.
    """
    if origin.due <= origin.now:
        raise DeadlineExceeded(
            "the time for this call was over before it was made (caprpc.deadline); nothing was sent",
            code="deadline",
            peer=printable(session.peer.principal),
        )
