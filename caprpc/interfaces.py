"""The interfaces that come with CapRPC: open files, byte streams, and the right to close something.

Functions, iterators, generators and context managers need no interface: a signature names them as
``Callable[[A], R]``, ``Iterator[T]`` and ``AbstractContextManager[T]``.
"""

from caprpc.interface.base import register_adapter
from caprpc.interface.file_adapters import UndecodableFile
from caprpc.interface.files import BinaryFile, Closeable, FileTooLarge, TextFile, TextLines
from caprpc.interface.streams import ByteSink, ByteSource

__all__ = [
    "BinaryFile",
    "ByteSink",
    "ByteSource",
    "Closeable",
    "FileTooLarge",
    "TextFile",
    "TextLines",
    "UndecodableFile",
    "register_adapter",
]
