"""The floor: length-prefixed bytes echoed over ``ssl`` and blocking sockets, a thread for each connection.

No RPC system over the same TLS can do less, so every other number is a ratio to this one.
"""

import asyncio
import socket
import ssl
import threading
import time
from functools import lru_cache
from typing import Final

from rpcbench.cases import MIB, NAP_S, PAYLOAD, SMALL_DICT_BYTES
from rpcbench.contexts import client_context, server_context
from rpcbench.peers.base import Announce, AsyncClient, Client, Peer
from rpcbench.site import HOST, Site

_HEAD: Final = 4
_ECHO: Final = b"e"
_NAP: Final = b"n"
_STREAM: Final = b"s"
_NOOP: Final = (20).to_bytes(_HEAD, "big") + _ECHO + bytes(19)
"""As long as CapRPC's smallest call."""
_SMALL: Final = (1 + SMALL_DICT_BYTES).to_bytes(_HEAD, "big") + _ECHO + bytes(SMALL_DICT_BYTES)
_READ: Final = 256 * 1024


def _serve(site: Site, announce: Announce) -> None:
    context = server_context(site)
    with socket.create_server((HOST, 0), backlog=512) as listener:
        announce(listener.getsockname()[1])
        while True:
            raw, _ = listener.accept()
            threading.Thread(target=_serve_connection, args=(context, raw), daemon=True).start()


def _serve_connection(context: ssl.SSLContext, raw: socket.socket) -> None:
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        with context.wrap_socket(raw, server_side=True) as connection:
            pending = b""
            while data := connection.recv(_READ):
                pending = _answer(connection, pending + data if pending else data)
    except OSError:
        return


def _answer(connection: ssl.SSLSocket, data: bytes) -> bytes:
    """Answer the complete frames in ``data`` with one send; return the incomplete rest."""
    end = 0
    size = len(data)
    while size - end >= _HEAD:
        length = int.from_bytes(data[end : end + _HEAD], "big")
        if size - end < _HEAD + length:
            if length > _READ:
                connection.sendall(_read_large(connection, data[end:], _HEAD + length))
                return b""
            break
        kind = data[end + _HEAD : end + _HEAD + 1]
        if kind == _NAP:
            time.sleep(NAP_S)
        elif kind == _STREAM:
            for _ in range(int.from_bytes(data[end + _HEAD + 1 : end + _HEAD + length], "big") // MIB):
                connection.sendall(PAYLOAD)
            return b""
        end += _HEAD + length
    if end:
        connection.sendall(data if end == size else data[:end])
    return data[end:]


def _read_large(connection: ssl.SSLSocket, start: bytes, size: int) -> bytearray:
    buffer = bytearray(size)
    buffer[: len(start)] = start
    view, filled = memoryview(buffer), len(start)
    while filled < size:
        count = connection.recv_into(view[filled:])
        if not count:
            raise ConnectionError("the client left in the middle of a frame")
        filled += count
    return buffer


@lru_cache(maxsize=1)
def _client_context(site: Site) -> ssl.SSLContext:
    return client_context(site)


class _Client(Client):
    def __init__(self, site: Site, port: int) -> None:
        raw = socket.create_connection((HOST, port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = _client_context(site).wrap_socket(raw, server_hostname=HOST)

    def close(self) -> None:
        self._socket.close()

    def _exchange(self, message: bytes) -> bytes:
        self._socket.sendall(message)
        size = len(message)
        data = self._socket.recv(_READ)
        while len(data) < size:
            data += self._socket.recv(_READ)
        return data

    def noop(self) -> None:
        self._exchange(_NOOP)

    def echo(self, value: dict[str, object]) -> object:
        self._exchange(_SMALL)
        return value

    def window_batch(self, calls: int) -> int:
        return len(self._exchange(_NOOP * calls)) // len(_NOOP)

    def window_coalesced(self, calls: int) -> int:
        return self.window_batch(calls)

    def window(self, calls: int) -> int:
        for _ in range(calls):
            self._socket.sendall(_NOOP)
        missing = calls * len(_NOOP)
        while missing:
            missing -= len(self._socket.recv(missing))
        return calls

    def echo_bytes(self, data: bytes) -> bytes:
        self._socket.sendall((1 + len(data)).to_bytes(_HEAD, "big") + _ECHO)
        self._socket.sendall(data)
        return bytes(memoryview(_read_large(self._socket, b"", _HEAD + 1 + len(data)))[_HEAD + 1 :])

    def stream(self, size: int) -> int:
        self._socket.sendall((9).to_bytes(_HEAD, "big") + _STREAM + size.to_bytes(8, "big"))
        buffer = bytearray(_READ)
        received = 0
        while received < size:
            received += self._socket.recv_into(buffer)
        return received

    def nap(self) -> None:
        self._exchange((1).to_bytes(_HEAD, "big") + _NAP)


class _AsyncClient(AsyncClient):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def close(self) -> None:
        self._writer.close()

    async def noop(self) -> None:
        self._writer.write(_NOOP)
        await self._reader.readexactly(len(_NOOP))

    async def nap(self) -> None:
        self._writer.write((1).to_bytes(_HEAD, "big") + _NAP)
        await self._reader.readexactly(_HEAD + 1)


async def _connect_async(site: Site, port: int) -> AsyncClient:
    reader, writer = await asyncio.open_connection(HOST, port, ssl=_client_context(site), server_hostname=HOST)
    return _AsyncClient(reader, writer)


PEERS: Final = {
    "floor": Peer("TLS echo (floor)", _serve, connect=_Client, connect_async=_connect_async),
}
