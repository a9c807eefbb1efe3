"""Open files as interfaces."""

from collections.abc import Iterable, Iterator

from caprpc.errors import CapRPCError
from caprpc.interface.base import Interface
from caprpc.interface.declaration import method


class FileTooLarge(CapRPCError):
    """Reading everything at once would not fit into one message; read in pieces, or iterate."""


class TextLines(Interface):
    """The right to read the lines of a text file."""

    @method(effect="read")
    def readlines(self, hint: int = -1, /) -> Iterable[str]:
        """Give the remaining lines, one after the other; with a hint, stop after about so many characters."""
        ...

    @method(effect="read")
    def readline(self, limit: int = -1, /) -> str:
        """Return the next line, or at most ``limit`` characters of it; empty at the end."""
        ...

    @method(effect="read")
    def __iter__(self) -> Iterator[str]:
        """Give the remaining lines, one after the other."""
        ...


class TextFile(TextLines, Interface):
    """A text file that may be read and written."""

    @method(effect="read", errors=(FileTooLarge,))
    def read(self, size: int = -1, /) -> str:
        """Return at most ``size`` characters, possibly fewer; without a size, all that is left. Empty at the end."""
        ...

    @method(effect="write")
    def write(self, text: str, /) -> int:
        """Write text and return the number of its characters."""
        ...

    @method(effect="read")
    def tell(self) -> int:
        """Return the position, to be handed to ``seek``."""
        ...

    @method(effect="read")
    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position and return it."""
        ...

    @method(effect="write")
    def flush(self) -> None:
        """Hand written text to the system."""
        ...

    @method(effect="write")
    def close(self) -> None:
        """Close the file for everybody."""
        ...


class BinaryFile(Interface):
    """A binary file that may be read and written."""

    @method(effect="read", errors=(FileTooLarge,))
    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, possibly fewer; without a size, all that is left. Empty at the end."""
        ...

    @method(effect="read")
    def readline(self, limit: int = -1, /) -> bytes:
        """Return the next line, or at most ``limit`` bytes of it; empty at the end."""
        ...

    @method(effect="read")
    def __iter__(self) -> Iterator[bytes]:
        """Give the remaining lines, one after the other."""
        ...

    @method(effect="write")
    def write(self, data: bytes, /) -> int:
        """Write bytes and return how many were taken."""
        ...

    @method(effect="read")
    def tell(self) -> int:
        """Return the position in bytes."""
        ...

    @method(effect="read")
    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position and return it."""
        ...

    @method(effect="write")
    def flush(self) -> None:
        """Hand written bytes to the system."""
        ...

    @method(effect="write")
    def close(self) -> None:
        """Close the file for everybody."""
        ...


class Closeable(Interface):
    """The right to close something, and nothing else."""

    @method(effect="write")
    def close(self) -> None:
        """Release what it holds."""
        ...
