"""A short busy wait before a long one, where it pays.

Waking a sleeping process costs 20 µs or more each way; looking again for some tens of microseconds costs less,
as long as another core is free. Where it does not pay it stops quickly and tries again rarely.
"""

import os
import time
from typing import Final

SPIN_S: Final = 250e-6
"""How long to look before sleeping: about two round trips with both sides awake (110 to 150 µs measured)."""

_START_CREDIT: Final = 8
_MOST_CREDIT: Final = 16
_PAUSE: Final = 64
"""Waits without spinning after spinning has stopped to pay; doubles up to ``_LONGEST_PAUSE``."""
_LONGEST_PAUSE: Final = 8192


class Spin:
    """Remembers whether spinning has paid lately. One for each place that waits; used by one thread at a time."""

    __slots__ = ("_credit", "_longest", "_skip")

    def __init__(self) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # On one core the other side cannot run while we look: never spin there.
        self._credit = _START_CREDIT if cores > 1 else 0
        self._skip = 0 if cores > 1 else -1
        self._longest = _PAUSE

    def until(self) -> float:
        """Return the time (``time.perf_counter``) until which to look; 0.0 if not at all."""
        if self._credit > 0:
            return time.perf_counter() + SPIN_S
        if self._skip > 0:
            self._skip -= 1
            if self._skip == 0:
                self._credit = 1
        return 0.0

    def paid(self) -> None:
        """Something came while looking."""
        if self._credit < _MOST_CREDIT:
            self._credit += 2
        self._longest = _PAUSE

    def wasted(self) -> None:
        """Nothing came while looking."""
        self._credit -= 1
        if self._credit <= 0:
            self._skip = self._longest
            self._longest = min(self._longest * 2, _LONGEST_PAUSE)
