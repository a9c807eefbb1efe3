"""The line counter in one file: both sides, two processes, mutual TLS, a policy on each side.

    python docs/examples/line_counter.py SITE serve                 in one terminal
    python docs/examples/line_counter.py SITE count testfile.txt    in another

SITE is a directory that ``caprpc demo --keep`` has made: keys, certificates and policies for both sides.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import caprpc
from caprpc.demo.interfaces import LineCounter
from caprpc.interfaces import TextLines

ADDRESS = "127.0.0.1:4853"


class Counter(LineCounter):
    def line_counter(self, fileobj: TextLines, function: Callable[[str], None]) -> int:
        count = 0
        for count, line in enumerate(fileobj.readlines(), 1):
            function(line)
        return count

    def misbehave(self, fileobj: TextLines, function: Callable[[str], None]) -> list[dict[str, str]]:
        return []


def noisy(line: str) -> None:
    print("Noisy:", repr(line))


def serve(site: Path) -> None:
    roots = {"counter": Counter()}
    caprpc.serve(roots, ADDRESS, identity=site / "pki" / "server", policies=site / "policies" / "server")


def count(site: Path, path: str) -> None:
    identity, policies = site / "pki" / "alice", site / "policies" / "client"
    url = f"caprpc://{ADDRESS}"
    with caprpc.connect(url, identity=identity, policies=policies) as peer, open(path, encoding="utf-8") as file:
        counter = peer.root("counter", LineCounter)
        print(counter.line_counter(file, noisy), "lines")


if __name__ == "__main__":
    match sys.argv[1:]:
        case [site, "serve"]:
            serve(Path(site))
        case [site, "count", path]:
            count(Path(site), path)
        case _:
            sys.exit(__doc__)
