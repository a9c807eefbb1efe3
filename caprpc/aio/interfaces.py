"""``caprpc.interfaces`` as a client with asyncio sees it; made by ``caprpc stubs``, do not edit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Protocol

from caprpc.aio.typed import AwaitableIterator
from caprpc.interfaces import BinaryFile, ByteSink, ByteSource, Closeable, TextFile, TextLines

__all__ = [
    "AsyncBinaryFile",
    "AsyncByteSink",
    "AsyncByteSource",
    "AsyncCloseable",
    "AsyncTextFile",
    "AsyncTextLines",
]

if TYPE_CHECKING:

    class AsyncBinaryFile(Protocol):
        """A binary file that may be read and written."""

        def close(self) -> Awaitable[None]:
            """Close the file for everybody."""
            ...

        def flush(self) -> Awaitable[None]:
            """Hand written bytes to the system."""
            ...

        def read(self, size: int = ..., /) -> Awaitable[bytes]:
            """Return at most ``size`` bytes, possibly fewer; without a size, all that is left. Empty at the end."""
            ...

        def readline(self, limit: int = ..., /) -> Awaitable[bytes]:
            """Return the next line, or at most ``limit`` bytes of it; empty at the end."""
            ...

        def seek(self, offset: int, whence: int = ..., /) -> Awaitable[int]:
            """Go to a position and return it."""
            ...

        def tell(self) -> Awaitable[int]:
            """Return the position in bytes."""
            ...

        def write(self, data: bytes, /) -> Awaitable[int]:
            """Write bytes and return how many were taken."""
            ...

        def __aiter__(self) -> AsyncIterator[bytes]:
            """Give the remaining lines, one after the other."""
            ...

    class AsyncByteSink(Protocol):
        """The right to write a stream of bytes."""

        def close(self) -> Awaitable[None]:
            """Say that all was written: it is flushed, and the file is left to its owner."""
            ...

        def flush(self) -> Awaitable[None]:
            """Hand what was written to the system."""
            ...

        def write(self, data: bytes, /) -> Awaitable[None]:
            """Take all of these bytes."""
            ...

    class AsyncByteSource(Protocol):
        """The right to read a stream of bytes, once, from where it is."""

        def close(self) -> Awaitable[None]:
            """Say that no more will be read: a generator is closed, a file is left to its owner."""
            ...

        def read(self, size: int, /) -> Awaitable[bytes]:
            """Return the next bytes: at most ``size``, perhaps fewer, none only at the end."""
            ...

    class AsyncCloseable(Protocol):
        """The right to close something, and nothing else."""

        def close(self) -> Awaitable[None]:
            """Release what it holds."""
            ...

    class AsyncTextFile(Protocol):
        """A text file that may be read and written."""

        def close(self) -> Awaitable[None]:
            """Close the file for everybody."""
            ...

        def flush(self) -> Awaitable[None]:
            """Hand written text to the system."""
            ...

        def read(self, size: int = ..., /) -> Awaitable[str]:
            """Return at most ``size`` characters, possibly fewer; without a size, all that is left. Empty at the
            end.
            """
            ...

        def readline(self, limit: int = ..., /) -> Awaitable[str]:
            """Return the next line, or at most ``limit`` characters of it; empty at the end."""
            ...

        def readlines(self, hint: int = ..., /) -> AwaitableIterator[str]:
            """Give the remaining lines, one after the other; with a hint, stop after about so many characters."""
            ...

        def seek(self, offset: int, whence: int = ..., /) -> Awaitable[int]:
            """Go to a position and return it."""
            ...

        def tell(self) -> Awaitable[int]:
            """Return the position, to be handed to ``seek``."""
            ...

        def write(self, text: str, /) -> Awaitable[int]:
            """Write text and return the number of its characters."""
            ...

        def __aiter__(self) -> AsyncIterator[str]:
            """Give the remaining lines, one after the other."""
            ...

    class AsyncTextLines(Protocol):
        """The right to read the lines of a text file."""

        def readline(self, limit: int = ..., /) -> Awaitable[str]:
            """Return the next line, or at most ``limit`` characters of it; empty at the end."""
            ...

        def readlines(self, hint: int = ..., /) -> AwaitableIterator[str]:
            """Give the remaining lines, one after the other; with a hint, stop after about so many characters."""
            ...

        def __aiter__(self) -> AsyncIterator[str]:
            """Give the remaining lines, one after the other."""
            ...

else:
    AsyncBinaryFile = BinaryFile
    AsyncByteSink = ByteSink
    AsyncByteSource = ByteSource
    AsyncCloseable = Closeable
    AsyncTextFile = TextFile
    AsyncTextLines = TextLines
