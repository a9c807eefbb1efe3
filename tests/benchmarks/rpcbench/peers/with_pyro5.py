"""Pyro5 over mutual TLS, MessagePack serializer; callbacks go through a daemon in the client, as its manual says."""

import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import Pyro5.api
from Pyro5 import config

from rpcbench.cases import MIB, NAP_S, PAYLOAD
from rpcbench.peers.base import Announce, Client, Peer
from rpcbench.site import HOST, Identity, Site

_OBJECT: Final = "bench"
_THREADS: Final = 620
"""A connection holds a thread of the pool, and the idle case opens five hundred."""


def _configure(own: Identity) -> None:
    """Pyro takes its TLS settings from one global object; callbacks need both roles on both sides."""
    config.SERIALIZER = "msgpack"
    config.SSL = True
    config.SSL_REQUIRECLIENTCERT = True
    config.SSL_CACERTS = str(own.anchors)
    config.SSL_SERVERCERT, config.SSL_SERVERKEY = str(own.certificate), str(own.key)
    config.SSL_CLIENTCERT, config.SSL_CLIENTKEY = str(own.certificate), str(own.key)
    config.SOCK_NODELAY = True
    config.THREADPOOL_SIZE = _THREADS


@Pyro5.api.expose
class Service:
    def noop(self) -> None:
        return None

    def echo(self, value: object) -> object:
        return value

    def callback(self, uri: str, number: int) -> int:
        result: int = _kept_proxy(uri).call(number)
        return result

    def items(self, count: int) -> Iterator[int]:
        return (number for number in range(count))

    def pieces(self, size: int) -> Iterator[bytes]:
        return (PAYLOAD for _ in range(size // MIB))

    def nap(self) -> None:
        time.sleep(NAP_S)

    def count_lines(self, uri: str) -> int:
        client = _kept_proxy(uri)
        count = 0
        for line in client.lines():
            client.ignore(line)
            count += 1
        return count


_local: Final = threading.local()
"""A Pyro proxy belongs to the thread that made it, and a connection to a thread of the server."""


def _kept_proxy(uri: str) -> Any:
    if getattr(_local, "uri", None) != uri:
        _local.uri = uri
        _local.proxy = Pyro5.api.Proxy(uri)
    return _local.proxy


def _serve(site: Site, announce: Announce) -> None:
    _configure(site.server)
    daemon = Pyro5.api.Daemon(host=HOST)
    daemon.register(Service(), objectId=_OBJECT)
    announce(int(daemon.locationStr.rpartition(":")[2]))
    daemon.requestLoop()


@Pyro5.api.expose
class Callbacks:
    def __init__(self, site: Site) -> None:
        self._site = site

    def call(self, number: int) -> int:
        return number + 1

    def lines(self) -> Iterator[str]:
        with self._site.lines.open(encoding="utf-8") as file:
            yield from file

    def ignore(self, line: str) -> None:
        """The function that is called for each line."""


class _Client(Client):
    def __init__(self, site: Site, port: int) -> None:
        _configure(site.client)
        self._site = site
        self._uri = f"PYRO:{_OBJECT}@{HOST}:{port}"
        self._proxy = Pyro5.api.Proxy(self._uri)
        self._daemon: Any = None
        self._callbacks = ""
        self._owner = threading.get_ident()

    def close(self) -> None:
        self._here()._pyroRelease()
        if self._daemon is not None:
            self._daemon.shutdown()

    def _here(self) -> Any:
        """The proxy, owned by the calling thread."""
        if self._owner != threading.get_ident():
            self._proxy._pyroClaimOwnership()
            self._owner = threading.get_ident()
        return self._proxy

    def _callback_uri(self) -> str:
        if self._daemon is None:
            self._daemon = Pyro5.api.Daemon(host=HOST)
            self._callbacks = str(self._daemon.register(Callbacks(self._site)))
            threading.Thread(target=self._daemon.requestLoop, daemon=True).start()
        return self._callbacks

    def noop(self) -> None:
        self._here().noop()

    def echo(self, value: dict[str, object]) -> object:
        return self._proxy.echo(value)

    def window_batch(self, calls: int) -> int:
        batch = Pyro5.api.BatchProxy(self._proxy)
        for _ in range(calls):
            batch.noop()
        return sum(1 for _ in batch())

    def callback(self, number: int) -> int:
        result: int = self._proxy.callback(self._callback_uri(), number)
        return result

    def iterate(self, count: int) -> int:
        total = 0
        for item in self._proxy.items(count):
            total += item
        return total

    def echo_bytes(self, data: bytes) -> bytes:
        result: bytes = self._proxy.echo(data)
        return result

    def stream(self, size: int) -> int:
        return sum(len(piece) for piece in self._proxy.pieces(size))

    def nap(self) -> None:
        self._here().nap()

    def count_lines(self) -> int:
        result: int = self._proxy.count_lines(self._callback_uri())
        return result


PEERS: Final = {"pyro5": Peer("Pyro5", _serve, connect=_Client)}
