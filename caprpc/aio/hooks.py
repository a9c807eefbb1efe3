"""Hooks of an asyncio host: coroutines as tasks of the loop, functions on threads beside it."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from caprpc.aio.connection import Connection
from caprpc.aio.runner import run_on
from caprpc.objects.hooks import Hooks, Visit
from caprpc.objects.workers import Workers
from caprpc.session import Ended

_THREADS: Final = 16
"""Hooks that run at a time: twice as many as one principal has connections by default."""


class HookTasks:
    """Runs the hooks of the connections of one server; owns the visit of each connection that was opened."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._workers = Workers(_THREADS, "caprpc-hook")
        self._visits: dict[Connection, Visit] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def opened(self, connection: Connection) -> None:
        """Begin a visit; the peer's calls wait while ``on_connect`` runs."""
        visit = self._visits[connection] = Visit(self._hooks, connection.link.session.peer)
        if visit.is_coming:
            connection.hold()
            self._start(self._connect(connection, visit))

    def ended(self, connection: Connection, event: Ended) -> None:
        """End the visit of a connection, if it had come so far."""
        visit = self._visits.pop(connection, None)
        if visit is not None and visit.ended(event):
            self._start(self._disconnect(visit))

    async def close(self, timeout_s: float) -> None:
        """Let the hooks that are due end; after the time they are cancelled."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()
        self._workers.close(0.0)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: Connection, visit: Visit) -> None:
        try:
            await self._run(visit.connect, on_loop=visit.connects_on_loop)
        except (Exception, SystemExit) as exc:  # application code: whatever it raises keeps the peer out
            connection.end(visit.turned_away(exc), code="refused")
            return
        if visit.let_in():
            await self._disconnect(visit)
        else:
            connection.go_on()

    async def _disconnect(self, visit: Visit) -> None:
        try:
            await self._run(visit.disconnect, on_loop=visit.disconnects_on_loop)
        except (Exception, SystemExit) as exc:  # application code: the connection is over either way
            visit.failed_to_leave(exc)

    async def _run(self, hook: Callable[[], Awaitable[None] | None], *, on_loop: bool) -> None:
        if on_loop:
            result = hook()
        else:
            result = await run_on(self._workers, hook)
        if inspect.isawaitable(result):
            await result
