"""How long a method that blocks delays others: ``python tests/benchmarks/stall_beside.py [--rounds 20]``.

Two processes. One connection calls a ``def`` method that sleeps, three times; another makes one no-op after the other
meanwhile. Every round has a fresh server, which has never seen the method block. Printed are, for each driver and for
the first, second and third of these calls, the longest that a no-op took: median and worst of the rounds. The aim is
10 ms. The last column is the longest of as many no-ops while nobody sleeps: what the machine does by itself.
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
from caprpc import Interface, method
from caprpc.testing import Deployment, everything

NAP_S = 0.2
SLEEPS = 3


class Inn(Interface):
    @method(effect="read")
    def noop(self) -> None: ...

    @method(effect="read")
    def nap(self, seconds: float) -> None: ...


class InnOfSleepers(Inn):
    def noop(self):
        return None

    def nap(self, seconds):
        time.sleep(seconds)


def serve(driver, identity, policies, audit):
    stand(driver, {"inn": InnOfSleepers()}, identity=identity, policies=policies, audit=audit)


def slowest(noop, goes_on):
    """Return the longest that a no-op took while something goes on, in milliseconds."""
    longest = 0.0
    while goes_on():
        started = time.perf_counter()
        noop()
        longest = max(longest, time.perf_counter() - started)
    return longest * 1e3


def once(url, client):
    """Return the longest no-op beside each of the sleeping calls, and beside none, in milliseconds."""
    with client.connect(url) as sleeper, client.connect(url) as awake:
        nap, noop = sleeper.root("inn", Inn).nap, awake.root("inn", Inn).noop
        for _ in range(500):
            noop()
        found = []
        for _ in range(SLEEPS):
            asleep = threading.Thread(target=nap, args=(NAP_S,))
            asleep.start()
            found.append(slowest(noop, asleep.is_alive))
        end = time.perf_counter() + NAP_S
        return [*found, slowest(noop, lambda: time.perf_counter() < end)]


def measure(driver, rounds, root):
    deployment = Deployment(root)
    offer, accept = everything({"inn": InnOfSleepers()})
    server = deployment.side("server", {"client": offer}, [Inn])
    client = deployment.side("client", {"server": accept}, [Inn])
    rows = []
    with caprpc.Client(**client.directories, audit=root / "client-log") as connecting:
        for number in range(rounds):
            arguments = (driver, server.identity, server.policies, root / f"log-{number}")
            command = [sys.executable, str(Path(__file__).resolve()), "--serve", *map(str, arguments)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
                rows.append(once(process.stdout.readline().strip(), connecting))
                process.stdin.close()
    cells = [f"{statistics.median(column):.1f}, {max(column):.1f}" for column in zip(*rows, strict=True)]
    print(f"| {driver} | {' | '.join(cells)} |", flush=True)


def main():
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    print("Longest no-op in ms, median and worst of the rounds, while a method sleeps for the\n")
    print("| server | first time | second time | third time | nobody sleeps |\n|---|---|---|---|---|")
    for driver in DRIVERS:
        with tempfile.TemporaryDirectory() as directory:
            measure(driver, rounds, Path(directory))


if __name__ == "__main__":
    main()
