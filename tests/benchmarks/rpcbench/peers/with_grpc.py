"""gRPC, its blocking API on both sides; a callback is a bidirectional stream on which the server asks."""

import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

from rpcbench.cases import CROWD, MIB, NAP_S, PAYLOAD
from rpcbench.peers import grpc_service as service
from rpcbench.peers.base import Announce, Client, Peer
from rpcbench.site import HOST, Site

_THREADS: Final = CROWD + 14
"""Enough for fifty sleeping methods and the one beside them."""


def _noop(request: bytes, context: grpc.ServicerContext) -> bytes:
    return service.NOTHING


def _echo(request: object, context: grpc.ServicerContext) -> object:
    return request


def _nap(request: bytes, context: grpc.ServicerContext) -> bytes:
    time.sleep(NAP_S)
    return service.NOTHING


def _items(request: int, context: grpc.ServicerContext) -> Iterator[int]:
    yield from range(request)


def _pieces(request: int, context: grpc.ServicerContext) -> Iterator[bytes]:
    for _ in range(request // MIB):
        yield PAYLOAD


def _callback(requests: Iterator[int], context: grpc.ServicerContext) -> Iterator[int]:
    """The first request is the argument; we send it back as a question, and the answer to that as the result."""
    yield next(requests)
    yield next(requests)


def _handlers() -> grpc.GenericRpcHandler:
    unary, streaming = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    return grpc.method_handlers_generic_handler(
        service.SERVICE,
        {
            "noop": unary(_noop, service.raw, service.raw),
            "echo": unary(_echo, service.unpack, service.pack),
            "echo_bytes": unary(_echo, service.raw, service.raw),
            "nap": unary(_nap, service.raw, service.raw),
            "items": streaming(_items, service.unpack, service.pack),
            "pieces": streaming(_pieces, service.unpack, service.raw),
            "callback": grpc.stream_stream_rpc_method_handler(_callback, service.unpack, service.pack),
        },
    )


def _serve(site: Site, announce: Announce) -> None:
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=service.OPTIONS)
    server.add_generic_rpc_handlers((_handlers(),))
    announce(server.add_secure_port(f"{HOST}:0", service.server_credentials(site)))
    server.start()
    server.wait_for_termination()


class _Client(Client):
    def __init__(self, site: Site, port: int) -> None:
        credentials = service.channel_credentials(site)
        self._channel = grpc.secure_channel(f"{HOST}:{port}", credentials, options=service.OPTIONS)
        self._noop = self._method("noop", service.raw, service.raw)
        self._echo = self._method("echo", service.pack, service.unpack)
        self._echo_bytes = self._method("echo_bytes", service.raw, service.raw)
        self._nap = self._method("nap", service.raw, service.raw)

    def _method(self, name: str, serializer: Any, deserializer: Any) -> Any:
        return self._channel.unary_unary(service.path(name), serializer, deserializer)

    def close(self) -> None:
        self._channel.close()

    def noop(self) -> None:
        self._noop(service.NOTHING)

    def echo(self, value: dict[str, object]) -> object:
        return self._echo(value)

    def window(self, calls: int) -> int:
        answers = [self._noop.future(service.NOTHING) for _ in range(calls)]
        for answer in answers:
            answer.result()
        return len(answers)

    def callback(self, number: int) -> int:
        requests: queue.SimpleQueue[int] = queue.SimpleQueue()
        requests.put(number)
        method = self._channel.stream_stream(service.path("callback"), service.pack, service.unpack)
        answers = method(iter(requests.get, None))
        requests.put(next(answers) + 1)
        result: int = next(answers)
        answers.cancel()
        return result

    def iterate(self, count: int) -> int:
        total = 0
        for item in self._channel.unary_stream(service.path("items"), service.pack, service.unpack)(count):
            total += item
        return total

    def echo_bytes(self, data: bytes) -> bytes:
        result: bytes = self._echo_bytes(data)
        return result

    def stream(self, size: int) -> int:
        pieces = self._channel.unary_stream(service.path("pieces"), service.pack, service.raw)(size)
        return sum(len(piece) for piece in pieces)

    def nap(self) -> None:
        self._nap(service.NOTHING)


PEERS: Final = {"grpc": Peer("gRPC", _serve, connect=_Client)}
