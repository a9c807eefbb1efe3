"""Byte streams both ways: every kind of source and sink, in pieces that the receiver chooses, bounded in memory."""

import gc
import io
import random
import threading
import warnings

import pytest

import caprpc
import caprpc.aio
from caprpc import Interface, IteratorBusy, RemoteError, method
from caprpc.interfaces import ByteSink, ByteSource
from caprpc.testing.deployment import Deployment

DATA = random.Random(7).randbytes(3_000_001)
PIECE = 100_000


class Store(Interface):
    @method(effect="read")
    def download(self, kind: str) -> ByteSource: ...

    @method(effect="write")
    def upload(self) -> ByteSink: ...

    @method(effect="write")
    def take(self, source: ByteSource) -> int: ...

    @method(effect="read")
    def give(self, sink: ByteSink) -> int: ...


class Common(Store):
    def __init__(self, directory=None):
        self.gate = threading.Event()
        self.ended = []
        self.made = 0
        self.sink = io.BytesIO()
        self.received = b""
        self.path = None
        self.opened = io.BytesIO()

    def _pieces(self):
        try:
            for start in range(0, len(DATA), 30_000):
                self.made += 1
                yield DATA[start : start + 30_000]
        finally:
            self.ended.append("generator")

    async def _awaited(self):
        try:
            for start in range(0, len(DATA), 3_000_000):
                yield DATA[start : start + 3_000_000]
        finally:
            self.ended.append("generator")

    def _broken(self):
        yield b"abc"
        raise ValueError("the source broke")

    def _text(self):
        yield "text"

    def _download(self, kind):
        if kind == "file":
            self.opened = self.path.open("rb")
            return self.opened
        return {
            "memory": lambda: io.BytesIO(DATA),
            "generator": self._pieces,
            "async generator": self._awaited,
            "broken": self._broken,
            "text": self._text,
            "empty": lambda: io.BytesIO(b""),
        }[kind]()


class Methods(Common):
    def download(self, kind):
        return self._download(kind)

    def upload(self):
        return self.sink

    def take(self, source):
        with caprpc.open_stream(source, chunk_bytes=PIECE) as reader:
            self.received = reader.readall()
        return len(self.received)

    def give(self, sink):
        with caprpc.open_stream(sink, chunk_bytes=PIECE) as writer:
            return writer.write(DATA)


class Coroutines(Common):
    async def download(self, kind):
        return self._download(kind)

    async def upload(self):
        return self.sink

    async def take(self, source):
        async with caprpc.aio.open_stream(source, chunk_bytes=PIECE) as reader:
            self.received = await reader.read()
        return len(self.received)

    async def give(self, sink):
        async with caprpc.aio.open_stream(sink, chunk_bytes=PIECE) as writer:
            return await writer.write(DATA)


CALLS = '"download", "upload", "take", "give"'
SERVER = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/client"]
[roots]
store = "Store"
[offer.Store]
interface = "Store"
call = [{CALLS}]
[offer.Store.returns]
download = "Download"
upload = "Upload"
[offer.Download]
interface = "ByteSource"
call = ["read", "close"]
[offer.Upload]
interface = "ByteSink"
call = ["write", "flush", "close"]
[accept.ByteSource]
call = ["read", "close"]
[accept.ByteSink]
call = ["write", "flush", "close"]
"""
CLIENT = f"""
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Store]
call = [{CALLS}]
[accept.ByteSource]
call = ["read", "close"]
[accept.ByteSink]
call = ["write", "flush", "close"]
[offer.Reading]
interface = "ByteSource"
call = ["read", "close"]
[offer.Writing]
interface = "ByteSink"
call = ["write", "flush", "close"]
[[lend]]
to = "Store.take"
param = "source"
as = "Reading"
lifetime = "call"
[[lend]]
to = "Store.give"
param = "sink"
as = "Writing"
lifetime = "call"
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    deployment = Deployment(tmp_path_factory.mktemp("streams"))
    deployment.server = deployment.side("server", {"client": SERVER}, [Store])
    deployment.clients = {"alice": deployment.side("client", {"server": CLIENT}, [Store])}
    return deployment


@pytest.fixture
def world(pairings, deployment, tmp_path):
    made = pairings(deployment, tmp_path, Methods, Coroutines)
    made.service.path = tmp_path / "data"
    made.service.path.write_bytes(DATA)
    made.serve({"store": made.service})
    yield made
    made.close()
    assert not made.service.opened.closed, "a file is left to its owner"
    made.service.opened.close()


class Stream:
    """What a scenario does with a stream, the same text for both clients."""

    def __init__(self, face, reference, **options):
        self.face = face
        self.stream = (caprpc.aio if face.is_async else caprpc).open_stream(reference, **options)

    async def read(self, size=-1):
        return await self.face(self.stream.read(size))

    async def write(self, data):
        return await self.face(self.stream.write(data))

    async def flush(self):
        await self.face(self.stream.flush())

    async def close(self):
        await self.face(self.stream.aclose() if self.face.is_async else self.stream.close())


async def store_of(face):
    return await face.root("store", Store)


@pytest.mark.parametrize("kind", ["memory", "file", "generator", "async generator"])
def test_every_kind_of_source_is_read_whole_with_progress(world, kind):
    seen = []

    async def scenario(face):
        store = await store_of(face)
        reader = Stream(face, await face(store.download(kind)), chunk_bytes=PIECE, progress=seen.append)
        pieces = []
        while piece := await reader.read(70_000):
            assert len(piece) <= 70_000
            pieces.append(piece)
        assert await reader.read(10) == b""
        assert reader.stream.received == len(DATA)
        await reader.close()
        await reader.close()
        return b"".join(pieces)

    assert world.run(scenario) == DATA
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)
    assert len(seen) >= len(DATA) // PIECE


def test_no_more_than_two_pieces_are_made_ahead_of_the_reader(world):
    """The window: one piece here, one under way, whatever the size of the whole."""

    async def scenario(face):
        store = await store_of(face)
        reader = Stream(face, await face(store.download("generator")), chunk_bytes=30_000)
        assert len(await reader.read(1)) == 1
        await face.pause(lambda: world.service.made == 2)
        for _ in range(3):
            await face(store.download("empty"))
        assert world.service.made == 2
        await reader.close()
        await face.pause(lambda: world.service.ended)

    world.run(scenario)
    assert world.service.ended == ["generator"]


def test_a_reader_that_is_dropped_lets_the_generator_close(world):
    async def scenario(face):
        store = await store_of(face)
        reader = Stream(face, await face(store.download("generator")), chunk_bytes=30_000)
        await reader.read(1)
        del reader
        gc.collect()
        await face(store.download("empty"))
        await face.pause(lambda: world.service.ended)

    world.run(scenario)
    assert world.service.ended == ["generator"]


def test_a_stream_that_breaks_never_looks_complete(world):
    async def scenario(face):
        store = await store_of(face)
        reader = Stream(face, await face(store.download("broken")))
        assert await reader.read(10) == b"abc"
        for _ in range(2):
            with pytest.raises(RemoteError):
                await reader.read(10)
        wrong = Stream(face, await face(store.download("text")))
        with pytest.raises(RemoteError):
            await wrong.read(10)

    world.run(scenario)


def test_writing_in_pieces_of_any_size_arrives_whole(world):
    seen = []

    async def scenario(face):
        store = await store_of(face)
        writer = Stream(face, await face(store.upload()), chunk_bytes=PIECE, progress=seen.append)
        sizes = random.Random(3)
        start = 0
        while start < len(DATA):
            size = sizes.choice([1, 10, PIECE - 1, PIECE, PIECE + 1, 350_000])
            assert await writer.write(DATA[start : start + size]) == len(DATA[start : start + size])
            start += size
        await writer.flush()
        assert world.service.sink.getvalue() == DATA
        await writer.write(b"end")
        await writer.close()
        await writer.close()

    world.run(scenario)
    assert world.service.sink.getvalue() == DATA + b"end"
    assert seen[-1] == len(DATA) + 3


def test_what_the_client_lends_is_read_and_written_by_the_method(world):
    sink = io.BytesIO()

    def pieces():
        for start in range(0, len(DATA), 30_000):
            yield DATA[start : start + 30_000]

    async def scenario(face):
        store = await store_of(face)
        assert await face(store.take(io.BytesIO(DATA))) == len(DATA)
        assert world.service.received == DATA
        assert await face(store.take(pieces())) == len(DATA)
        assert world.service.received == DATA
        assert await face(store.give(sink)) == len(DATA)

    world.run(scenario)
    assert sink.getvalue() == DATA


def test_a_reader_is_a_raw_file_and_a_buffer_around_it_gives_lines(world):
    async def scenario(face):
        store = await store_of(face)
        if face.is_async:
            async with caprpc.aio.open_stream(await store.download("memory")) as reader:
                return b"".join([piece async for piece in reader])
        with io.BufferedReader(caprpc.open_stream(store.download("memory"), chunk_bytes=PIECE), 10_000) as buffered:
            lines = list(buffered)
        assert all(line.endswith(b"\n") for line in lines[:-1])
        raw = caprpc.open_stream(store.download("memory"), chunk_bytes=PIECE)
        assert raw.readable()
        assert not raw.writable()
        part = bytearray(10)
        assert raw.readinto(part) == 10
        assert part == DATA[:10]
        raw.close()
        with pytest.raises(ValueError, match="closed"):
            raw.read(1)
        return b"".join(lines)

    assert world.run(scenario) == DATA


def test_a_buffer_that_is_collected_sends_nothing(world):
    """Finalizers never send: a buffer that nobody closed loses what it holds, and says so."""

    async def scenario(face):
        if face.is_async:
            return
        store = await store_of(face)
        session = face.peer._connection.link.session
        reader = io.BufferedReader(caprpc.open_stream(store.download("memory"), chunk_bytes=PIECE))
        reader.read(1)
        store.download("empty")
        asked = session.asked.count
        del reader
        gc.collect()
        assert session.asked.count == asked
        writer = io.BufferedWriter(caprpc.open_stream(store.upload(), chunk_bytes=PIECE))
        writer.write(b"lost")
        asked = session.asked.count
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del writer
            gc.collect()
        assert session.asked.count == asked
        assert [warning.category for warning in caught] == [ResourceWarning]

    world.run(scenario)
    assert world.service.sink.getvalue() == b""


def test_two_users_of_one_stream_are_told_apart(world):
    async def scenario(face):
        store = await store_of(face)
        reader = Stream(face, await face(store.download("memory")))
        with reader.stream._transfer, pytest.raises(IteratorBusy, match="one user"):
            await reader.read(1)

    world.run(scenario)


def test_streams_are_opened_from_streams_and_by_the_right_module(world):
    async def scenario(face):
        store = await store_of(face)
        source = await face(store.download("memory"))
        right, wrong = (caprpc.aio, caprpc) if face.is_async else (caprpc, caprpc.aio)
        with pytest.raises(TypeError, match="open_stream"):
            wrong.open_stream(source)
        with pytest.raises(TypeError, match="ByteSource or a ByteSink"):
            right.open_stream(store)
        for size in (0, -1, 1 << 21, True):
            with pytest.raises(ValueError, match="chunk_bytes"):
                right.open_stream(source, chunk_bytes=size)
        with pytest.raises(RemoteError):
            await face(source.read(0))

    world.run(scenario)
