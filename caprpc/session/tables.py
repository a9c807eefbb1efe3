"""Questions in both directions and the facets both sides have announced.

Wire protocol, sections 4 and 7.
"""

from caprpc.errors import LimitExceeded, RemoteProtocolError
from caprpc.policy import Facet
from caprpc.session.calls import Question
from caprpc.session.references import Announced, Export, Import
from caprpc.wire import messages as m


class Asked:
    """Question numbers of both sides: ours go up by one, the peer's must go up."""

    __slots__ = ("_next", "last_from_peer", "open")

    def __init__(self) -> None:
        self.open: dict[int, Question] = {}
        self._next = 1
        self.last_from_peer = 0

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

    def seen_from_peer(self, number: int) -> None:
        """Take a question number of the peer.

        Raises:
            RemoteProtocolError: It does not go up: used twice, zero, or out of order.
        """
        if number <= self.last_from_peer:
            raise RemoteProtocolError(f"question {number} after question {self.last_from_peer}; numbers must go up")
        self.last_from_peer = number

    def end_all(self) -> list[Question]:
        """Take every open question: the session is over."""
        questions = list(self.open.values())
        self.open.clear()
        return questions


class Announcements:
    """Facets by number, ours and theirs; each is announced once, before the first reference of it."""

    __slots__ = ("_ours", "_theirs")

    def __init__(self) -> None:
        self._ours: dict[tuple[Facet, int], Announced] = {}
        self._theirs: dict[int, Announced] = {}

    def announce(self, facet: Facet, lifetime: int, most: int) -> tuple[Announced, m.Facet | None]:
        """Return the announced form, and the message to send first if the peer does not know it yet.

        Raises:
            LimitExceeded: The peer knows ``most`` facets.
        """
        key = (facet, lifetime)
        known = self._ours.get(key)
        if known is not None:
            return known, None
        if len(self._ours) >= most:
            raise LimitExceeded(f"the peer takes {most} facets (its limits.imports)")
        operations = sorted(facet.permits)
        announced = Announced(len(self._ours) + 1, facet.interface, frozenset(operations), lifetime)
        self._ours[key] = announced
        return announced, m.Facet(announced.facet_id, announced.interface, operations, lifetime)

    def learn(self, message: m.Facet, limit: int) -> None:
        """Take a FACET of the peer.

        Raises:
            RemoteProtocolError: The number is taken or out of order, or there are more than ``limit``.
        """
        number = message.facet
        if number != len(self._theirs) + 1 or number > limit:
            expected = len(self._theirs) + 1
            raise RemoteProtocolError(f"FACET {number}, {expected} expected, at most {limit} (limits.imports)")
        if message.lifetime not in (m.LIFETIME_CONNECTION, m.LIFETIME_CALL):
            raise RemoteProtocolError(f"FACET {number} of lifetime {message.lifetime}, 0 or 1 expected")
        operations = frozenset(message.members)
        self._theirs[number] = Announced(number, message.interface, operations, message.lifetime)

    def received(self, number: int) -> Announced:
        """Return what the peer announced under a number."""
        announced = self._theirs.get(number)
        if announced is None:
            raise RemoteProtocolError(f"a reference of facet {number}, which was not announced")
        return announced
