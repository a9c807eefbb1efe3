"""The remote faces of byte streams: files that read and write through a reference, and hold two pieces at most.

One piece is consumed while one is under way, whatever the size of the whole.
"""

import asyncio
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, overload

from caprpc.errors import IteratorBusy, RemoteProtocolError
from caprpc.ids import OP_CALL
from caprpc.interface import shape_of
from caprpc.interfaces import ByteSink, ByteSource
from caprpc.objects.stubs import Caller, Stub
from caprpc.objects.targets import stub_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

MOST_PIECE_BYTES: Final = 1 << 20
"""The payload of one frame at the default limit."""

PIECE_BYTES: Final = MOST_PIECE_BYTES
"""Bytes asked for or sent at a time, if nobody says otherwise: the largest are the fastest, and two are held."""

Progress = Callable[[int], object]
"""Called with the number of bytes transferred so far, after each piece."""


class Transfer:
    """The reference behind one stream, how much has passed, and what the stream has failed with."""

    __slots__ = ("_caller", "_members", "_progress", "_stub", "_turn", "failure", "forsaken", "piece_bytes", "total")

    def __init__(self, stub: Stub, piece_bytes: int, progress: Progress | None) -> None:
        self._stub = stub
        self._caller: Caller = stub._caprpc_call.__self__
        self._members = stub._caprpc_shape.members
        self._progress = progress
        self._turn = threading.Lock()
        self.piece_bytes = piece_bytes
        self.total = 0
        self.failure: BaseException | None = None
        """A stream that has failed goes on failing: what is missing must not look like an end."""
        self.forsaken = False
        """Nobody has closed it and it is collected: nothing may be sent any more, for finalizers never send."""

    @property
    def alive(self) -> bool:
        """Whether the peer can still be told something."""
        return self._stub._caprpc_import.alive and not self.forsaken

    @property
    def may_close(self) -> bool:
        """Whether the peer can be told that this was all, and lets us; if not, it sees the reference go."""
        return self.alive and (OP_CALL, "close") in self._stub._caprpc_import.announced.operations

    def call(self, name: str, *args: object) -> Any:
        """Call a member and wait."""
        return self._caller.call(self._stub._caprpc_import, self._members[OP_CALL, name], args, {})

    def start(self, name: str, *args: object) -> Any:
        """Call a member; the result has ``result()``."""
        return self._caller.start(self._stub._caprpc_import, self._members[OP_CALL, name], args, {})

    def start_async(self, name: str, *args: object) -> "asyncio.Future[Any]":
        """Call a member; the result is awaited, or nobody cares any more."""
        member = self._members[OP_CALL, name]
        future: asyncio.Future[Any] = self._caller.call_async(self._stub._caprpc_import, member, args, {})
        future.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return future

    def passed(self, count: int) -> None:
        """Count bytes that have passed.

        Raises:
            RemoteProtocolError: They are more than were asked for; the connection ends.
        """
        if count > self.piece_bytes:
            text = f"a stream of the peer gave {count} bytes, {self.piece_bytes} asked for"
            self._caller.broken(text)
            raise RemoteProtocolError(text)
        self.total += count
        if count and self._progress is not None:
            self._progress(self.total)

    def __enter__(self) -> None:
        if not self._turn.acquire(blocking=False):
            raise IteratorBusy("another thread or task waits for this stream; a stream has one user at a time")
        if self.failure is not None:
            self._turn.release()
            raise self.failure

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None and not isinstance(error, asyncio.CancelledError):
            self.failure = error
        self._turn.release()


class Rest:
    """What of the last piece was not handed out yet."""

    __slots__ = ("_data", "_start")

    def __init__(self) -> None:
        self._data = b""
        self._start = 0

    def put(self, data: bytes) -> None:
        """Take a piece; what was left of the last one is forgotten."""
        self._data = data
        self._start = 0

    def __len__(self) -> int:
        return len(self._data) - self._start

    def take(self, size: int) -> bytes:
        """Return at most ``size`` bytes; a whole piece is handed on and not copied."""
        data, start = self._data, self._start
        if not start and size >= len(data):
            self._data = b""
            return data
        piece = data[start : start + size]
        self._start = start + len(piece)
        if self._start >= len(data):
            self.put(b"")
        return piece


class RemoteReader(io.RawIOBase):
    """Reads a ``ByteSource`` of a peer like an unbuffered file; ``io.BufferedReader(reader)`` gives lines and ``peek``.

    It holds one piece, and one more is under way. Closing it tells the peer, and leaves the reference alone.
    """

    def __init__(self, transfer: Transfer) -> None:
        """Take a transfer that nobody else uses; see ``caprpc.open_stream``."""
        super().__init__()
        self._transfer = transfer
        self._rest = Rest()
        self._ahead: Any = None
        self._ended = False

    @property
    def received(self) -> int:
        """Bytes that have come so far, those that were not read yet included."""
        return self._transfer.total

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most ``size`` bytes, what is there already if anything is; all that is left without a size."""
        self._checkClosed()
        if size is None or size < 0:
            return self.readall()
        if not size or (not self._rest and not self._fill()):
            return b""
        return self._rest.take(size)

    def readall(self) -> bytes:
        """Return all that is left, which takes as much memory."""
        return b"".join(self.pieces())

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read into a buffer; return how many bytes."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def pieces(self) -> Iterator[bytes]:
        """Give what is left piece by piece, as it came."""
        while piece := self.read(MOST_PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Say that no more will be read; may be called twice."""
        if not self.closed:
            super().close()
            self._ahead = None
            if not self._ended and self._transfer.may_close:
                self._transfer.call("close")

    def _fill(self) -> bool:
        """Have the next piece in ``_rest``; False at the end."""
        transfer = self._transfer
        with transfer:
            if self._rest:
                # Another thread was faster.
                return True
            if self._ended:
                return False
            ahead, self._ahead = self._ahead, None
            size = transfer.piece_bytes
            data = ahead.result() if ahead is not None else transfer.call("read", size)
            transfer.passed(len(data))
            self._ended = not data
            if data:
                self._ahead = transfer.start("read", size)
            self._rest.put(data)
            return bool(data)

    def __del__(self) -> None:
        # Finalizers never send. The reference is given back with the stub, and with it goes what it stands for.
        pass

    def _dealloc_warn(self, _source: object) -> None:
        """Take note that a buffer around this is collected, which will close it; Python calls this just before."""
        self._transfer.forsaken = True


class RemoteWriter(io.RawIOBase):
    """Writes to a ``ByteSink`` of a peer like a file. It collects one piece while one is under way.

    What failed at the peer is raised by the next ``write``, ``flush`` or ``close``.
    """

    def __init__(self, transfer: Transfer) -> None:
        """Take a transfer that nobody else uses; see ``caprpc.open_stream``."""
        super().__init__()
        self._transfer = transfer
        self._collected = bytearray()
        self._ahead: Any = None
        self._sending = 0
        self._finished = False

    @property
    def sent(self) -> int:
        """Bytes that the peer has taken."""
        return self._transfer.total

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Take all of it; returns when no more than two pieces are still here."""
        self._checkClosed()
        view = memoryview(data).cast("B")
        size, collected = self._transfer.piece_bytes, self._collected
        start = 0
        if self._transfer.forsaken:
            return len(view)
        with self._transfer:
            while start < len(view):
                part = view[start : start + size - len(collected)]
                collected += part
                start += len(part)
                if len(collected) == size:
                    self._send()
        return len(view)

    def flush(self) -> None:
        """Send what was collected, and wait until the peer has taken and flushed it."""
        if self.closed or self._finished or self._transfer.forsaken:
            return
        with self._transfer:
            self._send()
            self._settle()
            self._transfer.call("flush")

    def close(self) -> None:
        """Send what was collected and say that it was all; may be called twice."""
        if self.closed:
            return
        try:
            if not self._finished and not self._transfer.forsaken:
                with self._transfer:
                    self._send()
                    self._settle()
                    self._transfer.call("close")
        finally:
            self._finished = True
            self._collected.clear()
            super().close()

    def __del__(self) -> None:
        if not self._finished:
            self._dealloc_warn(self)

    def _dealloc_warn(self, _source: object) -> None:
        """Warn that what a buffer around this holds will be lost; Python calls this when it collects such a buffer."""
        self._transfer.forsaken = True
        warnings.warn(f"a stream to a peer was not closed after {self.sent} bytes", ResourceWarning, stacklevel=2)

    def _send(self) -> None:
        self._settle()
        if self._collected:
            piece = bytes(self._collected)
            self._collected.clear()
            self._sending = len(piece)
            self._ahead = self._transfer.start("write", piece)

    def _settle(self) -> None:
        """Wait until the piece that is under way was taken."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.result()
            self._transfer.passed(self._sending)


def transfer_of(
    reference: object, chunk_bytes: int, progress: Progress | None, *, on_loop: bool
) -> tuple[Transfer, bool]:
    """Return the transfer of a new stream, and whether it reads.

    Raises:
        TypeError: It is no reference to a stream, or one of the other kind of driver.
        ValueError: ``chunk_bytes`` is out of bounds.
    """
    stub = stub_of(reference)
    interface = stub._caprpc_shape.interface
    if interface is not _SOURCE and interface is not _SINK:
        raise TypeError(f"open_stream() takes a ByteSource or a ByteSink, not a {stub._caprpc_shape.name}")
    if on_loop is not (stub._caprpc_call.__name__ == "call_async"):
        other = "caprpc.open_stream" if on_loop else "caprpc.aio.open_stream"
        raise TypeError(f"this reference is {'not ' if on_loop else ''}used with await: call {other}")
    if type(chunk_bytes) is not int or not 1 <= chunk_bytes <= MOST_PIECE_BYTES:
        raise ValueError(f"chunk_bytes is 1 to {MOST_PIECE_BYTES}")
    return Transfer(stub, chunk_bytes, progress), interface is _SOURCE


_SOURCE: Final = shape_of(ByteSource).interface
_SINK: Final = shape_of(ByteSink).interface


@overload
def open_stream(
    reference: ByteSource, *, chunk_bytes: int = PIECE_BYTES, progress: Progress | None = None
) -> RemoteReader: ...
@overload
def open_stream(
    reference: ByteSink, *, chunk_bytes: int = PIECE_BYTES, progress: Progress | None = None
) -> RemoteWriter: ...
def open_stream(
    reference: ByteSource | ByteSink, *, chunk_bytes: int = PIECE_BYTES, progress: Progress | None = None
) -> RemoteReader | RemoteWriter:
    """Open a byte stream of a peer as an unbuffered file: for reading a ``ByteSource``, for writing a ``ByteSink``.

    Two chunks are held at most, one here and one under way, whatever the size of the whole.

    Args:
        reference: What a member of a peer returned, or what was passed to a method.
        chunk_bytes: Bytes asked for, or sent, at a time: 1 to 1,048,576.
        progress: Called with the number of bytes transferred so far, after each chunk.

    Raises:
        TypeError: It is no reference to a stream.
        ValueError: ``chunk_bytes`` is out of bounds.
    """
    transfer, reads = transfer_of(reference, chunk_bytes, progress, on_loop=False)
    return RemoteReader(transfer) if reads else RemoteWriter(transfer)
