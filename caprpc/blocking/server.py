"""The blocking server: ``caprpc.Server``."""

import logging
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from caprpc.blocking.async_methods import AsyncMethods
from caprpc.blocking.connection import Connection
from caprpc.blocking.door import Door
from caprpc.blocking.granting import Granting
from caprpc.blocking.hooks import HookThreads
from caprpc.blocking.reactor import NO_CONNECTION, Reactor
from caprpc.blocking.watchdog import TICK_S
from caprpc.errors import CapRPCError, ConfigurationError
from caprpc.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from caprpc.objects.accepting import Place
from caprpc.objects.grants import Grants
from caprpc.objects.health import Health, health_of
from caprpc.objects.hooks import Hooks, OnConnect, OnDisconnect
from caprpc.objects.sides import Policies, serving
from caprpc.objects.startup import startup_frozen
from caprpc.objects.turns import MESSAGES, TURN_S
from caprpc.objects.work import AnyJob, sort_out
from caprpc.objects.workers import Workers
from caprpc.session import UNBOUNDED, Answer, BatchAnswer, Closer, Ended
from caprpc.sockets import Arrival

_LOG: Final = logging.getLogger("caprpc")

_HANDSHAKES: Final = 2
"""Threads that do handshakes, beside the one that serves: a flood of strangers takes no more than these."""

_HOOKS_S: Final = 1.0
"""The least time that the hooks of connections which a stop ends are given."""


class Server(Granting):
    """Serves roots to peers that prove who they are and have a policy.

    Args:
        roots: Name to object, or to a factory that takes the peer and makes one for each connection.
        identity: Directory with our certificate, key, and the CAs we trust.
        policies: Directory with ``caprpc.toml`` and the policies it lists.
        audit: Directory of the audit log; by default the one that ``caprpc.toml`` names.
        limits: Limits over all connections.
        on_connect: Called with the identity of each peer that has connected, before any of its calls starts; if it
            raises, the connection ends.
        on_disconnect: Called with the identity and a ``ConnectionLost`` when a connection ends whose ``on_connect``
            has returned.
        grants: Where grants are kept, for sturdy references; closed when the server stops.

    Raises:
        ConfigurationError: Identity, policies or roots are wrong; nothing listens.
        AuditError: The audit log cannot be written; nothing listens.
    """

    def __init__(
        self,
        roots: Mapping[str, object],
        *,
        identity: str | Path,
        policies: Policies,
        audit: str | Path | None = None,
        limits: ServerLimits = DEFAULT_SERVER_LIMITS,
        on_connect: OnConnect | None = None,
        on_disconnect: OnDisconnect | None = None,
        grants: Grants | None = None,
    ) -> None:
        hooks = Hooks.given(on_connect, on_disconnect)
        self._admission = serving(roots, identity, policies, audit, limits, grants)
        # One of them polls, and one is left for the audit log when calls hold all others.
        self._workers = Workers(limits.workers + 2, "caprpc-worker")
        self._handshakes = Workers(_HANDSHAKES, "caprpc-handshake")
        self._async_methods = AsyncMethods()
        self._reactor = Reactor(self._workers, limits, self._tick, self._defect)
        self._hooks = HookThreads(hooks, self._async_methods, self._resume) if hooks is not None else None
        self._door = Door(self._reactor, limits, self._first_bytes)
        self._lock = threading.Lock()
        self._connections: dict[Connection, int] = {}
        self._places: dict[Connection, Place] = {}
        self._adopts = False
        self._stopped = threading.Event()

    def listen(self, address: str) -> str:
        """Listen on ``host:port`` or ``unix:/path``; returns the address, with the port that port 0 was given.

        Raises:
            ConfigurationError: The address is in use, or not ours.
        """
        bound = self._door.listen(address)
        self._admission.listening(bound)
        return bound

    def adopt(self, sock: socket.socket) -> None:
        """Serve the peer at the other end of a connected socket, such as one of a pair or an inherited one.

        It has to prove who it is like any other; the socket belongs to the server from now on.

        Raises:
            ConfigurationError: It is not a connected stream socket.
        """
        self._door.adopt(sock)
        self._adopts = True

    @property
    def addresses(self) -> list[str]:
        """Where the server listens."""
        return self._door.addresses

    @property
    def connections(self) -> int:
        """How many connections there are, those among them whose peer is not known yet."""
        return self._door.taken

    def health(self) -> Health:
        """Return how the server is: policies, audit log, certificates, connections. From any thread; not for peers."""
        return health_of(self._admission, self.addresses, self.connections)

    def start(self) -> None:
        """Begin to serve, on threads of the server's own.

        Raises:
            ConfigurationError: Neither ``listen`` nor ``adopt`` was called.
        """
        if not self._door.addresses and not self._adopts:
            raise ConfigurationError("the server listens nowhere", hint="call listen('127.0.0.1:4853') before start()")
        self._door.open()
        self._reactor.start()

    def revoke(self, principal: str) -> int:
        """End everything that a principal holds, at once: its references, its running calls, its connections.

        It may connect again as long as a policy is for it: to keep it out, take that away (``reload``).

        Returns:
            How many connections have ended.
        """
        theirs = [connection for connection in list(self._connections) if connection.principal == principal]
        for connection in theirs:
            with connection.lock:
                futures = connection.route(sort_out(connection.link, connection.link.expel()))
            for future in futures:
                future.notify()
        return len(theirs)

    def stop(self, grace_s: float = 5.0) -> None:
        """Stop: accept nobody, let running calls end within ``grace_s`` seconds, then close. May be called twice."""
        with self._lock:
            if self._stopped.is_set():
                return
            self._stopped.set()
        self._door.close()
        for connection in list(self._connections):
            self._drain(connection)
        # Whoever interrupts this while it waits ends the waiting, not the rest: it is not done at a second call.
        with ExitStack() as stack:
            stack.callback(self._admission.close)
            stack.callback(self._reactor.join)
            stack.callback(self._workers.close, 1.0)
            stack.callback(self._handshakes.close, 1.0)
            stack.callback(self._async_methods.close)
            if self._hooks is not None:
                stack.callback(self._hooks.close, max(_HOOKS_S, grace_s))
            stack.callback(self._reactor.stop)
            stack.callback(self._end_all)
            end = time.monotonic() + grace_s
            while time.monotonic() < end and any(not self._drained(c) for c in list(self._connections)):
                time.sleep(0.01)

    def _end_all(self) -> None:
        for connection in list(self._connections):
            with connection.lock:
                connection.end("the server stops")

    def reload(self) -> str:
        """Read certificates, revocation lists and policies again; a wrong one leaves everything as it is.

        Raises:
            ConfigurationError: What is wrong.
        """
        said = self._admission.reload()
        now = time.monotonic()
        for connection in list(self._connections):
            self._check(connection, now, validity=True)
        return said

    def serve_forever(self) -> None:
        """Serve until ``SIGTERM`` or ``SIGINT``, then stop gracefully; ``SIGHUP`` reloads. On the main thread."""
        done = threading.Event()

        def end(_signal: int, _frame: FrameType | None) -> None:
            done.set()

        reload_wanted = threading.Event()

        def again(_signal: int, _frame: FrameType | None) -> None:
            reload_wanted.set()

        before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, end),
            signal.SIGINT: signal.signal(signal.SIGINT, end),
            signal.SIGHUP: signal.signal(signal.SIGHUP, again),
        }
        try:
            self.start()
            with startup_frozen():
                while not done.wait(0.2):
                    if reload_wanted.is_set():
                        reload_wanted.clear()
                        self._reload_or_log()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.stop()

    def _reload_or_log(self) -> None:
        try:
            self.reload()
        except CapRPCError as exc:
            _LOG.error("not reloaded, the last good configuration stays in force: %s", exc)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _first_bytes(self, arrival: Arrival, place: Place) -> None:
        fileno = arrival.sock.fileno()
        connection = Connection(
            arrival.sock, self._admission, self, acceptor=True, hostname=None, address=arrival.address
        )
        connection.link.started = arrival.since
        self._places[connection] = place
        self._connections[connection] = fileno
        self._reactor.replace(fileno, lambda: self._serve(connection))
        connection.armed = True
        self._serve(connection)

    def _serve(self, connection: Connection) -> None:
        if connection.link.admitted is not None:
            self._reactor.serve(connection)
            return
        with connection.lock:
            self._reactor.arm(connection, armed=False)
        self._handshakes.submit(lambda: self._shake_hands(connection))

    def _shake_hands(self, connection: Connection) -> None:
        with connection.lock:
            if connection.wire.closed:
                return
            data = connection.wire.read_now()
            if data is not None:
                connection.take(data)
            if not connection.wire.closed:
                if connection.link.admitted is not None:
                    self._authenticated(connection)
                if connection.pending:
                    self._reactor.dispatch(connection)
                self._reactor.arm(connection)

    def _authenticated(self, connection: Connection) -> None:
        self._reactor.prove(self._connections[connection], connection)
        place = self._places.get(connection)
        if place is not None:
            self._door.prove(place)

    def _resume(self, connection: Connection) -> None:
        """Let the calls begin that have come while ``on_connect`` ran; the connection's lock is held."""
        if connection.pending:
            self._reactor.dispatch(connection)

    def _tick(self, now: float) -> None:
        self._door.tick(now)
        for connection in list(self._connections):
            self._check(connection, now, validity=False)
        self._workers.submit(self._sync_log)

    def _check(self, connection: Connection, now: float, *, validity: bool) -> None:
        with connection.lock:
            if connection.wire.closed:
                return
            if validity and connection.link.admitted is not None:
                futures = connection.check_validity()
            else:
                futures = connection.tick(now)
        for future in futures:
            future.notify()

    def _sync_log(self) -> None:
        try:
            self._admission.tick(time.monotonic())
        except CapRPCError as exc:
            # The relation refuses records from now on: every call on it fails closed and says so.
            _LOG.error("audit log: %s", exc)

    def _defect(self, fileno: int) -> None:
        """An exception that should not be has come up while a connection was served: end that connection."""
        if fileno == NO_CONNECTION:
            _LOG.exception("internal error between two connections; they are served on")
            return
        _LOG.exception("internal error while serving a connection; it is closed")
        for connection, known in list(self._connections.items()):
            if known == fileno:
                with connection.lock:
                    connection.end("internal error", code="internal")

    def _drain(self, connection: Connection) -> None:
        with connection.lock:
            if connection.link.admitted is not None and not connection.wire.closed:
                connection.link.session.drain()
                connection.flush()

    @staticmethod
    def _drained(connection: Connection) -> bool:
        link = connection.link
        return connection.wire.closed or link.admitted is None or (link.session.drained and not connection.wire.unsent)

    def dispatch(self, connection: Connection) -> None:
        """Run what is in ``connection.pending``, in order, on a worker."""
        self._reactor.dispatch(connection)

    def resumed(self, connection: Connection) -> None:
        """Calls that waited for an answer may start."""
        self._reactor.resume(connection)

    def released(self, connection: Connection) -> None:
        """No thread reads the connection now: watch it soon."""
        self._reactor.rest(connection)

    def watched(self, connection: Connection) -> None:
        """An answer is awaited on an event loop: watch the connection now."""
        self._reactor.arm(connection)

    def claimed(self, connection: Connection) -> None:
        """A waiting thread reads the connection now: stop watching it."""
        self._reactor.claim(connection)

    def most(self) -> int:
        """Return what a waiting thread handles in one go: a turn, if there are others to be served."""
        return MESSAGES if len(self._connections) > 1 else UNBOUNDED

    def give_way(self) -> None:
        """Have the polling thread run: releasing the interpreter lock alone would get it back at once."""
        time.sleep(TURN_S)

    def wants_write(self, connection: Connection) -> None:
        """Ciphertext waits until the socket takes more."""
        self._reactor.update(connection)

    def start_async(self, connection: Connection, job: AnyJob) -> bool:
        """Start an ``async def`` method on the loop kept for such methods."""
        return self._async_methods.start(connection, job)

    def cancelled(self, answer: Answer | BatchAnswer) -> None:
        """Nobody waits for a call any more: a method that awaits something stops there."""
        self._async_methods.cancel(answer)

    def due(self, connection: Connection, when: float) -> None:
        """A call must be answered at that time; what is due later is looked at every second."""
        if when < time.monotonic() + TICK_S:
            self._reactor.later(when, lambda: self._check(connection, time.monotonic(), validity=False))

    def let_go(self, closers: list[Closer]) -> None:
        """The peer can name these no more: close them on a thread that holds no lock."""
        self._reactor.pool.aside(lambda: self._async_methods.let_go(closers))

    def opened(self, connection: Connection) -> None:
        """WELCOME and HELLO have been exchanged."""
        if self._hooks is not None:
            self._hooks.opened(connection)

    def ended(self, connection: Connection, event: Ended) -> None:
        """The connection is over: forget it."""
        fileno = self._connections.pop(connection, None)
        if fileno is not None:
            if self._hooks is not None:
                self._hooks.ended(connection, event)
            self._reactor.forget(fileno)
            self._reactor.pool.forget(connection)
            place = self._places.pop(connection, None)
            if place is not None:
                self._door.leave(place)
