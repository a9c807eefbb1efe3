"""Time stamps of records: wall time for people, monotonic time for order."""

import time
from collections.abc import Callable
from typing import Final

from caprpc.audit.record import Stamp

SECOND_NS: Final = 1_000_000_000


class Clock:
    """Encodes the present time; the text of a second is made once in that second.

    Not thread-safe: each relation has its own.
    """

    __slots__ = ("_monotonic_ns", "_prefix", "_second", "_wall_ns")

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns):
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._second = -1
        self._prefix = b""

    def stamp(self) -> Stamp:
        """Return ``2026-01-31T23:59:59.``, microseconds, and monotonic nanoseconds."""
        second, nanoseconds = divmod(self._wall_ns(), SECOND_NS)
        if second != self._second:
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode("ascii")
            self._second = second
        return self._prefix, nanoseconds // 1000, self._monotonic_ns()

    def monotonic_s(self) -> float:
        """Return the monotonic time in seconds."""
        return self._monotonic_ns() / SECOND_NS
