"""Runs cases with asyncio clients."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from rpcbench.cases import CROWD, Case
from rpcbench.driving import MemoryMeter, Target, check, deadline_ns, fills_round, warm_up_of
from rpcbench.measure import Meter, Sample
from rpcbench.peers.base import AsyncClient, Unsupported

_Operation = Callable[..., Awaitable[object]]


class Loop:
    """Runs each case on an event loop of its own, the one that the peer needs."""

    __slots__ = ("_target",)

    def __init__(self, target: Target) -> None:
        self._target = target

    def calls(self, case: Case) -> Sample:
        """One connection, one operation after the other."""

        async def main() -> Sample:
            async with self._client() as client:
                operation: _Operation = getattr(client, case.operation)
                meter = Meter(self._target.server_pid)
                start_ns = time.perf_counter_ns()
                check(case, await operation(*case.arguments))
                first_ns = time.perf_counter_ns() - start_ns
                if fills_round(case, first_ns):
                    return meter.sample([first_ns], case.units)
                await _repeat(operation, warm_up_of(case))
                meter = Meter(self._target.server_pid)
                return meter.sample(await _repeat(operation, case), case.units)

        return self._run(main)

    def connects(self, case: Case) -> Sample:
        """Connect, one call, close; again and again."""

        async def operation() -> None:
            async with self._client() as client:
                await client.noop()

        async def main() -> Sample:
            await _repeat(operation, warm_up_of(case))
            meter = Meter(self._target.server_pid)
            return meter.sample(await _repeat(operation, case), case.units)

        return self._run(main)

    def crowd(self, case: Case) -> Sample:
        """Fifty connections, a task each."""

        async def main() -> Sample:
            async with AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(self._client()) for _ in range(CROWD)]
                operations: list[_Operation] = [getattr(client, case.operation) for client in clients]
                await asyncio.gather(*(operation() for operation in operations))
                meter = Meter(self._target.server_pid)
                durations = await asyncio.gather(*(_repeat(operation, case) for operation in operations))
                return meter.sample([each for some in durations for each in some], case.units)

        return self._run(main)

    def idle(self, case: Case) -> Sample:
        """Server memory for connections that made one call and stay; fewer than asked if time runs out."""

        async def main() -> Sample:
            async with AsyncExitStack() as stack:
                await (await stack.enter_async_context(self._client())).noop()
                meter = MemoryMeter(self._target.server_pid)
                end_ns = deadline_ns(case)
                count = 0
                while count < case.ops and time.perf_counter_ns() < end_ns:
                    await (await stack.enter_async_context(self._client())).noop()
                    count += 1
                return meter.sample(count)

        return self._run(main)

    def _run(self, main: Callable[[], Coroutine[Any, Any, Sample]]) -> Sample:
        if self._target.peer.connect_async is None:
            raise Unsupported
        sample: Sample = self._target.peer.run_async(main())
        return sample

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncClient]:
        if self._target.peer.connect_async is None:
            raise Unsupported
        client = await self._target.peer.connect_async(self._target.site, self._target.port)
        try:
            yield client
        finally:
            await client.close()


async def _repeat(operation: _Operation, case: Case) -> list[int]:
    """Durations in nanoseconds of at most ``case.ops`` operations, begun within ``case.seconds``."""
    arguments = case.arguments
    clock = time.perf_counter_ns
    end = deadline_ns(case)
    durations: list[int] = []
    for _ in range(case.ops):
        start = clock()
        await operation(*arguments)
        stop = clock()
        durations.append(stop - start)
        if stop > end:
            break
    return durations
