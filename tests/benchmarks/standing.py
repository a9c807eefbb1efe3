"""A server of one of the benches, in a process of its own: it says where it listens, and stands till its input ends."""

import asyncio
import gc
import sys

import caprpc
import caprpc.aio

DRIVERS = ("blocking", "aio")


def stand(driver, roots, *, ready=None, **options):
    """Serve roots; ``ready`` is called with the server before it listens, ``options`` are those of ``Server``."""

    def say(server):
        if ready is not None:
            ready(server)
        # As docs/how-to/run-a-server.md has it.
        gc.collect()
        gc.freeze()
        print(server.listen("127.0.0.1:0"), flush=True)

    async def on_loop():
        server = caprpc.aio.Server(roots, **options)
        say(server)
        async with server:
            await asyncio.to_thread(sys.stdin.read)

    if driver == "aio":
        asyncio.run(on_loop())
        return
    server = caprpc.Server(roots, **options)
    say(server)
    with server:
        sys.stdin.read()
