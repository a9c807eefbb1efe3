"""What lets an open file stand for a file interface: one adapter for text, one for bytes, by exact type.

Nothing reads ahead of what a peer asks for, and one read gives at most what one message can carry.
"""

import codecs
import io
from collections.abc import Iterable, Iterator
from functools import partial
from typing import BinaryIO, Final, TextIO

from caprpc.errors import CapRPCError
from caprpc.interface.base import register_adapter
from caprpc.interface.files import BinaryFile, Closeable, FileTooLarge, TextFile, TextLines

MAX_READ_BYTES: Final = 1 << 20
"""Most bytes of one read: the payload of one frame at the default limit."""

MAX_READ_CHARS: Final = 1 << 18
"""Most characters of one read: each may take four bytes on the wire."""

_SCAN_BYTES: Final = 1 << 16
"""How much is read at a time while looking for the byte that does not decode."""


class UndecodableFile(CapRPCError):
    """A text file holds bytes that its encoding does not allow.

    The message names file, byte and line for the owner of the file; nothing of it travels.
    """


class TextFileAdapter(TextFile, Closeable):
    """Stands for an open text file; the file itself never leaves."""

    def __init__(self, file: TextIO) -> None:
        """Take an open text file; whoever opened it still owns it."""
        self._file = file

    def readlines(self, hint: int = -1, /) -> Iterable[str]:
        """Give lines as they are asked for."""
        return _until(self._lines(), hint) if hint > 0 else self._lines()

    def readline(self, limit: int = -1, /) -> str:
        """Return the next line; a longer one than a message can carry comes in pieces."""
        with _Decoding(self._file):
            return self._file.readline(_bounded(limit, MAX_READ_CHARS))

    def __iter__(self) -> Iterator[str]:
        """Give lines as they are asked for."""
        return self._lines()

    def read(self, size: int = -1, /) -> str:
        """Return the next characters."""
        with _Decoding(self._file):
            if size >= 0:
                return self._file.read(_bounded(size, MAX_READ_CHARS))
            start = self._file.tell() if self._file.seekable() else None
            text = self._file.read(MAX_READ_CHARS + 1)
        if len(text) > MAX_READ_CHARS:
            if start is not None:
                self._file.seek(start)
            raise FileTooLarge(f"more than {MAX_READ_CHARS} characters are left; read in pieces, or iterate")
        return text

    def write(self, text: str, /) -> int:
        """Write text."""
        return self._file.write(text)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position."""
        return self._file.seek(offset, whence)

    def flush(self) -> None:
        """Hand written text to the system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _lines(self) -> Iterator[str]:
        # readline() with a bound, not next(): a line that never ends must not fill the memory of the owner.
        with _Decoding(self._file):
            yield from iter(partial(self._file.readline, MAX_READ_CHARS), "")


class BinaryFileAdapter(BinaryFile, Closeable):
    """Stands for an open binary file; the file itself never leaves."""

    def __init__(self, file: BinaryIO) -> None:
        """Take an open binary file; whoever opened it still owns it."""
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes."""
        if size >= 0:
            return self._file.read(_bounded(size, MAX_READ_BYTES))
        start = self._file.tell() if self._file.seekable() else None
        data = self._file.read(MAX_READ_BYTES + 1)
        if len(data) > MAX_READ_BYTES:
            if start is not None:
                self._file.seek(start)
            raise FileTooLarge(f"more than {MAX_READ_BYTES} bytes are left; read in pieces, or iterate")
        return data

    def readline(self, limit: int = -1, /) -> bytes:
        """Return the next line; a longer one than a message can carry comes in pieces."""
        return self._file.readline(_bounded(limit, MAX_READ_BYTES))

    def __iter__(self) -> Iterator[bytes]:
        """Give lines as they are asked for."""
        return iter(partial(self._file.readline, MAX_READ_BYTES), b"")

    def write(self, data: bytes, /) -> int:
        """Write bytes."""
        return self._file.write(data)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position."""
        return self._file.seek(offset, whence)

    def flush(self) -> None:
        """Hand written bytes to the system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Decoding:
    """Turns a decoding error into one that says where in the file it is."""

    __slots__ = ("_file",)

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, UnicodeDecodeError):
            name = getattr(self._file, "name", "the file")
            where = _first_bad_byte(self._file)
            raise UndecodableFile(
                f"{name} is not valid {error.encoding}{where}; open it with the encoding that it has"
            ) from error


def _first_bad_byte(file: TextIO) -> str:
    """Return `` at byte B, line L``, or nothing where the bytes cannot be read again."""
    if type(file) is not io.TextIOWrapper or not file.buffer.seekable():
        return ""
    buffer = file.buffer
    position = buffer.tell()
    decoder = codecs.getincrementaldecoder(file.encoding)("strict")
    offset, lines = 0, 1
    try:
        buffer.seek(0)
        while chunk := buffer.read(_SCAN_BYTES):
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                bad = error.start - held
                lines += chunk.count(b"\n", 0, max(bad, 0))
                return f" at byte {offset + bad}, line {lines}"
            offset += len(chunk)
            lines += chunk.count(b"\n")
        return f" at byte {offset}, line {lines}"
    finally:
        buffer.seek(position)


def _bounded(size: int, most: int) -> int:
    """Return a size that a peer asked for, within what one message can carry."""
    return size if 0 <= size <= most else most


def _until(lines: Iterator[str], hint: int) -> Iterator[str]:
    """Give lines until ``hint`` characters have been given."""
    given = 0
    for line in lines:
        yield line
        given += len(line)
        if given >= hint:
            return


def _register() -> None:
    """Name every foreign type that may stand for a file interface."""
    for text in (io.TextIOWrapper, io.StringIO):
        register_adapter(text, TextLines, TextFileAdapter)
        register_adapter(text, TextFile, TextFileAdapter)
        register_adapter(text, Closeable, TextFileAdapter)
    for binary in (io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.BytesIO, io.FileIO):
        register_adapter(binary, BinaryFile, BinaryFileAdapter)
        register_adapter(binary, Closeable, BinaryFileAdapter)


_register()
