"""A batch awaits the ``async def`` methods in it, on both servers."""

import asyncio

import pytest

import caprpc
import caprpc.aio
from caprpc import Interface, RemoteError, method
from caprpc.testing.deployment import Deployment

SERVER = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/alice"]
[roots]
sums = "Sums"
[offer.Sums]
interface = "Adder"
call = ["add", "fail", "now"]
"""
CLIENT = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Adder]
call = ["add", "fail", "now"]
"""


class Adder(Interface):
    @method(effect="read")
    def add(self, a: int, b: int) -> int: ...

    @method(effect="read")
    def fail(self) -> None: ...

    @method(effect="read")
    def now(self) -> int: ...


class AsyncAdder(Adder):
    async def add(self, a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    async def fail(self) -> None:
        raise KeyError("no")

    def now(self) -> int:
        return 7


@pytest.fixture
def sides(tmp_path):
    deployment = Deployment(tmp_path)
    return (
        deployment.side("server", {"alice": SERVER}, [Adder]),
        deployment.side("alice", {"server": CLIENT}, [Adder]),
    )


def ask(address, side):
    with caprpc.connect(address, **side.directories) as peer:
        sums = peer.root("sums", Adder)
        return caprpc.batch([(sums.add, (1, 2)), (sums.now, ()), (sums.fail, ()), (sums.add, (3, 4))])


def check(results):
    assert [results[0], results[1], results[3]] == [3, 7, 7]
    assert type(results[2]) is RemoteError
    assert results[2].code == "internal"


def test_blocking_server_awaits_methods_of_a_batch(sides):
    server = caprpc.Server({"sums": AsyncAdder()}, **sides[0].directories)
    address = server.listen("127.0.0.1:0")
    with server:
        check(ask(address, sides[1]))


def test_asyncio_server_awaits_methods_of_a_batch(sides):
    async def scenario():
        server = caprpc.aio.Server({"sums": AsyncAdder()}, **sides[0].directories)
        address = server.listen("127.0.0.1:0")
        async with server:
            return await asyncio.to_thread(ask, address, sides[1])

    check(asyncio.run(scenario()))
