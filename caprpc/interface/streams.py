"""Byte streams as interfaces, for transfers of any size: the receiver of the bytes asks, a piece at a time.

What stands for them serves one piece for each call and holds no more than that.
"""

import io
from collections.abc import AsyncIterator, Awaitable, Iterator
from types import AsyncGeneratorType, GeneratorType
from typing import Any, BinaryIO, Final

from caprpc.errors import IteratorBusy
from caprpc.interface.base import Interface, register_adapter
from caprpc.interface.declaration import method
from caprpc.interface.iteration import AsyncIteratorServer, IteratorServer, ServedSource

MAX_PIECE_BYTES: Final = 1 << 20
"""Most bytes of one piece: the payload of one frame at the default limit."""

_MOST_ITEMS: Final = 4096
"""Items of a generator that are joined to one piece."""


class ByteSource(Interface):
    """The right to read a stream of bytes, once, from where it is."""

    @method(effect="read", errors=(IteratorBusy,))
    def read(self, size: int, /) -> bytes:
        """Return the next bytes: at most ``size``, perhaps fewer, none only at the end."""
        ...

    @method(effect="read")
    def close(self) -> None:
        """Say that no more will be read: a generator is closed, a file is left to its owner."""
        ...


class ByteSink(Interface):
    """The right to write a stream of bytes."""

    @method(effect="write")
    def write(self, data: bytes, /) -> None:
        """Take all of these bytes."""
        ...

    @method(effect="write")
    def flush(self) -> None:
        """Hand what was written to the system."""
        ...

    @method(effect="write")
    def close(self) -> None:
        """Say that all was written: it is flushed, and the file is left to its owner."""
        ...


class FileSource(ByteSource):
    """Stands for a binary file that is open for reading."""

    def __init__(self, file: BinaryIO) -> None:
        """Take an open file; whoever opened it still owns it."""
        # One look at the system for each piece: what a pipe has ready is not held back until the piece is full.
        self._read: Any = getattr(file, "read1", file.read)

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        data: bytes = self._read(_piece(size))
        return data

    def close(self) -> None:
        """Leave the file to its owner."""


class FileSink(ByteSink):
    """Stands for a binary file that is open for writing."""

    def __init__(self, file: BinaryIO) -> None:
        """Take an open file; whoever opened it still owns it."""
        self._file = file

    def write(self, data: bytes, /) -> None:
        """Write all of it, also where the system takes less at a time."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()

    def close(self) -> None:
        """Flush, and leave the file to its owner."""
        self._file.flush()


class GeneratorSource(ServedSource, ByteSource):
    """Stands for a generator of bytes."""

    def __init__(self, items: Iterator[bytes]) -> None:
        """Take a generator; from now on nobody else pulls from it."""
        self._served = IteratorServer(items)
        self._rest = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Return the next bytes: several items where they come fast, a part of one that is larger."""
        size = _piece(size)
        done = False
        while not self._rest and not done:
            items, done = self._served.pull(_MOST_ITEMS, size)
            data = _joined(items)
            if 0 < len(data) <= size:
                return data
            self._rest = memoryview(data)
        piece, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return piece

    def close(self) -> None:
        """Close the generator."""
        self._rest = memoryview(b"")
        self._served.close()

    def abandon(self, error: BaseException) -> None:
        """Close the generator, unless nobody has read from it: its owner may pass it elsewhere."""
        self._served.abandon(error)


class AsyncGeneratorSource(ServedSource, ByteSource):
    """Stands for an asynchronous generator of bytes."""

    def __init__(self, items: AsyncIterator[bytes]) -> None:
        """Take a generator; from now on nobody else pulls from it."""
        self._served = AsyncIteratorServer(items)
        self._rest = memoryview(b"")

    async def read(self, size: int, /) -> bytes:  # type: ignore[override]  # awaited by who runs it
        """Return the next bytes: several items where they come fast, a part of one that is larger."""
        size = _piece(size)
        done = False
        while not self._rest and not done:
            items, done = await self._served.pull(_MOST_ITEMS, size)
            data = _joined(items)
            if 0 < len(data) <= size:
                return data
            self._rest = memoryview(data)
        piece, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return piece

    async def close(self) -> None:  # type: ignore[override]  # awaited by who runs it
        """Close the generator."""
        self._rest = memoryview(b"")
        await self._served.close()

    def abandon(self, error: BaseException) -> Awaitable[object]:
        """Return what closes the generator."""
        return self._served.abandon(error)


def _piece(size: int) -> int:
    """Return a size that a peer asked for, within what one message can carry.

    Raises:
        ValueError: It is less than one byte: an empty answer would mean the end.
    """
    if size < 1:
        raise ValueError("a piece of a stream is at least one byte")
    return min(size, MAX_PIECE_BYTES)


def _joined(items: list[Any]) -> bytes:
    for item in items:
        if type(item) is not bytes:
            raise TypeError(f"a generator that stands for a ByteSource gives bytes, not {type(item).__name__}")
    return items[0] if len(items) == 1 else b"".join(items)


def _register() -> None:
    """Name every foreign type that may stand for a stream."""
    for readable in (io.BufferedReader, io.BufferedRandom, io.BytesIO, io.FileIO):
        register_adapter(readable, ByteSource, FileSource)
    for writable in (io.BufferedWriter, io.BufferedRandom, io.BytesIO, io.FileIO):
        register_adapter(writable, ByteSink, FileSink)
    register_adapter(GeneratorType, ByteSource, GeneratorSource)
    register_adapter(AsyncGeneratorType, ByteSource, AsyncGeneratorSource)


_register()
