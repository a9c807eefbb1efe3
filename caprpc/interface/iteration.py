"""Serving an iterator to a peer: chunks that the receiver bounds, one consumer, nothing but next and close."""

import threading
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from time import monotonic
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

PATIENCE_S: Final = 0.002
"""A chunk that took longer than this is sent as it is: nobody waits for the second item of a slow source."""

FIRST_CHUNK: Final = 1
"""Items pulled before looking at their size for the first time; doubles while there is room."""

LARGEST_CHUNK: Final = 1024
"""Items pulled without looking at their size: bounds how much more than ``max_bytes`` is held."""

ITEM_BYTES: Final = 16
"""What an item without a length is taken to weigh on the wire."""

_TEXTS: Final = frozenset({str, bytes})


class IteratorBusy(RuntimeError):
    """Somebody else is pulling from this iterator; it has one consumer at a time."""


class _Turn:
    """Lets one consumer in at a time and turns the second away instead of making it wait."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise IteratorBusy("another call is pulling from this iterator")

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()


class ServedIterator:
    """Items that were pulled and not yet delivered, and how the source ended."""

    __slots__ = ("_abandoned", "_error", "_exhausted", "_pending", "_pulled", "_turn", "_weight")

    def __init__(self) -> None:
        self._abandoned = False
        self._pulled = False
        self._pending: list[Any] = []
        self._weight = 0
        self._exhausted = False
        self._error: BaseException | None = None
        self._turn = _Turn()

    def _drop(self) -> None:
        self._pending = []
        self._weight = 0
        self._error = None
        self._exhausted = True

    def _wants_more(self, max_items: int, max_bytes: int, chunk: int, until: float) -> int:
        """Return how many items to pull next, 0 if there is enough or the source is slow or has ended."""
        count = len(self._pending)
        if self._exhausted or self._error is not None or count >= max_items:
            return 0
        if count and (self._weight >= max_bytes or monotonic() > until):
            return 0
        return min(chunk, max_items - count)

    def _deliver(self, max_items: int, max_bytes: int) -> tuple[list[Any], bool]:
        """Return what fits, and whether it was the last; an error is raised once all before it was delivered."""
        pending = self._pending
        if not pending and self._error is not None:
            error, self._error = self._error, None
            self._exhausted = True
            raise error
        if len(pending) <= max_items and self._weight <= max_bytes:
            items, self._pending, self._weight = pending, [], 0
        else:
            fits = _fitting(pending, max_items, max_bytes)
            items, self._pending = pending[:fits], pending[fits:]
            self._weight = _weigh(self._pending)
        return items, self._exhausted and not self._pending and self._error is None


class IteratorServer(ServedIterator):
    """Serves a local iterator chunk by chunk."""

    __slots__ = ("_in_memory", "_iterator")

    def __init__(self, iterator: Iterator[Any], *, in_memory: bool = False) -> None:
        """Take an iterator; from now on nobody else pulls from it.

        Args:
            iterator: What is served.
            in_memory: All its items are there already, so that none of them is worth a look at the clock.
        """
        super().__init__()
        self._iterator = iterator
        self._in_memory = in_memory

    def pull(self, max_items: int, max_bytes: int) -> tuple[list[Any], bool]:
        """Return the next items and whether they are the last.

        At most ``max_items``, and of estimated ``max_bytes`` together unless the first item alone is larger.
        What the iterator raises comes after all items that preceded it.

        Raises:
            IteratorBusy: Another thread is pulling.
        """
        try:
            with self._turn:
                self._pulled = True
                until = monotonic() + PATIENCE_S
                chunk = FIRST_CHUNK
                while count := self._wants_more(max_items, max_bytes, chunk, until):
                    self._pull_chunk(count, until)
                    chunk = min(2 * chunk, LARGEST_CHUNK)
                return self._deliver(max_items, max_bytes)
        finally:
            if self._abandoned:
                self.abandon()

    def close(self) -> None:
        """End the iteration: a generator is closed, later pulls find nothing.

        Raises:
            IteratorBusy: Another thread is pulling; the iterator closes when that call ends and this is repeated.
        """
        with self._turn:
            self._drop()
            iterator, self._iterator = self._iterator, iter(())
            if type(iterator) is GeneratorType:
                iterator.close()

    def abandon(self, _error: BaseException | None = None) -> None:
        """Close it because nobody can name it any more; a pull that is under way does so when it ends.

        What nobody has pulled from is left as it was: its owner may pass it elsewhere.
        """
        self._abandoned = self._pulled
        if not self._pulled:
            return
        try:
            self.close()
        except IteratorBusy:
            # The thread that pulls looks at ``_abandoned`` once it has given up its turn.
            return

    def _pull_chunk(self, count: int, until: float) -> None:
        """Pull ``count`` items, fewer if the clock passes ``until``; what precedes an exception is kept."""
        chunk: list[Any] = []
        source = islice(self._iterator, count)
        slow = False
        try:
            if self._in_memory:
                chunk.extend(source)
            else:
                now = monotonic
                for item in source:
                    chunk.append(item)
                    if now() > until:
                        slow = True
                        break
        # The iterator is application code: whatever it raises is delivered in its turn.
        except Exception as error:
            self._error = error
        else:
            self._exhausted = not slow and len(chunk) < count
        if chunk:
            self._weight += _weigh(chunk)
            self._pending += chunk


class AsyncIteratorServer(ServedIterator):
    """Serves a local asynchronous iterator chunk by chunk."""

    __slots__ = ("_iterator",)

    def __init__(self, iterator: AsyncIterator[Any]) -> None:
        """Take an iterator; from now on nobody else pulls from it."""
        super().__init__()
        self._iterator: AsyncIterator[Any] | None = iterator

    async def pull(self, max_items: int, max_bytes: int) -> tuple[list[Any], bool]:
        """Return the next items and whether they are the last; see ``IteratorServer.pull``."""
        try:
            with self._turn:
                self._pulled = True
                until = monotonic() + PATIENCE_S
                chunk = FIRST_CHUNK
                while count := self._wants_more(max_items, max_bytes, chunk, until):
                    await self._pull_chunk(count, until)
                    chunk = min(2 * chunk, LARGEST_CHUNK)
                return self._deliver(max_items, max_bytes)
        finally:
            if self._abandoned:
                await self.abandon()

    async def close(self) -> None:
        """End the iteration; an asynchronous generator is closed."""
        with self._turn:
            self._drop()
            iterator, self._iterator = self._iterator, None
            if type(iterator) is AsyncGeneratorType:
                await iterator.aclose()

    async def abandon(self, _error: BaseException | None = None) -> None:
        """Close it because nobody can name it any more; a pull that is under way does so when it ends.

        What nobody has pulled from is left as it was: its owner may pass it elsewhere.
        """
        self._abandoned = self._pulled
        if not self._pulled:
            return
        try:
            await self.close()
        except IteratorBusy:
            # The task that pulls looks at ``_abandoned`` once it has given up its turn.
            return

    async def _pull_chunk(self, count: int, until: float) -> None:
        """Pull ``count`` items, fewer if the clock passes ``until``; what precedes an exception is kept."""
        if self._iterator is None:
            self._exhausted = True
            return
        chunk: list[Any] = []
        try:
            async for item in self._iterator:
                chunk.append(item)
                if len(chunk) == count or monotonic() > until:
                    break
            else:
                self._exhausted = True
        # The iterator is application code: whatever it raises is delivered in its turn.
        except Exception as error:
            self._error = error
        if chunk:
            self._weight += _weigh(chunk)
            self._pending += chunk


def _weigh(items: list[Any]) -> int:
    """Estimate what items weigh on the wire, in one pass in C where they are texts or byte strings."""
    if _TEXTS.issuperset(map(type, items)):
        return sum(map(len, items))
    return sum(map(_item_weight, items))


def _item_weight(item: Any) -> int:
    """Estimate one item: containers by what they hold directly, everything else as a constant."""
    kind = type(item)
    if kind in _TEXTS:
        return len(item)
    if kind is list or kind is tuple:
        return ITEM_BYTES + sum(len(part) if type(part) in _TEXTS else ITEM_BYTES for part in item)
    if kind is dict:
        return ITEM_BYTES + sum(len(part) if type(part) in _TEXTS else ITEM_BYTES for part in item.values())
    return ITEM_BYTES


def _fitting(items: list[Any], max_items: int, max_bytes: int) -> int:
    """Return how many items from the front may go: within both bounds, and at least one."""
    total = 0
    for position, item in enumerate(islice(items, max_items)):
        total += _item_weight(item)
        if total > max_bytes and position:
            return position
    return min(len(items), max_items)
