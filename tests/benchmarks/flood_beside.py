"""What a well-behaved connection feels while another peer floods the same server.

    .venv/bin/python tests/benchmarks/flood_beside.py [--seconds 3] [--driver blocking|aio] [--connections 1 8] [--free]

The server, the flooder, and this process, which makes one call after the other and keeps its times. The aim for each
flood: p99 within twice the p99 without a flood plus 1 ms. The floods break no rule of the protocol; some send what is
useless, and the server ends the connection when the budget for that is spent. The flooder then connects again. Others
send what is permitted, as much as may be in flight, over as many connections as the principal may have.

Partners have machines of their own; here all share one. So the server has a core for itself, and the flooder computes
on the others only while the well-behaved connection has nothing to do there (``SCHED_IDLE``). ``--free`` leaves all of
that to the operating system. The *control* is the same flood against a second server, on the core of the first one:
what it costs is the machine's doing, and what a process for each partner would give. ``spin`` is no flood: a process
that only computes. Numbers of a machine that does other work say nothing: look at the baseline first.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from standing import DRIVERS, stand  # noqa: E402

import caprpc  # noqa: E402
from caprpc import Interface, method  # noqa: E402
from caprpc.ids import OP_CALL  # noqa: E402
from caprpc.limits import DEFAULT_LIMITS  # noqa: E402
from caprpc.testing import Deployment, Side  # noqa: E402
from caprpc.tls import TlsRefused  # noqa: E402
from caprpc.wire import messages as m  # noqa: E402
from caprpc.wire.codec import pack  # noqa: E402
from caprpc.wire.values import RemoteReference  # noqa: E402
from tests.attacks.handshake_flood import Flood, hello_of  # noqa: E402
from tests.attacks.hostile_peer import dial  # noqa: E402

PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
OFFER = """[roots]
box = "Box"
[offer.Box]
interface = "Box"
call = ["noop", "take", "echo", "stream"]
iterate = true
[accept.Item]
call = ["name"]
"""
ACCEPT = PEER.format("server") + '[accept.Box]\ncall = ["noop", "take"]\n'
FLOODS = ("spin", "cancels", "refused", "pings", "exports", "references", "calls", "large", "batches", "streams")
STRANGERS = {"resets": 0.0, "handshakes": 60.0}
"""Handshakes that somebody begins without a certificate, and after how many seconds each is reset."""
ANSWERED = frozenset({"exports", "references", "calls", "large", "batches", "streams"})
"""Floods that wait for the last answer of a turn: the server would take no more."""

TOO_MANY_REFERENCES = pack([[[RemoteReference(1 + n, 1) for n in range(10_000)]], {}])
MANY_REFERENCES = pack([[[RemoteReference(1 + n, 1) for n in range(DEFAULT_LIMITS.message_references)]], {}])
LARGE = pack([[bytes(1 << 20)], {}])
SMALL_ECHOES = pack([[[b"x"], {}]] * 64)


class Item(Interface):
    @method(effect="read")
    def name(self) -> str: ...


class Box(Interface):
    @method(effect="read")
    def noop(self) -> None: ...

    @method(effect="read")
    def echo(self, data: bytes) -> bytes: ...

    @method(effect="read")
    def stream(self) -> Iterator[int]: ...

    @method(effect="read")
    def take(self, items: list[Item]) -> int: ...


class BoxImpl(Box):
    def noop(self):
        return None

    def echo(self, data):
        return data

    def stream(self):
        return iter(range(1 << 30))

    def take(self, items):
        return len(items)


def settle(role, free):
    """Give a process its place: the server one core for itself, the flooder what nobody else wants of the others."""
    cores = sorted(os.sched_getaffinity(0))
    if free:
        return
    if role != "flooder":
        if len(cores) > 1:
            os.sched_setaffinity(0, cores[:1] if role == "server" else cores[1:])
        return
    # It has the cores of the process that started it.
    priority = os.sched_getparam(0).sched_priority
    if priority > 1:
        # Under ``chrt -r``: before everything else on this machine, and behind the others of this bench.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority - 1))
    else:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def serve(driver, directory):
    stand(driver, {"box": BoxImpl()}, identity=directory / "identity", policies=directory / "policies")


def flood(kind, address, directory, connections):
    side = Side(directory / "bob")
    print("flooding", flush=True)
    if kind == "spin":
        while True:
            sum(range(1000))
    if kind in STRANGERS:
        begin_handshakes(kind, address, side, connections)
    # The quota of calls in flight is that of the principal: four connections that do all they may.
    share = min(64, 256 // connections)
    threads = [
        threading.Thread(target=flood_over_one, args=(kind, address, side, share), daemon=True)
        for _ in range(connections)
    ]
    for thread in threads:
        thread.start()
    threads[0].join()


def begin_handshakes(kind, address, side, sources):
    """Begin handshakes from some addresses as fast as they are taken, for ever, and say how many in a second."""
    attack = Flood(address, hello_of(side), [f"127.0.0.{2 + n}" for n in range(sources)], STRANGERS[kind])
    begun = 0
    while True:
        time.sleep(1.0)
        begun, before = attack.begun, begun
        print(begun - before, flush=True)


def flood_over_one(kind, address, side, share):
    """Send what is legal as fast as the server takes it, for ever; connect again whenever the server has enough."""
    while True:
        with suppress(OSError, TimeoutError, AssertionError, AttributeError, TlsRefused):
            peer = dial(address, side)
            peer.open()
            box = peer.root("box")
            peer.send(m.Facet(1, "Item", [(1, "name")], 0))
            while not peer.closed:
                batch = flooding(kind, peer, box, share)
                peer.send(*batch)
                if kind in ANSWERED:
                    answer = peer.answer(batch[-1].question)
                    peer.heard.clear()
                    if isinstance(answer, m.Raise):
                        # No more streams may be open on this connection.
                        peer.close()
                        break
                else:
                    with suppress(TimeoutError):
                        peer.receive(0.0005)
        time.sleep(0.001)


def flooding(kind, peer, box, share):
    """Return what one turn of a flood sends; of what is answered, no more than may be in flight."""
    if kind == "cancels":
        return [m.Cancel(1)] * 50
    if kind == "refused":
        return [peer.call(box, "secret") for _ in range(50)]
    if kind == "pings":
        return [m.Ping(7)] * 50
    if kind == "exports":
        return [peer.call(box, "take", payload=TOO_MANY_REFERENCES)]
    if kind == "references":
        return [peer.call(box, "take", payload=MANY_REFERENCES)]
    if kind == "large":
        return [peer.call(box, "echo", payload=LARGE)]
    if kind == "batches":
        run = m.Run(box, OP_CALL, "echo", 64, SMALL_ECHOES)
        return [m.Batch(peer.next_question(), None, [run]) for _ in range(min(16, share))]
    return [peer.call(box, "stream" if kind == "streams" else "noop") for _ in range(share)]


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
    # The server's log tells of what it refuses.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--driver", choices=DRIVERS, default="blocking")
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 8], help="of the flooder, at most 8")
    parser.add_argument("--floods", nargs="*", choices=[*FLOODS, *STRANGERS], default=[*FLOODS, *STRANGERS])
    parser.add_argument("--free", action="store_true", help="leave all cores to everybody")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        deployment = Deployment(directory)
        offers = {name: PEER.format(name) + OFFER for name in ("alice", "bob")}
        deployment.side("server", offers, [Box, Item])
        alice, _ = (deployment.side(name, {"server": ACCEPT}, [Box, Item]) for name in ("alice", "bob"))
        shutil.copytree(directory / "server", directory / "other")
        with (
            child("--serve", options.driver, directory / "server", options.free) as server,
            child("--serve", options.driver, directory / "other", options.free) as other,
        ):
            addresses = [process.stdout.readline().strip() for process in (server, other)]
            settle("victim", options.free)
            with caprpc.connect(addresses[0], **alice.directories) as peer:
                noop = peer.root("box", Box).noop
                measure(noop, 0.5)
                report(options, noop, addresses, directory)
            server.terminate()
            other.terminate()


def report(options, noop, addresses, directory):
    median, base, count = measure(noop, options.seconds)
    print(f"{options.driver} server, alone: median {median:.0f} us, p99 {base:.0f} us ({count} calls)")
    for kind in options.floods:
        for connections in options.connections[:1] if kind == "spin" else options.connections:
            # Each flood has a baseline of its own: the machine is not the same from one minute to the next.
            _, before, _ = measure(noop, options.seconds)
            found = []
            for address in addresses:
                with child("--flood", kind, address, directory, connections, options.free) as flooder:
                    flooder.stdout.readline()
                    time.sleep(0.5)
                    found.append(measure(noop, options.seconds))
                    flooder.kill()
                    rates = [int(line) for line in flooder.stdout]
            (median, p99, count), (_, control, _) = found
            aim = 2 * before + 1000
            verdict = "within" if p99 <= aim else "ABOVE"
            print(
                f"  {kind:10} x{connections}: baseline p99 {before:6.0f} us, beside: median {median:6.0f} us, "
                f"p99 {p99:6.0f} us, {verdict} {aim:.0f} us ({count} calls); control p99 {control:6.0f} us"
                + (f"; {statistics.median(rates):.0f} connections/s" if rates else ""),
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        settle("server", sys.argv[4] == "True")
        serve(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--flood"]:
        settle("flooder", sys.argv[6] == "True")
        flood(sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
