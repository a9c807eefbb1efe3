"""The asyncio client: ``caprpc.aio.connect``."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from caprpc.address import Address
from caprpc.aio.connection import Connection
from caprpc.aio.runner import MethodRunner, close_off_loop
from caprpc.errors import CapRPCError, ConnectRefused
from caprpc.ids import OP_SET
from caprpc.interface import shape_of
from caprpc.objects.admission import Admission
from caprpc.objects.refusals import refusal
from caprpc.objects.sides import dialing
from caprpc.objects.stubs import Flavor
from caprpc.objects.targets import plan_batch, stub_of, target_of
from caprpc.session import Closer, Ended

T = TypeVar("T")

_LOG: Final = logging.getLogger("caprpc")

_CALLBACK_THREADS: Final = 16
READ_BUFFER_BYTES: Final = 256 * 1024


class Client:
    """Our side of connections that we make: identity, policies and audit log, read once for all of them.

    Args:
        identity: Directory with our certificate, key, and the CAs we trust.
        policies: Directory with ``caprpc.toml`` and the policies it lists.
        audit: Directory of the audit log; by default the one that ``caprpc.toml`` names.

    Raises:
        ConfigurationError: Identity or policies are wrong.
        AuditError: The audit log cannot be written, or another process has it.
    """

    def __init__(self, *, identity: str | Path, policies: str | Path, audit: str | Path | None = None) -> None:
        self._admission = dialing(identity, policies, audit)
        self._peers: set[Peer] = set()

    def connect(self, url: str, *, peer: str | None = None, timeout_s: float = 10.0) -> "Connecting":
        """Connect to a server; returns once it has proved its identity and accepted ours.

        Args:
            url: ``caprpc://host:port`` or ``unix:/path``.
            peer: The SPIFFE ID that must answer; by default any for which we have a policy.
            timeout_s: For all of it, in seconds.

        Raises:
            ConnectRefused: Nobody listens there, or one side does not accept the other.
            ConfigurationError: The URL names no address.
        """

        async def begin() -> Peer:
            connected = Peer(self._admission, self._peers.discard)
            await connected._open(Address.parse(url), peer, timeout_s)
            self._peers.add(connected)
            return connected

        return Connecting(begin)

    def reload(self) -> str:
        """Read certificates, revocation lists and policies again."""
        said = self._admission.reload()
        for peer in list(self._peers):
            peer._connection.check_validity()
        return said

    async def close(self) -> None:
        """Close every connection and the audit log."""
        for peer in list(self._peers):
            await peer.close()
        self._admission.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Peer:
    """A connection to a server that has proved who it is; used on the loop that made it."""

    _connection: Connection

    def __init__(self, admission: Admission, on_close: Callable[["Peer"], object]) -> None:
        self._admission = admission
        self._on_close = on_close
        self.runner = MethodRunner(_CALLBACK_THREADS, "caprpc-callback")
        self.buffer = memoryview(bytearray(READ_BUFFER_BYTES))
        self._state: asyncio.Future[Ended | None] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._timekeeper: asyncio.Task[None] | None = None

    @property
    def principal(self) -> str:
        """Who the peer is, as its certificate proves: ``spiffe://acme.example/counter``."""
        return self._connection.link.session.peer.principal

    @property
    def connection_id(self) -> str:
        """The connection's id, the same in the audit logs of both sides."""
        return self._connection.link.session.opening.connection_id

    @property
    def one_way_failures(self) -> int:
        """How many one-way calls over this connection have failed."""
        return self._connection.caller.one_way.failures

    async def root(self, name: str, interface: Callable[..., T]) -> T:
        """Return the peer's root of that name; its members are awaited.

        Raises:
            Denied: The peer grants us no such root, or has none.
            ResultError: It is of another interface.
            PolicyError: Our policies were reviewed for another version of the interface.
        """
        self._admission.check_contract(interface)
        stub: T = await self._connection.caller.call_root(name, shape_of(interface), Flavor.ASYNC)
        return stub

    async def roots(self) -> dict[str, str]:
        """Return the name of each root that the peer grants us, with the name of its interface.

        The peer tells of none that it would refuse; none is made by asking.

        Raises:
            Denied: The peer grants us no root at all.
        """
        listed: dict[str, str] = await self._connection.caller.call_roots()
        return listed

    async def close(self) -> None:
        """End the connection; everything that was obtained through it is dead. May be called twice."""
        if not self._connection.closed:
            self._connection.end("closed")
        await self._gone.wait()
        if self._timekeeper is not None:
            self._timekeeper.cancel()
            await asyncio.wait([self._timekeeper])
        await asyncio.gather(*self._closing)
        self.runner.close()
        self._on_close(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open(self, address: Address, expected: str | None, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        connection = self._connection = Connection(
            self._admission,
            self,
            acceptor=False,
            hostname=address.host or None,
            address=str(address),
            expected=expected,
            started=time.monotonic(),
        )
        opened = False
        try:
            async with asyncio.timeout(timeout_s):
                if address.path:
                    transport, _ = await loop.create_unix_connection(lambda: connection, address.path)
                else:
                    transport, _ = await loop.create_connection(lambda: connection, address.host, address.port)
                    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ended = await self._state
                opened = ended is None
        except TimeoutError:
            raise ConnectRefused(
                f"{address}: no answer within {timeout_s:g} s; is a CapRPC server running there?"
            ) from None
        except OSError as exc:
            reason = exc.strerror or str(exc)
            raise ConnectRefused(f"cannot connect to {address}: {reason}; is the server running there?") from exc
        finally:
            # Also when the task is cancelled: nothing may stay behind.
            if not opened:
                connection.end("not opened")
                self.runner.close()
        if ended is not None:
            raise refusal(address, ended)

    def opened(self, _connection: Connection) -> None:
        """WELCOME and HELLO have been exchanged."""
        if not self._state.done():
            self._state.set_result(None)
            self._timekeeper = asyncio.get_running_loop().create_task(self._keep_time())

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

    def authenticated(self, _connection: Connection) -> None:
        """The peer has proved who it is."""

    def let_go(self, closers: list[Closer]) -> None:
        """The peer can name these no more: close them."""
        task = asyncio.get_running_loop().create_task(close_off_loop(closers))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def ended(self, _connection: Connection, event: Ended) -> None:
        """The connection is over."""
        if not self._state.done():
            self._state.set_result(event)
        self._gone.set()


class Connecting:
    """A connection that is being made: await it for the peer, or use it with ``async with``."""

    __slots__ = ("_begin", "_peer")

    _peer: Peer

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, Peer]]) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, None, Peer]:
        return self._begin().__await__()

    async def __aenter__(self) -> Peer:
        self._peer = await self._begin()
        return self._peer

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._peer.close()


def connect(
    url: str,
    *,
    identity: str | Path,
    policies: str | Path,
    audit: str | Path | None = None,
    peer: str | None = None,
    timeout_s: float = 10.0,
) -> Connecting:
    """Connect to a server with an identity and policies of our own; closing the peer closes the audit log, too.

    Await it for the peer, or write ``async with connect(...) as peer:``. A program that makes many connections reads
    everything once with ``Client`` instead.

    Raises:
        ConnectRefused: Nobody listens there, or one side does not accept the other.
        ConfigurationError: URL, identity or policies are wrong.
        AuditError: The audit log cannot be written, or another process has it.
    """

    async def begin() -> Peer:
        client = Client(identity=identity, policies=policies, audit=audit)
        try:
            connected = await client.connect(url, peer=peer, timeout_s=timeout_s)
        except BaseException:
            await client.close()
            raise
        connected._on_close = lambda _peer: client._admission.close()
        return connected

    return Connecting(begin)


def submit(method: Any, /, *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
    """Call a method of a reference without awaiting it: the awaitable that ``ref.method(...)`` returns anyway."""
    stub, target, member = target_of(method)
    future: asyncio.Future[Any] = stub._caprpc_call.__self__.call_async(target, member, args, kwargs)
    return future


async def oneway(method: Any, /, *args: Any, **kwargs: Any) -> None:
    """Call a method of a reference and wait for no answer.

    ``await oneway(log.write, line)`` returns once the call is on its way, which waits while the peer has no room for it
    (its ``limits.in_flight``). One that fails is logged as a warning and counted in ``Peer.one_way_failures``.

    Raises:
        CallRefused, Denied, ReferenceDead, TypeError: As for a call; nothing was sent.
    """
    stub, target, member = target_of(method)
    await stub._caprpc_call.__self__.oneway_async(target, member, args, kwargs)


async def batch(calls: Iterable[tuple[Any, tuple[Any, ...]]]) -> list[Any]:
    """Put many calls into one frame, and return all results.

    ``await batch((ledger.balance, (name,)) for name in names)``. Arguments and results are values. The calls run one
    after the other, in order; each is guarded and audited.

    Returns:
        The results in order; where a call failed, the exception that it would have raised.
    """
    owner, planned = plan_batch(calls)
    if owner is None:
        return []
    results: list[Any] = await owner.call_batch_async(planned)
    return results


async def set_attribute(reference: object, name: str, value: object) -> None:
    """Set an attribute of a remote object; an assignment cannot be awaited.

    Raises:
        AttributeError: The interface declares no writable attribute of that name.
    """
    stub = stub_of(reference)
    member = stub._caprpc_shape.members.get((OP_SET, name))
    if member is None:
        raise AttributeError(f"{stub._caprpc_shape.name} declares no writable attribute {name!r}")
    await stub._caprpc_call(stub._caprpc_import, member, (value,), {})


def release(reference: object) -> None:
    """Give a reference back now instead of when it is collected; using it afterwards raises ``ReferenceDead``."""
    stub = stub_of(reference)
    stub._caprpc_call.__self__.release(stub)
