"""How long it takes from a revocation to the refusal: ``python tests/benchmarks/revoke_latency.py [--rounds 30]``.

Two processes. One client makes one call after the other, as fast as it goes; over another connection the server is
told to revoke. Printed are, for each way to revoke and each driver of the server, the milliseconds from just before
``revoke`` until the calling client has its first error, and how many calls still ran after ``revoke`` had returned:
at most one each time, which had been let through before. For a principal also when a holder knew that does nothing
meanwhile.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from standing import DRIVERS, stand

import caprpc
from caprpc import Interface, ReferenceDead, RemoteError, method
from caprpc.testing import Deployment, everything

WAYS = ("handle", "object", "principal")
WORKER, OPERATOR = "spiffe://test.example/worker", "spiffe://test.example/operator"


class Item(Interface):
    @method(effect="read")
    def count(self) -> int: ...


class Desk(Interface):
    @method(effect="read")
    def item(self, way: str) -> Item: ...

    @method(effect="admin", blocking=True)
    def revoke(self, way: str) -> list[float]: ...

    @method(effect="read")
    def late(self) -> int: ...


class ItemOfDesk(Item):
    """Counts the calls that begin after it was revoked."""

    def __init__(self):
        self.revoked = False
        self.late = 0

    def count(self):
        self.late += self.revoked
        return self.late


class DeskOfAcme(Desk):
    def __init__(self):
        self.server = None
        self.given = ItemOfDesk()
        self.handle = None

    def item(self, way):
        self.given = ItemOfDesk()
        if way != "handle":
            return self.given
        self.handle = caprpc.attenuate(self.given, only=["count"])
        return self.handle

    def revoke(self, way):
        before = time.monotonic()
        if way == "handle":
            caprpc.revoke(self.handle)
        elif way == "object":
            caprpc.revoke(self.given, to=WORKER)
        else:
            self.server.revoke(WORKER)
        after = time.monotonic()
        self.given.revoked = True
        return [before, after]

    def late(self):
        return self.given.late


def serve(driver, identity, policies, audit):
    desk = DeskOfAcme()
    options = {"identity": identity, "policies": policies, "audit": audit}
    stand(driver, {"desk": desk}, ready=lambda server: setattr(desk, "server", server), **options)


def once(way, url, worker, operator):
    """Return seconds until the caller's first error, until the idle holder knew, and calls that ran too late."""
    with caprpc.Client(**worker) as client, client.connect(url) as busy, client.connect(url) as idle:
        with caprpc.connect(url, **operator) as other:
            desk = other.root("desk", Desk)
            held = idle.root("desk", Desk).item(way) if way == "principal" else None
            item = busy.root("desk", Desk).item(way)
            ended, started = [], threading.Event()

            def call():
                try:
                    while True:
                        item.count()
                        started.set()
                except (ReferenceDead, RemoteError, caprpc.ConnectionLost):
                    ended.append(time.monotonic())

            caller = threading.Thread(target=call)
            caller.start()
            started.wait()
            before, _after = desk.revoke(way)
            caller.join()
            while held is not None and held._caprpc_import.alive:
                time.sleep(0.0002)
            knew = time.monotonic()
            return ended[0] - before, knew - before if held is not None else None, desk.late()


def measure(driver, rounds, directory):
    deployment = Deployment(directory / driver)
    offer, accept = everything({"desk": DeskOfAcme()}, server="server", client="worker")
    sides = {name: deployment.side(name, {"server": accept}, [Desk]) for name in ("worker", "operator")}
    policies = {"worker": offer, "operator": offer.replace("/worker", "/operator")}
    server = deployment.side("server", policies, [Desk])
    arguments = [driver, *(str(server.directories[name]) for name in ("identity", "policies")), str(directory / "log")]
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        for way in WAYS:
            found = []
            for _ in range(rounds):
                options = {
                    name: {**sides[name].directories, "audit": Path(tempfile.mkdtemp(dir=directory))} for name in sides
                }
                found.append(once(way, url, options["worker"], options["operator"]))
            first = sorted(1e3 * one for one, _, _ in found)
            knew = sorted(1e3 * one for _, one, _ in found if one is not None)
            late = sum(count for _, _, count in found)
            idle = f", an idle holder knew after {statistics.median(knew):.2f} (at most {knew[-1]:.2f})" if knew else ""
            print(
                f"{driver} server, {way}: {statistics.median(first):.2f} ms (median of {rounds}), at most "
                f"{first[-1]:.2f}; calls that ran after revoke() had returned: {late}{idle}",
                flush=True,
            )
        process.stdin.close()


def main():
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as directory:
        for driver in DRIVERS:
            measure(driver, rounds, Path(directory))
    print("A grant that `caprpc grants revoke` ends in another process: every process looks once a second.")


if __name__ == "__main__":
    main()
