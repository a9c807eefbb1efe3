"""A malicious server that plays a script against a client of ours, of either driver."""

import asyncio
import time

import pytest
from hostile_peer import HostileServer, reference, welcome
from vault_service import CLIENT, INTERFACES, Vault

import caprpc
import caprpc.aio
from caprpc.ids import OP_CALL, OP_GET, OP_ROOT
from caprpc.wire import messages as m
from caprpc.wire.codec import pack

RIGHTS = [
    *(
        (OP_CALL, name)
        for name in ("noop", "add", "echo", "call_back", "keep", "slip", "slips", "numbers", "take", "fail")
    ),
    (OP_GET, "label"),
]


GONE = (caprpc.ConnectionLost, caprpc.ReferenceDead)
"""What a call on a connection that has ended raises."""


class Client:
    """Our client of one driver, used the same way in both: methods are called and waited for."""

    def __init__(self, driver, world, address):
        self._side = world.side("alice")
        self._address = address
        self._loop = asyncio.new_event_loop() if driver == "aio" else None

    def __enter__(self):
        if self._loop is None:
            self.peer = caprpc.connect(self._address, **self._side.directories, timeout_s=5)
            self.vault = self.peer.root("vault", Vault)
        else:
            self.peer = self._run(caprpc.aio.connect(self._address, **self._side.directories, timeout_s=5))
            self.vault = self._run(self.peer.root("vault", Vault))
        return self

    def call(self, name, *args):
        """Call a method of the vault."""
        return self.wait(getattr(self.vault, name)(*args)) if self._loop is None else self._run(self._call(name, args))

    async def _call(self, name, args):
        return await getattr(self.vault, name)(*args)

    def wait(self, result):
        return result

    def _run(self, coroutine):
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, 10))

    def idle(self, seconds):
        if self._loop is None:
            time.sleep(seconds)
        else:
            self._run(asyncio.sleep(seconds))

    def __exit__(self, kind, value, trace):
        self.vault = None
        if self._loop is None:
            self.peer.close()
        else:
            self._run(self.peer.close())
            self._loop.close()


def give_root(peer, rights=RIGHTS):
    """Open as the server, and answer the question for the root."""
    welcome(peer)
    ask = peer.next_call()
    assert (ask.operation, ask.member) == (OP_ROOT, "vault")
    peer.send(m.Facet(1, "Vault", rights, 0), m.Return(ask.question, pack(reference(1, 1))))


@pytest.fixture
def duel(world, driver):
    """Run a script of a malicious server against a scenario of our client."""

    def run(script, scenario, *, connection=""):
        policy = CLIENT + (f"[limits]\n{connection}\n" if connection else "")
        world.side("alice", policies={"server": policy})
        side = world.deployment.side("evil", {"peers": CLIENT}, INTERFACES, spiffe=world.server_id)

        def play(peer):
            give_root(peer)
            script(peer)

        with HostileServer(side, play) as server, Client(driver, world, server.address) as client:
            scenario(client)

    return run
