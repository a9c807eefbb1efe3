"""What all connections of one principal may hold together: calls, of these callbacks and pipelined, exports, imports.

Each connection has a share that is its own and costs nothing to use: whoever stays below it is never counted, and no
other connection of the principal can take it away. What goes beyond comes out of what is left, and is counted then.
"""

import threading
from collections.abc import Sized
from typing import Final, NamedTuple, Protocol

from caprpc.limits import Limits

LEAST_BUFFER_BYTES: Final = 16 * 1024
"""One TLS record: a connection that may have less waiting could send nothing at all."""

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

    def has_room(self, table: Table) -> bool:
        """Whether a table may take one more."""
        if len(table) < self.share:
            return True
        with self._lock:
            beyond = sum(len(one) - self.share for one in self._tables.values() if len(one) > self.share)
        return beyond < self._rest

    def text(self) -> str:
        """Return what to say where there is no room: the knob, what it is set to, and how that is divided."""
        return (
            f"of the {self.most} that all connections of the principal may have together, each has {self.share} for "
            f"itself, and the {self._rest} for those that need more are taken: raise limits.{self.knob}"
        )


class SharedGlitches:
    """What all connections of one principal may do that is legal and useless. Thread-safe.

    As much as its connections may together, if it has as many as it may: only who comes back again and again, each time
    with a fresh budget of the connection, ever meets it.
    """

    __slots__ = ("_burst", "_lock", "_rate", "_tokens", "_when")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._burst = self._rate = self._when = 0.0
        self._tokens: float | None = None

    def allow(self, limits: Limits, connections: int) -> None:
        """Hold what the newest policy says for so many connections."""
        with self._lock:
            self._burst = float(limits.glitch_burst * connections)
            self._rate = limits.glitch_per_s * connections
            self._tokens = self._burst if self._tokens is None else min(self._tokens, self._burst)

    def spend(self, now: float) -> bool:
        """Take one token; False when there is none."""
        with self._lock:
            left = self._burst if self._tokens is None else self._tokens
            left = min(self._burst, left + max(0.0, now - self._when) * self._rate)
            self._when = max(self._when, now)
            self._tokens = max(0.0, left - 1.0)
            return left >= 1.0


class Pools:
    """The quotas of one principal, for as long as the process runs."""

    __slots__ = ("callbacks", "exports", "glitches", "imports", "in_flight", "pipelined")

    def __init__(self) -> None:
        self.glitches = SharedGlitches()
        self.in_flight = Pool("principal_in_flight")
        self.callbacks = Pool("principal_callbacks")
        self.pipelined = Pool("principal_pipelined")
        self.exports = Pool("principal_exports")
        self.imports = Pool("principal_imports")

    def join(self, limits: Limits, connections: int, held: "Holding") -> None:
        """Count the tables of a connection; no quota is below what one connection may have."""
        self.glitches.allow(limits, connections)
        self.in_flight.join(held.answers, max(limits.principal_in_flight, limits.in_flight), connections)
        # Calls within calls of ours have room of their own beside the ordinary ones, so one connection may have both.
        self.callbacks.join(held.callbacks, max(limits.principal_callbacks, 2 * limits.in_flight), connections)
        self.pipelined.join(held.pipelined, max(limits.principal_pipelined, 2 * limits.in_flight), connections)
        self.exports.join(held.exports, max(limits.principal_exports, limits.exports), connections)
        self.imports.join(held.imports, max(limits.principal_imports, limits.imports), connections)

    def leave(self, held: "Holding") -> None:
        """Count the tables of a connection no more."""
        self.in_flight.leave(held.answers)
        self.callbacks.leave(held.callbacks)
        self.pipelined.leave(held.pipelined)
        self.exports.leave(held.exports)
        self.imports.leave(held.imports)


class Holding(NamedTuple):
    """The tables of one connection that are counted."""

    answers: Table
    callbacks: Table
    pipelined: Table
    exports: Table
    imports: Table


def buffer_share(limits: Limits, connections: int) -> int:
    """Return how many bytes may wait to be sent on each connection of a principal before its calls are not read.

    Never less than ``LEAST_BUFFER_BYTES``: many connections that are allowed, and not there, must not stop the one
    that is.
    """
    most = max(limits.principal_buffered_bytes, limits.write_high_water_bytes)
    return min(limits.write_high_water_bytes, max(LEAST_BUFFER_BYTES, most // connections))
