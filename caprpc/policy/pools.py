"""What all connections of one principal may hold together: calls, of these callbacks and pipelined, exports, imports,
and the arguments of calls.
"""

import threading
from typing import Final, NamedTuple

from caprpc.limits import Limits
from caprpc.policy.held import ArgumentBudget, ArgumentPool, HeldArguments
from caprpc.policy.pool import Pool, Table

LEAST_BUFFER_BYTES: Final = 16 * 1024
"""One TLS record: a connection that may have less waiting could send nothing at all."""


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

    __slots__ = ("arguments", "callbacks", "exports", "glitches", "imports", "in_flight", "pipelined")

    def __init__(self, total: ArgumentBudget) -> None:
        """Take what all principals together may have us hold."""
        self.glitches = SharedGlitches()
        self.in_flight = Pool("principal_in_flight")
        self.callbacks = Pool("principal_callbacks")
        self.pipelined = Pool("principal_pipelined")
        self.exports = Pool("principal_exports")
        self.imports = Pool("principal_imports")
        self.arguments = ArgumentPool("principal_argument_bytes", total)

    def join(self, limits: Limits, connections: int, held: "Holding") -> None:
        """Count the tables of a connection; no quota is below what one connection may have."""
        self.glitches.allow(limits, connections)
        self.in_flight.join(held.answers, max(limits.principal_in_flight, limits.in_flight), connections)
        # Calls within calls of ours have room of their own beside the ordinary ones, so one connection may have both.
        self.callbacks.join(held.callbacks, max(limits.principal_callbacks, 2 * limits.in_flight), connections)
        self.pipelined.join(held.pipelined, max(limits.principal_pipelined, 2 * limits.in_flight), connections)
        self.exports.join(held.exports, max(limits.principal_exports, limits.exports), connections)
        self.imports.join(held.imports, max(limits.principal_imports, limits.imports), connections)
        # Half of it is for whoever needs more than a share: one frame always fits.
        most = max(limits.principal_argument_bytes, 2 * limits.max_frame_bytes)
        self.arguments.join(held.arguments, most, connections)

    def leave(self, held: "Holding") -> None:
        """Count the tables of a connection no more."""
        self.in_flight.leave(held.answers)
        self.callbacks.leave(held.callbacks)
        self.pipelined.leave(held.pipelined)
        self.exports.leave(held.exports)
        self.imports.leave(held.imports)
        held.arguments.end()


class Holding(NamedTuple):
    """The tables of one connection that are counted."""

    answers: Table
    callbacks: Table
    pipelined: Table
    exports: Table
    imports: Table
    arguments: HeldArguments


def buffer_share(limits: Limits, connections: int) -> int:
    """Return how many bytes may wait to be sent on each connection of a principal before its calls are not read.

    Never less than ``LEAST_BUFFER_BYTES``: many connections that are allowed, and not there, must not stop the one
    that is.
    """
    most = max(limits.principal_buffered_bytes, limits.write_high_water_bytes)
    return min(limits.write_high_water_bytes, max(LEAST_BUFFER_BYTES, most // connections))
