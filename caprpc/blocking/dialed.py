"""One connection that we have made, and the threads that serve it while no thread of the application waits."""

import inspect
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from caprpc.blocking.async_methods import AsyncMethods
from caprpc.blocking.caller import Caller
from caprpc.blocking.connection import Connection
from caprpc.blocking.spare import Spare
from caprpc.errors import CapRPCError
from caprpc.objects.admission import Admission
from caprpc.objects.hooks import Hooks, Visit
from caprpc.objects.refusals import check_pin, refusal
from caprpc.objects.sides import Wish
from caprpc.objects.work import AnyJob
from caprpc.objects.workers import Workers
from caprpc.session import UNBOUNDED, Answer, BatchAnswer, Closer, Ended
from caprpc.sockets import Route, address_of

_LOG: Final = logging.getLogger("caprpc")

_CALLBACK_THREADS: Final = 16
"""Threads for callbacks that come while no thread of the application waits."""


class Dialed:
    """A connection to a server that has proved who it is; owns its socket and its threads."""

    def __init__(
        self,
        admission: Admission,
        route: Route,
        wish: Wish,
        *,
        caller: Callable[[Connection], Caller] = Caller,
        on_end: Callable[["Dialed", Ended], None] | None = None,
    ) -> None:
        """Dial, and return once both sides have accepted each other.

        Raises:
            ConnectRefused: Nobody listens there, or one side does not accept the other.
            Exception: What ``on_connect`` raised.
        """
        self._on_end = on_end
        self._workers = Workers(_CALLBACK_THREADS, "caprpc-callback")
        self._async_methods = AsyncMethods()
        self._opened = False
        self.end: Ended | None = None
        self._visit: Visit | None = None
        deadline = time.monotonic() + wish.timeout_s
        sock = route.connect(wish.timeout_s)
        self.connection = Connection(
            sock,
            admission,
            self,
            acceptor=False,
            hostname=route.hostname,
            address=address_of(sock, route.text),
            expected=wish.expected,
            caller=caller,
        )
        self._spare = Spare(self.connection, lambda now: _keep_log(admission, now))
        try:
            self._open(route.text, deadline)
            check_pin(route.text, wish.policy, self.connection.link.session.opening.peer_policy)
            self.opened_at = time.monotonic()
            self._spare.start()
            self._let_in(wish.hooks)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection and its threads; everything that was obtained through it is dead."""
        connection = self.connection
        if connection.caller.forked:
            # Neither its threads nor its socket are in a child; what they held their locks for is nobody's.
            return
        # Each of them, also when the thread is interrupted while it waits for one.
        with ExitStack() as stack:
            stack.callback(self._async_methods.close)
            stack.callback(self._workers.close, 1.0)
            stack.callback(self._spare.join)
            stack.callback(connection.wire.close)
            with connection.lock:
                futures = connection.end("closed") if self.end is None else []
            for future in futures:
                future.notify()

    def check_validity(self) -> None:
        """End the connection if its peer's certificate or policy is no longer good."""
        with self.connection.lock:
            futures = self.connection.check_validity()
        for future in futures:
            future.notify()

    def _open(self, address: str, deadline: float) -> None:
        connection = self.connection
        with connection.lock:
            connection.flush()
        while not self._opened and self.end is None:
            data = connection.wire.read(deadline)
            with connection.lock:
                if data is not None:
                    connection.take(data)
                elif time.monotonic() >= deadline:
                    connection.end(f"no answer from {address} in time")
        if self.end is not None and not self._opened:
            raise refusal(address, self.end)

    def _let_in(self, hooks: Hooks | None) -> None:
        """Tell the application, on this thread, that the peer is there."""
        if hooks is None:
            return
        connection = self.connection
        with connection.lock:
            visit = Visit(hooks, connection.link.session.peer)
            if self.end is not None:
                visit.ended(self.end)
            self._visit = visit
        try:
            result = visit.connect()
            if inspect.isawaitable(result):
                self._async_methods.wait_for(result)
        except BaseException as exc:
            with connection.lock:
                visit.turned_away(exc)
            raise
        with connection.lock:
            leaves = visit.let_in()
        if leaves:
            self._disconnect(visit)

    def _disconnect(self, visit: Visit) -> None:
        try:
            result = visit.disconnect()
            if inspect.isawaitable(result):
                self._async_methods.wait_for(result)
        except BaseException as exc:  # application code: the connection is over either way
            visit.failed_to_leave(exc)

    def dispatch(self, connection: Connection) -> None:
        """Run what is in ``connection.pending``, in order, on a callback thread."""
        if not connection.in_pool and not connection.congested:
            connection.in_pool = True
            connection.flush()
            self._workers.submit(lambda: self._run_pending(connection))

    def resumed(self, connection: Connection) -> None:
        """Calls that waited for an answer may start."""
        self.dispatch(connection)

    def released(self, connection: Connection) -> None:
        """No thread reads the connection now: the spare finds out by itself, at once if somebody waits for that."""
        if connection.attended:
            self._spare.nudge()

    def claimed(self, _connection: Connection) -> None:
        """A waiting thread reads the connection now."""

    def most(self) -> int:
        """Return what a waiting thread handles: everything. Answers are what it is there for."""
        return UNBOUNDED

    def give_way(self) -> None:
        """Nothing is ever left."""

    def watched(self, _connection: Connection) -> None:
        """Somebody waits for an answer and does not read: the spare must."""
        self._spare.nudge()

    def wants_write(self, _connection: Connection) -> None:
        """Ciphertext waits until the socket takes more."""
        self._spare.nudge()

    def start_async(self, connection: Connection, job: AnyJob) -> bool:
        """Start an ``async def`` callback on the loop kept for such."""
        return self._async_methods.start(connection, job)

    def cancelled(self, answer: Answer | BatchAnswer) -> None:
        """Nobody waits for a call any more: a method that awaits something stops there."""
        self._async_methods.cancel(answer)

    def due(self, _connection: Connection, _when: float) -> None:
        """A callback must be answered in time: the spare looks when."""
        self._spare.nudge()

    def let_go(self, closers: list[Closer]) -> None:
        """The peer can name these no more: close them on a thread that holds no lock."""
        self._workers.submit(lambda: self._async_methods.let_go(closers))

    def opened(self, _connection: Connection) -> None:
        """WELCOME and HELLO have been exchanged."""
        self._opened = True

    def ended(self, _connection: Connection, event: Ended) -> None:
        """The connection is over."""
        self.end = event
        visit = self._visit
        if visit is not None and visit.ended(event):
            self._workers.submit(lambda: self._disconnect(visit))
        if self._on_end is not None and self._opened:
            self._on_end(self, event)

    def _run_pending(self, connection: Connection) -> None:
        with connection.lock:
            connection.in_pool = False
            if not connection.pending or connection.congested:
                return
            job = connection.pending.pop(0)
            if connection.pending:
                self.dispatch(connection)
        connection.run(job)


def _keep_log(admission: Admission, now: float) -> None:
    """Make the audit log last over a power cut, and say what expires soon."""
    try:
        admission.tick(now)
    except CapRPCError as exc:
        # The relation refuses records from now on: every call on it fails closed and says so.
        _LOG.error("audit log: %s", exc)
