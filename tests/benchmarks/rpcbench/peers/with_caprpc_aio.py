"""CapRPC with its asyncio server and client; policies and audit on."""

import asyncio
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final

from caprpc import aio
from rpcbench.cases import NAP_S
from rpcbench.peers import caprpc_service as service
from rpcbench.peers.base import Announce, AsyncClient, Peer
from rpcbench.site import HOST, Site

_LEVEL: Final = "decision"


class _AsyncService(service.BenchService):
    """The methods that wait are ``async def``; the others stay as they are."""

    async def nap(self) -> None:  # type: ignore[override]
        await asyncio.sleep(NAP_S)

    async def callback(self, function: Callable[[int], Any], number: int) -> int:  # type: ignore[override]
        result: int = await function(number)
        return result

    async def count_lines(self, fileobj: Any, function: Callable[[str], Any]) -> int:  # type: ignore[override]
        count = 0
        async for line in await fileobj.readlines():
            await function(line)
            count += 1
        return count


async def _serve_on_loop(site: Site, announce: Announce) -> None:
    server = aio.Server(
        {service.ROOT: _AsyncService()},
        identity=site.server.directory,
        policies=service.policies(site, "server", _LEVEL),
        audit=service.audit_directory(site, "server"),
        limits=service.SERVER_LIMITS,
    )
    announce(int(server.listen(f"{HOST}:0").rpartition(":")[2]))
    async with server:
        await asyncio.Event().wait()


def _serve(site: Site, announce: Announce) -> None:
    asyncio.run(_serve_on_loop(site, announce))


@lru_cache(maxsize=1)
def _ourselves(level: str, site: Site) -> aio.Client:
    """Identity, policies and audit log, read once for all connections of this process."""
    return aio.Client(
        identity=site.client.directory,
        policies=service.policies(site, "client", level),
        audit=service.audit_directory(site, "client-aio"),
    )


def _add_one(number: int) -> int:
    return number + 1


def _ignore(line: str) -> None:
    """The function that is called for each line."""


class _Client(AsyncClient):
    def __init__(self, site: Site, peer: aio.Peer, bench: Any) -> None:
        self._site = site
        self._peer = peer
        self._bench = bench

    async def close(self) -> None:
        await self._peer.close()

    async def noop(self) -> None:
        await self._bench.noop()

    async def echo(self, value: dict[str, object]) -> object:
        return await self._bench.echo(value)

    async def window(self, calls: int) -> int:
        noop = self._bench.noop
        answers = [aio.submit(noop) for _ in range(calls)]
        for answer in answers:
            await answer
        return len(answers)

    async def window_coalesced(self, calls: int) -> int:
        return await self.window(calls)  # one turn of the loop, one send

    async def window_batch(self, calls: int) -> int:
        noop = self._bench.noop
        answers = await aio.batch((noop, ()) for _ in range(calls))
        return sum(1 for answer in answers if answer is None)

    async def chain(self, steps: int) -> int:
        link = await self._bench.link()
        for _ in range(steps - 2):
            link = await link.following()
        return await link.number()

    async def pipeline(self, steps: int) -> int:
        link = aio.pipe(self._bench).link()
        for _ in range(steps - 2):
            link = link.following()
        return await link.number()

    async def callback(self, number: int) -> int:
        result: int = await self._bench.callback(_add_one, number)
        return result

    async def iterate(self, count: int) -> int:
        total = 0
        async for item in await self._bench.items(count):
            total += item
        return total

    async def echo_bytes(self, data: bytes) -> bytes:
        result: bytes = await self._bench.echo_bytes(data)
        return result

    async def stream(self, size: int) -> int:
        received = 0
        async for piece in await self._bench.pieces(size):
            received += len(piece)
        return received

    async def nap(self) -> None:
        await self._bench.nap()

    async def count_lines(self) -> int:
        with self._site.lines.open(encoding="utf-8") as file:
            result: int = await self._bench.count_lines(file, _ignore)
        return result


async def connect(level: str, site: Site, port: int) -> AsyncClient:
    """Connect with asyncio; the blocking server's peers use it, too, for fifty connections of one loop."""
    peer = await _ourselves(level, site).connect(f"caprpc://{HOST}:{port}")
    return _Client(site, peer, await peer.root(service.ROOT, service.Bench))


PEERS: Final = {
    "caprpc-aio": Peer(
        "CapRPC asyncio",
        _serve,
        connect_async=partial(connect, _LEVEL),
        prepare=partial(service.prepare, level=_LEVEL),
    ),
}
