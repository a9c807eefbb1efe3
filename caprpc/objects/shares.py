"""Shares of the worker threads: one principal may not keep all of them busy and starve the others."""

import threading
from collections import deque
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting")


class Shares(Generic[Waiting]):
    """Counts the workers that each principal occupies, over all its connections. Thread-safe.

    Invariant: whoever waits does so because its principal occupies ``most`` workers; a place that becomes free is
    handed to the one who has waited longest.
    """

    __slots__ = ("_lock", "_most", "_taken", "_waiting")

    def __init__(self, workers: int) -> None:
        """Take the number of workers; a principal may occupy half of them."""
        self._most = max(1, workers // 2)
        self._lock = threading.Lock()
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, deque[Waiting]] = {}

    def take(self, principal: str, waiting: Waiting) -> bool:
        """Take a place; False if there is none now: ``give_back`` will return ``waiting``, with a place taken."""
        with self._lock:
            taken = self._taken.get(principal, 0)
            if taken >= self._most:
                self._waiting.setdefault(principal, deque()).append(waiting)
                return False
            self._taken[principal] = taken + 1
            return True

    def give_back(self, principal: str) -> Waiting | None:
        """Give a place back; return who has it now, None if nobody of this principal waits."""
        with self._lock:
            queue = self._waiting.get(principal)
            if queue:
                following = queue.popleft()
                if not queue:
                    del self._waiting[principal]
                return following
            left = self._taken[principal] - 1
            if left:
                self._taken[principal] = left
            else:
                del self._taken[principal]
            return None
