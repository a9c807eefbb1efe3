"""Chunks within the receiver's bounds, errors in their turn, one consumer, nothing but next and close."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from caprpc import IteratorBusy
from caprpc.ids import OP_CLOSE, OP_NEXT
from caprpc.interface import Interface, Mismatch, NoReferences, ResultError, iteration, method, shape_of
from caprpc.interface.iteration import Abandoned, AsyncIteratorServer, IteratorServer, PullCancelled
from caprpc.interface.streams import AsyncGeneratorSource, GeneratorSource

NOWHERE = NoReferences()
LOTS = 1 << 30


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until told."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(iteration, "monotonic", lambda: Clock.now)
    return Clock


def drain(server, max_items=100, max_bytes=LOTS):
    chunks = []
    done = False
    while not done:
        items, done = server.pull(max_items, max_bytes)
        chunks.append(items)
    return chunks


def test_all_items_arrive_in_order(clock):
    chunks = drain(IteratorServer(iter(range(250))))
    assert [item for chunk in chunks for item in chunk] == list(range(250))
    assert [len(chunk) for chunk in chunks] == [100, 100, 50]


def test_empty_iterator_is_done_at_once():
    assert IteratorServer(iter(())).pull(10, LOTS) == ([], True)


def test_items_are_bounded_by_bytes_and_none_is_lost(clock):
    lines = ["x" * 40 for _ in range(20)]
    chunks = drain(IteratorServer(iter(lines)), max_bytes=100)
    assert [line for chunk in chunks for line in chunk] == lines
    assert all(sum(map(len, chunk)) <= 100 for chunk in chunks)


def test_item_larger_than_the_bound_comes_alone(clock):
    chunks = drain(IteratorServer(iter(["a", "b" * 500, "c"])), max_bytes=100)
    assert [chunk for chunk in chunks if chunk] == [["a"], ["b" * 500], ["c"]]


def test_nothing_is_pulled_beyond_the_bound(clock):
    pulled = []

    def source():
        for i in range(10_000):
            pulled.append(i)
            yield i

    IteratorServer(source()).pull(10, LOTS)
    assert len(pulled) == 10


def test_infinite_iterator_is_served_in_bounded_chunks(clock):
    def source():
        while True:
            yield "x" * 10

    items, done = IteratorServer(source()).pull(1_000_000, 1_000)
    assert not done
    assert len(items) == 100


def test_slow_source_is_delivered_item_by_item(clock):
    def source():
        for i in range(3):
            clock.now += 1.0
            yield i

    server = IteratorServer(source())
    assert [server.pull(100, LOTS)[0] for _ in range(3)] == [[0], [1], [2]]


def test_source_that_becomes_slow_holds_back_one_item_at_most(clock):
    def source():
        yield from range(50)
        while True:
            clock.now += 1.0
            yield "late"

    assert IteratorServer(source()).pull(1000, LOTS) == ([*range(50), "late"], False)


def test_error_comes_after_all_items_before_it(clock):
    def source():
        yield from ("a", "b")
        raise LookupError("gone")

    server = IteratorServer(source())
    assert server.pull(100, LOTS) == (["a", "b"], False)
    with pytest.raises(LookupError, match="gone"):
        server.pull(100, LOTS)
    assert server.pull(100, LOTS) == ([], True)


def test_error_waits_for_items_that_did_not_fit(clock):
    def source():
        yield from ("a" * 60, "b" * 60)
        raise LookupError

    server = IteratorServer(source())
    assert server.pull(100, 70) == (["a" * 60], False)
    assert server.pull(100, 70) == (["b" * 60], False)
    with pytest.raises(LookupError):
        server.pull(100, 70)


def test_close_ends_a_generator_and_later_pulls_find_nothing():
    closed = []

    def source():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    held_by_its_owner = source()
    server = IteratorServer(held_by_its_owner)
    server.pull(1, LOTS)
    server.close()
    assert closed == [True]
    assert server.pull(1, LOTS) == ([], True)
    server.close()
    assert closed == [True]


def test_close_does_not_close_what_is_not_a_generator(tmp_path):
    path = tmp_path / "lines"
    path.write_text("a\nb\n")
    with path.open() as file:
        server = IteratorServer(file)
        server.pull(1, LOTS)
        server.close()
        assert not file.closed


def test_second_consumer_is_turned_away():
    entered, leave = threading.Event(), threading.Event()

    def source():
        entered.set()
        leave.wait(10)
        yield 1

    server = IteratorServer(source())
    results = []
    thread = threading.Thread(target=lambda: results.append(server.pull(1, LOTS)))
    thread.start()
    assert entered.wait(10)
    with pytest.raises(IteratorBusy):
        server.pull(1, LOTS)
    leave.set()
    thread.join()
    assert results == [([1], False)]


def test_close_while_another_thread_pulls_closes_once_that_pull_has_ended():
    entered, leave = threading.Event(), threading.Event()
    closed = []

    def source():
        try:
            entered.set()
            leave.wait(10)
            yield 1
        finally:
            closed.append(True)

    server = IteratorServer(source())
    thread = threading.Thread(target=lambda: server.pull(1, LOTS))
    thread.start()
    assert entered.wait(10)
    server.close()
    assert closed == []
    leave.set()
    thread.join()
    assert closed == [True]
    assert server.pull(1, LOTS) == ([], True)


def test_items_put_back_come_first(clock):
    server = IteratorServer(iter("abcd"))
    assert server.pull(3, LOTS) == (["a", "b", "c"], False)
    server.put_back(["b", "c"])
    assert server.pull(10, LOTS) == (["b", "c", "d"], True)


def test_weight_learned_from_a_chunk_bounds_the_next(clock):
    """Nothing tells what a dictionary of lists weighs before it was encoded."""
    server = IteratorServer(iter([{"n": ["x" * 1000]} for _ in range(1000)]))
    items, _ = server.pull(32, 10_000)
    assert len(items) == 32
    server.learn(32, 32_000)
    items, _ = server.pull(1000, 10_000)
    assert len(items) == 10


def test_a_chunk_is_bounded_whatever_the_receiver_asks_for(clock):
    server = IteratorServer(iter(range(iteration.MOST_PULLED * 3)))
    assert len(server.pull(2**53, 2**53)[0]) == iteration.MOST_PULLED
    blobs = IteratorServer(bytes(1000) for _ in range(100_000))
    assert sum(map(len, blobs.pull(2**53, 2**53)[0])) <= iteration.MOST_WEIGHT


async def test_closing_interrupts_an_async_source_that_waits_and_runs_its_finally_once():
    closed = []

    async def source():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    server = AsyncIteratorServer(source())
    assert await server.pull(1, LOTS) == ([1], False)
    waiting = asyncio.create_task(server.pull(1, LOTS))
    await asyncio.sleep(0)
    await server.close()
    assert await waiting == ([], True)
    assert closed == [True]
    await server.close()
    assert closed == [True]


async def test_cancelled_pull_is_not_followed_by_a_clean_end():
    async def source():
        yield 1
        await asyncio.Event().wait()

    server = AsyncIteratorServer(source())
    assert await server.pull(1, LOTS) == ([1], False)
    waiting = asyncio.create_task(server.pull(1, LOTS))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(PullCancelled):
        await server.pull(1, LOTS)


async def test_async_generator_is_served_and_closed():
    closed = []

    async def source():
        try:
            for i in range(5):
                yield i
        finally:
            closed.append(True)

    server = AsyncIteratorServer(source())
    assert (await server.pull(2, LOTS))[0]
    await server.close()
    assert closed == [True]
    assert await server.pull(2, LOTS) == ([], True)


async def test_async_error_comes_after_the_items_before_it(clock):
    async def source():
        yield 1
        raise LookupError

    server = AsyncIteratorServer(source())
    assert await server.pull(5, LOTS) == ([1], False)
    with pytest.raises(LookupError):
        await server.pull(5, LOTS)


async def test_slow_async_source_is_delivered_item_by_item(clock):
    async def source():
        yield 0
        for i in (1, 2):
            clock.now += 1.0
            yield i

    server = AsyncIteratorServer(source())
    assert [(await server.pull(100, LOTS))[0] for _ in range(3)] == [[0, 1], [2], []]


async def test_second_async_consumer_is_turned_away():
    gate = asyncio.Event()

    async def source():
        await gate.wait()
        yield 1

    server = AsyncIteratorServer(source())
    first = asyncio.create_task(server.pull(1, LOTS))
    await asyncio.sleep(0)
    with pytest.raises(IteratorBusy):
        await server.pull(1, LOTS)
    gate.set()
    assert await first == ([1], False)


class Feed(Interface):
    @method(effect="read")
    def lines(self) -> Iterator[str]: ...

    @method(effect="read")
    def numbers(self) -> AsyncIterator[int]: ...


LINES = shape_of(Iterator[str])


def test_chunk_travels_as_done_and_items():
    pull = LINES.members[OP_NEXT, ""]
    server = LINES.adapt(iter(["a", "b"]))
    assert pull.signature.encode_result(pull.resolve(server)(5, LOTS), NOWHERE) == [True, ["a", "b"]]
    assert pull.signature.decode_result([True, ["a", "b"]], NOWHERE) == (["a", "b"], True)
    assert pull.signature.encode_args((5, 100), {}, NOWHERE) == [[5, 100], {}]


@pytest.mark.parametrize(
    "raw", [None, [], [True], [["a"], True], [True, ["a", 1]], [1, ["a"]], [True, ("a",)], [True, [], 0]]
)
def test_wrong_chunk_of_a_peer_is_refused(raw):
    with pytest.raises(ResultError):
        LINES.members[OP_NEXT, ""].signature.decode_result(raw, NOWHERE)


def test_item_of_another_type_fails_at_the_owner():
    pull = LINES.members[OP_NEXT, ""]
    with pytest.raises(TypeError, match="expected str, got int"):
        pull.signature.encode_result(pull.resolve(LINES.adapt(iter(["a", 1])))(5, LOTS), NOWHERE)


def test_only_next_and_close_are_there():
    assert set(LINES.members) == {(OP_NEXT, ""), (OP_CLOSE, "")}


def generator():
    yield 1


async def async_generator():
    yield 1


class LooksLikeIterator:
    def __iter__(self):
        return self

    def __next__(self):
        return 1


@pytest.mark.parametrize(
    "source",
    [
        [1],
        (1,),
        {1},
        {1: 2},
        {1: 2}.items(),
        range(3),
        generator(),
        map(str, [1]),
        zip([1], strict=True),
        reversed([1]),
    ],
)
def test_iterators_and_collections_of_the_language_are_adapted(source):
    assert type(shape_of(Iterator[int]).adapt(source)) is IteratorServer


def test_async_generator_is_adapted():
    assert type(shape_of(Iterator[int]).adapt(async_generator())) is AsyncIteratorServer
    close = shape_of(AsyncIterator[int]).members[OP_CLOSE, ""]
    assert close.is_async(AsyncIteratorServer(async_generator()))
    assert not close.is_async(IteratorServer(iter(())))


@pytest.mark.parametrize(
    "source", [LooksLikeIterator(), "text", b"bytes", 3, None, list, generator, LooksLikeIterator, object()]
)
def test_other_objects_are_not_iterators(source):
    with pytest.raises(Mismatch, match="pass a generator"):
        LINES.adapt(source)


def test_pull_behind_an_end_that_its_holder_did_not_ask_for_finds_no_end():
    """Else what was cut off would look like all of it."""
    server = IteratorServer(number for number in range(10))
    assert server.pull(3, LOTS) == ([0, 1, 2], False)
    server.abandon()
    for _ in range(2):
        with pytest.raises(Abandoned):
            server.pull(3, LOTS)


def test_what_was_pulled_and_not_delivered_is_no_end_either():
    server = IteratorServer(iter(["a", "b" * 500]))
    assert server.pull(10, 1) == (["a"], False)
    server.abandon()
    with pytest.raises(Abandoned):
        server.pull(10, LOTS)


def test_iterator_that_was_delivered_to_its_end_stays_at_its_end():
    server = IteratorServer(iter(range(3)))
    drain(server)
    server.abandon()
    assert server.pull(3, LOTS) == ([], True)


def test_iterator_that_its_holder_has_closed_is_at_its_end():
    server = IteratorServer(iter(range(10)))
    server.pull(3, LOTS)
    server.close()
    server.abandon()
    assert server.pull(3, LOTS) == ([], True)


def test_stream_that_was_cut_off_finds_no_end():
    source = GeneratorSource(b"x" * 10 for _ in range(10))
    assert source.read(4) == b"x" * 4
    source.abandon(ValueError())
    source.read(6)
    with pytest.raises(Abandoned):
        source.read(10)


async def test_pull_that_waits_on_a_loop_while_it_is_cut_off_finds_no_end():
    async def slow():
        yield b"x"
        await asyncio.Event().wait()

    source = AsyncGeneratorSource(slow())
    reading = asyncio.ensure_future(source.read(10))
    await asyncio.sleep(0)
    await source.abandon(ValueError())
    with pytest.raises(Abandoned):
        await reading
    with pytest.raises(Abandoned):
        await source.read(10)
