"""pycapnp over TLS: its asyncio streams on both sides (it has no others since version 2)."""

import asyncio
import ssl
from collections.abc import Coroutine
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import capnp

from rpcbench.cases import MIB, NAP_S, PAYLOAD
from rpcbench.contexts import client_context, server_context
from rpcbench.peers.base import Announce, AsyncClient, Peer
from rpcbench.site import HOST, Site

_SCHEMA: Final = """
@0xb3f1c2a5d4e69788;
struct Small { id @0 :Int32; name @1 :Text; ratio @2 :Float64; ok @3 :Bool; }
interface Function { call @0 (number :Int64) -> (number :Int64); }
interface Sink { write @0 (data :Data) -> (); }
interface TextFile { line @0 () -> (line :Text, end :Bool); }
interface LineFunction { call @0 (line :Text) -> (); }
interface Items { next @0 () -> (item :Int64, end :Bool); }
interface Bench {
    noop @0 () -> ();
    echo @1 (value :Small) -> (value :Small);
    echoBytes @2 (data :Data) -> (data :Data);
    nap @3 () -> ();
    callback @4 (function :Function, number :Int64) -> (number :Int64);
    stream @5 (size :UInt64, sink :Sink) -> ();
    items @7 (count :Int64) -> (items :Items);
    countLines @6 (file :TextFile, function :LineFunction) -> (count :Int64);
}
"""
PAYLOADS_IN_FLIGHT: Final = 8


def _schema(site: Site) -> Any:
    return capnp.load(str(_schema_path(site)))


def _schema_path(site: Site) -> Path:
    return site.directory / "bench.capnp"


def _prepare(site: Site) -> None:
    _schema_path(site).write_text(_SCHEMA, encoding="utf-8")


async def _serve_on_loop(site: Site, announce: Announce) -> None:
    schema = _schema(site)

    class Numbers(schema.Items.Server):  # type: ignore[misc, name-defined]
        def __init__(self, count: int) -> None:
            self._numbers = iter(range(count))

        async def next(self, _context: Any, **rest: object) -> None:
            for number in self._numbers:
                _context.results.item = number
                return
            _context.results.end = True

    class Service(schema.Bench.Server):  # type: ignore[misc, name-defined]
        async def noop(self, **rest: object) -> None:
            return None

        async def echo(self, value: Any, **rest: object) -> Any:
            return value

        async def echoBytes(self, data: bytes, **rest: object) -> bytes:
            return data

        async def nap(self, **rest: object) -> None:
            await asyncio.sleep(NAP_S)

        async def callback(self, function: Any, number: int, **rest: object) -> int:
            result: int = (await function.call(number)).number
            return result

        async def stream(self, size: int, sink: Any, **rest: object) -> None:
            under_way: list[Any] = []
            for _ in range(size // MIB):
                under_way.append(sink.write(PAYLOAD))
                if len(under_way) == PAYLOADS_IN_FLIGHT:
                    await under_way.pop(0)
            for each in under_way:
                await each

        async def items(self, count: int, **rest: object) -> Any:
            return Numbers(count)

        async def countLines(self, file: Any, function: Any, **rest: object) -> int:
            count = 0
            while not (answer := await file.line()).end:
                await function.call(answer.line)
                count += 1
            return count

    async def serve_connection(stream: Any) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=Service()).on_disconnect()

    server = await capnp.AsyncIoStream.create_server(serve_connection, HOST, 0, ssl=server_context(site), backlog=512)
    announce(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


def _serve(site: Site, announce: Announce) -> None:
    _run(_serve_on_loop(site, announce))


class _Client(AsyncClient):
    def __init__(self, site: Site, schema: Any, stream: Any) -> None:
        self._site = site
        self._schema = schema
        self._stream = stream
        self._client = capnp.TwoPartyClient(stream)
        self._bench = self._client.bootstrap().cast_as(schema.Bench)

    async def close(self) -> None:
        self._stream.close()

    async def noop(self) -> None:
        await self._bench.noop()

    async def echo(self, value: dict[str, object]) -> object:
        answer = (await self._bench.echo(value)).value
        return {"id": answer.id, "name": answer.name, "ratio": answer.ratio, "ok": answer.ok}

    async def window(self, calls: int) -> int:
        answers = [self._bench.noop() for _ in range(calls)]
        for answer in answers:
            await answer
        return len(answers)

    async def callback(self, number: int) -> int:
        class AddOne(self._schema.Function.Server):  # type: ignore[misc, name-defined]
            async def call(self, number: int, **rest: object) -> int:
                return number + 1

        result: int = (await self._bench.callback(AddOne(), number)).number
        return result

    async def iterate(self, count: int) -> int:
        items = (await self._bench.items(count)).items
        total = 0
        while not (answer := await items.next()).end:
            total += answer.item
        return total

    async def echo_bytes(self, data: bytes) -> bytes:
        result: bytes = (await self._bench.echoBytes(data)).data
        return result

    async def stream(self, size: int) -> int:
        class Sink(self._schema.Sink.Server):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                self.received = 0

            async def write(self, data: bytes, **rest: object) -> None:
                self.received += len(data)

        sink = Sink()
        await self._bench.stream(size, sink)
        return sink.received

    async def nap(self) -> None:
        await self._bench.nap()

    async def count_lines(self) -> int:
        class TextFile(self._schema.TextFile.Server):  # type: ignore[misc, name-defined]
            def __init__(self, lines: Any) -> None:
                self._lines = lines

            async def line(self, _context: Any, **rest: object) -> None:
                text = self._lines.readline()
                _context.results.line = text
                _context.results.end = not text

        class Ignore(self._schema.LineFunction.Server):  # type: ignore[misc, name-defined]
            async def call(self, line: str, **rest: object) -> None:
                """The function that is called for each line."""

        with self._site.lines.open(encoding="utf-8") as file:
            result: int = (await self._bench.countLines(TextFile(file), Ignore())).count
        return result


async def _connect(site: Site, port: int) -> AsyncClient:
    stream = await capnp.AsyncIoStream.create_connection(HOST, port, ssl=_client_context(site), server_hostname=HOST)
    return _Client(site, _schema_of(site), stream)


@lru_cache(maxsize=1)
def _client_context(site: Site) -> ssl.SSLContext:
    return client_context(site)


@lru_cache(maxsize=1)
def _schema_of(site: Site) -> Any:
    return _schema(site)


def _run(main: Coroutine[Any, Any, Any]) -> Any:
    """Cap'n Proto's event loop lives inside asyncio's."""
    return asyncio.run(capnp.run(main))


PEERS: Final = {
    "capnp": Peer("pycapnp over TLS", _serve, connect_async=_connect, run_async=_run, prepare=_prepare),
}
