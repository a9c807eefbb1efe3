"""Turns of the connections of one host on its loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from caprpc.objects.turns import MESSAGES, Turns


class Connection(Protocol):
    """What takes turns."""

    loop: asyncio.AbstractEventLoop

    @property
    def principal(self) -> str:
        """Whose turns it takes."""

    def take_turn(self) -> None:
        """Do a bounded part of what is left to do."""

    def guarded(self, function: Callable[..., None], *args: object) -> None:
        """Call a function; should it fail, this connection ends and no other."""


class Rounds:
    """Owns which connections wait for a turn. Between two rounds the loop looks at all sockets once.

    A connection takes its turn as soon as something has come for it, unless its principal has had one since the loop
    has last looked.
    """

    __slots__ = ("_due", "_last", "_served", "_turns")

    def __init__(self) -> None:
        self._turns: Turns[Connection] = Turns()
        self._due = False
        self._last: Connection | None = None
        self._served: set[Connection] = set()

    def room(self, connection: Connection) -> int:
        """Return what the messages may cost that are handled now of what has just been read; 0 if it has to wait."""
        if connection is self._last and not self._turns:
            # The only one that is read: the loop has looked at all of them in between.
            return MESSAGES
        if connection in self._served:
            # The loop reads each once between two looks, so this is another one.
            self._begin()
        self._served.add(connection)
        self._last = connection
        return 0 if self._turns.must_wait(connection.principal) else MESSAGES

    def spend(self, connection: Connection, since: float) -> None:
        """Take from the turn of a connection's principal what was spent since then (monotonic clock)."""
        if len(self._served) > 1:
            self._turns.spend(connection.principal, time.monotonic() - since)

    def wait(self, connection: Connection) -> None:
        """Have a connection wait for its next turn; this one is over for all connections of its principal."""
        self._turns.spend(connection.principal)
        self._turns.wait(connection.principal, connection)
        self._schedule(connection.loop)

    def forget(self, connection: Connection) -> None:
        """A connection has ended: keep nothing of it."""
        self._served.discard(connection)
        if connection is self._last:
            self._last = None

    def has(self, connection: Connection) -> bool:
        """Whether a connection waits for its turn."""
        return bool(self._turns) and self._turns.has(connection)

    def _begin(self) -> None:
        self._turns.begin(len(self._served))
        self._served.clear()
        self._last = None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._due:
            self._due = True
            # Timers come behind what the sockets have brought; ``call_soon`` would come before.
            loop.call_later(0, self._round, loop)

    def _round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = False
        self._begin()
        turns = self._turns
        try:
            for principal in turns.principals():
                while (connection := turns.take(principal)) is not None:
                    since = time.monotonic()
                    connection.guarded(connection.take_turn)
                    turns.spend(principal, time.monotonic() - since)
        finally:
            if turns:
                self._schedule(loop)
