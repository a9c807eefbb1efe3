"""What calls on workers have returned and nobody has sent: the polling thread sends it with what it does anyway.

Each short system call gives the interpreter lock away, and fifty workers that want it back cost more than their calls.
"""

import sys
from collections import deque
from collections.abc import Callable
from typing import Final

from caprpc.blocking.connection import Connection
from caprpc.objects.work import AnyJob

AT_ONCE: Final = 4
"""Results that the polling thread sends at least between two looks at the sockets, and as many as there were sockets to
read: neither calls that run in place nor those of workers wait for all of the others."""


class Results:
    """Results in the order in which they came; whoever takes one out sends it.

    Invariant: none waits while the polling thread sleeps. A worker puts its result here before it looks at ``asleep``,
    and the polling thread sets ``asleep`` before it looks here.
    """

    __slots__ = ("_send", "asleep", "waiting")

    def __init__(self, send: Callable[[Connection, AnyJob, object], None]) -> None:
        self._send = send
        self.waiting: deque[tuple[Connection, AnyJob, object]] = deque()
        self.asleep = False
        """Whether the polling thread sleeps, or is about to."""

    def send(self, most: int = sys.maxsize) -> None:
        """Send what waits, ``most`` of it; any thread may."""
        waiting = self.waiting
        while waiting and most:
            most -= 1
            try:
                connection, job, result = waiting.popleft()
            except IndexError:
                # Another thread was faster.
                return
            self._send(connection, job, result)
