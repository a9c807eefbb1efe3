"""The spellings that a user of asyncio tries first."""

import asyncio
from collections.abc import Iterator

import pytest

import caprpc.aio
from caprpc import Interface, PolicyError, method
from caprpc.testing.deployment import Deployment

SERVER = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/alice"]
[roots]
counts = "Counts"
[offer.Counts]
interface = "Counts"
call = ["upto"]
iterate = true
"""
CLIENT = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Counts]
call = ["upto"]
iterate = true
"""


class Counts(Interface):
    @method(effect="read")
    def upto(self, n: int) -> Iterator[int]: ...


class RealCounts(Counts):
    def upto(self, n):
        return iter(range(n))


def changed():
    class Counts(Interface):
        @method(effect="read")
        def upto(self, n: str) -> Iterator[int]: ...

    return Counts


@pytest.fixture
def sides(tmp_path):
    deployment = Deployment(tmp_path)
    return (
        deployment.side("server", {"alice": SERVER}, [Counts]),
        deployment.side("alice", {"server": CLIENT}, [Counts]),
    )


def run(sides, scenario):
    async def main():
        server = caprpc.aio.Server({"counts": RealCounts()}, **sides[0].directories)
        address = server.listen("127.0.0.1:0")
        async with server:
            return await scenario(address)

    return asyncio.run(main())


def test_connect_is_entered_without_await_and_a_call_is_walked(sides):
    async def scenario(address):
        async with caprpc.aio.connect(address, **sides[1].directories) as peer:
            counts = await peer.root("counts", Counts)
            return [n async for n in counts.upto(100)]

    assert run(sides, scenario) == list(range(100))


def test_connect_is_awaited(sides):
    async def scenario(address):
        peer = await caprpc.aio.connect(address, **sides[1].directories)
        await peer.close()
        return peer.principal

    assert run(sides, scenario) == "spiffe://test.example/server"


def test_an_interface_that_changed_since_the_review_is_refused_before_it_is_asked_for(sides):
    async def scenario(address):
        async with caprpc.aio.connect(address, **sides[1].directories) as peer:
            with pytest.raises(PolicyError, match="upto"):
                await peer.root("counts", changed())

    run(sides, scenario)


def test_a_root_that_the_service_lacks_stops_the_start(sides):
    with pytest.raises(PolicyError, match=r"alice.toml:\d+: root 'counts' is granted") as caught:
        caprpc.aio.Server({"count": RealCounts()}, **sides[0].directories)
    assert "its roots are: count" in str(caught.value)
