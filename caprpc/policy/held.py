"""Memory of arguments: what the calls of peers hold from their frame to their end, of a principal and of the process.

Small calls are not counted one by one: how many there are is bounded, and each holds no more than what a call takes
anyway.
"""

import threading
from typing import Final

from caprpc.policy.pool import Pool

LIGHT_BYTES: Final = 1024
"""Arguments up to this size are not counted: 64 KiB of memory at most, and seldom as much as the call itself."""

SERVER_KNOB: Final = "argument_bytes"


class ArgumentBudget:
    """What all peers of a process together may have it hold. Thread-safe.

    Invariant: ``held`` is never above ``most``.
    """

    __slots__ = ("_lock", "held", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Count so many bytes more, if there is room for them."""
        with self._lock:
            if self.held + size > self.most:
                return False
            self.held += size
            return True

    def give_back(self, size: int) -> None:
        """Count so many bytes less."""
        with self._lock:
            self.held -= size


class HeldArguments:
    """What the calls of one connection hold, each by its number; a table of ``principal_argument_bytes``.

    Invariant: ``weights`` has an entry for each call that is counted, from its admission to its end: also when the
    caller was answered before, or the connection has ended, and the method still runs.
    """

    __slots__ = ("_bytes", "_left", "_pool", "weights")

    def __init__(self) -> None:
        self.weights: dict[int, int] = {}
        self._bytes = 0
        self._pool: ArgumentPool | None = None
        self._left = False
        """The connection has ended."""

    def __len__(self) -> int:
        return self._bytes

    def belong(self, pool: Pool | None) -> None:
        """Be counted in this pool from now on; None: in none any more."""
        self._pool = pool if isinstance(pool, ArgumentPool) else None

    def weigh(self, number: int, size: int) -> str:
        """Count a call as holding so many bytes; return the rule that forbids it, which leaves it as it was."""
        more = size - self.weights.get(number, 0)
        pool = self._pool
        if more > 0 and pool is not None:
            full = pool.take(self, more)
            if full:
                return full
        elif pool is not None:
            pool.give_back(-more)
        self.weights[number] = size
        self._bytes += more
        return ""

    def let_go(self, number: int) -> None:
        """Take note that a call holds nothing any more; may be called twice."""
        size = self.weights.pop(number, 0)
        if size:
            self._bytes -= size
            pool = self._pool
            if pool is not None:
                pool.give_back(size)
                self._forget(pool)

    def end(self) -> None:
        """Take note that the connection has ended; what its methods hold is counted until they end."""
        self._left = True
        if self._pool is not None:
            self._forget(self._pool)

    def _forget(self, pool: "ArgumentPool") -> None:
        if self._left and not self.weights:
            pool.leave(self)


class ArgumentPool(Pool):
    """What one principal may have us hold, within what the process holds for everybody.

    Invariant: ``_held`` is never above ``most``: what the methods of connections that have ended still hold leaves less
    to those that come after, whatever their shares are.
    """

    __slots__ = ("_held", "total")

    def __init__(self, knob: str, total: ArgumentBudget) -> None:
        super().__init__(knob)
        self._held = 0
        self.total = total

    def take(self, table: HeldArguments, size: int) -> str:
        """Count so many bytes more for a connection; return the rule that forbids it, or an empty text."""
        if not self.has_room(table, size):
            return f"limits.{self.knob}"
        with self._lock:
            if self._held + size > self.most:
                return f"limits.{self.knob}"
            if not self.total.take(size):
                return f"ServerLimits.{SERVER_KNOB}"
            self._held += size
        return ""

    def give_back(self, size: int) -> None:
        """Count so many bytes less."""
        with self._lock:
            self._held -= size
        self.total.give_back(size)
