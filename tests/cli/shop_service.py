"""A service for the tests of ``serve`` and ``call``, and directories for both sides; the tests load it by its name."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from caprpc import CallCancelled, Interface, attribute, current, method
from caprpc.interfaces import TextLines
from caprpc.testing.deployment import Deployment


class Color(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Point:
    x: int
    y: float
    day: date | None = None


@dataclass
class Label:
    color: Color
    price: Decimal | None = None
    raw: bytes = b""
    span: tuple[float, float] = (0.0, 1.0)


class OutOfStock(Exception):
    pass


class Shop(Interface):
    """Sells what there is.

    On weekdays only.
    """

    title: str = attribute(writable=True)
    size: int = attribute()

    @method(effect="read")
    def add(self, a: int, b: int = 1) -> int: ...

    @method(effect="read")
    def show(self, text: str) -> str:
        """Return the text as it is."""

    @method(effect="read")
    def take(
        self,
        color: Color,
        price: Decimal,
        points: list[Point],
        wait: timedelta,
        raw: bytes,
        mode: Literal["fast", "slow"],
        extra: Any,
    ) -> list[str]: ...

    @method(effect="read")
    def give(self) -> dict[str, Any]: ...

    @method(effect="read")
    def lines(self, count: int) -> Iterator[str]: ...

    @method(effect="read")
    def count(self, fileobj: TextLines, function: Callable[[str], None]) -> int: ...

    @method(effect="read")
    def fail(self) -> None: ...

    @method(effect="read", errors=(OutOfStock,))
    def buy(self) -> None: ...

    @method(effect="read", blocking=True)
    def wait(self, seconds: float, function: Callable[[str], None]) -> str: ...

    @method(effect="read", blocking=True)
    def sleep(self, seconds: float, function: Callable[[str], None]) -> None: ...

    @method(effect="read")
    def stuck(self) -> Iterator[str]: ...

    @method(effect="read")
    def die(self) -> None: ...

    @method(effect="read")
    def label(self, label: Label) -> str: ...

    @method(effect="read")
    def hidden(self) -> str: ...


TOLD_TO_STOP = threading.Event()
"""Set when a call of ``wait`` has seen that nobody waits for it any more."""


class TheShop(Shop):
    def __init__(self):
        self.title = "corner shop"
        self.size = 12
        self.never = threading.Event()

    def add(self, a, b=1):
        return a + b

    def show(self, text):
        return text

    def take(self, color, price, points, wait, raw, mode, extra):
        return [repr(one) for one in (color, price, points, wait, raw, mode, extra)]

    def give(self):
        return {"day": date(2026, 1, 2), "price": Decimal("1.10"), "raw": b"\x00\xff", "set": {1}, "escape": "\x1b[31m"}

    def lines(self, count):
        return (f"line {number}\n" for number in range(count))

    def count(self, fileobj, function):
        count = 0
        for line in fileobj.readlines():
            count += 1
            function(line)
        return count

    def fail(self):
        raise ValueError("a secret of the service")

    def buy(self):
        raise OutOfStock("no more of these")

    def wait(self, seconds, function):
        try:
            # The caller knows now that the call runs, and may cancel it before its function has returned.
            function("waiting")
        except CallCancelled:
            TOLD_TO_STOP.set()
            raise
        call, until = current(), time.monotonic() + seconds
        while time.monotonic() < until and not self.never.wait(0.02):
            if call.cancelled:
                TOLD_TO_STOP.set()
                break
        return "waited"

    def sleep(self, seconds, function):
        function("sleeping")
        time.sleep(seconds)

    def stuck(self):
        try:
            while True:
                yield "stuck"
        finally:
            time.sleep(60)

    def die(self):
        os._exit(9)

    def label(self, label):
        return repr(label)

    def hidden(self):
        return "nobody may"


def roots():
    return {"shop": TheShop()}


MAPPING = {"shop": TheShop()}
NOT_ROOTS = 42


def broken():
    raise RuntimeError("no database")


GRANTED = '"add", "show", "take", "give", "lines", "count", "fail", "buy", "wait", "sleep", "stuck", "die", "label"'
SERVER_POLICY = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/alice"]
[roots]
shop = "Shopping"
[offer.Shopping]
interface = "Shop"
call = [{GRANTED}]
get = ["title", "size"]
set = ["title"]
iterate = true
[accept.TextLines]
call = ["readlines"]
iterate = true
[accept.Callable]
invoke = true
"""
LENDS = "".join(
    f'[[lend]]\nto = "Shop.{member}"\nparam = "{parameter}"\nas = "{facet}"\nlifetime = "call"\n'
    for member, parameter, facet in (
        ("count", "fileobj", "LinesOnly"),
        ("count", "function", "InvokeOnly"),
        ("wait", "function", "InvokeOnly"),
        ("sleep", "function", "InvokeOnly"),
    )
)
CLIENT_POLICY = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Shop]
call = [{GRANTED}, "hidden"]
get = ["title", "size"]
set = ["title"]
[accept.Iterator]
iterate = true
[offer.LinesOnly]
interface = "TextLines"
call = ["readlines"]
iterate = true
[offer.InvokeOnly]
interface = "Callable"
invoke = true
{LENDS}
"""


def deploy(root):
    """Make both sides' directories below ``root``: ``server`` and ``alice``."""
    deployment = Deployment(root)
    deployment.side("server", {"alice": SERVER_POLICY}, [Shop])
    deployment.side("alice", {"server": CLIENT_POLICY}, [Shop])
    return deployment
