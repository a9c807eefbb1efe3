"""How much memory a transfer takes: ``python tests/benchmarks/stream_rss.py [MiB] [blocking|aio]``, two processes.

Prints throughput, and by how much the resident set of each process grew at its highest while the bytes passed.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from standing import stand

import caprpc
import caprpc.aio
from caprpc import Interface, method
from caprpc.interfaces import ByteSource
from caprpc.testing.deployment import Deployment, Side

MIB = 1 << 20
PIECE = bytes(range(256)) * 4096
WARM_UP_MIB = 16
SERVER = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/client"]
[roots]
store = "Store"
[offer.Store]
interface = "Store"
call = ["download", "grown"]
[offer.Store.returns]
download = "Download"
[offer.Download]
interface = "ByteSource"
call = ["read", "close"]
"""
CLIENT = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Store]
call = ["download", "grown"]
[accept.ByteSource]
call = ["read", "close"]
"""


class Store(Interface):
    @method(effect="read")
    def download(self, size: int) -> ByteSource: ...

    @method(effect="read")
    def grown(self) -> int: ...


class StoreOfPieces(Store):
    def __init__(self):
        self.meter = Meter()

    def download(self, size):
        return (PIECE for _ in range(size // len(PIECE)))

    def grown(self):
        grown = self.meter.grown()
        self.meter = Meter()
        return grown


class Meter:
    """How much the resident set of this process grows at its highest, from now on."""

    def __init__(self):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self.before = memory("VmRSS")

    def grown(self):
        return memory("VmHWM") - self.before


def memory(field):
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def serve(driver, identity, policies, audit):
    stand(driver, {"store": StoreOfPieces()}, identity=identity, policies=policies, audit=audit)


def measure(mib, url, client: Side, audit):
    with caprpc.connect(url, **client.directories, audit=audit) as peer:
        store = peer.root("store", Store)
        drain(store.download(WARM_UP_MIB * MIB))
        store.grown()
        meter = Meter()
        started = time.perf_counter()
        received = drain(store.download(mib * MIB))
        seconds = time.perf_counter() - started
        tell(mib, received, seconds, meter.grown(), store.grown())


async def measure_on_loop(mib, url, client: Side, audit):
    async with caprpc.aio.connect(url, **client.directories, audit=audit) as peer:
        store = await peer.root("store", Store)
        await drain_on_loop(await store.download(WARM_UP_MIB * MIB))
        await store.grown()
        meter = Meter()
        started = time.perf_counter()
        received = await drain_on_loop(await store.download(mib * MIB))
        seconds = time.perf_counter() - started
        tell(mib, received, seconds, meter.grown(), await store.grown())


def tell(mib, received, seconds, client_grown, server_grown):
    assert received == mib * MIB
    print(f"{mib} MiB in {seconds:.2f} s: {mib / seconds:.0f} MiB/s")
    print(f"growth of the resident set: client {client_grown / MIB:.2f} MiB, server {server_grown / MIB:.2f} MiB")


def drain(source):
    with caprpc.open_stream(source) as reader:
        return sum(map(len, reader.pieces()))


async def drain_on_loop(source):
    async with caprpc.aio.open_stream(source) as reader:
        return sum([len(piece) async for piece in reader])


def main():
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:])
        return
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    driver = sys.argv[2] if len(sys.argv) > 2 else "blocking"
    with tempfile.TemporaryDirectory() as directory:
        deployment = Deployment(Path(directory))
        server = deployment.side("server", {"client": SERVER}, [Store])
        client = deployment.side("client", {"server": CLIENT}, [Store])
        arguments = [str(server.directories[name]) for name in ("identity", "policies")]
        with subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "serve", driver, *arguments, str(Path(directory) / "audit")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            url = process.stdout.readline().strip()
            audit = Path(directory) / "client-audit"
            if driver == "aio":
                asyncio.run(measure_on_loop(mib, url, client, audit))
            else:
                measure(mib, url, client, audit)
            process.stdin.close()


if __name__ == "__main__":
    main()
