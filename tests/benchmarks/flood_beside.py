"""What a well-behaved connection feels while another peer floods the same server.

    .venv/bin/python tests/benchmarks/flood_beside.py [--seconds 3] [--driver blocking|aio]

Three processes: the server, the flooder, and this one, which makes one call after the other and keeps its times. The
aim for each flood: p99 within twice the p99 without a flood plus 1 ms. The floods break no rule of the protocol; what
they send is legal and useless, and the server ends the connection when the budget for that is spent. The flooder then
connects again. Numbers of a machine that does other work at the same time say nothing: look at the baseline first.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import caprpc  # noqa: E402
import caprpc.aio  # noqa: E402
from caprpc import Interface, method  # noqa: E402
from caprpc.testing import Deployment, Side  # noqa: E402
from caprpc.wire import messages as m  # noqa: E402
from caprpc.wire.codec import pack  # noqa: E402
from caprpc.wire.values import RemoteReference  # noqa: E402
from tests.attacks.hostile_peer import dial  # noqa: E402

PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
OFFER = (
    '[roots]\nbox = "Box"\n[offer.Box]\ninterface = "Box"\ncall = ["noop", "take"]\n[accept.Item]\ncall = ["name"]\n'
)
ACCEPT = PEER.format("server") + '[accept.Box]\ncall = ["noop", "take"]\n'
FLOODS = ("cancels", "refused", "pings", "exports", "calls")


class Item(Interface):
    @method(effect="read")
    def name(self) -> str: ...


class Box(Interface):
    @method(effect="read")
    def noop(self) -> None: ...

    @method(effect="read")
    def take(self, items: list[Item]) -> int: ...


class BoxImpl(Box):
    def noop(self):
        return None

    def take(self, items):
        return len(items)


def serve(driver, directory):
    options = {"identity": directory / "server/identity", "policies": directory / "server/policies"}
    roots = {"box": BoxImpl()}

    def say(server):
        print(server.listen("127.0.0.1:0"), flush=True)

    if driver == "blocking":
        server = caprpc.Server(roots, **options)
        say(server)
        with server:
            sys.stdin.read()
        return

    async def main():
        server = caprpc.aio.Server(roots, **options)
        say(server)
        async with server:
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())


def flood(kind, address, directory):
    side = Side(directory / "bob")
    messages = 0
    print("flooding", flush=True)
    while True:
        with suppress(OSError, TimeoutError, AssertionError, AttributeError):
            peer = dial(address, side)
            peer.open()
            box = peer.root("box")
            peer.send(m.Facet(1, "Item", [(1, "name")], 0))
            while not peer.closed:
                batch = [one for _ in range(50) for one in flooding(kind, peer, box)]
                messages += len(batch)
                peer.send(*batch)
                with suppress(TimeoutError):
                    peer.receive(0.0005 if kind != "calls" else 0.05)
        time.sleep(0.001)


def flooding(kind, peer, box):
    """Return what one turn of a flood sends."""
    if kind == "cancels":
        return [m.Cancel(1)]
    if kind == "refused":
        return [peer.call(box, "secret")]
    if kind == "pings":
        return [m.Ping(7)]
    if kind == "calls":
        return [peer.call(box, "noop")]
    references = [RemoteReference(1 + n, 1) for n in range(10_000)]
    return [peer.call(box, "take", payload=pack([[references], {}]))]


def measure(noop, seconds):
    """Return median and p99 of one call after the other, in microseconds."""
    times = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        noop()
        times.append(time.perf_counter() - started)
    ordered = sorted(times)
    return statistics.median(ordered) * 1e6, ordered[int(len(ordered) * 0.99)] * 1e6, len(ordered)


def child(*args):
    command = [sys.executable, __file__, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--driver", choices=["blocking", "aio"], default="blocking")
    parser.add_argument("--floods", nargs="*", choices=FLOODS, default=list(FLOODS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        deployment = Deployment(directory)
        offers = {name: PEER.format(name) + OFFER for name in ("alice", "bob")}
        deployment.side("server", offers, [Box, Item])
        alice, _ = (deployment.side(name, {"server": ACCEPT}, [Box, Item]) for name in ("alice", "bob"))
        with child("--serve", options.driver, directory) as server:
            address = server.stdout.readline().strip()
            with caprpc.connect(address, **alice.directories) as peer:
                noop = peer.root("box", Box).noop
                measure(noop, 0.5)
                report(options, noop, address, directory)
            server.terminate()


def report(options, noop, address, directory):
    median, base, count = measure(noop, options.seconds)
    print(f"{options.driver} server, alone: median {median:.0f} us, p99 {base:.0f} us ({count} calls)")
    for kind in options.floods:
        # Each flood has a baseline of its own: the machine is not the same from one minute to the next.
        _, before, _ = measure(noop, options.seconds)
        with child("--flood", kind, address, directory) as flooder:
            flooder.stdout.readline()
            time.sleep(0.5)
            median, p99, count = measure(noop, options.seconds)
            flooder.kill()
        aim = 2 * before + 1000
        verdict = "within" if p99 <= aim else "ABOVE"
        print(f"  beside {kind:8}: median {median:6.0f} us, p99 {p99:6.0f} us, {verdict} {aim:.0f} us ({count} calls)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--flood"]:
        flood(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main()
