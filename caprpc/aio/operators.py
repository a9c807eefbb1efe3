"""What one does to references on an event loop where Python has no syntax that could be awaited."""

import inspect
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Literal, overload

from caprpc.aio.interfaces import AsyncByteSink, AsyncByteSource
from caprpc.ids import OP_COMPARE, OP_CONTAINS, OP_INDEX_SET, OP_LENGTH
from caprpc.interfaces import ByteSink, ByteSource
from caprpc.objects.async_streams import AsyncReader, AsyncWriter
from caprpc.objects.iteration import Progress, choose
from caprpc.objects.streams import PIECE_BYTES, transfer_of
from caprpc.objects.targets import stub_of


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
    reference: ByteSource | AsyncByteSource, *, chunk_bytes: int = PIECE_BYTES, progress: Progress | None = None
) -> AsyncReader: ...
@overload
def open_stream(
    reference: ByteSink | AsyncByteSink, *, chunk_bytes: int = PIECE_BYTES, progress: Progress | None = None
) -> AsyncWriter: ...
def open_stream(
    reference: ByteSource | AsyncByteSource | ByteSink | AsyncByteSink,
    *,
    chunk_bytes: int = PIECE_BYTES,
    progress: Progress | None = None,
) -> AsyncReader | AsyncWriter:
    """Open a byte stream of a peer; as ``caprpc.open_stream``, with methods that are awaited.

    Raises:
        TypeError: It is no reference to a stream.
        ValueError: ``chunk_bytes`` is out of bounds.
    """
    transfer, reads = transfer_of(reference, chunk_bytes, progress, on_loop=True)
    return AsyncReader(transfer) if reads else AsyncWriter(transfer)


async def length(reference: object) -> int:
    """Return ``len(reference)`` of a remote object.

    Raises:
        TypeError: Its interface declares no length.
    """
    count: int = await _operate(reference, OP_LENGTH, "", "__len__")
    return count


async def contains(reference: object, item: object) -> bool:
    """Return ``item in reference`` of a remote object.

    Raises:
        TypeError: Its interface declares no such test.
    """
    found: bool = await _operate(reference, OP_CONTAINS, "", "__contains__", item)
    return found


async def set_item(reference: object, key: object, value: object) -> None:
    """Do ``reference[key] = value`` with a remote object.

    Raises:
        TypeError: Its interface declares no such assignment.
    """
    await _operate(reference, OP_INDEX_SET, "", "__setitem__", key, value)


async def compare(reference: object, how: Literal["eq", "ne", "lt", "le", "gt", "ge"], other: object) -> bool:
    """Compare a remote object with something, where Python has an operator that cannot be awaited.

    ``price < other`` is ``await caprpc.aio.compare(price, "lt", other)``.

    Raises:
        TypeError: Its interface declares no such comparison.
    """
    result: bool = await _operate(reference, OP_COMPARE, how, f"__{how}__", other)
    return result


async def _operate(reference: object, operation: int, name: str, python_name: str, *args: object) -> Any:
    stub = stub_of(reference)
    member = stub._caprpc_shape.members.get((operation, name))
    if member is None:
        raise TypeError(f"{stub._caprpc_shape.name} declares no {python_name}")
    return await stub._caprpc_call(stub._caprpc_import, member, args, {})
