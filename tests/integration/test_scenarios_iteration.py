"""Iteration in every combination: what is iterated, how its method is written, who consumes it, on either side."""

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator

import pytest

import caprpc
import caprpc.aio
from caprpc import Interface, IteratorBusy, RemoteError, method
from caprpc.testing.deployment import Deployment

COUNT = 500
WAIT_S = 10.0


class Item(Interface):
    @method(effect="read")
    def number(self) -> int: ...


class Wrong(Exception):
    """What a source fails with."""


class Source(Interface):
    @method(effect="read")
    def numbers(self, kind: str, n: int) -> Iterator[int]: ...

    @method(effect="read")
    def endless(self) -> Iterator[int]: ...

    @method(effect="read")
    def pause(self) -> Iterator[int]: ...

    @method(effect="read")
    def wide(self, n: int) -> Iterator[dict[str, list[str]]]: ...

    @method(effect="read")
    def items(self, n: int) -> Iterator[Item]: ...

    @method(effect="read")
    def total(self, numbers: Iterator[int]) -> int: ...

    @method(effect="read")
    def first(self, numbers: Iterator[int], n: int) -> list[int]: ...

    @method(effect="read")
    def capped(self) -> Iterator[int]: ...


class ItemImpl(Item):
    def __init__(self, n):
        self.n = n

    def number(self):
        return self.n


def plain(n):
    yield from range(n)


async def awaited(n):
    for i in range(n):
        if i % 100 == 50:
            await asyncio.sleep(0)
        yield i


KINDS = {
    "list": lambda n: list(range(n)),
    "range": range,
    "map": lambda n: map(int, range(n)),
    "generator": plain,
    "async generator": awaited,
}


class Common(Source):
    def __init__(self):
        self.made = 0
        self.ended = []
        self.gate = threading.Event()

    def _endless(self):
        try:
            while True:
                self.made += 1
                yield self.made
        finally:
            self.ended.append("endless")

    def _wide(self, n):
        for i in range(n):
            yield {"words": ["x" * 1000] * 100, "number": [str(i)]}


class Methods(Common):
    def numbers(self, kind, n):
        return KINDS[kind](n)

    def endless(self):
        return self._endless()

    def pause(self):
        def wait():
            try:
                yield 1
                self.gate.wait(WAIT_S)
                yield 2
            finally:
                self.ended.append("pause")

        return wait()

    def wide(self, n):
        return self._wide(n)

    def items(self, n):
        return (ItemImpl(i) for i in range(n))

    def total(self, numbers):
        return sum(numbers)

    def first(self, numbers, n):
        taken = [next(numbers) for _ in range(n)]
        numbers.close()
        return taken

    def capped(self):
        return iter(range(1000))


class Coroutines(Common):
    async def numbers(self, kind, n):
        await asyncio.sleep(0)
        return KINDS[kind](n)

    async def endless(self):
        return self._endless()

    async def pause(self):
        async def wait():
            try:
                yield 1
                await asyncio.sleep(WAIT_S)
                yield 2
            finally:
                self.ended.append("pause")

        return wait()

    async def wide(self, n):
        return self._wide(n)

    async def items(self, n):
        return (ItemImpl(i) for i in range(n))

    async def total(self, numbers):
        total = 0
        async for number in numbers:
            total += number
        return total

    async def first(self, numbers, n):
        taken = [await anext(numbers) for _ in range(n)]
        await numbers.aclose()
        return taken

    async def capped(self):
        return iter(range(1000))


CALLS = '"numbers", "endless", "pause", "wide", "items", "total", "first", "capped"'
SERVER = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/client"]
[roots]
service = "Source"
[offer.Source]
interface = "Source"
call = [{CALLS}]
iterate = true
[offer.Source.limit.capped]
max_items = 70
[offer.Source.returns]
items = "Items"
[offer.Items]
interface = "Iterator"
iterate = true
[offer.Items.returns]
iterate = "Item"
[offer.Item]
interface = "Item"
call = ["number"]
[accept.Iterator]
iterate = true
"""
CLIENT = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Source]
call = [{CALLS}]
iterate = true
[accept.Item]
call = ["number"]
[offer.Numbers]
interface = "Iterator"
iterate = true
[[lend]]
to = "Source.total"
param = "numbers"
as = "Numbers"
lifetime = "call"
[[lend]]
to = "Source.first"
param = "numbers"
as = "Numbers"
lifetime = "call"
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    deployment = Deployment(tmp_path_factory.mktemp("iteration"))
    deployment.server = deployment.side("server", {"client": SERVER}, [Source])
    deployment.clients = {"alice": deployment.side("client", {"server": CLIENT}, [Source])}
    return deployment


@pytest.fixture
def world(pairings, deployment, tmp_path):
    made = pairings(deployment, tmp_path, Methods, Coroutines)
    yield made
    made.service.gate.set()
    made.close()


async def source_of(face):
    return await face.root("service", Source)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_reaches_every_kind_of_consumer(world, kind):
    async def scenario(face):
        source = await source_of(face)
        return await face.list(await face(source.numbers(kind, COUNT)))

    assert world.run(scenario) == list(range(COUNT))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_of_the_client_reaches_the_method(world, kind):
    async def scenario(face):
        source = await source_of(face)
        if kind == "async generator" and not face.is_async:
            return await face(source.total(awaited(COUNT)))
        return await face(source.total(KINDS[kind](COUNT)))

    assert world.run(scenario) == sum(range(COUNT))


def test_a_method_that_stops_early_closes_the_clients_generator_once(world):
    ended = []

    def numbers():
        try:
            yield from range(10_000)
        finally:
            ended.append(True)

    async def scenario(face):
        source = await source_of(face)
        assert await face(source.first(numbers(), 3)) == [0, 1, 2]
        await face.pause(lambda: ended)

    world.run(scenario)
    assert ended == [True]


def test_the_receiver_chooses_how_much_is_pulled_and_nothing_more_is_made(world):
    prefetch = {True: caprpc.aio.prefetch, False: caprpc.prefetch}
    received = []

    async def scenario(face):
        source = await source_of(face)
        endless = await face(source.endless())
        chosen = prefetch[face.is_async](endless, items=5, ahead=False, progress=received.append)
        assert chosen is endless
        for number in range(12):
            await face.next(chosen)
            # A source that takes long gives what it has: a chunk may be shorter than what was asked for.
            assert number < received[-1] == world.service.made
        await face.close(chosen)
        await face.pause(lambda: world.service.ended)

    world.run(scenario)
    assert all(later - earlier <= 5 for earlier, later in itertools.pairwise([0, *received]))
    assert world.service.ended == ["endless"]


def test_a_receiver_that_stops_pulling_stops_the_source(world):
    """Credit: one chunk consumed and one ahead, however long the receiver takes."""
    received = []

    async def scenario(face):
        source = await source_of(face)
        endless = await face(source.endless())
        (caprpc.aio if face.is_async else caprpc).prefetch(endless, items=10, progress=received.append)
        await face.next(endless)
        await face.pause(lambda: world.service.made > received[0])
        for _ in range(10):
            await face(source.numbers("list", 1))
        assert received[0] < world.service.made <= received[0] + 10

    world.run(scenario)


def test_few_bytes_at_a_time(world):
    received = []

    async def scenario(face):
        source = await source_of(face)
        iterator = await face(source.numbers("list", 64))
        (caprpc.aio if face.is_async else caprpc).prefetch(iterator, bytes=160, progress=received.append)
        assert await face.list(iterator) == list(range(64))

    world.run(scenario)
    assert len(received) >= 6


def test_asyncio_takes_the_call_itself(world):
    async def scenario(face):
        source = await source_of(face)
        if face.is_async:
            call = source.numbers("list", 100)
            return [n async for n in caprpc.aio.prefetch(call, items=10)]
        return list(caprpc.prefetch(source.numbers("list", 100), items=10))

    assert world.run(scenario) == list(range(100))


def test_items_whose_weight_nobody_knows_beforehand_all_arrive(world):
    """A chunk that does not fit into a frame is cut, and the rest comes later."""

    async def scenario(face):
        source = await source_of(face)
        return [item["number"][0] for item in await face.list(await face(source.wide(200)))]

    assert world.run(scenario) == [str(i) for i in range(200)]


def test_more_references_than_the_tables_hold_are_iterated_one_by_one(world):
    count = 6000

    async def scenario(face):
        source = await source_of(face)
        seen = 0
        iterator = await face(source.items(count))
        while (item := await face.next(iterator)) is not face.END:
            if seen % 1000 == 0:
                assert await face(item.number()) == seen
            seen += 1
        return seen

    assert world.run(scenario) == count


def test_closing_early_does_not_wait_for_a_source_that_waits(world):
    async def scenario(face):
        source = await source_of(face)
        pause = await face(source.pause())
        (caprpc.aio if face.is_async else caprpc).prefetch(pause, items=1)
        assert await face.next(pause) == 1
        started = time.monotonic()
        await face.close(pause)
        assert time.monotonic() - started < WAIT_S / 2
        world.service.gate.set()
        await face.pause(lambda: world.service.ended)

    world.run(scenario)
    assert world.service.ended == ["pause"]


def test_the_cap_of_the_policy_ends_the_iteration_with_an_error(world):
    async def scenario(face):
        source = await source_of(face)
        iterator = await face(source.capped())
        taken = []
        with pytest.raises(RemoteError) as caught:
            while True:
                taken.append(await face.next(iterator))
        assert caught.value.code == "limit"
        return taken

    assert world.run(scenario) == list(range(70))


def test_a_second_consumer_is_told_so(world):
    async def scenario(face):
        source = await source_of(face)
        pause = await face(source.pause())
        (caprpc.aio if face.is_async else caprpc).prefetch(pause, items=1, ahead=False)
        assert await face.next(pause) == 1
        if face.is_async:
            first = asyncio.ensure_future(anext(pause))
            await asyncio.sleep(0.05)
            with pytest.raises(IteratorBusy, match="one consumer"):
                await anext(pause)
            first.cancel()
        else:
            thread = threading.Thread(target=lambda: next(pause, None))
            thread.start()
            await face.pause(lambda: pause._caprpc_pull.turn.locked())
            with pytest.raises(IteratorBusy, match="one consumer"):
                next(pause)
            world.service.gate.set()
            if world.implementation is Coroutines:
                pause.close()
            thread.join(WAIT_S)

    world.run(scenario)


def test_waiting_for_an_item_in_vain_loses_none(world):
    """asyncio: a timeout around ``anext`` leaves the chunk under way for the next look."""

    async def scenario(face):
        if not face.is_async:
            return [1, 2]
        source = await source_of(face)
        pause = caprpc.aio.prefetch(await face(source.pause()), items=1)
        taken = [await anext(pause)]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(pause), 0.05)
        if world.implementation is Coroutines:
            return [*taken, 2]
        world.service.gate.set()
        return [*taken, await asyncio.wait_for(anext(pause), WAIT_S)]

    assert world.run(scenario) == [1, 2]
