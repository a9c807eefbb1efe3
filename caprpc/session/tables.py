"""Questions in both directions and the facets both sides have announced.

Wire protocol, sections 4 and 7.
"""

from typing import Final

from caprpc.errors import LimitExceeded, RemoteProtocolError
from caprpc.limits import Limits
from caprpc.policy import DerivedFacet, Facet, Holding
from caprpc.session.calls import Question
from caprpc.session.imports import Import, Imports
from caprpc.session.kept import KEPT_PER_CALL, KeptAnswers
from caprpc.session.references import FOREVER, Announced, Export, Exports
from caprpc.session.timed import Answers
from caprpc.wire import messages as m

MOST_RIGHTS: Final = 65_536
"""Members of all facets of one side together: 4,096 facets of 4,096 members each would be 4 GiB of ours."""


class Asked:
    """Question numbers of both sides: ours go up by one, the peer's must go up."""

    __slots__ = ("_next", "kept", "last_from_peer", "open", "resumed", "soonest")

    def __init__(self) -> None:
        self.open: dict[int, Question] = {}
        self.soonest = FOREVER
        """No question of ours that is open is due before this."""
        self._next = 1
        self.kept = 0
        """Answers that the peer keeps for us."""
        self.last_from_peer = 0
        self.resumed = -1
        """The question of the peer that is looked at again, since the answer that it waited for has come."""

    def new(self, target: Import | None, depth: int, handed_over: list[Export]) -> Question:
        """Open a question of ours under a fresh number."""
        number = self._next
        self._next = number + 1
        question = self.open[number] = Question(number, target, depth, handed_over)
        return question

    @property
    def count(self) -> int:
        """Questions asked so far."""
        return self._next - 1

    def due(self, question: Question, due: float) -> None:
        """Have a question be ``overdue`` from a time on."""
        question.due = due
        self.soonest = min(self.soonest, due)

    def overdue(self, now: float) -> list[Question]:
        """Return the open questions whose time is over and that nobody has given up."""
        if now < self.soonest:
            return []
        waiting = [question for question in self.open.values() if not question.abandoned]
        self.soonest = min((question.due for question in waiting if question.due > now), default=FOREVER)
        return [question for question in waiting if question.due <= now]

    def seen_from_peer(self, number: int) -> None:
        """Take a question number of the peer.

        Raises:
            RemoteProtocolError: It does not go up: used twice, zero, or out of order.
        """
        if number <= self.last_from_peer:
            raise RemoteProtocolError(f"question {number} after question {self.last_from_peer}; numbers must go up")
        self.last_from_peer = number

    def seen_again(self, number: int) -> None:
        """Take a question number that does not go up: that of a call which has waited, once more.

        Raises:
            RemoteProtocolError: It is another's.
        """
        if number != self.resumed:
            self.seen_from_peer(number)
        self.resumed = -1

    def end_all(self) -> list[Question]:
        """Take every open question: the session is over."""
        questions = list(self.open.values())
        self.open.clear()
        return questions


class Announcements:
    """Facets by number, ours and theirs; each is announced once, before the first reference of it."""

    __slots__ = ("_our_rights", "_ours", "_their_rights", "_theirs")

    def __init__(self) -> None:
        self._ours: dict[tuple[object, ...], Announced] = {}
        self._theirs: dict[int, Announced] = {}
        self._our_rights = 0
        self._their_rights = 0

    def announce(self, facet: Facet, lifetime: int, most: int) -> tuple[Announced, m.Facet | None]:
        """Return the announced form, and the message to send first if the peer does not know it yet.

        Raises:
            LimitExceeded: The peer knows ``most`` facets, or as many members of them as it takes.
        """
        key: tuple[object, ...] = (facet, lifetime)
        if isinstance(facet, DerivedFacet):
            # Derived ones come and go with their references; what is announced of them is only what it says.
            key = (facet.interface, frozenset(facet.permits), lifetime)
        known = self._ours.get(key)
        if known is not None:
            return known, None
        if len(self._ours) >= most:
            raise LimitExceeded(f"the peer takes {most} facets (its limits.imports)")
        operations = sorted(facet.permits)
        if self._our_rights + len(operations) > MOST_RIGHTS:
            raise LimitExceeded(f"the peer takes facets with {MOST_RIGHTS} members altogether")
        self._our_rights += len(operations)
        announced = Announced(len(self._ours) + 1, facet.interface, frozenset(operations), lifetime)
        self._ours[key] = announced
        return announced, m.Facet(announced.facet_id, announced.interface, operations, lifetime)

    def learn(self, message: m.Facet, limit: int) -> None:
        """Take a FACET of the peer.

        Raises:
            RemoteProtocolError: The number is taken or out of order, there are more than ``limit``, or they have more
                than ``MOST_RIGHTS`` members altogether.
        """
        number = message.facet
        if number != len(self._theirs) + 1 or number > limit:
            expected = len(self._theirs) + 1
            raise RemoteProtocolError(f"FACET {number}, {expected} expected, at most {limit} (limits.imports)")
        if message.lifetime not in (m.LIFETIME_CONNECTION, m.LIFETIME_CALL):
            raise RemoteProtocolError(f"FACET {number} of lifetime {message.lifetime}, 0 or 1 expected")
        self._their_rights += len(message.members)
        if self._their_rights > MOST_RIGHTS:
            raise RemoteProtocolError(f"facets with more than {MOST_RIGHTS} members altogether")
        operations = frozenset(message.members)
        self._theirs[number] = Announced(number, message.interface, operations, message.lifetime)

    def received(self, number: int) -> Announced:
        """Return what the peer announced under a number."""
        announced = self._theirs.get(number)
        if announced is None:
            raise RemoteProtocolError(f"a reference of facet {number}, which was not announced")
        return announced


class Tables:
    """The six tables of one connection; a session is what changes them, in the order in which messages come."""

    def __init__(self, root: Export, limits: Limits, holder: str) -> None:
        self.exports = Exports(root, limits.exports)
        self.imports = Imports(limits.imports, holder)
        self.asked = Asked()
        self.answers = Answers(limits.in_flight)
        self.facets = Announcements()
        self.kept = KeptAnswers(self.exports, KEPT_PER_CALL * limits.in_flight)

    def holding(self) -> Holding:
        """Return what the quotas of the principal count of this connection."""
        answers = self.answers
        return Holding(answers, answers.callbacks, answers.pipelined, self.exports, self.imports, answers.arguments)
