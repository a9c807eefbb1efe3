"""One quota of a principal, which its connections share.

Each connection has a share that is its own and costs nothing to use: whoever stays below it is never counted, and no
other connection of the principal can take it away. What goes beyond comes out of what is left, and is counted then.
"""

import threading
from collections.abc import Sized
from typing import Final, Protocol

_SHARED_OUT: Final = 2
"""One part in so many is divided into shares; the rest goes to whoever needs more."""


class Table(Sized, Protocol):
    """A table of one connection that is counted."""

    def belong(self, pool: "Pool | None") -> None:
        """Be counted in this pool from now on; None: in none any more."""


class Pool:
    """One quota of a principal. Thread-safe.

    Invariant: the connections together hold no more than ``most``, and besides no more than one each; connections that
    take the last place at the very same moment may go beyond it by one each.
    """

    __slots__ = ("_lock", "_rest", "_tables", "knob", "most", "share")

    def __init__(self, knob: str) -> None:
        """Take the name of the limit."""
        self.knob = knob
        self.most = 0
        self.share = 0
        self._rest = 0
        self._lock = threading.Lock()
        self._tables: dict[int, Table] = {}

    def join(self, table: Table, most: int, connections: int) -> None:
        """Count a table, under what the newest policy says: ``most`` for at most so many connections."""
        with self._lock:
            self.most = most
            self.share = max(1, most // (_SHARED_OUT * connections))
            # With more connections than places, each still has one: the rest must not shrink to nothing because of
            # connections that are allowed and not there.
            self._rest = max(most // _SHARED_OUT, most - self.share * connections)
            self._tables[id(table)] = table
        table.belong(self)

    def leave(self, table: Table) -> None:
        """Count a table no more; may be called twice."""
        with self._lock:
            self._tables.pop(id(table), None)
        table.belong(None)

    def has_room(self, table: Table, more: int = 1) -> bool:
        """Whether a table may take one more, or so many."""
        if len(table) + more <= self.share:
            return True
        with self._lock:
            beyond = sum(len(one) - self.share for one in self._tables.values() if len(one) > self.share)
        # Of what comes, a part may still be the share of the table.
        return beyond + more - max(0, self.share - len(table)) <= self._rest

    def text(self) -> str:
        """Return what to say where there is no room: the knob, what it is set to, and how that is divided."""
        return (
            f"of the {self.most} that all connections of the principal may have together, each has {self.share} for "
            f"itself, and the {self._rest} for those that need more are taken: raise limits.{self.knob}"
        )
