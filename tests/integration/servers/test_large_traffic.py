"""Large calls and large answers at the same time: neither side waits for the other to take something first."""

import asyncio

import pytest
from vault_service import Vault

import caprpc
import caprpc.aio

LARGE = bytes(1_000_000)
CALLS = 48


@pytest.mark.parametrize("client", ["blocking", "aio"])
def test_large_calls_and_answers_in_flight_together(world, driver, client):
    running = world.serve(driver)
    directories = world.side("alice").directories

    def threads():
        with caprpc.connect(running.address, **directories) as peer:
            vault = peer.root("vault", Vault)
            futures = [caprpc.submit(vault.echo, LARGE) for _ in range(CALLS)]
            return [len(future.result(25)) for future in futures]

    async def loop():
        async with caprpc.aio.connect(running.address, **directories) as peer:
            vault = await peer.root("vault", Vault)
            return [len(value) for value in await asyncio.gather(*(vault.echo(LARGE) for _ in range(CALLS)))]

    assert (threads() if client == "blocking" else asyncio.run(loop())) == [len(LARGE)] * CALLS
