"""The event loop of a blocking server: methods run where their call was read, until one is seen to block.

One thread polls all sockets and runs methods in place, so that a fast method pays for no hand-over. A watchdog
looks every three milliseconds whether the polling thread is still in the same method; if so, another thread takes
over the polling, and that member goes to a worker from then on. Measured: docs/adr/0007.
"""

import select
import threading
import time
from collections.abc import Callable
from typing import Final

from caprpc.blocking.connection import Connection
from caprpc.blocking.spin import Spin
from caprpc.blocking.workers import Workers
from caprpc.interface import Member
from caprpc.objects.batches import BatchJob
from caprpc.objects.work import AnyJob

WATCH_S: Final = 0.003
"""A method that runs longer than one to two of these is taken to block."""

_PARK_AFTER: Final = 100
"""Quiet looks after which the watchdog sleeps until a method runs again."""

TICK_S: Final = 1.0
"""How often deadlines of all connections are looked at."""

_STRIKE_S: Final = 1.0
"""Two stalls within this make a member slow; a single one may be the machine's doing."""

_FORGIVE_AFTER: Final = 32
"""Fast runs in a row on a worker after which a member may run in place again."""

_FAST_S: Final = 0.0005

_IN: Final = select.EPOLLIN | select.EPOLLRDHUP


class Reactor:
    """Owns which thread polls (``_turn``), and which members are known to block (``_slow``)."""

    def __init__(self, workers: Workers, on_tick: Callable[[float], None], on_defect: Callable[[int], None]) -> None:
        self._workers = workers
        self._on_tick = on_tick
        self._on_defect = on_defect
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._slow: dict[Member, int] = {}
        self._strikes: dict[Member, float] = {}
        self._turn = 0
        self._polling_thread = 0
        self._running: AnyJob | None = None
        self._running_on: Connection | None = None
        self._resting: dict[Connection, None] = {}
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._awake = threading.Event()
        self._stopped = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="caprpc-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to poll."""
        self._watchdog.start()
        self._workers.submit(lambda: self._poll(0), urgent=True)

    def stop(self) -> None:
        """Stop polling; the file descriptor is closed once the polling thread has left."""
        self._stopped.set()
        self._awake.set()
        self._turn += 1

    def join(self) -> None:
        """Wait for the watchdog and free the selector."""
        if self._watchdog.is_alive() and self._watchdog is not threading.current_thread():
            self._watchdog.join()
        self._epoll.close()

    def watch(self, fileno: int, handler: Callable[[], None]) -> None:
        """Call ``handler`` on the polling thread whenever a descriptor is readable."""
        self._handlers[fileno] = handler
        self._epoll.register(fileno, _IN)

    def forget(self, fileno: int) -> None:
        """Stop watching a descriptor for good."""
        if self._handlers.pop(fileno, None) is not None:
            try:
                self._epoll.unregister(fileno)
            except (OSError, ValueError):
                # It was closed already, which unregisters it.
                return

    def arm(self, connection: Connection, *, armed: bool = True) -> None:
        """Watch a connection's input, or leave it to the thread that reads it; the connection's lock is held."""
        connection.armed = armed
        self.update(connection)

    def update(self, connection: Connection) -> None:
        """Watch for what the connection wants now; a peer that takes no answers is not read. Its lock is held."""
        wire = connection.wire
        if not wire.closed:
            reads = connection.armed and wire.unsent_bytes <= connection.high_water_bytes
            self._epoll.modify(wire.sock, (_IN if reads else 0) | (select.EPOLLOUT if wire.unsent else 0))

    def replace(self, fileno: int, handler: Callable[[], None]) -> None:
        """Call another handler for a watched descriptor from now on."""
        self._handlers[fileno] = handler

    def pause(self, fileno: int, until: float) -> None:
        """Leave a watched descriptor alone until a time of the monotonic clock."""
        self._epoll.modify(fileno, 0)
        self.later(until, lambda: self._resume(fileno))

    def _resume(self, fileno: int) -> None:
        if fileno in self._handlers:
            self._epoll.modify(fileno, _IN)

    def later(self, when: float, what: Callable[[], None]) -> None:
        """Call ``what`` at a time of the monotonic clock, on the watchdog."""
        self._later.append((when, what))
        self._wake()

    def claim(self, connection: Connection) -> None:
        """A thread that waits for an answer reads the connection now; the connection's lock is held."""
        if threading.get_ident() != self._polling_thread:
            self.arm(connection, armed=False)

    def rest(self, connection: Connection) -> None:
        """Watch a connection again soon, unless a thread reads it by then."""
        self._resting[connection] = None
        self._wake()

    def _poll(self, turn: int) -> None:
        poll, handlers = self._epoll.poll, self._handlers
        self._polling_thread = threading.get_ident()
        spin = Spin()
        clock = time.perf_counter
        while self._turn == turn:
            ready: list[tuple[int, int]] = []
            until = spin.until()
            if until:
                ready = poll(0)
                while not ready and clock() < until:
                    ready = poll(0)
                if ready:
                    spin.paid()
                else:
                    spin.wasted()
            if not ready:
                ready = poll(TICK_S)
            for fileno, _mask in ready:
                handler = handlers.get(fileno)
                if handler is not None:
                    try:
                        handler()
                    except Exception:  # a defect met by one connection must not end the others
                        self._on_defect(fileno)
                if self._turn != turn:
                    # Another thread polls now and will see the rest.
                    return

    def serve(self, connection: Connection) -> None:
        """Handle a readable or writable connection on the polling thread."""
        with connection.lock:
            wire = connection.wire
            if wire.closed:
                return
            if wire.unsent and wire.send_more():
                self.update(connection)
            if connection.reader is not None:
                self.arm(connection, armed=False)
                return
            data = wire.read_now()
            if data is None:
                return
            futures = connection.take(data)
            job = self._next_in_place(connection)
        for future in futures:
            future.notify()
        turn = self._turn
        while job is not None:
            self._running, self._running_on = job, connection
            if not self._awake.is_set():
                self._awake.set()
            connection.run(job)
            if self._turn != turn:
                # Another thread polls by now; this one has only its reply behind it.
                with connection.lock:
                    if not connection.armed and connection.reader is None:
                        self.arm(connection)
                return
            self._running = None
            with connection.lock:
                job = self._next_in_place(connection)
                if job is None and not connection.armed and connection.reader is None:
                    self.arm(connection)

    def _next_in_place(self, connection: Connection) -> AnyJob | None:
        """Return the next call to run here, or None; calls that wait for a worker keep their place in the order."""
        pending = connection.pending
        if not pending or connection.in_pool:
            return None
        job = pending[0]
        if self._blocks(job):
            self.dispatch(connection)
            return None
        return pending.popleft()

    def _blocks(self, job: AnyJob) -> bool:
        if isinstance(job, BatchJob):
            return job.waits or any(member in self._slow for member in job.members)
        plan = job.plan
        return not plan.is_async and (plan.member in self._slow or plan.member.blocking)

    def dispatch(self, connection: Connection) -> None:
        """Have a worker start the first pending call of a connection; the connection's lock is held."""
        if not connection.in_pool:
            connection.in_pool = True
            connection.flush()
            self._workers.submit(lambda: self._run_pending(connection))

    def _run_pending(self, connection: Connection) -> None:
        with connection.lock:
            connection.in_pool = False
            if not connection.pending:
                return
            job = connection.pending.popleft()
            if connection.pending:
                self.dispatch(connection)
        started = time.perf_counter()
        connection.run(job)
        if time.perf_counter() - started < _FAST_S:
            self._forgive(job)
        with connection.lock:
            if not connection.armed and connection.reader is None:
                self.arm(connection)

    def _forgive(self, job: AnyJob) -> None:
        for member in job.members:
            left = self._slow.get(member)
            if left is not None:
                if left <= 1:
                    self._slow.pop(member, None)
                else:
                    self._slow[member] = left - 1

    def _wake(self) -> None:
        if not self._awake.is_set():
            self._awake.set()

    def _watch(self) -> None:
        seen: AnyJob | None = None
        quiet = 0
        ticked = time.monotonic()
        while not self._stopped.is_set():
            running = self._running
            if running is None or running is not seen:
                quiet = quiet + 1 if running is None and not self._resting and not self._later else 0
            else:
                self._take_over(running)
                running = None
            seen = running
            if self._resting:
                self._rearm()
            now = time.monotonic()
            if self._later:
                self._run_due(now)
            if now - ticked >= TICK_S:
                ticked = now
                self._on_tick(now)
            if quiet >= _PARK_AFTER:
                self._awake.clear()
                # A job that started in between has set nothing: look once more before sleeping.
                if self._running is None and not self._resting and not self._later:
                    self._awake.wait(TICK_S)
                quiet = 0
            else:
                time.sleep(WATCH_S)

    def _take_over(self, job: AnyJob) -> None:
        """The polling thread is stuck in a method: let another thread poll, and remember the member."""
        connection = self._running_on
        turn = self._turn = self._turn + 1
        self._running = None
        now = time.monotonic()
        for member in job.members:
            if now - self._strikes.get(member, float("-inf")) < _STRIKE_S:
                self._slow[member] = _FORGIVE_AFTER
            self._strikes[member] = now
        self._workers.submit(lambda: self._poll(turn), urgent=True)
        if connection is not None:
            with connection.lock:
                connection.flush()
                if connection.pending:
                    self.dispatch(connection)

    def _run_due(self, now: float) -> None:
        due = [item for item in self._later if item[0] <= now]
        for item in due:
            self._later.remove(item)
            item[1]()

    def _rearm(self) -> None:
        for connection in list(self._resting):
            self._resting.pop(connection, None)
            with connection.lock:
                if connection.reader is None and not connection.armed:
                    self.arm(connection)
