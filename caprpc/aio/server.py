"""The asyncio server: ``caprpc.aio.Server``."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from caprpc.aio.connection import Connection
from caprpc.aio.crossing import done_on
from caprpc.aio.dialed import READ_BUFFER_BYTES
from caprpc.aio.door import Door
from caprpc.aio.granting import Granting
from caprpc.aio.hooks import HookTasks
from caprpc.aio.rounds import Rounds
from caprpc.aio.runner import MethodRunner
from caprpc.errors import CapRPCError, ConfigurationError
from caprpc.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from caprpc.objects.accepting import Place
from caprpc.objects.grants import Grants
from caprpc.objects.health import Health, health_of
from caprpc.objects.hooks import Hooks, OnConnect, OnDisconnect
from caprpc.objects.sides import Policies, serving
from caprpc.objects.startup import startup_frozen
from caprpc.objects.work import sort_out
from caprpc.session import Closer, Ended
from caprpc.sockets import Arrival

_LOG: Final = logging.getLogger("caprpc")

_HOOKS_S: Final = 1.0
"""The least time that the hooks of connections which a stop ends are given."""


class Server(Granting):
    """Serves roots on an asyncio loop to peers that prove who they are and have a policy.

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
        self.runner = MethodRunner(limits.workers, "caprpc-worker", limits.worker_wait_s)
        self.rounds = Rounds()
        self.buffer = memoryview(bytearray(READ_BUFFER_BYTES))
        self._door = Door(limits, self._first_bytes)
        self._connections: dict[Connection, Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._stopping = False
        self._adopts = False
        self._hooks = HookTasks(hooks) if hooks is not None else None

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

        It has to prove who it is like any other; the socket belongs to the server from now on. On the running loop.

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

    async def start(self) -> None:
        """Begin to serve on the running loop.

        Raises:
            ConfigurationError: Neither ``listen`` nor ``adopt`` was called.
        """
        if not self._door.addresses and not self._adopts:
            raise ConfigurationError("the server listens nowhere", hint="call listen('127.0.0.1:4853') before start()")
        self._door.open()
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self, grace_s: float = 5.0) -> None:
        """Stop: accept nobody, let running calls end within ``grace_s`` seconds, then close. May be called twice."""
        if self._stopping:
            return
        self._stopping = True
        self._door.close()
        for connection in list(self._connections):
            if connection.link.admitted is not None and not connection.closed:
                connection.link.session.drain()
                connection.flush()
        # Whoever cancels this while it waits ends the waiting, not the rest: it is not done at a second call.
        async with AsyncExitStack() as stack:
            stack.callback(self._admission.close)
            stack.callback(self.runner.close)
            stack.push_async_callback(self._leave, max(_HOOKS_S, grace_s))
            stack.callback(self._cut_off)
            end = time.monotonic() + grace_s
            while time.monotonic() < end and not all(connection.idle for connection in list(self._connections)):
                await asyncio.sleep(0.01)

    def _cut_off(self) -> None:
        for connection in list(self._connections):
            connection.end("the server stops")
            connection.cut_off()
        if self._ticker is not None:
            self._ticker.cancel()

    async def _leave(self, time_s: float) -> None:
        """Wait for what is still under way, which has been told to end: hooks, and what peers have let go of."""
        if self._hooks is not None:
            await self._hooks.close(time_s)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=time_s)
            for task in late:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def reload(self) -> str:
        """Read certificates, revocation lists and policies again; a wrong one leaves everything as it is.

        Raises:
            ConfigurationError: What is wrong.
        """
        said = self._admission.reload()
        for connection in list(self._connections):
            connection.check_validity()
        return said

    def revoke(self, principal: str) -> int:
        """End everything that a principal holds, at once: its references, its running calls, its connections.

        From any thread. It may connect again as long as a policy is for it: to keep it out, take that away
        (``reload``).

        Returns:
            How many connections have ended.
        """
        loop = None if self._ticker is None else self._ticker.get_loop()
        if loop is not None and asyncio._get_running_loop() is not loop:
            return done_on(loop, lambda: self._expel(principal))
        return self._expel(principal)

    def _expel(self, principal: str) -> int:
        theirs = [connection for connection in list(self._connections) if connection.principal == principal]
        for connection in theirs:
            connection.route(sort_out(connection.link, connection.link.expel()))
        return len(theirs)

    async def serve_forever(self) -> None:
        """Serve until ``SIGTERM`` or ``SIGINT``, then stop gracefully; ``SIGHUP`` reloads. On the main thread."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, done.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_or_log)
        try:
            await self.start()
            with startup_frozen():
                await done.wait()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            await self.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _first_bytes(self, arrival: Arrival, place: Place) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(arrival, place))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, arrival: Arrival, place: Place) -> None:
        connection = Connection(
            self._admission, self, acceptor=True, hostname=None, address=arrival.address, started=arrival.since
        )
        self._connections[connection] = place
        if arrival.sock.family != socket.AF_UNIX:
            arrival.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, arrival.sock)
        except OSError as exc:
            _LOG.debug("a connection from %s ended before it began: %s", arrival.address, exc)
            connection.end("ended before it began")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            try:
                self._door.tick(time.monotonic())
                await self.runner.aside(self._sync_log)
            except Exception:  # without it nobody who is silent would be sent away: it must outlive any defect
                _LOG.exception("internal error of the timekeeper")

    def _sync_log(self) -> None:
        try:
            self._admission.tick(time.monotonic())
        except CapRPCError as exc:
            # The relation refuses records from now on: every call on it fails closed and says so.
            _LOG.error("audit log: %s", exc)

    def _reload_or_log(self) -> None:
        try:
            self.reload()
        except CapRPCError as exc:
            _LOG.error("not reloaded, the last good configuration stays in force: %s", exc)

    def opened(self, connection: Connection) -> None:
        """WELCOME and HELLO have been exchanged."""
        if self._hooks is not None:
            self._hooks.opened(connection)

    def authenticated(self, connection: Connection) -> None:
        """The peer has proved who it is."""
        place = self._connections.get(connection)
        if place is not None:
            self._door.prove(place)

    def let_go(self, closers: list[Closer]) -> None:
        """The peer can name these no more: close them."""
        task = asyncio.get_running_loop().create_task(self.runner.let_go(closers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def ended(self, connection: Connection, event: Ended) -> None:
        """The connection is over: forget it."""
        place = self._connections.pop(connection, None)
        if place is not None:
            if self._hooks is not None:
                self._hooks.ended(connection, event)
            self._door.leave(place)


async def serve(
    roots: Mapping[str, object],
    address: str,
    *,
    identity: str | Path,
    policies: Policies,
    audit: str | Path | None = None,
    limits: ServerLimits = DEFAULT_SERVER_LIMITS,
    on_connect: OnConnect | None = None,
    on_disconnect: OnDisconnect | None = None,
    grants: Grants | None = None,
) -> None:
    """Serve roots on an address until ``SIGTERM`` or ``SIGINT``."""
    server = Server(
        roots,
        identity=identity,
        policies=policies,
        audit=audit,
        limits=limits,
        on_connect=on_connect,
        on_disconnect=on_disconnect,
        grants=grants,
    )
    try:
        server.listen(address)
    except BaseException:
        await server.stop()
        raise
    await server.serve_forever()
