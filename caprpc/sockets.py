"""Sockets that both drivers make: listening, accepting within a budget, and connections that have not sent a byte."""

import contextlib
import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from caprpc.address import Address
from caprpc.errors import ConfigurationError, ConnectRefused
from caprpc.forks import FORKS

_MOST_GONE: Final = 16
"""Arrivals that have left again, of which no more are looked at before others have a turn: each is some 20 µs."""

_MOST_COME: Final = 16
"""Arrivals that are there, likewise: each is some 50 µs of work."""

BACKLOG: Final = 1024
"""Connections that the kernel holds for us while the accept budget is spent."""

_MODE: Final = 0o600
"""Of the file of a Unix socket: only processes of our own user (and root) may connect."""

_CREDENTIALS: Final = struct.Struct("iII")
"""``struct ucred``: process, user and group."""


class Arrival:
    """A connection that has not sent a byte: a socket and a time, until it does."""

    __slots__ = ("address", "host", "since", "sock")

    def __init__(self, sock: socket.socket, address: str, host: str, since: float) -> None:
        self.sock = sock
        self.address = address
        """For people, with the port."""
        self.host = host
        """Where it comes from; empty for a Unix socket."""
        self.since = since


class Route:
    """A way to one server: an address, or whatever else gives a connected socket each time that it is asked."""

    def __init__(self, text: str, hostname: str | None = None) -> None:
        """Take the way as a text for people, and what its certificate must be good for if that is a name."""
        self.text = text
        self.hostname = hostname

    def connect(self, timeout_s: float) -> socket.socket:
        """Return a socket that is connected.

        Raises:
            ConnectRefused: Nobody is there.
        """
        raise NotImplementedError

    @property
    def close_waits(self) -> bool:
        """Whether ``close`` may wait, so that a loop has it run on a thread."""
        return False

    def close(self) -> None:
        """Let go of what the way needs beside its socket; may be called twice."""


class AddressRoute(Route):
    """An address to dial."""

    def __init__(self, address: Address) -> None:
        super().__init__(str(address), address.host or None)
        self.address = address

    def connect(self, timeout_s: float) -> socket.socket:
        """Return a socket that is connected to the address."""
        return dial(self.address, timeout_s)


class SocketRoute(Route):
    """A socket that is connected already; it is good for one connection."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(arrival_of(sock, 0.0).address)
        self._sock: socket.socket | None = sock

    def connect(self, timeout_s: float) -> socket.socket:
        """Return the socket, once."""
        sock, self._sock = self._sock, None
        if sock is None:
            raise ConnectRefused(f"{self.text}: the socket was used before")
        sock.settimeout(timeout_s)
        return sock

    def close(self) -> None:
        """Close the socket if it was not used."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()


def listen(address: Address) -> socket.socket:
    """Return a listening, non-blocking socket.

    Raises:
        ConfigurationError: The address is in use, or not ours.
    """
    family = socket.AF_UNIX if address.path else (socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if address.path.startswith("\0"):
            sock.bind(address.path)
        elif address.path:
            _bind_path(sock, address.path)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        unknown = isinstance(exc, socket.gaierror)
        raise ConfigurationError(
            f"cannot listen on {address}: {exc.strerror or exc}",
            where="address",
            hint="give an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them"
            if unknown
            else "is another server running there? another port, or port 0 for any free one, may be given",
        ) from exc
    sock.setblocking(False)
    return FORKS.keep_from_children(sock)


def dial(address: Address, timeout_s: float) -> socket.socket:
    """Return a socket that is connected to an address.

    Raises:
        ConnectRefused: Nobody listens there.
    """
    try:
        if address.path:
            sock = _connected(socket.AF_UNIX, address.path, timeout_s)
        else:
            sock = _dial_host(address.host, address.port, timeout_s)
    except OSError as exc:
        raise not_connected(str(address), exc) from exc
    return FORKS.keep_from_children(sock)


def _dial_host(host: str, port: int, timeout_s: float) -> socket.socket:
    """Try each address of a host; ``socket.create_connection`` leaves its socket open if it is interrupted."""
    failures = []
    for family, _, _, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            return _connected(family, where, timeout_s)
        except OSError as exc:
            failures.append(exc)
    raise failures[0] if failures else OSError(f"{host} has no address")


def _connected(family: int, where: Any, timeout_s: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(where)
    except BaseException:
        # Also when the thread is interrupted.
        sock.close()
        raise
    return sock


def not_connected(address: str, exc: OSError) -> ConnectRefused:
    """Return what is raised where nobody listens."""
    reason = exc.strerror or str(exc)
    return ConnectRefused(f"cannot connect to {address}: {reason}; is the server running there?")


def bound_address(sock: socket.socket) -> str:
    """Return the address that a listening socket was given."""
    if sock.family == socket.AF_UNIX:
        return str(Address("", 0, _name_of(sock)))
    host, port = sock.getsockname()[:2]
    return str(Address(host, port))


def close_listener(sock: socket.socket) -> None:
    """Close a listening socket, and remove its path if it has one."""
    path = _name_of(sock) if sock.family == socket.AF_UNIX else ""
    sock.close()
    if path and not path.startswith("\0"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def accept(sock: socket.socket, wait: Callable[[float], float], paused: Callable[[float], None]) -> Iterator[Arrival]:
    """Accept what has come, as far as the budget goes; each arrival is to be counted before the next is asked for.

    Who has reset the connection meanwhile, or closed it without a word, costs the budget nothing.

    Args:
        sock: The listening socket.
        wait: Returns how long to wait before the next accept (monotonic seconds), 0.0 if it may be done now.
        paused: Called with the time until which nothing more is to be accepted.
    """
    gone = come = 0
    while gone < _MOST_GONE and come < _MOST_COME:
        now = time.monotonic()
        pause = wait(now)
        if pause:
            paused(now + pause)
            return
        try:
            connection, peer = sock.accept()
        except BlockingIOError:
            return
        except ConnectionAbortedError:
            continue
        except OSError:
            # No descriptors left (EMFILE and its like): look again later instead of spinning.
            paused(now + 0.1)
            return
        if is_gone(connection):
            connection.close()
            gone += 1
            continue
        come += 1
        host, text = (peer[0], f"{peer[0]}:{peer[1]}") if isinstance(peer, tuple) else ("", credentials(connection))
        yield Arrival(FORKS.keep_from_children(connection), text, host, now)


def is_gone(sock: socket.socket) -> bool:
    """Whether the other side has reset, or has left without a word: that needs no connection of ours to find out."""
    try:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            # What it said before the reset could still be read.
            return True
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def arrival_of(sock: socket.socket, now: float) -> Arrival:
    """Return a connected socket, such as an inherited one, as if it had just been accepted.

    Raises:
        ConfigurationError: It is not a connected stream socket.
    """
    try:
        peer = sock.getpeername()
        stream = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    except OSError as exc:
        raise ConfigurationError(f"descriptor {sock.fileno()} is no connected socket: {exc.strerror}") from exc
    if not stream or sock.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        raise ConfigurationError(f"descriptor {sock.fileno()}: a stream socket expected, Unix or TCP")
    FORKS.keep_from_children(sock)
    if sock.family == socket.AF_UNIX:
        return Arrival(sock, credentials(sock), "", now)
    return Arrival(sock, f"{peer[0]}:{peer[1]}", peer[0], now)


def credentials(sock: socket.socket) -> str:
    """Return who is at the other end of a Unix socket, as the kernel knows: ``unix pid=4711 uid=1000 gid=1000``.

    Of the process that connected, or that made the pair, at that time (``SO_PEERCRED``, unix(7)).
    """
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return "unix"
    return "unix pid={} uid={} gid={}".format(*_CREDENTIALS.unpack(raw))


def address_of(sock: socket.socket, text: str) -> str:
    """Return the address of a socket that we have connected, with who serves it if that is known."""
    return f"{text} ({credentials(sock)})" if sock.family == socket.AF_UNIX else text


def _name_of(sock: socket.socket) -> str:
    name = sock.getsockname()
    return name.decode() if isinstance(name, bytes) else str(name)


def _bind_path(sock: socket.socket, path: str) -> None:
    """Listen on a path that nobody but our own user may connect to; a stale socket is replaced.

    The directory is locked meanwhile: of two servers that find the same stale socket, the second must not remove the
    first one's.
    """
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        _remove_stale(path)
        # Before it is bound: there is no moment at which others may connect.
        os.fchmod(sock.fileno(), _MODE)
        sock.bind(path)
        # Before the lock is given back: one that is bound and does not listen looks like a stale one.
        sock.listen(BACKLOG)
    finally:
        os.close(directory)


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that is gone; a live one, or another kind of file, is left alone."""
    try:
        if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
