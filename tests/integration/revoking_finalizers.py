"""A process in which garbage revokes, wherever the collector comes by: ``revoking_finalizers.py DRIVER DIRECTORY``.

DRIVER is ``rights`` for rights alone, ``blocking`` or ``aio`` for a server. The last line is ``done``; a thread that
waits for itself ends the process with a traceback of all threads.
"""

import asyncio
import contextlib
import faulthandler
import gc
import logging
import sys
import time
from pathlib import Path

import caprpc
import caprpc.aio
from caprpc import Interface, method
from caprpc.testing import Deployment, everything

GIVE_UP_S = 30.0
THRESHOLDS = range(1, 16)
"""How many allocations lie between two collections: each value has them come at other places."""


class Item(Interface):
    @method(effect="read")
    def count(self) -> int: ...


class Desk(Interface):
    @method(effect="read")
    def item(self) -> Item: ...

    @method(effect="read")
    def held(self, item: Item) -> int: ...


class Left:
    """Garbage that only the collector finds, and that revokes when it is found."""

    def __init__(self, reference):
        self.itself = self
        self.reference = reference

    def __del__(self):
        caprpc.revoke(self.reference)


class ItemOfDesk(Item):
    def count(self):
        return 1


def abandoned(obj):
    """Return a handle, and a block that revokes it when the collector finds the block."""

    def block():
        itself.append(blocks)
        with caprpc.lend(obj) as handle:
            yield handle

    itself = []
    blocks = block()
    return next(blocks), itself


class DeskOfAcme(Desk):
    def __init__(self):
        self.left = []

    def item(self):
        """Hand something out in one of three ways, each of which revokes it a little later."""
        item = ItemOfDesk()
        way = len(self.left) % 3
        if way == 0:
            given = caprpc.attenuate(item)
            self.left.append(Left(given))
        elif way == 1:
            given, block = abandoned(item)
            self.left.append(block)
        else:
            given = item
            self.left.append(Left(item))
        if len(self.left) > 8:
            del self.left[:6]
        return given

    def held(self, item):
        return item.count()


def rights():
    for threshold in THRESHOLDS:
        gc.set_threshold(threshold)
        for _ in range(100):
            top = caprpc.attenuate(ItemOfDesk(), uses=3)
            below = caprpc.attenuate(top)
            Left(below), Left(top)
            other = caprpc.attenuate(ItemOfDesk(), uses=3, rate=5.0)
            below = caprpc.attenuate(other)
            below._caprpc_right.take(0.0)
            caprpc.revoke(other)
            assert not below._caprpc_right.alive


def use(url, side):
    """Call, derive and lend as a client whose garbage revokes, too."""
    used = []
    with caprpc.connect(url, **side.directories) as peer:
        desk = peer.root("desk", Desk)
        for threshold in THRESHOLDS:
            gc.set_threshold(threshold, 2, 2)
            for number in range(15):
                with contextlib.suppress(caprpc.ReferenceDead, caprpc.RemoteError):
                    item = desk.item()
                    used.append(item)
                    item.count()
                if number % 3 == 0:
                    Left(caprpc.attenuate(desk))
                    lent = caprpc.attenuate(ItemOfDesk())
                    with contextlib.suppress(caprpc.RemoteError, caprpc.CallRefused):
                        desk.held(lent)
                    Left(lent)
        gc.set_threshold(700, 10, 10)
        yield
        # What was garbage is revoked, although it was found at a bad moment.
        until = time.monotonic() + 5.0
        while any(caprpc.describe(item).alive for item in used):
            with contextlib.suppress(caprpc.ReferenceDead, caprpc.RemoteError):
                desk.held(ItemOfDesk())
            assert time.monotonic() < until, "something that was revoked is alive"


def sides(directory, desk):
    made = Deployment(directory)
    offer, accept = everything({"desk": desk}, server="server", client="client")
    return made.side("server", {"client": offer}, [Desk]), made.side("client", {"server": accept}, [Desk])


def through(url, side, desk):
    for _ in use(url, side):
        desk.left.clear()
        gc.collect()


def main(driver, directory):
    faulthandler.dump_traceback_later(GIVE_UP_S, exit=True)
    logging.disable()
    if driver == "rights":
        rights()
        return
    desk = DeskOfAcme()
    server, client = sides(Path(directory), desk)
    if driver == "blocking":
        serving = caprpc.Server({"desk": desk}, **server.directories)
        url = serving.listen("127.0.0.1:0")
        with serving:
            through(url, client, desk)
        return

    async def on_loop():
        serving = caprpc.aio.Server({"desk": desk}, **server.directories)
        url = serving.listen("127.0.0.1:0")
        async with serving:
            await asyncio.to_thread(through, url, client, desk)

    asyncio.run(on_loop())


if __name__ == "__main__":
    main(*sys.argv[1:])
    print("done")
