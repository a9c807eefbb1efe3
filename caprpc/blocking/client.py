"""The blocking client: ``caprpc.connect`` and ``caprpc.Client``."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from caprpc.address import Address
from caprpc.blocking.async_methods import AsyncMethods
from caprpc.blocking.connection import Connection
from caprpc.blocking.futures import CallFuture
from caprpc.blocking.spare import Spare
from caprpc.blocking.workers import Workers
from caprpc.errors import CapRPCError, ConnectRefused
from caprpc.interface import shape_of
from caprpc.objects.admission import Admission
from caprpc.objects.refusals import refusal
from caprpc.objects.sides import dialing
from caprpc.objects.stubs import Flavor
from caprpc.objects.targets import plan_batch, stub_of, target_of
from caprpc.objects.work import AnyJob
from caprpc.session import Answer, BatchAnswer, Closer, Ended

_LOG: Final = logging.getLogger("caprpc")

T = TypeVar("T")

_CALLBACK_THREADS: Final = 16
"""Threads for callbacks that come while no thread of the application waits."""


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
        self._lock = threading.Lock()

    def connect(self, url: str, *, peer: str | None = None, timeout_s: float = 10.0) -> "Peer":
        """Connect to a server; returns once it has proved its identity and accepted ours.

        Args:
            url: ``caprpc://host:port`` or ``unix:/path``.
            peer: The SPIFFE ID that must answer; by default any for which we have a policy.
            timeout_s: For all of it, in seconds.

        Raises:
            ConnectRefused: Nobody listens there, or one side does not accept the other.
            ConfigurationError: The URL names no address.
        """
        connected = Peer(self._admission, Address.parse(url), peer, timeout_s, self._forget)
        with self._lock:
            self._peers.add(connected)
        return connected

    def reload(self) -> str:
        """Read certificates, revocation lists and policies again."""
        said = self._admission.reload()
        for peer in list(self._peers):
            peer._check_validity()
        return said

    def close(self) -> None:
        """Close every connection and the audit log."""
        for peer in list(self._peers):
            peer.close()
        self._admission.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _forget(self, peer: "Peer") -> None:
        with self._lock:
            self._peers.discard(peer)


class Peer:
    """A connection to a server that has proved who it is. Any thread may use it and the references it gives."""

    def __init__(
        self,
        admission: Admission,
        address: Address,
        expected: str | None,
        timeout_s: float,
        on_close: Callable[["Peer"], None],
    ) -> None:
        self._admission = admission
        self._on_close = on_close
        self._workers = Workers(_CALLBACK_THREADS, "caprpc-callback")
        self._async_methods = AsyncMethods()
        self._opened = False
        self._ended: Ended | None = None
        deadline = time.monotonic() + timeout_s
        sock = _dial(address, timeout_s)
        self._connection = Connection(
            sock,
            admission,
            self,
            acceptor=False,
            hostname=address.host or None,
            address=str(address),
            expected=expected,
        )
        self._spare = Spare(self._connection, lambda now: _keep_log(admission, now))
        try:
            self._open(address, deadline)
        except BaseException:
            self.close()
            raise
        self._spare.start()

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

    def root(self, name: str, interface: Callable[..., T]) -> T:
        """Return the peer's root of that name.

        Raises:
            Denied: The peer grants us no such root, or has none.
            ResultError: It is of another interface.
            PolicyError: Our policies were reviewed for another version of the interface.
        """
        self._admission.check_contract(interface)
        stub: T = self._connection.caller.call_root(name, shape_of(interface), Flavor.BLOCKING)
        return stub

    def roots(self) -> dict[str, str]:
        """Return the name of each root that the peer grants us, with the name of its interface.

        The peer tells of none that it would refuse; none is made by asking.

        Raises:
            Denied: The peer grants us no root at all.
        """
        listed: dict[str, str] = self._connection.caller.call_roots()
        return listed

    @contextmanager
    def coalesce(self) -> Iterator[None]:
        """Send the calls that ``submit`` makes in the block together, when the block ends."""
        self._connection.caller.cork()
        try:
            yield
        finally:
            self._connection.caller.uncork()

    def close(self) -> None:
        """End the connection; everything that was obtained through it is dead. May be called twice."""
        connection = self._connection
        with connection.lock:
            futures = connection.end("closed") if self._ended is None else []
        for future in futures:
            future.notify()
        connection.wire.close()
        self._spare.join()
        self._workers.close(1.0)
        self._async_methods.close()
        self._on_close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, address: Address, deadline: float) -> None:
        connection = self._connection
        with connection.lock:
            connection.flush()
        while not self._opened and self._ended is None:
            data = connection.wire.read(deadline)
            with connection.lock:
                if data is not None:
                    connection.take(data)
                elif time.monotonic() >= deadline:
                    connection.end(f"no answer from {address} in time")
        if self._ended is not None:
            raise refusal(address, self._ended)

    def _check_validity(self) -> None:
        with self._connection.lock:
            futures = self._connection.check_validity()
        for future in futures:
            future.notify()

    def dispatch(self, connection: Connection) -> None:
        """Run what is in ``connection.pending``, in order, on a callback thread."""
        if not connection.in_pool and not connection.congested:
            connection.in_pool = True
            connection.flush()
            self._workers.submit(lambda: self._run_pending(connection))

    def released(self, connection: Connection) -> None:
        """No thread reads the connection now: the spare finds out by itself, at once if somebody waits for that."""
        if connection.attended:
            self._spare.nudge()

    def claimed(self, _connection: Connection) -> None:
        """A waiting thread reads the connection now."""

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
        self._ended = event

    def _run_pending(self, connection: Connection) -> None:
        with connection.lock:
            connection.in_pool = False
            if not connection.pending or connection.congested:
                return
            job = connection.pending.pop(0)
            if connection.pending:
                self.dispatch(connection)
        connection.run(job)


def connect(
    url: str,
    *,
    identity: str | Path,
    policies: str | Path,
    audit: str | Path | None = None,
    peer: str | None = None,
    timeout_s: float = 10.0,
) -> Peer:
    """Connect to a server with an identity and policies of our own; closing the peer closes the audit log, too.

    A program that makes many connections reads everything once with ``Client`` instead.

    Raises:
        ConnectRefused: Nobody listens there, or one side does not accept the other.
        ConfigurationError: URL, identity or policies are wrong.
        AuditError: The audit log cannot be written, or another process has it.
    """
    client = Client(identity=identity, policies=policies, audit=audit)
    try:
        connected = client.connect(url, peer=peer, timeout_s=timeout_s)
    except BaseException:
        client.close()
        raise
    connected._on_close = lambda _peer: client._admission.close()
    return connected


def submit(method: Any, /, *args: Any, **kwargs: Any) -> CallFuture:
    """Call a method of a reference without waiting: ``submit(ledger.balance, "A").result()``."""
    stub, target, member = target_of(method)
    future: CallFuture = stub._caprpc_call.__self__.start(target, member, args, kwargs)
    return future


def oneway(method: Any, /, *args: Any, **kwargs: Any) -> None:
    """Call a method of a reference and wait for no answer: ``oneway(log.write, line)``.

    It returns once the call is sent, which waits while the peer has no room for it (its ``limits.in_flight``): so many
    one-way calls are under way at most. One that fails is logged as a warning and counted in
    ``Peer.one_way_failures``; whether it has run is not known before a later call on the connection is answered.

    Raises:
        CallRefused, Denied, ReferenceDead, TypeError: As for a call; nothing was sent.
    """
    stub, target, member = target_of(method)
    stub._caprpc_call.__self__.oneway(target, member, args, kwargs)


def batch(calls: Iterable[tuple[Any, tuple[Any, ...]]]) -> list[Any]:
    """Put many calls into one frame, and return all results.

    ``batch((ledger.balance, (name,)) for name in names)``. Arguments and results are values. The calls run one after
    the other, in order; each is guarded and audited.

    Returns:
        The results in order; where a call failed, the exception that it would have raised.
    """
    owner, planned = plan_batch(calls)
    if owner is None:
        return []
    results: list[Any] = owner.call_batch(planned)
    return results


def release(reference: object) -> None:
    """Give a reference back now instead of when it is collected; using it afterwards raises ``ReferenceDead``."""
    stub = stub_of(reference)
    stub._caprpc_call.__self__.release(stub)


def _keep_log(admission: Admission, now: float) -> None:
    """Make the audit log last over a power cut, and say what expires soon."""
    try:
        admission.tick(now)
    except CapRPCError as exc:
        # The relation refuses records from now on: every call on it fails closed and says so.
        _LOG.error("audit log: %s", exc)


def _dial(address: Address, timeout_s: float) -> socket.socket:
    try:
        if address.path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(timeout_s)
            sock.connect(address.path)
        else:
            sock = socket.create_connection((address.host, address.port), timeout=timeout_s)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise ConnectRefused(f"cannot connect to {address}: {reason}; is the server running there?") from exc
    return sock
