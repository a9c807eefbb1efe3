"""What a holder has made of a loan is of no use after the block, through whatever it tries; in both drivers."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

import caprpc
import caprpc.aio
from caprpc import Interface, attribute, method
from caprpc.interfaces import ByteSource
from caprpc.testing import everything


class Book(Interface):
    title: str = attribute(writable=True)

    @method(effect="read")
    def page(self) -> str: ...

    @method(effect="read")
    def pages(self) -> Iterator[int]: ...

    @method(effect="read")
    def content(self) -> ByteSource: ...

    @method(effect="read")
    def same(self) -> "Book": ...


class Shelf(Interface):
    @method(effect="write", blocking=True)
    def keep(self, book: Book) -> None: ...

    @method(effect="read", blocking=True)
    def try_all(self) -> dict[str, str]: ...


class Novel(Book):
    def __init__(self):
        self.title = "novel"
        self.ran = 0

    def page(self):
        self.ran += 1
        return "text"

    def pages(self):
        return iter(range(1_000_000))

    def content(self):
        return (b"x" * 1_000 for _ in range(1_000_000))

    def same(self):
        return self


class ShelfOfAcme(Shelf):
    def keep(self, book):
        """Make everything of it that there is while it is good."""
        self.book = book
        self.method = book.page
        self.iterator = book.pages()
        self.stream = caprpc.open_stream(book.content(), chunk_bytes=1_000)
        self.same = book.same()
        self.child = caprpc.attenuate(book, only=["page"])
        self.promise = caprpc.pipe(book).same()
        assert [next(self.iterator), len(self.stream.read(10))] == [0, 10]

    def try_all(self):
        found = {}
        for name, use in {
            "method": self.book.page,
            "method looked up before": self.method,
            "attribute": lambda: self.book.title,
            "assignment": lambda: setattr(self.book, "title", "changed"),
            "new iterator": self.book.pages,
            # What has come before is there; nothing more comes.
            "iterator": lambda: sum(1 for _ in self.iterator),
            "stream": self.stream.read,
            "obtained": self.same.page,
            "derived": self.child.page,
            "derive": lambda: caprpc.attenuate(self.book),
            "pipeline": lambda: caprpc.pipe(self.book).same().page().result(),
            "promise": lambda: self.promise.page().result(),
            "batch": self.batch,
            "future": lambda: caprpc.submit(self.book.page).result(),
        }.items():
            try:
                use()
                found[name] = "ok"
            except caprpc.CapRPCError as exc:
                found[name] = type(exc).__name__
        return found

    def batch(self):
        (result,) = caprpc.batch([(self.book.page, ())])
        if isinstance(result, Exception):
            raise result


@pytest.fixture(params=["call", "connection"])
def lifetime(request):
    """How long the client's policy lends: until the call ends, which comes before the block's end, or longer."""
    return request.param


@pytest.fixture(params=["blocking", "aio"])
def served(request, caprpc_sides, lifetime):
    """A server of either driver that keeps what it is lent, its address, and the directories of a client."""
    roots = {"shelf": ShelfOfAcme()}
    accept = everything(roots)[1].replace('lifetime = "call"', f'lifetime = "{lifetime}"')
    server, client = caprpc_sides(roots, accept=accept)
    with ExitStack() as stack:
        if request.param == "blocking":
            running = caprpc.Server(roots, **server.directories)
            url = running.listen("127.0.0.1:0")
            stack.enter_context(running)
        else:
            url = stack.enter_context(on_loop(roots, server))
        yield url, client.directories


@contextmanager
def on_loop(roots, side):
    """Serve on a loop of a thread of its own."""
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as thread:
        stop, started = asyncio.Event(), Future()

        async def main():
            server = caprpc.aio.Server(roots, **side.directories)
            url = server.listen("127.0.0.1:0")
            async with server:
                started.set_result(url)
                await stop.wait()

        done = thread.submit(runner.run, main())
        try:
            yield started.result(10)
        finally:
            runner.get_loop().call_soon_threadsafe(stop.set)
            done.result(10)


NAMES = (
    *("method", "method looked up before", "attribute", "assignment", "new iterator", "iterator", "stream"),
    *("obtained", "derived", "derive", "pipeline", "promise", "batch", "future"),
)
DEAD = {name: {"ReferenceDead"} for name in NAMES}
# A promise is a call that is made all the same: its first step cannot be sent, or its owner refuses it. What was under
# way when the block ended is answered by its owner.
DEAD |= {"pipeline": {"ReferenceDead", "CallRefused"}, "promise": {"Denied"}}
DEAD |= {name: {"ReferenceDead", "RemoteError"} for name in ("iterator", "stream")}


def check(found):
    assert {name: outcome for name, outcome in found.items() if outcome not in DEAD[name]} == {}
    assert found.keys() == DEAD.keys()


def test_nothing_made_of_a_loan_is_good_after_the_block(served):
    url, directories = served
    novel = Novel()
    with caprpc.connect(url, **directories) as peer:
        shelf = peer.root("shelf", Shelf)
        with caprpc.lend(novel, Book) as lent:
            shelf.keep(lent)
        check(shelf.try_all())
    assert (novel.ran, novel.title) == (0, "novel")


async def test_nothing_made_of_a_loan_is_good_after_the_block_on_a_loop(served):
    url, directories = served
    novel = Novel()
    async with caprpc.aio.connect(url, **directories) as peer:
        shelf = await peer.root("shelf", Shelf)
        async with caprpc.aio.lend(novel, Book) as lent:
            await shelf.keep(lent)
        check(await shelf.try_all())
    assert (novel.ran, novel.title) == (0, "novel")
