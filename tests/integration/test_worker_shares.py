"""A principal that keeps workers busy does not keep another principal from being served, on both servers."""

import asyncio
import threading
from contextlib import contextmanager

import pytest

import caprpc
import caprpc.aio
from caprpc import Interface, method
from caprpc.limits import ServerLimits
from caprpc.testing.deployment import Deployment

OFFER = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/NAME"]
[roots]
gate = "Gate"
[offer.Gate]
interface = "Gate"
call = ["wait", "pass_through"]
"""
ACCEPT = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Gate]
call = ["wait", "pass_through"]
"""


class Gate(Interface):
    @method(effect="read", blocking=True)
    def wait(self) -> bool: ...

    @method(effect="read", blocking=True)
    def pass_through(self) -> int: ...


class OneGate(Gate):
    def __init__(self):
        self.open = threading.Event()
        self.waiting = threading.Semaphore(0)

    def wait(self):
        self.waiting.release()
        return self.open.wait(30)

    def pass_through(self):
        return 7


@pytest.fixture
def deployment(tmp_path):
    return Deployment(tmp_path)


@contextmanager
def blocking_server(roots, side, limits):
    server = caprpc.Server(roots, **side.directories, limits=limits)
    address = server.listen("127.0.0.1:0")
    with server:
        yield address


@contextmanager
def asyncio_server(roots, side, limits):
    started = threading.Event()
    found = {}

    async def serve():
        server = caprpc.aio.Server(roots, **side.directories, limits=limits)
        found["address"] = server.listen("127.0.0.1:0")
        found["loop"], found["stop"] = asyncio.get_running_loop(), asyncio.Event()
        async with server:
            started.set()
            await found["stop"].wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(20)
    try:
        yield found["address"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(20)


@pytest.mark.parametrize("serving", [blocking_server, asyncio_server])
def test_another_principal_is_served_while_one_waits_on_all_it_can_get(deployment, serving):
    names = ["mallory", "alice"]
    policies = {name: OFFER.replace("NAME", name) for name in names}
    server = deployment.side("server", policies, [Gate])
    sides = {name: deployment.side(name, {"server": ACCEPT}, [Gate]) for name in names}
    gate = OneGate()
    with serving({"gate": gate}, server, ServerLimits(workers=8)) as address:
        with (
            caprpc.connect(address, **sides["mallory"].directories) as mallory,
            caprpc.connect(address, **sides["alice"].directories) as alice,
        ):
            held = mallory.root("gate", Gate)
            futures = [caprpc.submit(held.wait) for _ in range(16)]
            for _ in range(4):
                assert gate.waiting.acquire(timeout=20)
            assert alice.root("gate", Gate).pass_through() == 7
            assert not gate.waiting.acquire(blocking=False)
            gate.open.set()
            assert [future.result(20) for future in futures] == [True] * 16
