"""What connections that say nothing cost a server: ``python tests/benchmarks/idle_many.py [--connections 10000]``.

The server, the client that holds the connections, and one that calls beside them are a process each. First that many
TCP connections which never say a word; then, on a fresh server, that many over mutual TLS, each after one call. For
either: how long it took until all were there, resident memory, threads and descriptors of the server, its CPU while
nobody calls, and what a stranger feels beside them. Server and holder need a descriptor for each connection
(``ulimit -n``).
"""

import argparse
import asyncio
import itertools
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from rpcbench.measure import percentile, process_cpu_s, resident_kib
from standing import DRIVERS, stand

import caprpc
import caprpc.aio
from caprpc import Interface, method
from caprpc.limits import ServerLimits
from caprpc.testing import Deployment, everything

AT_A_TIME = 16
"""Handshakes of the holder under way."""
CALLS = 1_000
SPARE_DESCRIPTORS = 100
MOST = 10_000


class Door(Interface):
    @method(effect="read")
    def noop(self) -> None: ...


class DoorOfNobody(Door):
    def noop(self):
        return None


def serve(driver, identity, policies, audit, connections):
    most = 2 * int(connections)
    limits = ServerLimits(
        handshake_timeout_s=3600.0,
        max_unauthenticated=most,
        unauthenticated_per_address=most,
        max_connections=most,
        connections_per_principal=most,
        accept_per_s=1e6,
        accept_burst=most,
    )
    options = {"identity": identity, "policies": policies, "audit": audit, "limits": limits}
    stand(driver, {"door": DoorOfNobody()}, **options)


def call_beside(url, identity, policies, audit):
    """Print milliseconds of connecting and a first call, then median and 99th percentile of a no-op in microseconds."""
    started = time.perf_counter()
    with caprpc.connect(url, identity=identity, policies=policies, audit=audit, timeout_s=60.0) as peer:
        door = peer.root("door", Door)
        door.noop()
        connected = time.perf_counter() - started
        took = []
        for _ in range(CALLS):
            started = time.perf_counter()
            door.noop()
            took.append((time.perf_counter() - started) * 1e6)
    took.sort()
    print(
        f"connect and first call {connected * 1e3:.0f} ms; a no-op: median {statistics.median(took):.0f} us, "
        f"p99 {percentile(took, 0.99):.0f} us"
    )


class Watched:
    """A server process, and what it has grown by since it was ready."""

    def __init__(self, site, driver, options):
        self._site = site
        self._quiet_s = options.quiet_s
        self.process = child("--serve", driver, *site.server, site.audit(), options.connections)
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            sys.exit("the server has ended before it listened; its error stands above")
        time.sleep(0.5)
        self._before = self._look()

    def hold(self, what, count, seconds):
        """Say what so many connections cost, once all of them are there."""
        time.sleep(self._quiet_s / 2)
        before_s, started = process_cpu_s(self.process.pid), time.perf_counter()
        time.sleep(self._quiet_s)
        busy = (process_cpu_s(self.process.pid) - before_s) / (time.perf_counter() - started)
        kib, threads, descriptors = (after - before for after, before in zip(self._look(), self._before, strict=True))
        print(
            f"  {count:,} {what}: all there after {seconds:.1f} s; each {kib / count:.2f} KiB and "
            f"{descriptors / count:.3f} descriptors; {threads} more threads; CPU {busy * 1e3:.0f} ms a second"
        )
        with child("--call", self.url, *self._site.stranger, self._site.audit()) as other:
            print(f"    beside them: {other.stdout.read().strip()}", flush=True)

    def _look(self):
        pid = self.process.pid
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        return resident_kib(pid), threads, len(list(Path(f"/proc/{pid}/fd").iterdir()))

    def descriptors(self):
        """How many descriptors the server has opened since it was ready."""
        return self._look()[2] - self._before[2]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Site:
    """Identities and policies of one server and its clients; each process has an audit log of its own."""

    def __init__(self, root, connections):
        deployment = Deployment(root)
        limits = f"\n[limits]\nconnections = {connections}\n"
        offer, accept = everything({"door": DoorOfNobody()})
        offers = {"client": offer + limits, "stranger": offer.replace("/client", "/stranger")}
        server = deployment.side("server", offers, [Door])
        client = deployment.side("client", {"server": accept + limits}, [Door])
        stranger = deployment.side("stranger", {"server": accept}, [Door])
        self.server, self.client, self.stranger = (
            [side.identity, side.policies] for side in (server, client, stranger)
        )
        self._audits = (root / f"audit-{number}" for number in itertools.count())

    def audit(self):
        return next(self._audits)


def hold_silent(watched, count):
    """Open TCP connections and say nothing."""
    host, port = watched.url.removeprefix("caprpc://").rsplit(":", 1)
    held, started = [], time.perf_counter()
    try:
        for _ in range(count):
            held.append(socket.create_connection((host, int(port)), timeout=60.0))
        while watched.descriptors() < count:
            time.sleep(0.05)
        watched.hold("silent TCP connections", count, time.perf_counter() - started)
    finally:
        for one in held:
            one.close()


async def hold_idle(watched, site, count):
    """Open connections over mutual TLS, and have each make one call."""
    identity, policies = site.client
    turns = asyncio.Semaphore(AT_A_TIME)
    async with caprpc.aio.Client(identity=identity, policies=policies, audit=site.audit()) as client:

        async def one():
            async with turns:
                peer = await client.connect(watched.url, timeout_s=60.0)
                await (await peer.root("door", Door)).noop()

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one())
        seconds = time.perf_counter() - started
        await asyncio.to_thread(watched.hold, "idle connections over mutual TLS", count, seconds)


def child(*arguments):
    command = [sys.executable, str(Path(__file__).resolve()), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main():
    roles = {"--serve": serve, "--call": call_beside}
    if sys.argv[1:2] and sys.argv[1] in roles:
        roles[sys.argv[1]](*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--driver", choices=DRIVERS, action="append", help="default: both, one after the other")
    parser.add_argument("--quiet-s", type=float, default=5.0, help="seconds in which nobody calls")
    options = parser.parse_args()
    if not 1 <= options.connections <= MOST:
        parser.error(f"--connections {options.connections}: 1 to {MOST}, the most that a policy may set for one peer")
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if allowed < options.connections + SPARE_DESCRIPTORS:
        parser.error(
            f"--connections {options.connections}: at most {allowed - SPARE_DESCRIPTORS} here, as a process may have "
            f"{allowed} descriptors (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    with tempfile.TemporaryDirectory() as directory:
        site = Site(Path(directory), options.connections)
        for driver in options.driver or DRIVERS:
            print(f"{driver} server", flush=True)
            with closing(Watched(site, driver, options)) as watched:
                hold_silent(watched, options.connections)
            with closing(Watched(site, driver, options)) as watched:
                asyncio.run(hold_idle(watched, site, options.connections))


if __name__ == "__main__":
    main()
