"""A callback that a peer lends for as long as the connection lives: who keeps it notices that the peer has gone."""

import asyncio
import socket
import threading
from collections.abc import Callable

import caprpc
import caprpc.aio
from caprpc import Interface, ReferenceDead, method
from caprpc.testing import everything


class Prices(Interface):
    @method(effect="write")
    def subscribe(self, tick: Callable[[int], None]) -> None: ...

    @method(effect="write", blocking=True)
    def publish(self, price: int) -> list[str]: ...


class PricesOfOurs(Prices):
    """Goes on when one of those who listen has left, and forgets it."""

    def __init__(self):
        self.listeners = []
        self.left = threading.Event()

    def on_disconnect(self, _peer, _reason):
        self.left.set()

    def subscribe(self, tick):
        self.listeners.append(tick)

    def publish(self, price):
        failed = []
        for tick in list(self.listeners):
            try:
                tick(price)
            except ReferenceDead as error:
                self.listeners.remove(tick)
                failed.append(type(error).__name__)
        return failed


def sides_of(caprpc_sides, roots):
    offer, accept = everything(roots)
    kept = accept.replace('lifetime = "call"', 'lifetime = "connection"')
    server, client = caprpc_sides(roots, offer=offer, accept=kept)
    return [{"identity": side.identity, "policies": side.policies} for side in (server, client)]


def test_a_server_on_threads_goes_on_without_who_has_left(caprpc_sides):
    ours, seen = PricesOfOurs(), []
    server, client = sides_of(caprpc_sides, {"prices": ours})
    serving = caprpc.Server({"prices": ours}, on_disconnect=ours.on_disconnect, **server)
    pairs = [socket.socketpair() for _ in range(2)]
    for _, theirs in pairs:
        serving.adopt(theirs)
    with serving, caprpc.Client(**client) as dialing:
        with dialing.adopt(pairs[0][0]) as peer:
            peer.root("prices", Prices).subscribe(lambda _price: None)
        assert ours.left.wait(10.0)
        with dialing.adopt(pairs[1][0]) as peer:
            prices = peer.root("prices", Prices)
            prices.subscribe(seen.append)
            assert prices.publish(1) == ["ReferenceDead"]
            assert prices.publish(2) == []
    assert seen == [1, 2]


async def test_a_server_on_a_loop_goes_on_without_who_has_left(caprpc_sides):
    ours, seen = PricesOfOurs(), []
    server, client = sides_of(caprpc_sides, {"prices": ours})
    serving = caprpc.aio.Server({"prices": ours}, on_disconnect=ours.on_disconnect, **server)
    pairs = [socket.socketpair() for _ in range(2)]
    for _, theirs in pairs:
        serving.adopt(theirs)
    async with serving, caprpc.aio.Client(**client) as dialing:
        async with dialing.adopt(pairs[0][0]) as peer:
            await (await peer.root("prices", Prices)).subscribe(lambda _price: None)
        assert await asyncio.to_thread(ours.left.wait, 10.0)
        async with dialing.adopt(pairs[1][0]) as peer:
            prices = await peer.root("prices", Prices)
            await prices.subscribe(seen.append)
            assert await prices.publish(1) == ["ReferenceDead"]
            assert await prices.publish(2) == []
    assert seen == [1, 2]
