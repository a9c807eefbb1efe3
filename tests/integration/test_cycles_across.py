"""Objects of two sides that hold each other: nobody collects them, a quota bounds them, the end of the connection frees
them; over every pairing."""

import gc
import logging
import threading
import weakref
from collections.abc import Callable

import pytest

from caprpc import Interface, RemoteError, method
from caprpc.testing.deployment import Deployment

EXPORTS = 8
"""Of the server: one root, and as many nodes as there is room for."""


class Node(Interface):
    @method(effect="write")
    def subscribe(self, function: Callable[[int], int]) -> None: ...

    @method(effect="read")
    def ring(self, number: int) -> int: ...


class Hub(Interface):
    @method(effect="read")
    def node(self) -> Node: ...


class Common(Hub):
    def __init__(self):
        self.made = []
        self.gate = threading.Event()

    def node(self):
        node = self.kind()
        self.made.append(weakref.ref(node))
        return node


class NodeOfMethods(Node):
    def subscribe(self, function):
        self.function = function

    def ring(self, number):
        return self.function(number)


class NodeOfCoroutines(Node):
    async def subscribe(self, function):
        self.function = function

    async def ring(self, number):
        return await self.function(number)


class Methods(Common):
    kind = NodeOfMethods


class Coroutines(Common):
    kind = NodeOfCoroutines


class Listener:
    """Holds the reference to the node that holds its method."""

    def __init__(self, node):
        self.node = node

    def heard(self, number):
        return number + 1


PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
NODE = 'call = ["subscribe", "ring"]\n'
SERVER = (
    PEER.format("client")
    + '[roots]\nhub = "Hub"\n[offer.Hub]\ninterface = "Hub"\ncall = ["node"]\n[offer.Hub.returns]\nnode = "Node"\n'
    + f'[offer.Node]\ninterface = "Node"\n{NODE}[accept.Callable]\ninvoke = true\n[limits]\nexports = {EXPORTS}\n'
)
CLIENT = (
    PEER.format("server")
    + f'[accept.Hub]\ncall = ["node"]\n[accept.Node]\n{NODE}[offer.Function]\ninterface = "Callable"\ninvoke = true\n'
    + '[[lend]]\nto = "Node.subscribe"\nparam = "function"\nas = "Function"\nlifetime = "connection"\n'
)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    deployment = Deployment(tmp_path_factory.mktemp("cycles"))
    deployment.server = deployment.side("server", {"client": SERVER}, [Hub])
    deployment.clients = {"alice": deployment.side("client", {"server": CLIENT}, [Hub])}
    return deployment


@pytest.fixture
def world(pairings, deployment, tmp_path):
    made = pairings(deployment, tmp_path, Methods, Coroutines)
    made.serve({"hub": made.service})
    yield made
    made.close()


def alive(references):
    gc.collect()
    return sum(reference() is not None for reference in references)


async def entangle(face, hub, listeners):
    """Make one cycle over both sides, and keep nothing of it here."""
    node = await face(hub.node())
    listener = Listener(node)
    await face(node.subscribe(listener.heard))
    assert await face(node.ring(1)) == 2
    listeners.append(weakref.ref(listener))


def test_cycles_through_callbacks_are_bounded_by_a_quota_and_end_with_the_connection(world, monkeypatch):
    # pytest keeps every log record, and with its traceback the node that there was no room for.
    monkeypatch.setattr(logging.getLogger("caprpc"), "disabled", True)
    listeners = []

    async def scenario(face):
        hub = await face.root("hub", Hub)
        for _ in range(EXPORTS - 1):
            await entangle(face, hub, listeners)
        with pytest.raises(RemoteError) as caught:
            await face(hub.node())
        assert caught.value.code == "limit"
        assert len(face.peer._connection.link.session.exports) == EXPORTS - 1
        # Each side keeps its half for the other.
        return alive(listeners), alive(world.service.made[: EXPORTS - 1])

    assert world.run(scenario) == (EXPORTS - 1, EXPORTS - 1)
    world.host.stop()
    assert (alive(listeners), alive(world.service.made)) == (0, 0)
