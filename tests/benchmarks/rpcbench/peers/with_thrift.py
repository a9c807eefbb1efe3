"""thriftpy2: threaded server, binary protocol, C transport, over our TLS contexts with TCP_NODELAY."""

# mypy: disable-error-code="no-untyped-call"
# thriftpy2 claims to be typed; most of its functions are not.

import socket
import ssl
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import thriftpy2
from thriftpy2.protocol import TCyBinaryProtocolFactory
from thriftpy2.rpc import make_client
from thriftpy2.server import TThreadedServer
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TCyBufferedTransportFactory, TSSLServerSocket

from rpcbench.cases import NAP_S
from rpcbench.contexts import client_context, server_context
from rpcbench.peers.base import Announce, Client, Peer
from rpcbench.site import HOST, Site

_TIMEOUT_MS: Final = 120_000
_SCHEMA: Final = """
struct Small { 1: i32 id, 2: string name, 3: double ratio, 4: bool ok }
service Bench {
    void noop(),
    Small echo(1: Small value),
    binary echo_bytes(1: binary data),
    void nap(),
}
"""


def _schema(site: Site) -> Any:
    return thriftpy2.load(str(_schema_path(site)), module_name="bench_thrift")


def _schema_path(site: Site) -> Path:
    return site.directory / "bench.thrift"


def _prepare(site: Site) -> None:
    _schema_path(site).write_text(_SCHEMA, encoding="utf-8")


class _Service:
    def noop(self) -> None:
        return None

    def echo(self, value: object) -> object:
        return value

    def echo_bytes(self, data: bytes) -> bytes:
        return data

    def nap(self) -> None:
        time.sleep(NAP_S)


class _ServerSocket(TSSLServerSocket):
    """The library's, with TCP_NODELAY, which it sets on the client's side only, and port 0 allowed."""

    def accept(self) -> Any:
        transport = super().accept()
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return transport


def _serve(site: Site, announce: Announce) -> None:
    port = _free_port()
    transport = _ServerSocket(HOST, port, client_timeout=_TIMEOUT_MS, backlog=512, ssl_context=server_context(site))
    server = TThreadedServer(
        TProcessor(_schema(site).Bench, _Service()),
        transport,
        iprot_factory=TCyBinaryProtocolFactory(),
        itrans_factory=TCyBufferedTransportFactory(),
        daemon=True,
    )
    transport.listen()
    announce(port)
    server.serve()


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


class _Client(Client):
    def __init__(self, site: Site, port: int) -> None:
        schema = _schema_of(site)
        self._small = schema.Small
        self._client = make_client(
            schema.Bench,
            HOST,
            port,
            proto_factory=TCyBinaryProtocolFactory(),
            trans_factory=TCyBufferedTransportFactory(),
            timeout=_TIMEOUT_MS,
            ssl_context=_client_context(site),
        )

    def close(self) -> None:
        self._client.close()

    def noop(self) -> None:
        self._client.noop()

    def echo(self, value: dict[str, object]) -> object:
        answer = self._client.echo(self._small(**value))
        return {"id": answer.id, "name": answer.name, "ratio": answer.ratio, "ok": answer.ok}

    def echo_bytes(self, data: bytes) -> bytes:
        result: bytes = self._client.echo_bytes(data)
        return result

    def nap(self) -> None:
        self._client.nap()


@lru_cache(maxsize=1)
def _client_context(site: Site) -> ssl.SSLContext:
    return client_context(site)


@lru_cache(maxsize=1)
def _schema_of(site: Site) -> Any:
    return _schema(site)


PEERS: Final = {"thrift": Peer("thriftpy2", _serve, connect=_Client, prepare=_prepare)}
