"""The client: lends a file and a function for one call."""

import sys

import caprpc
from counting import LineCounter


def noisy(line: str) -> None:
    print(f"Noisy: {line!r}")


with (
    open(sys.argv[1], encoding="utf-8") as file,
    caprpc.connect("caprpc://127.0.0.1:4853", identity="pki/alice", policies="policies/client") as peer,
):
    counter = peer.root("counter", LineCounter)
    print(counter.line_counter(file, noisy), "lines")
