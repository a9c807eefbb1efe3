"""Serving an iterator to a peer: chunks that the receiver bounds, one consumer, nothing but next and close."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from itertools import islice
from time import monotonic
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

from caprpc.errors import CapRPCError, IteratorBusy

PATIENCE_S: Final = 0.002
"""A chunk that took longer than this is sent as it is: nobody waits for the second item of a slow source."""

FIRST_CHUNK: Final = 1
"""Items pulled before looking at their size for the first time; doubles while there is room."""

LARGEST_CHUNK: Final = 1024
"""Items pulled without looking at their size: bounds how much more than ``max_bytes`` is held."""

MOST_PULLED: Final = 65_536
"""Most items of one chunk, whatever the receiver asks for: more values fit into no message."""

MOST_WEIGHT: Final = 1 << 20
"""Most bytes of one chunk, whatever the receiver asks for: the payload of one frame at the default limit."""

ITEM_BYTES: Final = 16
"""What an item without a length is taken to weigh on the wire, until a chunk has been encoded."""

_TEXTS: Final = frozenset({str, bytes})


class PullCancelled(CapRPCError):
    """A pull was given up, and with it an asynchronous source that it had begun to wait for."""


class ItemsLost(CapRPCError):
    """Items of an iterator were pulled and could not be delivered: what it would still give is not all."""


class Abandoned(CapRPCError):
    """It was closed over the head of a call that pulls: what it has not given must not pass for the end."""


class _Turn:
    """Lets one consumer in at a time and turns the second away instead of making it wait."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise IteratorBusy("another call is waiting for the next items; an iterator has one consumer at a time")

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()


class ServedSource:
    """Something that is made as it is read, and must be closed when the peer has let go of it."""

    __slots__ = ()

    def abandon(self, error: BaseException) -> Awaitable[object] | None:
        """Close it with ``error``; what it returns is to be awaited."""
        raise NotImplementedError


class ServedIterator:
    """Items that were pulled and not yet delivered, and how the source ended: none is lost, none comes twice."""

    __slots__ = ("_ending", "_error", "_exhausted", "_item_bytes", "_pending", "_pulled", "_turn", "_weight")

    def __init__(self) -> None:
        self._ending = False
        """Whether it is to be closed: at once, or by the pull that is under way when that ends."""
        self._pulled = False
        self._pending: list[Any] = []
        self._weight = 0
        self._item_bytes = ITEM_BYTES
        self._exhausted = False
        self._error: BaseException | None = None
        self._turn = _Turn()

    def learn(self, items: int, size: int) -> None:
        """Learn from a chunk what its items weigh on the wire, which no look at them tells."""
        if items:
            self._item_bytes = max(ITEM_BYTES, size // items)

    def put_back(self, items: list[Any]) -> None:
        """Take back items that were pulled last and could not be delivered; they come first next time.

        Raises:
            IteratorBusy: Another call is pulling: order is lost, so nothing may be taken back.
        """
        with self._turn:
            if not self._ending:
                self._pending = items + self._pending
                self._weight = self._weigh(self._pending)

    def spoil(self) -> None:
        """Have the next pull fail: items that were pulled are lost, and what follows must not pass for all."""
        self._pending = []
        self._error = ItemsLost("items were pulled for a call that was given up while the next one had begun")

    def _drop(self) -> None:
        self._pending = []
        self._weight = 0
        if type(self._error) is not Abandoned:
            self._error = None
        self._exhausted = True

    def _give_up(self) -> None:
        """Have every pull from now on fail, and not find an end: nobody but us has ended it."""
        self._error = Abandoned("the iterator was closed, because its holder can name it no more")

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
            error = self._error
            if type(error) is not Abandoned:
                self._error = None
            self._exhausted = True
            try:
                raise error
            finally:
                # Its traceback holds this frame: the two would wait for the garbage collector.
                del error
        if len(pending) <= max_items and self._weight <= max_bytes:
            items, self._pending, self._weight = pending, [], 0
        else:
            fits = self._fitting(pending, max_items, max_bytes)
            items, self._pending = pending[:fits], pending[fits:]
            self._weight = self._weigh(self._pending)
        return items, self._exhausted and not self._pending and self._error is None

    def _weigh(self, items: list[Any]) -> int:
        """Estimate what items weigh on the wire, in one pass in C where they are texts or byte strings."""
        if _TEXTS.issuperset(map(type, items)):
            return sum(map(len, items))
        return max(sum(map(_item_weight, items)), len(items) * self._item_bytes)

    def _fitting(self, items: list[Any], max_items: int, max_bytes: int) -> int:
        """Return how many items from the front may go: within both bounds, and at least one."""
        total, known = 0, self._item_bytes
        for position, item in enumerate(islice(items, max_items)):
            total += len(item) if type(item) in _TEXTS else max(_item_weight(item), known)
            if total > max_bytes and position:
                return position
        return min(len(items), max_items)


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
        max_items, max_bytes = min(max_items, MOST_PULLED), min(max_bytes, MOST_WEIGHT)
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
            if self._ending:
                self.close()

    def close(self) -> None:
        """End the iteration: a generator is closed, once, and later pulls find nothing.

        A pull that is under way on another thread closes it when it ends: it cannot be stopped.
        """
        self._ending = True
        try:
            with self._turn:
                self._drop()
                iterator, self._iterator = self._iterator, iter(())
                if type(iterator) is GeneratorType:
                    iterator.close()
        except IteratorBusy:
            # The thread that pulls looks at ``_ending`` once it has given up its turn.
            return

    def abandon(self, _error: BaseException | None = None) -> None:
        """Close it because nobody can name it any more.

        What nobody has pulled from is left as it was: its owner may pass it elsewhere.
        """
        if self._pulled:
            if self._pending or not self._exhausted:
                self._give_up()
            self.close()

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
            self._weight += self._weigh(chunk)
            self._pending += chunk


class AsyncIteratorServer(ServedIterator):
    """Serves a local asynchronous iterator chunk by chunk."""

    __slots__ = ("_iterator", "_puller")

    def __init__(self, iterator: AsyncIterator[Any]) -> None:
        """Take an iterator; from now on nobody else pulls from it."""
        super().__init__()
        self._iterator: AsyncIterator[Any] | None = iterator
        self._puller: asyncio.Task[Any] | None = None

    async def pull(self, max_items: int, max_bytes: int) -> tuple[list[Any], bool]:
        """Return the next items and whether they are the last; see ``IteratorServer.pull``."""
        max_items, max_bytes = min(max_items, MOST_PULLED), min(max_bytes, MOST_WEIGHT)
        try:
            with self._turn:
                self._pulled = True
                self._puller = asyncio.current_task()
                try:
                    until = monotonic() + PATIENCE_S
                    chunk = FIRST_CHUNK
                    while count := self._wants_more(max_items, max_bytes, chunk, until):
                        await self._pull_chunk(count, until)
                        chunk = min(2 * chunk, LARGEST_CHUNK)
                finally:
                    self._puller = None
                return self._deliver(max_items, max_bytes)
        except asyncio.CancelledError:
            if not self._ending:
                raise
            # ``close`` has interrupted it: whoever pulled learns of an end if it was its own, else of a failure.
            if type(self._error) is Abandoned:
                raise self._error from None
            return [], True
        finally:
            if self._ending:
                await self.close()

    async def close(self) -> None:
        """End the iteration, once: a pull that is under way is cancelled, an asynchronous generator is closed."""
        self._ending = True
        puller = self._puller
        if puller is not None and puller is not asyncio.current_task():
            puller.cancel()
            return
        try:
            with self._turn:
                self._drop()
                iterator, self._iterator = self._iterator, None
                if type(iterator) is AsyncGeneratorType:
                    await iterator.aclose()
        except IteratorBusy:
            # Another task is closing it.
            return

    async def abandon(self, _error: BaseException | None = None) -> None:
        """Close it because nobody can name it any more.

        What nobody has pulled from is left as it was: its owner may pass it elsewhere.
        """
        if self._pulled:
            if self._pending or not self._exhausted:
                self._give_up()
            await self.close()

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
        except asyncio.CancelledError:
            # It has ended the source, or a part of it: what comes next must not look like the end.
            if type(self._error) is not Abandoned:
                self._error = PullCancelled("the source was interrupted while its next items were awaited")
            raise
        # The iterator is application code: whatever it raises is delivered in its turn.
        except Exception as error:
            self._error = error
        finally:
            if chunk:
                self._weight += self._weigh(chunk)
                self._pending += chunk


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
