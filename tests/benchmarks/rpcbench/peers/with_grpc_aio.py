"""gRPC, its asyncio API on both sides."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio

from rpcbench.cases import MIB, NAP_S, PAYLOAD
from rpcbench.peers import grpc_service as service
from rpcbench.peers.base import Announce, AsyncClient, Peer
from rpcbench.site import HOST, Site

_Context = Any


async def _noop(request: bytes, context: _Context) -> bytes:
    return service.NOTHING


async def _echo(request: object, context: _Context) -> object:
    return request


async def _nap(request: bytes, context: _Context) -> bytes:
    await asyncio.sleep(NAP_S)
    return service.NOTHING


async def _items(request: int, context: _Context) -> AsyncIterator[int]:
    for number in range(request):
        yield number


async def _pieces(request: int, context: _Context) -> AsyncIterator[bytes]:
    for _ in range(request // MIB):
        yield PAYLOAD


async def _callback(requests: AsyncIterator[int], context: _Context) -> AsyncIterator[int]:
    """The first request is the argument; we send it back as a question, and the answer to that as the result."""
    yield await anext(requests)
    yield await anext(requests)


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


async def _serve_on_loop(site: Site, announce: Announce) -> None:
    server = grpc.aio.server(options=service.OPTIONS)
    server.add_generic_rpc_handlers((_handlers(),))
    announce(server.add_secure_port(f"{HOST}:0", service.server_credentials(site)))
    await server.start()
    await server.wait_for_termination()


def _serve(site: Site, announce: Announce) -> None:
    asyncio.run(_serve_on_loop(site, announce))


class _Client(AsyncClient):
    def __init__(self, site: Site, port: int) -> None:
        credentials = service.channel_credentials(site)
        self._channel = grpc.aio.secure_channel(f"{HOST}:{port}", credentials, options=service.OPTIONS)
        self._noop = self._method("noop", service.raw, service.raw)
        self._echo = self._method("echo", service.pack, service.unpack)
        self._echo_bytes = self._method("echo_bytes", service.raw, service.raw)
        self._nap = self._method("nap", service.raw, service.raw)

    def _method(self, name: str, serializer: Any, deserializer: Any) -> Any:
        return self._channel.unary_unary(service.path(name), serializer, deserializer)

    async def close(self) -> None:
        await self._channel.close()

    async def noop(self) -> None:
        await self._noop(service.NOTHING)

    async def echo(self, value: dict[str, object]) -> object:
        return await self._echo(value)

    async def window(self, calls: int) -> int:
        answers = [self._noop(service.NOTHING) for _ in range(calls)]
        for answer in answers:
            await answer
        return len(answers)

    async def callback(self, number: int) -> int:
        stream = self._channel.stream_stream(service.path("callback"), service.pack, service.unpack)()
        await stream.write(number)
        await stream.write(await stream.read() + 1)
        result: int = await stream.read()
        stream.cancel()
        return result

    async def iterate(self, count: int) -> int:
        total = 0
        async for item in self._channel.unary_stream(service.path("items"), service.pack, service.unpack)(count):
            total += item
        return total

    async def echo_bytes(self, data: bytes) -> bytes:
        result: bytes = await self._echo_bytes(data)
        return result

    async def stream(self, size: int) -> int:
        received = 0
        async for piece in self._channel.unary_stream(service.path("pieces"), service.pack, service.raw)(size):
            received += len(piece)
        return received

    async def nap(self) -> None:
        await self._nap(service.NOTHING)


async def _connect(site: Site, port: int) -> AsyncClient:
    return _Client(site, port)


PEERS: Final = {"grpc-aio": Peer("gRPC asyncio", _serve, connect_async=_connect)}
