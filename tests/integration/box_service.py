"""A box that has a bit of everything, and its interface, which a program of its own can import."""

import threading
from collections.abc import Iterator

from caprpc import Interface, attribute, method

GATE_S = 30
"""After this a call that waits at the gate goes on by itself."""


class Box(Interface):
    size: int = attribute(writable=True)

    @method(effect="read")
    def same(self) -> "Box": ...

    @method(effect="read")
    def echo(self, number: int) -> int: ...

    @method(effect="read")
    def rows(self) -> Iterator[int]: ...

    @method(effect="read", blocking=True)
    def gated(self) -> int: ...


class BoxOfOurs(Box):
    def __init__(self):
        self.size = 1
        self.gate = threading.Event()

    def same(self):
        return self

    def echo(self, number):
        return number

    def rows(self):
        return iter(range(1_000_000))

    def gated(self):
        self.gate.wait(GATE_S)
        return 7


def roots():
    """Return what ``caprpc serve`` serves."""
    return {"box": BoxOfOurs()}
