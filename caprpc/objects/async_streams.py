"""The remote faces of byte streams on an event loop; see ``streams``."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from caprpc.objects.streams import MOST_PIECE_BYTES, Rest, Transfer

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class AsyncReader:
    """Reads a ``ByteSource`` of a peer on an event loop. It holds one piece, and one more is under way.

    ``async for piece in reader`` gives the pieces as they come. Whoever is cancelled while it waits loses nothing.
    """

    def __init__(self, transfer: Transfer) -> None:
        """Take a transfer that nobody else uses; see ``caprpc.aio.open_stream``."""
        self._transfer = transfer
        self._rest = Rest()
        self._ahead: asyncio.Future[Any] | None = None
        self._ended = False

    @property
    def received(self) -> int:
        """Bytes that have come so far, those that were not read yet included."""
        return self._transfer.total

    async def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, what is there already if anything is; all that is left without a size."""
        if size < 0:
            return b"".join([piece async for piece in self])
        if not size or (not self._rest and not await self._fill()):
            return b""
        return self._rest.take(size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read(MOST_PIECE_BYTES):
            yield piece

    async def aclose(self) -> None:
        """Say that no more will be read; may be called twice."""
        ended, self._ended = self._ended, True
        self._ahead = None
        self._rest.put(b"")
        if not ended and self._transfer.may_close:
            await self._transfer.start_async("close")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _fill(self) -> bool:
        """Have the next piece in ``_rest``; False at the end."""
        transfer = self._transfer
        with transfer:
            if self._rest:
                return True
            if self._ended:
                return False
            ahead = self._ahead
            if ahead is None:
                ahead = self._ahead = transfer.start_async("read", transfer.piece_bytes)
            if not ahead.done():
                await asyncio.wait((ahead,))
            self._ahead = None
            data = ahead.result()
            transfer.passed(len(data))
            self._ended = not data
            if data:
                self._ahead = transfer.start_async("read", transfer.piece_bytes)
            self._rest.put(data)
            return bool(data)


class AsyncWriter:
    """Writes to a ``ByteSink`` of a peer on an event loop. It collects one piece while one is under way.

    What failed at the peer is raised by the next ``write``, ``flush`` or ``aclose``.
    """

    def __init__(self, transfer: Transfer) -> None:
        """Take a transfer that nobody else uses; see ``caprpc.aio.open_stream``."""
        self._transfer = transfer
        self._collected = bytearray()
        self._ahead: asyncio.Future[Any] | None = None
        self._sending = 0
        self._finished = False

    @property
    def sent(self) -> int:
        """Bytes that the peer has taken."""
        return self._transfer.total

    async def write(self, data: "ReadableBuffer", /) -> int:
        """Take all of it; returns when no more than two pieces are still here."""
        if self._finished:
            raise ValueError("I/O operation on closed stream")
        view = memoryview(data).cast("B")
        size, collected = self._transfer.piece_bytes, self._collected
        start = 0
        with self._transfer:
            while start < len(view):
                part = view[start : start + size - len(collected)]
                collected += part
                start += len(part)
                if len(collected) == size:
                    await self._send()
        return len(view)

    async def flush(self) -> None:
        """Send what was collected, and wait until the peer has taken and flushed it."""
        with self._transfer:
            await self._send()
            await self._settle()
            await self._transfer.start_async("flush")

    async def aclose(self) -> None:
        """Send what was collected and say that it was all; may be called twice."""
        if self._finished:
            return
        try:
            with self._transfer:
                await self._send()
                await self._settle()
                await self._transfer.start_async("close")
        finally:
            self._finished = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(self) -> None:
        await self._settle()
        if self._collected:
            piece = bytes(self._collected)
            self._collected.clear()
            self._sending = len(piece)
            self._ahead = self._transfer.start_async("write", piece)

    async def _settle(self) -> None:
        """Wait until the piece that is under way was taken."""
        ahead = self._ahead
        if ahead is not None:
            if not ahead.done():
                await asyncio.wait((ahead,))
            self._ahead = None
            ahead.result()
            self._transfer.passed(self._sending)
