"""Remote iterators: chunks are pulled ahead, the receiver chooses their size.

Wire protocol, section 6 (operation ``next``).
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from caprpc.errors import ReferenceDead
from caprpc.ids import OP_CLOSE, OP_NEXT
from caprpc.objects.stubs import Caller, Stub

FIRST_ITEMS: Final = 32
"""A short first chunk: many loops end early."""
MOST_ITEMS: Final = 4096
MOST_BYTES: Final = 256 * 1024
"""Four frames of this size are what one iteration holds at most: one consumed, one under way, and their wire forms."""


class _Pull:
    """What is pulled next and how much; the part that both flavors share."""

    __slots__ = ("ahead", "buffer", "done", "items")

    def __init__(self) -> None:
        self.buffer: Iterator[Any] = iter(())
        self.ahead: Any = None
        self.items = FIRST_ITEMS
        self.done = False

    def arguments(self) -> tuple[int, int]:
        """Return the caps of the next chunk; each chunk may be twice as long as the one before."""
        caps = (self.items, MOST_BYTES)
        self.items = min(self.items * 2, MOST_ITEMS)
        return caps

    def take(self, chunk: tuple[list[Any], bool]) -> None:
        """Take a chunk: its items, and whether it is the last one."""
        items, self.done = chunk
        self.buffer = iter(items)


class RemoteIterator(Stub):
    """A blocking remote iterator."""

    __slots__ = ("_caprpc_pull",)

    _caprpc_pull: _Pull

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        object.__setattr__(self, "_caprpc_pull", _Pull())

    def __iter__(self) -> Iterator[Any]:
        pull = self._caprpc_pull
        while True:
            yield from pull.buffer
            if not self._caprpc_fill():
                return

    def __next__(self) -> Any:
        pull = self._caprpc_pull
        while True:
            for item in pull.buffer:
                return item
            if not self._caprpc_fill():
                raise StopIteration

    def _caprpc_fill(self) -> bool:
        pull = self._caprpc_pull
        if pull.done:
            return False
        caller: Caller = self._caprpc_call.__self__
        member = self._caprpc_shape.members[OP_NEXT, ""]
        target = self._caprpc_import
        if pull.ahead is None:
            chunk = caller.call(target, member, pull.arguments(), {})
        else:
            ahead, pull.ahead = pull.ahead, None
            chunk = ahead.result()
        pull.take(chunk)
        if not pull.done:
            pull.ahead = caller.start(target, member, pull.arguments(), {})
        return True

    def close(self) -> None:
        """End the iteration early; the other side may close its generator."""
        pull = self._caprpc_pull
        if not pull.done:
            pull.done = True
            pull.buffer = iter(())
            pull.ahead = None
            if self._caprpc_import.alive:
                caller: Caller = self._caprpc_call.__self__
                caller.call(self._caprpc_import, self._caprpc_shape.members[OP_CLOSE, ""], (), {})


class AsyncRemoteIterator(Stub):
    """A remote iterator for ``async for``."""

    __slots__ = ("_caprpc_pull",)

    _caprpc_pull: _Pull

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        object.__setattr__(self, "_caprpc_pull", _Pull())

    async def __aiter__(self) -> AsyncIterator[Any]:
        pull = self._caprpc_pull
        while True:
            for item in pull.buffer:
                yield item
            if not await self._caprpc_fill():
                return

    async def __anext__(self) -> Any:
        pull = self._caprpc_pull
        while True:
            for item in pull.buffer:
                return item
            if not await self._caprpc_fill():
                raise StopAsyncIteration

    async def _caprpc_fill(self) -> bool:
        pull = self._caprpc_pull
        if pull.done:
            return False
        if not self._caprpc_import.alive:
            raise ReferenceDead("the iterator's reference is dead: its call or its connection has ended")
        caller: Caller = self._caprpc_call.__self__
        member = self._caprpc_shape.members[OP_NEXT, ""]
        ahead = pull.ahead or caller.call_async(self._caprpc_import, member, pull.arguments(), {})
        pull.ahead = None
        pull.take(await ahead)
        if not pull.done:
            pull.ahead = caller.call_async(self._caprpc_import, member, pull.arguments(), {})
        return True

    async def aclose(self) -> None:
        """End the iteration early; the other side may close its generator."""
        pull = self._caprpc_pull
        if not pull.done:
            pull.done = True
            pull.buffer = iter(())
            pull.ahead = None
            if self._caprpc_import.alive:
                caller: Caller = self._caprpc_call.__self__
                await caller.call_async(self._caprpc_import, self._caprpc_shape.members[OP_CLOSE, ""], (), {})
