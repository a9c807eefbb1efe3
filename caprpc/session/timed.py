"""The answers we owe: which of them must come in time, and which still run after they were answered."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from caprpc.ids import new_reference
from caprpc.policy import HeldArguments, Permit, Pool
from caprpc.session.calls import Answer, BatchAnswer, Event, Overdue
from caprpc.session.kept import WaitingCall, give_up
from caprpc.session.references import FOREVER
from caprpc.wire.messages import Raise

if TYPE_CHECKING:
    from caprpc.session.session import Session

_SPARE: Final = 64
"""Ended calls that are kept beside the open ones before they are swept out."""

Timed = tuple[float, Answer | BatchAnswer, Permit, str]
"""When a call is due, the call, its permit, and what says so: ``timeout_s`` of the policy, or its ``deadline``."""


AnyAnswer = Answer | BatchAnswer | WaitingCall


class Counted:
    """Those of the open answers that a quota of the principal counts beside all of them."""

    __slots__ = ("_answers", "_counts", "_pool")

    def __init__(self, answers: "Answers", counts: Callable[[AnyAnswer], bool]) -> None:
        self._answers = answers
        self._counts = counts
        self._pool: Pool | None = None

    def __len__(self) -> int:
        # Copied in one step: other connections of the principal ask from their threads.
        return sum(map(self._counts, list(self._answers.values())))

    def belong(self, pool: Pool | None) -> None:
        """Be counted in this pool from now on; None: in none any more."""
        self._pool = pool

    def full(self) -> str:
        """Return the limit that lets there be no more of them, or an empty text."""
        pool = self._pool
        # As many answers as its share, of whatever kind, are not too many of one kind: then none is looked at.
        if pool is None or len(self._answers) < pool.share or pool.has_room(self):
            return ""
        return pool.knob


class Answers(dict[int, Answer | BatchAnswer | WaitingCall]):
    """Open answers by their number, and their times.

    ``easy`` is how many there may be without asking anybody: the room, or the share of it that the principal's other
    connections leave.

    Invariant: ``room`` is ``limits.in_flight`` less the calls that were answered ``deadline`` and have not ended, so
    that a peer cannot pile up methods which never end. No timed call is due before ``soonest``.
    """

    __slots__ = ("_overdue", "_timed", "arguments", "callbacks", "easy", "pipelined", "pool", "room", "soonest")

    def __init__(self, in_flight: int) -> None:
        super().__init__()
        self.room = self.easy = in_flight
        self.pool: Pool | None = None
        self.callbacks = Counted(self, lambda answer: answer.cause is not None)
        self.pipelined = Counted(self, lambda answer: isinstance(answer, WaitingCall))
        self.arguments = HeldArguments()
        self.soonest = FOREVER
        self._timed: dict[int, Timed] = {}
        self._overdue: set[int] = set()

    def belong(self, pool: Pool | None) -> None:
        """Be counted among the calls of a principal."""
        self.pool = pool
        self.resize(0)

    def resize(self, more: int) -> None:
        """Let so many more run."""
        self.room += more
        self.easy = self.room if self.pool is None else min(self.room, self.pool.share)

    def watch(self, answer: Answer | BatchAnswer, permit: Permit, due: float, reason: str) -> None:
        """Have ``answer`` end at ``due`` at the latest; the time that it waits counts, too."""
        if len(self._timed) >= len(self) + _SPARE:
            self._timed = {number: timed for number, timed in self._timed.items() if number in self}
        self._timed[answer.answer_id] = (due, answer, permit, reason)
        self.soonest = min(self.soonest, due)

    def due(self, answer: Answer | BatchAnswer) -> float:
        """Return when a call must have been answered: infinity if nobody says so, 0 if that time is over."""
        number = answer.answer_id
        if number in self._overdue:
            return 0.0
        timed = self._timed.get(number)
        return FOREVER if timed is None else timed[0]

    def expire(self, session: "Session", now: float, events: list[Event]) -> None:
        """Answer ``deadline`` to every call whose time is over, and let its method know."""
        if now < self.soonest:
            return
        for due, answer, permit, reason in list(self._timed.values()):
            number = answer.answer_id
            if due > now and number in self:
                continue
            del self._timed[number]
            if self.get(number) is not answer:
                continue
            reference = new_reference()
            taken = isinstance(answer, BatchAnswer) or answer.taken
            self.end_early(session, answer, "deadline", reference, taken=taken)
            events.append(Overdue(answer, permit, reason, reference))
        waiting = [answer for answer in self.values() if isinstance(answer, WaitingCall)]
        for call in waiting:
            if call.due <= now:
                give_up(session, call, "deadline", now, events)
        times = [timed[0] for timed in self._timed.values()] + [call.due for call in waiting if call.due > now]
        self.soonest = min(times, default=FOREVER)

    def end_early(
        self, session: "Session", answer: Answer | BatchAnswer, code: str, reference: str, *, taken: bool
    ) -> None:
        """Answer a call whose method still runs; it occupies its place and its memory until it has ended."""
        answer.cancelled = True
        session.close_answer(answer)
        session.queue(Raise(answer.answer_id, taken, code, "", "", reference))
        session.kept.settle(answer.answer_id, None)
        self._overdue.add(answer.answer_id)
        self.resize(-1)

    def ended(self, number: int) -> None:
        """Take note that a call has ended which was answered before."""
        if number in self._overdue:
            self._overdue.discard(number)
            self.resize(1)
