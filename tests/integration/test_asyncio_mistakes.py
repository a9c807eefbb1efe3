"""What is written by mistake over an asyncio connection: it fails at once, and the error says what to write."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

import caprpc
import caprpc.aio
from caprpc import Interface, method
from caprpc.testing import aio_connected


class Row(Interface):
    @method(effect="read")
    def size(self) -> int: ...


class Book(Interface):
    @method(effect="read")
    def count(self) -> int: ...

    @method(effect="read")
    def row(self) -> Row: ...

    @method(effect="read")
    def rows(self) -> Iterator[int]: ...

    @method(effect="write", errors=(KeyError,))
    def booking(self) -> AbstractContextManager[int]: ...

    @method(effect="read")
    def waited(self) -> int: ...


class RowOfOurs(Row):
    def size(self) -> int:
        return 1


class BookOfOurs(Book):
    def __init__(self) -> None:
        self.left: list[str] = []

    def count(self) -> int:
        return 2

    def row(self) -> Row:
        return RowOfOurs()

    def rows(self) -> Iterator[int]:
        return iter(range(3))

    @contextlib.contextmanager
    def booking(self) -> Iterator[int]:
        try:
            yield 7
        except KeyError:
            self.left.append("KeyError")
        else:
            self.left.append("in order")

    def waited(self) -> int:
        return 3


@contextlib.asynccontextmanager
async def book_of(caprpc_sides: Any, ours: BookOfOurs) -> AsyncIterator[tuple[Any, Any]]:
    roots = {"book": ours}
    async with aio_connected(roots, *caprpc_sides(roots)) as peer:
        yield peer, await peer.root("book", Book)


async def test_the_loop_cannot_wait_for_a_submitted_call_and_is_told_so(caprpc_sides: Any) -> None:
    async with book_of(caprpc_sides, BookOfOurs()) as (_, book):
        future = caprpc.submit(book.count)
        for wait in (future.result, future.exception):
            with pytest.raises(RuntimeError, match=r"waiting for a submitted call would block the event loop: .* aw"):
                wait(5.0)
        # A task can wait for it, and what has ended can be asked for.
        assert await asyncio.wrap_future(future) == 2
        assert future.result() == 2
        assert future.exception() is None


async def test_a_call_that_is_not_awaited_says_what_to_write(caprpc_sides: Any) -> None:
    async with book_of(caprpc_sides, BookOfOurs()) as (_, book):
        row, rows, booking = book.row(), book.rows(), book.booking()
        with pytest.raises(AttributeError, match=r"no 'size' before it is awaited: write \(await \.\.\.\)\.size"):
            row.size()
        with pytest.raises(TypeError, match="walked with `async for`"):
            list(rows)
        with pytest.raises(TypeError, match="entered with `async with`"), booking:
            pass
        for condition in (lambda: not row, lambda: bool(rows), lambda: row and rows):
            with pytest.raises(TypeError, match="neither true nor false before it is awaited: write `await`"):
                condition()
        assert await (await row).size() == 1
        assert [item async for item in rows] == [0, 1, 2]
        await booking


async def test_async_with_enters_the_context_that_a_call_returns(caprpc_sides: Any) -> None:
    ours = BookOfOurs()
    async with book_of(caprpc_sides, ours) as (_, book):
        async with book.booking() as number:
            assert number == 7
        async with book.booking():
            raise KeyError("settled over there")
        async with await book.booking() as number:
            assert number == 7
    assert ours.left == ["in order", "KeyError", "in order"]


async def test_connect_of_asyncio_says_how_it_is_entered(caprpc_sides: Any) -> None:
    _, client = caprpc_sides({"book": BookOfOurs()})
    connecting: Any = caprpc.aio.connect("127.0.0.1:1", identity=client.identity, policies=client.policies)
    with pytest.raises(TypeError, match=r"caprpc\.aio\.connect\(\) is entered with `async with`"), connecting:
        pass
    with pytest.raises(AttributeError, match=r"caprpc\.aio\.connect\(\) has no 'root' before it is awaited"):
        connecting.root("book", Book)
