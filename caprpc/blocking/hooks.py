"""Hooks of a blocking host: they run on threads of their own, never where sockets are polled."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Final

from caprpc.blocking.async_methods import AsyncMethods
from caprpc.blocking.connection import Connection
from caprpc.objects.hooks import Hooks, Visit
from caprpc.objects.workers import Workers
from caprpc.session import Ended

_THREADS: Final = 16
"""Hooks that run at a time: twice as many as one principal has connections by default."""


class HookThreads:
    """Runs the hooks of the connections of one server; owns the visit of each connection that was opened."""

    def __init__(self, hooks: Hooks, async_methods: AsyncMethods, resume: Callable[[Connection], None]) -> None:
        """Take what lets the calls of a connection begin once its peer was let in; its lock is held then."""
        self._hooks = hooks
        self._async_methods = async_methods
        self._resume = resume
        self._workers = Workers(_THREADS, "caprpc-hook")
        self._visits: dict[Connection, Visit] = {}

    def opened(self, connection: Connection) -> None:
        """Begin a visit; the peer's calls wait while ``on_connect`` runs. The connection's lock is held."""
        visit = self._visits[connection] = Visit(self._hooks, connection.link.session.peer)
        if visit.is_coming:
            # As for a call that waits for a worker: nothing behind it starts before.
            connection.in_pool = True
            self._workers.submit(lambda: self._connect(connection, visit))

    def ended(self, connection: Connection, event: Ended) -> None:
        """End the visit of a connection, if it had come so far. The connection's lock is held."""
        visit = self._visits.pop(connection, None)
        if visit is not None and visit.ended(event):
            self._workers.submit(lambda: self._disconnect(visit))

    def close(self, timeout_s: float) -> None:
        """Let the hooks that are due end."""
        self._workers.close(timeout_s)

    def _connect(self, connection: Connection, visit: Visit) -> None:
        try:
            self._wait_for(visit.connect())
        except BaseException as exc:  # application code: whatever it raises keeps the peer out
            with connection.lock:
                futures = connection.end(visit.turned_away(exc), code="refused")
            for future in futures:
                future.notify()
            return
        with connection.lock:
            leaves = visit.let_in()
            connection.in_pool = False
            if not connection.wire.closed:
                self._resume(connection)
        if leaves:
            self._disconnect(visit)

    def _disconnect(self, visit: Visit) -> None:
        try:
            self._wait_for(visit.disconnect())
        except BaseException as exc:  # application code: the connection is over either way
            visit.failed_to_leave(exc)

    def _wait_for(self, result: Awaitable[None] | None) -> None:
        if inspect.isawaitable(result):
            self._async_methods.wait_for(result)
