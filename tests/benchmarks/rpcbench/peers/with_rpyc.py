"""RPyC: as it comes, and tuned (TCP_NODELAY on both sides, no compression)."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import rpyc
from rpyc.core.channel import Channel
from rpyc.core.stream import SocketStream
from rpyc.utils.authenticators import SSLAuthenticator
from rpyc.utils.server import ThreadedServer

from rpcbench.cases import MIB, NAP_S, PAYLOAD
from rpcbench.peers.base import Announce, Client, Peer
from rpcbench.site import HOST, Site

_CONFIG: Final = {"allow_public_attrs": True, "sync_request_timeout": None}
"""Public attributes are what lets the server iterate the client's file; RPyC's users set it."""


class _Service(rpyc.Service):  # type: ignore[misc]
    def exposed_noop(self) -> None:
        return None

    def exposed_echo(self, value: object) -> object:
        return value

    def exposed_callback(self, function: Callable[[int], int], number: int) -> int:
        return function(number)

    def exposed_items(self, count: int) -> Iterator[int]:
        return iter(range(count))

    def exposed_pieces(self, size: int) -> Iterator[bytes]:
        return (PAYLOAD for _ in range(size // MIB))

    def exposed_nap(self) -> None:
        time.sleep(NAP_S)

    def exposed_count_lines(self, fileobj: Any, function: Callable[[str], None]) -> int:
        count = 0
        for line in fileobj.readlines():
            function(line)
            count += 1
        return count


class _TunedServer(ThreadedServer):  # type: ignore[misc]
    """The library's server with the two settings that it offers no parameter for."""

    def _authenticate_and_serve_client(self, sock: socket.socket) -> None:
        _set_no_delay(sock)
        super()._authenticate_and_serve_client(sock)

    def _serve_client(self, sock: Any, credentials: object) -> None:
        config = dict(self.protocol_config, credentials=credentials, logger=self.logger)
        connection = self.service._connect(Channel(SocketStream(sock), compress=False), config)
        self._handle_connection(connection)


def _set_no_delay(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _serve(server_type: type[ThreadedServer], site: Site, announce: Announce) -> None:
    identity = site.server
    authenticator = SSLAuthenticator(identity.key, identity.certificate, ca_certs=identity.anchors)
    server = server_type(_Service, hostname=HOST, port=0, authenticator=authenticator, protocol_config=dict(_CONFIG))
    announce(server.port)
    server.start()


def _add_one(number: int) -> int:
    return number + 1


def _ignore(line: str) -> None:
    """The function that is called for each line."""


class _Client(Client):
    def __init__(self, connection: Any, site: Site) -> None:
        self._connection = connection
        self._site = site
        self._root = connection.root
        self._noop = self._root.noop
        self._noop_async = rpyc.async_(self._noop)

    def close(self) -> None:
        self._connection.close()

    def noop(self) -> None:
        self._noop()

    def echo(self, value: dict[str, object]) -> object:
        return self._root.echo(value)  # by reference: the content itself never crosses

    def window(self, calls: int) -> int:
        answers = [self._noop_async() for _ in range(calls)]
        for answer in answers:
            answer.wait()
        return len(answers)

    def callback(self, number: int) -> int:
        result: int = self._root.callback(_add_one, number)
        return result

    def iterate(self, count: int) -> int:
        total = 0
        for item in self._root.items(count):
            total += item
        return total

    def echo_bytes(self, data: bytes) -> bytes:
        result: bytes = self._root.echo(data)
        return result

    def stream(self, size: int) -> int:
        return sum(len(piece) for piece in self._root.pieces(size))

    def nap(self) -> None:
        self._root.nap()

    def count_lines(self) -> int:
        with self._site.lines.open(encoding="utf-8") as file:
            result: int = self._root.count_lines(file, _ignore)
        return result


def _connect(site: Site, port: int) -> Client:
    identity = site.client
    connection = rpyc.ssl_connect(
        HOST,
        port,
        keyfile=str(identity.key),
        certfile=str(identity.certificate),
        ca_certs=str(identity.anchors),
        config=dict(_CONFIG),
    )
    return _Client(connection, site)


def _connect_tuned(site: Site, port: int) -> Client:
    identity = site.client
    tls = {
        "keyfile": str(identity.key),
        "certfile": str(identity.certificate),
        "ca_certs": str(identity.anchors),
        "cert_reqs": ssl.CERT_REQUIRED,
    }
    stream = SocketStream.ssl_connect(HOST, port, tls, nodelay=True)
    connection = rpyc.connect_channel(Channel(stream, compress=False), config=dict(_CONFIG))
    return _Client(connection, site)


PEERS: Final = {
    "rpyc": Peer("RPyC", partial(_serve, ThreadedServer), connect=_connect),
    "rpyc-tuned": Peer("RPyC, NODELAY, no compression", partial(_serve, _TunedServer), connect=_connect_tuned),
}
