"""The answers we owe: which of them the policy gives a time, and which still run after they were answered."""

from typing import TYPE_CHECKING, Final

from caprpc.ids import new_reference
from caprpc.policy import Permit
from caprpc.session.calls import Answer, BatchAnswer, Event, Overdue
from caprpc.wire.messages import Raise

if TYPE_CHECKING:
    from caprpc.session.session import Session

_SPARE: Final = 64
"""Ended calls that are kept beside the open ones before they are swept out."""

Timed = tuple[float, Answer | BatchAnswer, Permit]
"""When a call is due, the call, and the permit that says so."""


class Answers(dict[int, Answer | BatchAnswer]):
    """Open answers by their number, and their times.

    Invariant: ``room`` is ``limits.in_flight`` less the calls that were answered ``deadline`` and have not ended, so
    that a peer cannot pile up methods which never end.
    """

    __slots__ = ("_overdue", "_timed", "room")

    def __init__(self, in_flight: int) -> None:
        super().__init__()
        self.room = in_flight
        self._timed: dict[int, Timed] = {}
        self._overdue: set[int] = set()

    def watch(self, answer: Answer | BatchAnswer, permit: Permit, due: float) -> None:
        """Have ``answer`` end at ``due`` at the latest (``limit.*.timeout_s``); the time that it waits counts, too."""
        if len(self._timed) >= len(self) + _SPARE:
            self._timed = {number: timed for number, timed in self._timed.items() if number in self}
        self._timed[answer.answer_id] = (due, answer, permit)

    def next_due(self) -> float:
        """Return when the first of them is due; infinity if there is none."""
        return min((due for due, _, _ in self._timed.values()), default=float("inf"))

    def expire(self, session: "Session", now: float, events: list[Event]) -> None:
        """Answer ``deadline`` to every call whose time is over, and let its method know."""
        for _, answer, permit in [timed for timed in self._timed.values() if timed[0] <= now]:
            number = answer.answer_id
            del self._timed[number]
            if self.get(number) is not answer:
                continue
            reference = new_reference()
            taken = isinstance(answer, BatchAnswer) or answer.taken
            answer.cancelled = True
            session.finish_answer(answer)
            session.queue(Raise(number, taken, "deadline", "", "", reference))
            self._overdue.add(number)
            self.room -= 1
            events.append(Overdue(answer, permit, reference))

    def ended(self, number: int) -> None:
        """Take note that a call has ended which was answered before."""
        if number in self._overdue:
            self._overdue.discard(number)
            self.room += 1
