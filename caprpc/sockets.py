"""Sockets that both drivers make: listening, accepting within a budget, and connections that have not sent a byte."""

import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final

from caprpc.address import Address
from caprpc.errors import ConfigurationError, ConnectRefused

BACKLOG: Final = 1024
"""Connections that the kernel holds for us while the accept budget is spent."""


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


def listen(address: Address) -> socket.socket:
    """Return a listening, non-blocking socket.

    Raises:
        ConfigurationError: The address is in use, or not ours.
    """
    family = socket.AF_UNIX if address.path else (socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if address.path:
            _remove_stale(address.path)
            sock.bind(address.path)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise ConfigurationError(
            f"cannot listen on {address}: {reason}",
            where="address",
            hint="is another server running there? another port, or port 0 for any free one, may be given",
        ) from exc
    sock.setblocking(False)
    return sock


def dial(address: Address, timeout_s: float) -> socket.socket:
    """Return a socket that is connected to an address.

    Raises:
        ConnectRefused: Nobody listens there.
    """
    try:
        if not address.path:
            return socket.create_connection((address.host, address.port), timeout=timeout_s)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        raise not_connected(address, exc) from exc
    return sock


def not_connected(address: Address, exc: OSError) -> ConnectRefused:
    """Return what is raised where nobody listens."""
    reason = exc.strerror or str(exc)
    return ConnectRefused(f"cannot connect to {address}: {reason}; is the server running there?")


def bound_address(sock: socket.socket) -> str:
    """Return the address that a listening socket was given."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return str(Address(host, port))


def close_listener(sock: socket.socket) -> None:
    """Close a listening socket, and remove its path if it has one."""
    path = sock.getsockname() if sock.family == socket.AF_UNIX else ""
    sock.close()
    if path:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def accept(sock: socket.socket, wait: Callable[[float], float], paused: Callable[[float], None]) -> Iterator[Arrival]:
    """Accept what has come, as far as the budget goes; each arrival is to be counted before the next is asked for.

    Args:
        sock: The listening socket.
        wait: Returns how long to wait before the next accept (monotonic seconds), 0.0 if it may be done now.
        paused: Called with the time until which nothing more is to be accepted.
    """
    while True:
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
        host, text = (peer[0], f"{peer[0]}:{peer[1]}") if isinstance(peer, tuple) else ("", "unix")
        yield Arrival(connection, text, host, now)


def is_gone(sock: socket.socket) -> bool:
    """Whether the other side has left without a word: that needs no connection of ours to find out."""
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


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
