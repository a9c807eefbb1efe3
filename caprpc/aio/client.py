"""The asyncio client: ``caprpc.aio.connect``."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from caprpc.aio.awaitable import Awaited
from caprpc.aio.connection import Connection
from caprpc.aio.dialed import Dialed
from caprpc.aio.keeping import Keeper
from caprpc.children import ChildRoute
from caprpc.interface import shape_of
from caprpc.objects.admission import Admission
from caprpc.objects.hooks import Hooks, OnConnect, OnDisconnect
from caprpc.objects.reconnect import Reconnect
from caprpc.objects.refusals import presented
from caprpc.objects.sides import Policies, Wish, dialing
from caprpc.objects.stubs import Flavor
from caprpc.sockets import AddressRoute, Route, SocketRoute
from caprpc.sturdy import address_of

T = TypeVar("T")


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

    def __init__(self, *, identity: str | Path, policies: Policies, audit: str | Path | None = None) -> None:
        self._admission = dialing(identity, policies, audit)
        self._peers: set[Peer] = set()

    def connect(
        self,
        url: str,
        *,
        peer: str | None = None,
        timeout_s: float = 10.0,
        reconnect: bool | Reconnect = False,
        on_connect: OnConnect | None = None,
        on_disconnect: OnDisconnect | None = None,
        pin_policy: str | None = None,
    ) -> "Connecting":
        """Connect to a server; returns once it has proved its identity and accepted ours.

        Args:
            url: ``caprpc://host:port`` or ``unix:/path``; of a sturdy reference, where it leads.
            peer: The SPIFFE ID that must answer; by default any for which we have a policy.
            timeout_s: For all of it, in seconds.
            reconnect: Connect again after a loss, and ask again for the roots that are in use.
            on_connect: Called with the identity of the peer each time that it was reached, before it is used.
            on_disconnect: Called with the identity and a ``ConnectionLost`` each time that the connection has ended.
            pin_policy: The digest of the policy that the peer has promised to hold us to, ``sha256:...``.

        Raises:
            ConnectRefused: Nobody listens there, one side does not accept the other, or the policy is another.
            ConfigurationError: The URL names no address, or ``pin_policy`` is no digest.
        """
        wish = Wish(peer, timeout_s, Hooks.given(on_connect, on_disconnect), pin_policy)
        return self._connect(lambda: AddressRoute(address_of(url)), wish, Reconnect.given(reconnect))

    def connect_subprocess(
        self,
        command: Sequence[str],
        *,
        peer: str | None = None,
        timeout_s: float = 10.0,
        reconnect: bool | Reconnect = False,
        on_connect: OnConnect | None = None,
        on_disconnect: OnDisconnect | None = None,
    ) -> "Connecting":
        """Start a server of ours and connect to it over a socket pair, with mutual TLS like any other.

        ``command`` is the program and its arguments; ``{fd}`` in them is replaced by the descriptor that the process
        inherits, as in ``["caprpc", "serve", "service:roots", ..., "--fd", "{fd}"]``. It ends with the connection, and
        ``reconnect`` starts it again. All else is as for ``connect``.

        Raises:
            ConnectRefused: It cannot be started, or one side does not accept the other.
            ConfigurationError: The command does not say where the descriptor goes.
        """
        wish = Wish(peer, timeout_s, Hooks.given(on_connect, on_disconnect))
        return self._connect(lambda: ChildRoute(command), wish, Reconnect.given(reconnect))

    def adopt(self, sock: socket.socket, *, peer: str | None = None, timeout_s: float = 10.0) -> "Connecting":
        """Connect over a socket that is connected already; it belongs to the peer from now on.

        Raises:
            ConnectRefused: One side does not accept the other.
            ConfigurationError: It is not a connected stream socket.
        """
        return self._connect(lambda: SocketRoute(sock), Wish(peer, timeout_s, None), None)

    def _connect(self, route_of: Callable[[], Route], wish: Wish, plan: Reconnect | None) -> "Connecting":
        async def begin() -> Peer:
            route = route_of()
            connected = Peer(self._admission, route, self._peers.discard)
            try:
                await connected._open(wish, plan)
            except BaseException:
                await close_route(route)
                raise
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
        # Also when the task is cancelled on the way: nobody would close the rest.
        async with AsyncExitStack() as stack:
            stack.callback(self._admission.close)
            for peer in list(self._peers):
                stack.push_async_callback(peer.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Peer:
    """A server that has proved who it is; used on the loop that made it."""

    _keeper: Keeper | None
    _only: Dialed

    def __init__(self, admission: Admission, route: Route, on_close: Callable[["Peer"], object]) -> None:
        self._admission = admission
        self._route = route
        self._on_close = on_close

    def __repr__(self) -> str:
        return f"<peer {self.principal} at {self._route.text}>"

    @property
    def principal(self) -> str:
        """Who the peer is, as its certificate proves: ``spiffe://acme.example/counter``."""
        return self._connection.link.session.peer.principal

    @property
    def connection_id(self) -> str:
        """The connection's id, the same in the audit logs of both sides; another one after each reconnect."""
        return self._connection.link.session.opening.connection_id

    @property
    def policy_digest(self) -> str:
        """The digest of the policy that the peer held us to when we connected; empty if it announced none."""
        return self._connection.link.session.opening.peer_policy

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

    async def restore(self, uri: str, interface: Callable[..., T]) -> T:
        """Return what a sturdy reference stands for, as a reference that lives as long as this connection.

        Args:
            uri: ``caprpc://host:port/name#caprpc_sr_...``, as it was granted to us.
            interface: What it is expected to be.

        Raises:
            Denied: It is forged, mistyped, expired, revoked or of another holder; the peer does not tell which.
            CallRefused: It names another address than this connection goes to; nothing was sent.
            ConfigurationError: It is no sturdy reference.
            ResultError: It is of another interface.
            PolicyError: Our policies were reviewed for another version of the interface.
        """
        self._admission.check_contract(interface)
        name, secret = presented(uri, self._route.text)
        stub: T = await self._connection.caller.call_restore(name, secret, shape_of(interface), Flavor.ASYNC)
        return stub

    async def roots(self) -> dict[str, str]:
        """Return the name of each root that the peer grants us, with the name of its interface.

        The peer tells of none that it would refuse; none is made by asking.

        Raises:
            Denied: The peer grants us no root at all.
        """
        return await self._connection.caller.call_roots()

    async def close(self) -> None:
        """End the connection; everything that was obtained through it is dead. May be called twice."""
        async with AsyncExitStack() as stack:
            stack.callback(self._on_close, self)
            stack.push_async_callback(close_route, self._route)
            await (self._keeper if self._keeper is not None else self._only).close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open(self, wish: Wish, plan: Reconnect | None) -> None:
        self._keeper = None
        if plan is None:
            self._only = Dialed(self._admission)
            await self._only.open(self._route, wish)
        else:
            self._keeper = Keeper(self._admission, self._route, wish, plan)
            await self._keeper.open()

    @property
    def _connection(self) -> Connection:
        return self._keeper.current.connection if self._keeper is not None else self._only.connection


class Connecting(Awaited):
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

    def _what(self) -> str:
        return "caprpc.aio.connect()"


async def close_route(route: Route) -> None:
    """Let go of a way to a server; a process that has to end is waited for on a thread."""
    if route.close_waits:
        await asyncio.to_thread(route.close)
    else:
        route.close()


def connect(
    url: str,
    *,
    identity: str | Path,
    policies: Policies,
    audit: str | Path | None = None,
    peer: str | None = None,
    timeout_s: float = 10.0,
    reconnect: bool | Reconnect = False,
    on_connect: OnConnect | None = None,
    on_disconnect: OnDisconnect | None = None,
    pin_policy: str | None = None,
) -> Connecting:
    """Connect to a server with an identity and policies of our own; closing the peer closes the audit log, too.

    Await it for the peer, or write ``async with connect(...) as peer:``. A program that has several connections at a
    time makes them with one ``Client`` instead, because an audit log has one writer; its ``connect`` says what the
    other arguments are.

    Raises:
        ConnectRefused: Nobody listens there, or one side does not accept the other.
        ConfigurationError: URL, identity or policies are wrong.
        AuditError: The audit log cannot be written, or another process or client has it.
    """

    def dial(client: Client) -> Connecting:
        return client.connect(
            url,
            peer=peer,
            timeout_s=timeout_s,
            reconnect=reconnect,
            on_connect=on_connect,
            on_disconnect=on_disconnect,
            pin_policy=pin_policy,
        )

    return _owning(lambda: Client(identity=identity, policies=policies, audit=audit), dial)


def connect_subprocess(
    command: Sequence[str],
    *,
    identity: str | Path,
    policies: Policies,
    audit: str | Path | None = None,
    peer: str | None = None,
    timeout_s: float = 10.0,
    reconnect: bool | Reconnect = False,
    on_connect: OnConnect | None = None,
    on_disconnect: OnDisconnect | None = None,
) -> Connecting:
    """Start a server of ours and connect to it over a socket pair; ``Client.connect_subprocess`` says how.

    Raises:
        ConnectRefused: It cannot be started, or one side does not accept the other.
        ConfigurationError: Command, identity or policies are wrong.
        AuditError: The audit log cannot be written, or another process or client has it.
    """

    def dial(client: Client) -> Connecting:
        return client.connect_subprocess(
            command,
            peer=peer,
            timeout_s=timeout_s,
            reconnect=reconnect,
            on_connect=on_connect,
            on_disconnect=on_disconnect,
        )

    return _owning(lambda: Client(identity=identity, policies=policies, audit=audit), dial)


def _owning(make: Callable[[], Client], dial: Callable[[Client], Connecting]) -> Connecting:
    """Return the one connection of a client; closing its peer closes the client's audit log, too."""

    async def begin() -> Peer:
        client = make()
        try:
            connected = await dial(client)
        except BaseException:
            await client.close()
            raise
        connected._on_close = lambda _peer: client._admission.close()
        return connected

    return Connecting(begin)
