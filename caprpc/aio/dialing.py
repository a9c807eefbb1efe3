"""Sockets that a loop connects by itself: like all of ours, they are closed in a child that is forked."""

import asyncio
import socket
from typing import Any, Final

from caprpc.address import Address
from caprpc.forks import FORKS

_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


async def dial(address: Address) -> socket.socket:
    """Return a socket that is connected to an address; of a name each of its addresses is tried.

    Not by ``create_connection``, which makes the socket itself and shows no more than a stand-in for it: a child that
    is forked would keep it, and send on it what its parent has encrypted.

    Raises:
        OSError: Nobody listens there, or there is no such name.
    """
    if address.path:
        return await _connected(socket.AF_UNIX, address.path)
    failures = []
    for family, _, _, _, where in await _addresses_of(address):
        try:
            return await _connected(family, where)
        except OSError as exc:
            failures.append(exc)
    raise failures[0] if failures else OSError(f"{address.host} has no address")


async def _addresses_of(address: Address) -> list[Any]:
    """Look a name up on a thread; an address in numbers needs none."""
    host, port = address.host, address.port
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=_NUMERIC)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _connected(family: int, where: Any) -> socket.socket:
    sock = FORKS.keep_from_children(socket.socket(family, socket.SOCK_STREAM))
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        # Also when the task is cancelled.
        sock.close()
        raise
    return sock
