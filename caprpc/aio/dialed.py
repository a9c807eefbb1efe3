"""One connection that we have made, on the loop that made it."""

import asyncio
import concurrent.futures.thread  # noqa: F401  # to_thread loads it at its first use: too late without descriptors
import inspect
import logging
import socket
import time
from collections.abc import Callable
from typing import Final

from caprpc.aio.caller import Caller
from caprpc.aio.connection import Connection
from caprpc.aio.dialing import dial
from caprpc.aio.rounds import Rounds
from caprpc.aio.runner import MethodRunner
from caprpc.errors import CapRPCError, ConnectRefused
from caprpc.objects.admission import Admission
from caprpc.objects.hooks import Hooks, Visit
from caprpc.objects.refusals import check_pin, refusal
from caprpc.objects.sides import Wish
from caprpc.session import Closer, Ended
from caprpc.sockets import AddressRoute, Route, address_of, not_connected

_LOG: Final = logging.getLogger("caprpc")

_CALLBACK_THREADS: Final = 16
READ_BUFFER_BYTES: Final = 256 * 1024


class Dialed:
    """A connection to a server that has proved who it is; owns its threads and the tasks that serve it."""

    connection: Connection

    def __init__(self, admission: Admission, on_end: Callable[["Dialed", Ended], None] | None = None) -> None:
        self._admission = admission
        self._on_end = on_end
        self.runner = MethodRunner(_CALLBACK_THREADS, "caprpc-callback")
        self.rounds = Rounds()
        self.buffer = memoryview(bytearray(READ_BUFFER_BYTES))
        self._state: asyncio.Future[Ended | None] = asyncio.get_running_loop().create_future()
        self.end: Ended | None = None
        self.opened_at = 0.0
        self._gone = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timekeeper: asyncio.Task[None] | None = None
        self._visit: Visit | None = None

    async def open(
        self, route: Route, wish: Wish, caller: Callable[[Connection, asyncio.AbstractEventLoop], Caller] = Caller
    ) -> None:
        """Dial, and return once both sides have accepted each other.

        Raises:
            ConnectRefused: Nobody listens there, or one side does not accept the other.
            Exception: What ``on_connect`` raised.
        """
        text = route.text
        opened = False
        try:
            async with asyncio.timeout(wish.timeout_s):
                await self._connect(route, wish, caller)
                ended = await self._state
                opened = ended is None
        except TimeoutError:
            raise ConnectRefused(
                f"{text}: no answer within {wish.timeout_s:g} s; is a CapRPC server running there?"
            ) from None
        except OSError as exc:
            raise not_connected(text, exc) from exc
        finally:
            # Also when the task is cancelled: nothing may stay behind.
            if not opened:
                if hasattr(self, "connection"):
                    self.connection.end("not opened")
                self.runner.close()
        if ended is not None:
            raise refusal(text, ended)
        try:
            check_pin(text, wish.policy, self.connection.link.session.opening.peer_policy)
            await self._let_in(wish.hooks)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the connection; everything that was obtained through it is dead. May be called twice."""
        if self.connection.caller.forked:
            # Neither its threads nor its socket are in a child.
            return
        if not self.connection.closed:
            self.connection.end("closed")
        try:
            await self._gone.wait()
            if self._timekeeper is not None:
                self._timekeeper.cancel()
                await asyncio.wait([self._timekeeper])
            await asyncio.gather(*self._tasks)
        finally:
            self.runner.close()

    async def _connect(
        self, route: Route, wish: Wish, caller: Callable[[Connection, asyncio.AbstractEventLoop], Caller]
    ) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(route, AddressRoute):
            sock = await dial(route.address)
        else:
            sock = await asyncio.to_thread(route.connect, wish.timeout_s)
            sock.setblocking(False)
        try:
            connection = self.connection = Connection(
                self._admission,
                self,
                acceptor=False,
                hostname=route.hostname,
                address=address_of(sock, route.text),
                expected=wish.expected,
                started=time.monotonic(),
                caller=caller,
            )
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        if sock.family == socket.AF_UNIX:
            await loop.create_unix_connection(lambda: connection, sock=sock)
        else:
            await loop.create_connection(lambda: connection, sock=sock)

    async def _let_in(self, hooks: Hooks | None) -> None:
        """Tell the application that the peer is there."""
        if hooks is None:
            return
        visit = self._visit = Visit(hooks, self.connection.link.session.peer)
        if self.end is not None:
            visit.ended(self.end)
        try:
            if visit.connects_on_loop:
                result = visit.connect()
            else:
                result = await asyncio.to_thread(visit.connect)
            if inspect.isawaitable(result):
                await result
        except BaseException as exc:
            visit.turned_away(exc)
            raise
        if visit.let_in():
            await self._disconnect(visit)

    async def _disconnect(self, visit: Visit) -> None:
        try:
            if visit.disconnects_on_loop:
                result = visit.disconnect()
            else:
                result = await asyncio.to_thread(visit.disconnect)
            if inspect.isawaitable(result):
                await result
        except (Exception, SystemExit) as exc:  # application code: the connection is over either way
            visit.failed_to_leave(exc)

    async def _keep_time(self) -> None:
        """Sync the audit log about once a second, beside the loop: it waits for the disk."""
        while not self._gone.is_set():
            await asyncio.sleep(1.0)
            await asyncio.to_thread(self._sync_log)

    def _sync_log(self) -> None:
        try:
            self._admission.tick(time.monotonic())
        except CapRPCError as exc:
            # The relation refuses records from now on: every call on it fails closed and says so.
            _LOG.error("audit log: %s", exc)

    def opened(self, _connection: Connection) -> None:
        """WELCOME and HELLO have been exchanged."""
        if not self._state.done():
            self.opened_at = time.monotonic()
            self._state.set_result(None)
            self._timekeeper = asyncio.get_running_loop().create_task(self._keep_time())

    def authenticated(self, _connection: Connection) -> None:
        """The peer has proved who it is."""

    def let_go(self, closers: list[Closer]) -> None:
        """The peer can name these no more: close them."""
        self._start(asyncio.get_running_loop().create_task(self.runner.let_go(closers)))

    def ended(self, _connection: Connection, event: Ended) -> None:
        """The connection is over."""
        self.end = event
        was_open = self.opened_at > 0.0
        if not self._state.done():
            self._state.set_result(event)
        visit = self._visit
        if visit is not None and visit.ended(event):
            self._start(asyncio.get_running_loop().create_task(self._disconnect(visit)))
        self._gone.set()
        if self._on_end is not None and was_open:
            self._on_end(self, event)

    def _start(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
