"""The event loop of a blocking server: methods run where their call was read, until one is seen to block.

One thread polls all sockets and runs methods in place, so that a fast method pays for no hand-over. A watchdog
looks every three milliseconds whether the polling thread is still in the same method; if so, another thread takes
over the polling, and that member goes to a worker from then on. Measured: docs/adr/0007.

A worker leaves its result to the polling thread while that one is awake, and sends it itself while it sleeps.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from typing import Final

from caprpc.blocking.answering import NO_RESULT
from caprpc.blocking.connection import Connection
from caprpc.blocking.notices import NOBODY
from caprpc.blocking.pool import Pool
from caprpc.blocking.results import AT_ONCE, Results
from caprpc.blocking.slow import SlowMembers
from caprpc.blocking.spin import Spin
from caprpc.blocking.watchdog import TICK_S, WATCH_S, Watchdog
from caprpc.limits import ServerLimits
from caprpc.objects.turns import CALLS, MESSAGES, TURN_S, Turns
from caprpc.objects.work import AnyJob
from caprpc.objects.workers import Workers

NO_CONNECTION: Final = -1
"""In place of the descriptor of the connection that a defect came up in."""

_IN: Final = select.EPOLLIN | select.EPOLLRDHUP


class Reactor:
    """Owns which thread polls (``_turn``), and what that thread runs at the moment (``_running``)."""

    def __init__(
        self,
        workers: Workers,
        limits: ServerLimits,
        on_tick: Callable[[float], None],
        on_defect: Callable[[int], None],
    ) -> None:
        self.defect = on_defect
        self._epoll = select.epoll()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Edge-triggered: nobody reads it, and it must wake no more than once.
        self._epoll.register(self._wakeup, select.EPOLLIN | select.EPOLLET)
        self._handlers: dict[int, Callable[[], None] | Connection] = {}
        """What is called for a descriptor; or a connection whose peer is known, which has turns."""
        self._slow = SlowMembers()
        self._turn = 0
        self._polling_thread = 0
        self._running: tuple[AnyJob, Connection] | None = None
        self._turns: Turns[Connection] = Turns()
        self._results = Results(self._reply)
        self._resting: dict[Connection, None] = {}
        self._watchdog = Watchdog(lambda: self._running, self._take_over, on_tick)
        self.pool = Pool(workers, limits, self._slow, self)

    def start(self) -> None:
        """Begin to poll."""
        self._watchdog.start()
        self.pool.poll(lambda: self._poll(0))

    def stop(self) -> None:
        """Stop polling: the polling thread leaves, and the watchdog ends."""
        self._turn += 1
        os.eventfd_write(self._wakeup, 1)
        self._watchdog.stop()

    def join(self) -> None:
        """Wait for the watchdog and free the selector; the workers must have ended."""
        self._watchdog.join()
        self._epoll.close()
        os.close(self._wakeup)

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
            reads = connection.armed and connection.reads_on
            self._epoll.modify(wire.sock, (_IN if reads else 0) | (select.EPOLLOUT if wire.unsent else 0))

    def replace(self, fileno: int, handler: Callable[[], None]) -> None:
        """Call another handler for a watched descriptor from now on."""
        self._handlers[fileno] = handler

    def mute(self, fileno: int) -> None:
        """Call the handler of a watched descriptor for its end alone, until it is watched for more."""
        self._epoll.modify(fileno, 0)

    def prove(self, fileno: int, connection: Connection) -> None:
        """A connection's peer is known: from now on it has turns, and its handler is not called any more."""
        self._handlers[fileno] = connection

    def pause(self, fileno: int, until: float) -> None:
        """Leave a watched descriptor alone until a time of the monotonic clock."""
        self.mute(fileno)
        self._watchdog.later(until, lambda: self._resume(fileno))

    def later(self, when: float, what: Callable[[], None]) -> None:
        """Call ``what`` on the watchdog's thread at a time of the monotonic clock, give or take some milliseconds."""
        self._watchdog.later(ceil(when / WATCH_S) * WATCH_S, what)

    def _resume(self, fileno: int) -> None:
        if fileno in self._handlers:
            self._epoll.modify(fileno, _IN)

    def claim(self, connection: Connection) -> None:
        """A thread that waits for an answer reads the connection now; the connection's lock is held."""
        if threading.get_ident() != self._polling_thread:
            self.arm(connection, armed=False)

    def rest(self, connection: Connection) -> None:
        """Watch a connection again soon, unless a thread reads it by then."""
        if not self._resting:
            self._watchdog.later(time.monotonic() + WATCH_S, self._rearm)
        self._resting[connection] = None

    def _poll(self, turn: int) -> None:
        """Poll until another thread does; what goes wrong between two connections ends none of them, nor this."""
        while self._turn == turn:
            try:
                self._poll_on(turn)
            except Exception:  # memory or stack that ran out here: whoever is served next may need less
                with suppress(Exception):
                    self.defect(NO_CONNECTION)
        self.pool.left(turn)

    def _poll_on(self, turn: int) -> None:
        poll, turns = self._epoll.poll, self._turns
        self._polling_thread = threading.get_ident()
        spin, clock, results = Spin(), time.perf_counter, self._results
        while self._turn == turn:
            ready: list[tuple[int, int]] = []
            until = spin.until() if not turns else 0.0
            if turns:
                ready = poll(0)
            elif until:
                ready = poll(0)
                while not ready and clock() < until and not results.waiting:
                    ready = poll(0)
                if ready or results.waiting:
                    spin.paid()
                else:
                    spin.wasted()
            if not ready and not turns:
                results.asleep = True
                results.send()
                ready = poll(TICK_S)
                results.asleep = False
            self._round(ready, turn)
            if self._turn != turn:
                # Another thread polls now and will see the rest.
                return
            if ready or turns:
                results.send(max(AT_ONCE, len(ready)))

    def _round(self, ready: list[tuple[int, int]], turn: int) -> None:
        """Give everybody a turn: what is ready, and then whoever waits for it."""
        handlers, turns = self._handlers, self._turns
        turns.begin(len(ready))
        for fileno, _mask in ready:
            handler = handlers.get(fileno)
            try:
                if isinstance(handler, Connection):
                    if not turns.has(handler):
                        self.serve(handler)
                elif handler is not None:
                    handler()
            except Exception:  # a defect met by one connection must not end the others
                self.defect(fileno)
            if self._turn != turn:
                return
        for principal in turns.principals() if turns else ():
            while (connection := turns.take(principal)) is not None:
                fileno = connection.wire.sock.fileno()
                try:
                    self._take_timed_turn(connection)
                except Exception:  # as above
                    self.defect(fileno)
                if self._turn != turn:
                    return

    def serve(self, connection: Connection) -> None:
        """Handle a readable or writable connection on the polling thread, now or when it is its turn."""
        turns = self._turns
        if not turns.crowded:
            self._take_turn(connection)
        elif turns.must_wait(connection.principal):
            turns.wait(connection.principal, connection)
        else:
            self._take_timed_turn(connection)

    def _take_timed_turn(self, connection: Connection) -> None:
        started = time.perf_counter()
        self._take_turn(connection)
        self._turns.spend(connection.principal, time.perf_counter() - started)

    def _take_turn(self, connection: Connection) -> None:
        """Handle some of the messages of a connection, or once all are handled run some of its calls."""
        notices = NOBODY
        job: AnyJob | None = None
        with connection.lock:
            wire, frames = connection.wire, connection.link.session.frames
            if wire.closed:
                return
            if wire.unsent:
                connection.send_more()
                self.update(connection)
            if connection.reader is not None:
                self._leave_to_reader(connection)
                return
            if frames.rest is not None:
                notices = connection.go_on(MESSAGES)
            else:
                job = self._next_in_place(connection) if connection.pending else None
                data = wire.read_now() if job is None and (not wire.unsent or connection.reads_on) else None
                if data is not None:
                    notices = connection.take(data, MESSAGES)
            while frames.rest is not None and not wire.closed and not notices and self._alone(connection):
                notices = connection.go_on(MESSAGES)
            if frames.rest is not None:
                self._wait(connection)
            elif job is None:
                job = self._next_in_place(connection)
        for notice in notices:
            notice.notify()
        if job is not None:
            self._run_here(connection, job)

    def _run_here(self, connection: Connection, job: AnyJob | None) -> None:
        """Run the calls of a connection on the polling thread until its turn is over."""
        turn, awake, clock = self._turn, self._watchdog.awake, time.perf_counter
        ran, until = 0, 0.0
        while job is not None:
            self._running = job, connection
            if not awake.is_set():
                awake.set()
            connection.run(job)
            if self._turn != turn:
                # Another thread polls by now; this one has only its reply behind it.
                self._watch_again(connection)
                return
            self._running = None
            ran += 1
            if connection.pending:
                now = clock()
                until = until or now + TURN_S
                if (ran >= CALLS or now >= until) and not self._alone(connection):
                    with connection.lock:
                        connection.flush()
                        self._wait(connection)
                    return
                if ran >= CALLS or now >= until:
                    ran, until = 0, 0.0
            with connection.lock:
                job = self._next_in_place(connection)
                if job is None and not connection.armed and connection.reader is None:
                    self.arm(connection)

    def _wait(self, connection: Connection) -> None:
        """Have a connection wait for its next turn; this one is over for all connections of its principal."""
        self._turns.spend(connection.principal)
        self._turns.wait(connection.principal, connection)

    def _alone(self, connection: Connection) -> bool:
        """Whether nobody else wants a turn now."""
        if self._turns or self._results.waiting:
            return False
        own = connection.wire.sock.fileno()
        return all(fileno == own for fileno, _ in self._epoll.poll(0, 2))

    def _leave_to_reader(self, connection: Connection) -> None:
        """Another thread reads the connection: it takes what was left first, and if it gives up that is ours again."""
        self.arm(connection, armed=False)
        if connection.link.behind:
            self.rest(connection)
        elif connection.pending:
            self.dispatch(connection)

    def _next_in_place(self, connection: Connection) -> AnyJob | None:
        """Return the next call to run here, or None; calls that wait for a worker keep their place in the order."""
        pending = connection.pending
        if not pending or connection.in_pool or (connection.wire.unsent and connection.congested):
            return None
        job = pending[0]
        if self._slow.blocks(job):
            self.dispatch(connection)
            return None
        return pending.pop(0)

    def resume(self, connection: Connection) -> None:
        """Have pending calls run that came while another was answered; the connection's lock is held.

        The polling thread takes them by itself after the call that it runs in place. If another takes the polling over
        meanwhile, that looks at what is pending once it has the lock.
        """
        running = self._running
        in_place = running is not None and running[1] is connection
        if not (in_place and threading.get_ident() == self._polling_thread):
            self.dispatch(connection)

    def dispatch(self, connection: Connection) -> None:
        """Have a worker start the first pending call of a connection; the connection's lock is held.

        A congested one is left alone: ``send_more`` comes back to it.
        """
        if not connection.in_pool and not connection.congested:
            connection.in_pool = True
            connection.flush()
            self.pool.start(connection)

    def have_turn(self, connection: Connection) -> None:
        """Have the polling thread serve a connection soon, though nothing new has come for it."""
        self._turns.wait(connection.principal, connection)
        os.eventfd_write(self._wakeup, 1)

    def run_first(self, connection: Connection) -> None:
        """Run the first pending call of a connection on this thread, a worker."""
        with connection.lock:
            connection.in_pool = False
            if not connection.pending or connection.congested:
                return
            job = connection.pending.pop(0)
            if connection.pending:
                self.dispatch(connection)
        started = time.perf_counter()
        result = connection.run_only(job)
        self._slow.ran(job, time.perf_counter() - started)
        if result is NO_RESULT:
            self._watch_again(connection)
            return
        results = self._results
        results.waiting.append((connection, job, result))
        if results.asleep or self._running is not None:
            results.send()

    def _reply(self, connection: Connection, job: AnyJob, result: object) -> None:
        """Send what a call on a worker has returned; it may be that another connection's thread does so."""
        try:
            connection.reply(job, result)
            self._watch_again(connection)
        except Exception:  # a defect met by one connection must not keep the results of the others
            self.defect(connection.wire.sock.fileno())

    def _watch_again(self, connection: Connection) -> None:
        if not connection.armed and connection.reader is None:
            with connection.lock:
                if not connection.armed and connection.reader is None:
                    self.arm(connection)

    def _take_over(self) -> None:
        """The polling thread is stuck in a method: let another thread poll, and remember the member."""
        if (running := self._running) is None:
            return
        job, connection = running
        self.pool.relieve(self._turn, connection.principal)
        turn = self._turn = self._turn + 1
        self._running = None
        self._slow.stalled(job)
        self.pool.poll(lambda: self._poll(turn))
        with connection.lock:
            connection.flush()
            if connection.pending:
                self.dispatch(connection)

    def _rearm(self) -> None:
        while self._resting:
            connection, _ = self._resting.popitem()
            with connection.lock:
                if connection.reader is None and connection.link.behind:
                    self.have_turn(connection)
                elif connection.reader is None and not connection.armed:
                    self.arm(connection)
