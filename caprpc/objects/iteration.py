"""Remote iterators: chunks are pulled one ahead, and the receiver chooses their size.

Wire protocol, section 6 (operation ``next``).
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, TypeVar

from caprpc.errors import IteratorBusy, RemoteProtocolError
from caprpc.ids import OP_CLOSE, OP_NEXT
from caprpc.objects.stubs import Caller, Stub, dead_reference

T = TypeVar("T")

FIRST_ITEMS: Final = 32
"""A short first chunk: many loops end early."""
MOST_ITEMS: Final = 4096
MOST_REFERENCES: Final = 64
"""Items of a chunk that may hold references: each takes a place among the ``limits.imports``."""
MOST_BYTES: Final = 256 * 1024
"""Four frames of this size are what one iteration holds at most: one consumed, one under way, and their wire forms."""
EMPTY_CHUNKS: Final = 16
"""Chunks in a row without an item and without an end; a peer that sends more only keeps us busy."""

Progress = Callable[[int], object]
"""Called with the number of items received so far, after each chunk."""


class _Pull:
    """What is pulled next and how much; the part that both flavors share. One consumer at a time fills it."""

    __slots__ = (
        "ahead",
        "buffer",
        "closed",
        "done",
        "empty",
        "grows_to",
        "items",
        "looks_ahead",
        "progress",
        "received",
        "size",
        "turn",
    )

    def __init__(self, most_items: int) -> None:
        self.buffer: Iterator[Any] = iter(())
        self.ahead: Any = None
        self.items = FIRST_ITEMS
        self.grows_to = most_items
        self.size = MOST_BYTES
        self.looks_ahead = True
        self.progress: Progress | None = None
        self.received = 0
        self.empty = 0
        self.done = False
        self.closed = False
        """Closed by its consumer, perhaps while another waits for a chunk."""
        self.turn = threading.Lock()

    def arguments(self) -> tuple[int, int]:
        """Return the caps of the next chunk; each chunk may be twice as long as the one before."""
        caps = (self.items, self.size)
        self.items = min(self.items * 2, self.grows_to)
        return caps

    def begin(self) -> None:
        """Take the turn to fill the buffer.

        Raises:
            IteratorBusy: Another thread or task has it.
        """
        if not self.turn.acquire(blocking=False):
            raise IteratorBusy(
                "another thread or task waits for the next items; an iterator has one consumer at a time"
            )

    def take(self, chunk: tuple[list[Any], bool], caller: Caller) -> None:
        """Take a chunk: its items, and whether it is the last one.

        Raises:
            RemoteProtocolError: It is longer than any that was asked for, or the peer sends nothing but empty ones.
        """
        items, self.done = chunk
        count = len(items)
        self.empty = 0 if count else self.empty + 1
        if count > self.grows_to or self.empty > EMPTY_CHUNKS:
            what = f"{count} items, {self.grows_to} asked for" if count else f"{self.empty} empty chunks in a row"
            self.done = True
            text = f"an iterator of the peer gave {what}"
            caller.broken(text)
            raise RemoteProtocolError(text)
        self.received += count
        self.buffer = iter(items)

    def finish(self) -> bool:
        """End the iteration on this side; whether the peer must be told."""
        was_done, self.done = self.done, True
        self.closed = True
        self.buffer = iter(())
        self.ahead = None
        return not was_done


class RemoteIterator(Stub):
    """A blocking remote iterator."""

    __slots__ = ("_caprpc_pull",)

    _caprpc_pull: _Pull

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        object.__setattr__(self, "_caprpc_pull", _Pull(_most_items(self)))

    def __iter__(self) -> Iterator[Any]:
        pull = self._caprpc_pull
        while True:
            buffer = pull.buffer
            yield from buffer
            if not self._caprpc_fill(buffer):
                return

    def __next__(self) -> Any:
        pull = self._caprpc_pull
        while True:
            buffer = pull.buffer
            for item in buffer:
                return item
            if not self._caprpc_fill(buffer):
                raise StopIteration

    def _caprpc_fill(self, spent: Iterator[Any]) -> bool:
        """Put the next chunk in the place of the buffer that was spent; False at the end."""
        pull = self._caprpc_pull
        pull.begin()
        try:
            if pull.buffer is not spent:
                # Another thread was faster.
                return True
            if pull.done:
                return False
            caller: Caller = self._caprpc_call.__self__
            member = self._caprpc_shape.members[OP_NEXT, ""]
            target = self._caprpc_import
            ahead, pull.ahead = pull.ahead, None
            try:
                chunk = ahead.result() if ahead is not None else caller.call(target, member, pull.arguments(), {})
            except BaseException:
                # Items may have been lost with it: what would follow must not pass for all.
                pull.done = True
                # The error's traceback holds this frame: the two would wait for the garbage collector.
                del ahead
                raise
            if pull.closed:
                return False
            pull.take(chunk, caller)
            if pull.looks_ahead and not pull.done:
                pull.ahead = caller.start(target, member, pull.arguments(), {})
        finally:
            pull.turn.release()
        if pull.progress is not None:
            pull.progress(pull.received)
        return True

    def close(self) -> None:
        """End the iteration early; the other side closes its generator."""
        pull = self._caprpc_pull
        if pull.finish() and self._caprpc_import.alive:
            caller: Caller = self._caprpc_call.__self__
            caller.call(self._caprpc_import, self._caprpc_shape.members[OP_CLOSE, ""], (), {})


class AsyncRemoteIterator(Stub):
    """A remote iterator for ``async for``."""

    __slots__ = ("_caprpc_pull",)

    _caprpc_pull: _Pull

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        object.__setattr__(self, "_caprpc_pull", _Pull(_most_items(self)))

    async def __aiter__(self) -> AsyncIterator[Any]:
        pull = self._caprpc_pull
        while True:
            buffer = pull.buffer
            for item in buffer:
                yield item
            if not await self._caprpc_fill(buffer):
                return

    async def __anext__(self) -> Any:
        pull = self._caprpc_pull
        while True:
            buffer = pull.buffer
            for item in buffer:
                return item
            if not await self._caprpc_fill(buffer):
                raise StopAsyncIteration

    async def _caprpc_fill(self, spent: Iterator[Any]) -> bool:
        """Put the next chunk in the place of the buffer that was spent; False at the end.

        Whoever is cancelled while it waits loses nothing: the chunk stays under way for the next one.
        """
        pull = self._caprpc_pull
        pull.begin()
        try:
            if pull.buffer is not spent:
                return True
            if pull.done:
                return False
            if not self._caprpc_import.alive:
                raise dead_reference(self._caprpc_import)
            if pull.ahead is None:
                pull.ahead = self._caprpc_ask()
            if not pull.ahead.done():
                await asyncio.wait((pull.ahead,))
            if pull.closed:
                return False
            ahead, pull.ahead = pull.ahead, None
            caller: Caller = self._caprpc_call.__self__
            try:
                pull.take(ahead.result(), caller)
            except BaseException:
                pull.done = True
                # The error's traceback holds this frame: the two would wait for the garbage collector.
                del ahead
                raise
            if pull.looks_ahead and not pull.done:
                pull.ahead = self._caprpc_ask()
        finally:
            pull.turn.release()
        if pull.progress is not None:
            pull.progress(pull.received)
        return True

    def _caprpc_ask(self) -> Any:
        caller: Caller = self._caprpc_call.__self__
        pull = self._caprpc_pull
        member = self._caprpc_shape.members[OP_NEXT, ""]
        ahead = caller.call_async(self._caprpc_import, member, pull.arguments(), {})
        # Nobody may ever ask how it ended.
        ahead.add_done_callback(_looked_at)
        return ahead

    async def aclose(self) -> None:
        """End the iteration early; the other side closes its generator."""
        pull = self._caprpc_pull
        if pull.finish() and self._caprpc_import.alive:
            caller: Caller = self._caprpc_call.__self__
            await caller.call_async(self._caprpc_import, self._caprpc_shape.members[OP_CLOSE, ""], (), {})


def choose(
    iterator: object, *, items: int | None, size: int | None, ahead: bool, progress: Progress | None
) -> RemoteIterator | AsyncRemoteIterator:
    """Set how a remote iterator pulls from now on; see ``caprpc.prefetch``."""
    if not isinstance(iterator, RemoteIterator | AsyncRemoteIterator):
        raise TypeError(f"prefetch() takes an iterator of a peer, not {type(iterator).__name__}")
    for name, value in (("items", items), ("bytes", size)):
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"prefetch({name}=...) is an integer of at least 1")
    pull = iterator._caprpc_pull
    if items is not None:
        pull.items = pull.grows_to = items
    if size is not None:
        pull.size = size
    pull.looks_ahead = ahead
    pull.progress = progress
    return iterator


def prefetch(
    iterator: Iterator[T],
    *,
    items: int | None = None,
    bytes: int | None = None,  # noqa: A002 - the word for it, beside ``items``
    ahead: bool = True,
    progress: Progress | None = None,
) -> Iterator[T]:
    """Choose how an iterator of a peer is pulled, and return it.

    Args:
        iterator: What a member of a peer returned, or what was passed to a method.
        items: Items of each chunk, at most; by default 32, and twice as many each time, up to 4,096.
        bytes: Bytes of each chunk, about, unless one item alone is larger; by default 256 KiB.
        ahead: Ask for the next chunk while this one is consumed. Without it nothing is produced before it is needed.
        progress: Called with the number of items received so far, after each chunk, by whoever consumes.

    Raises:
        TypeError: It is no iterator of a peer.
        ValueError: A number is below 1.
    """
    choose(iterator, items=items, size=bytes, ahead=ahead, progress=progress)
    return iterator


def _most_items(iterator: Stub) -> int:
    member = iterator._caprpc_shape.members[OP_NEXT, ""]
    return MOST_REFERENCES if member.signature.returns_references else MOST_ITEMS


def _looked_at(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()
