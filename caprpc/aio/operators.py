"""What one does to references on an event loop where Python has no syntax that could be awaited."""

import inspect
from collections.abc import AsyncIterator, Awaitable
from typing import Any, overload

from caprpc.interfaces import ByteSink, ByteSource
from caprpc.objects.async_streams import AsyncReader, AsyncWriter
from caprpc.objects.iteration import Progress, choose
from caprpc.objects.streams import PIECE_BYTES, transfer_of


def prefetch(
    iterator: Any,
    *,
    items: int | None = None,
    bytes: int | None = None,  # noqa: A002 - the word for it, beside ``items``
    ahead: bool = True,
    progress: Progress | None = None,
) -> AsyncIterator[Any]:
    """Choose how an iterator of a peer is pulled, and return it; as ``caprpc.prefetch``.

    ``async for row in caprpc.aio.prefetch(ledger.history("A"), items=100):`` takes the call as well as its result.

    Raises:
        TypeError: It is no iterator of a peer.
        ValueError: A number is below 1.
    """
    if inspect.isawaitable(iterator):
        return _prefetched(iterator, items=items, size=bytes, ahead=ahead, progress=progress)
    choose(iterator, items=items, size=bytes, ahead=ahead, progress=progress)
    chosen: AsyncIterator[Any] = iterator
    return chosen


async def _prefetched(call: Awaitable[Any], **options: Any) -> AsyncIterator[Any]:
    iterator = await call
    choose(iterator, **options)
    async for item in iterator:
        yield item


@overload
def open_stream(
    reference: ByteSource, *, chunk_bytes: int = PIECE_BYTES, progress: Progress | None = None
) -> AsyncReader: ...
@overload
def open_stream(
    reference: ByteSink, *, chunk_bytes: int = PIECE_BYTES, progress: Progress | None = None
) -> AsyncWriter: ...
def open_stream(
    reference: ByteSource | ByteSink, *, chunk_bytes: int = PIECE_BYTES, progress: Progress | None = None
) -> AsyncReader | AsyncWriter:
    """Open a byte stream of a peer; as ``caprpc.open_stream``, with methods that are awaited.

    Raises:
        TypeError: It is no reference to a stream.
        ValueError: ``chunk_bytes`` is out of bounds.
    """
    transfer, reads = transfer_of(reference, chunk_bytes, progress, on_loop=True)
    return AsyncReader(transfer) if reads else AsyncWriter(transfer)
