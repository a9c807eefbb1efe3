"""The workers of a blocking server, and what waits for one of them."""

import threading
from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from caprpc.blocking.connection import Connection
from caprpc.blocking.slow import SlowMembers
from caprpc.limits import ServerLimits
from caprpc.objects.dispatch import NoWorker
from caprpc.objects.shares import Shares
from caprpc.objects.work import AnyJob
from caprpc.objects.workers import Workers

_AT_ONCE: Final = 32
"""Connections that are turned away between two looks of the watchdog at what runs."""

_NOBODY: Final = ""
"""In place of a principal: work of our own."""


class Polling(Protocol):
    """What the pool needs of the reactor."""

    def run_first(self, connection: Connection) -> None:
        """Run the first pending call of a connection on this thread."""

    def have_turn(self, connection: Connection) -> None:
        """Have the polling thread serve a connection soon."""

    def dispatch(self, connection: Connection) -> None:
        """Have a worker start the first pending call of a connection; its lock is held."""

    def later(self, when: float, what: Callable[[], None]) -> None:
        """Call ``what`` at a time of the monotonic clock."""

    def defect(self, fileno: int) -> None:
        """An exception that should not be is being handled; it came up while a connection was served."""


class Pool:
    """Gives threads to connections whose next call may block.

    Invariant: what has a place among the shares has a thread: no call waits in the backlog of the threads themselves,
    where nothing would end its waiting.
    """

    __slots__ = ("_late", "_lock", "_next_look", "_polling", "_shares", "_slow", "_stuck", "_workers")

    def __init__(self, workers: Workers, limits: ServerLimits, slow: SlowMembers, polling: Polling) -> None:
        self._workers = workers
        self._shares: Shares[Connection] = Shares(limits.workers, limits.worker_wait_s)
        self._late = NoWorker(limits.worker_wait_s)
        self._slow = slow
        self._polling = polling
        self._lock = threading.Lock()
        self._next_look = inf
        """When the crowd is looked at."""
        self._stuck: dict[int, str] = {}
        """For which principal the thread runs a method that polled in a turn, and was relieved."""

    def start(self, connection: Connection) -> None:
        """Run the first call of a connection once there is a worker for it; its lock is held."""
        if self._shares.take(connection.principal, connection, connection.pending):
            self._workers.submit(lambda: self._serve(connection))
        else:
            self._look_later()

    def forget(self, connection: Connection) -> None:
        """A connection has ended: nothing of it waits any more."""
        self._shares.withdraw(connection.principal, connection)

    def poll(self, work: Callable[[], None]) -> None:
        """Run what polls, whatever the workers do."""
        self._workers.submit(work, urgent=True)

    def aside(self, work: Callable[[], None]) -> None:
        """Run something that is no call; the worker that it takes is taken from the calls."""
        self._shares.occupy(_NOBODY)

        def run() -> None:
            try:
                work()
            finally:
                self._hand_on(_NOBODY)

        self._workers.submit(run)

    def relieve(self, turn: int, principal: str) -> None:
        """The thread that polls in this turn is stuck in a method: it counts as a worker until it ``left``."""
        self._stuck[turn] = principal
        self._shares.occupy(principal)

    def left(self, turn: int) -> None:
        """The thread that has polled in this turn polls no more."""
        principal = self._stuck.pop(turn, None)
        if principal is not None:
            self._hand_on(principal)

    def _serve(self, connection: Connection) -> None:
        """Run calls on this thread, for one connection after the other, as long as some wait."""
        following: Connection | None = connection
        while following is not None:
            principal = following.principal
            try:
                self._polling.run_first(following)
            except BaseException:  # a defect: it ends this thread, and must not end what waits for one
                self._hand_on(principal)
                raise
            following = self._give_back(principal)

    def _hand_on(self, principal: str) -> None:
        following = self._give_back(principal)
        if following is not None:
            self._workers.submit(lambda: self._serve(following))

    def _give_back(self, principal: str) -> Connection | None:
        following = self._shares.give_back(principal)
        if self._shares.crowded and self._next_look == inf:
            # Whoever has waited for its own principal waits for others now.
            self._look_later()
        return following

    def _look_later(self) -> None:
        """Look at the crowd when the first of it has waited long enough, if there is one."""
        with self._lock:
            due = self._shares.due
            if due >= self._next_look:
                return
            self._next_look = due
        self._polling.later(due, lambda: self._look(due))

    def _look(self, due: float) -> None:
        if due != self._next_look:
            # Somebody was due before, and whoever looked then has arranged for the next.
            return
        for connection in self._shares.overdue(_AT_ONCE):
            try:
                self._turn_away(connection)
            except Exception:  # a defect met by one connection must not keep the others waiting
                self._polling.defect(connection.wire.sock.fileno())
        with self._lock:
            self._next_look = inf
        self._look_later()

    def _turn_away(self, connection: Connection) -> None:
        """Others have held all workers for as long as a connection may wait: none of its calls that need one runs.

        Coroutines need none, and neither does what may run in place, unless a thread that waits for the peer reads.
        """
        with connection.lock:
            read = connection.reader is not None
            late: list[AnyJob] = []
            begun: list[AnyJob] = []
            rest: list[AnyJob] = []
            for job in connection.pending:
                if job.is_async:
                    (begun if read else rest).append(job)
                else:
                    (late if read or self._slow.blocks(job) else rest).append(job)
            connection.pending[:] = rest
            notices = connection.refuse(late, self._late)
        for notice in notices:
            notice.notify()
        for job in begun:
            connection.run(job)
        with connection.lock:
            connection.in_pool = False
            if connection.pending and connection.reader is None:
                self._polling.have_turn(connection)
            elif connection.pending:
                self._polling.dispatch(connection)
