"""Whose turn it is: principals one after the other, and the connections of each one after the other."""

import threading
from collections import deque
from math import inf
from typing import Final, Generic, TypeVar

Waiting = TypeVar("Waiting")

MESSAGES: Final = 32
"""Cost of the messages (``session.costs``) that are handled in one turn: about 0.3 ms."""

CALLS: Final = 32
"""Calls that run in one turn, as long as they are short."""

TURN_S: Final = 0.0005
"""After this long no further call begins in the same turn, seconds."""


class Turns(Generic[Waiting]):
    """Connections that have something left to do, by principal. Only ``wait`` may be called from any thread.

    Invariant: a connection waits at most once, and whoever takes it out gives it its turn or lets it wait again. A
    principal with eight connections waits in one row: it gets as many turns as one that has a single connection.
    """

    __slots__ = ("_lock", "_rows", "_spent", "_waiting", "crowded")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, deque[Waiting]] = {}
        self._waiting: set[Waiting] = set()
        self._spent: dict[str, float] = {}
        self.crowded = False
        """Whether more than one connection wants a turn in this round."""

    def __bool__(self) -> bool:
        """Whether some connection waits."""
        return bool(self._waiting)

    def begin(self, ready: int) -> None:
        """Begin a round with so many connections that have something new: each principal has a turn in it."""
        self.crowded = ready > 1 or bool(self._waiting)
        if self._spent:
            self._spent.clear()

    def wait(self, principal: str, connection: Waiting) -> None:
        """Have a connection wait for the next turn of its principal, behind those that wait already."""
        with self._lock:
            if connection not in self._waiting:
                self._waiting.add(connection)
                self._rows.setdefault(principal, deque()).append(connection)

    def has(self, connection: Waiting) -> bool:
        """Whether a connection waits."""
        return connection in self._waiting

    def must_wait(self, principal: str) -> bool:
        """Whether others of this principal wait already, or its turn in this round is over."""
        return principal in self._rows or self._spent.get(principal, 0.0) >= TURN_S

    def spend(self, principal: str, seconds: float = inf) -> None:
        """Take from the turn of a principal; all of it by default."""
        self._spent[principal] = self._spent.get(principal, 0.0) + seconds

    def principals(self) -> list[str]:
        """Return for whom something waits, whoever has waited longest first."""
        with self._lock:
            return list(self._rows)

    def take(self, principal: str) -> Waiting | None:
        """Take out the next connection of a principal; None if none waits or its turn in this round is over."""
        with self._lock:
            row = self._rows.get(principal)
            if not row or self._spent.get(principal, 0.0) >= TURN_S:
                return None
            connection = row.popleft()
            self._waiting.discard(connection)
            # What comes next waits behind all others.
            del self._rows[principal]
            if row:
                self._rows[principal] = row
            return connection
