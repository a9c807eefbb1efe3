"""Frames: a 4-byte big-endian length, then that many bytes.

Wire protocol, section 2.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from struct import Struct
from sys import getrefcount
from typing import Final

from caprpc.errors import LocalProtocolError, RemoteProtocolError
from caprpc.limits import KIB

HEADER_BYTES: Final = 4
"""Length prefix, big-endian, unsigned; it does not count itself."""

LARGE_FRAME_BYTES: Final = 64 * KIB
"""Longer bodies are received straight into a buffer of their own: joining pieces costs 0.7 ms a MiB more."""

_FIRST_BUFFER_BYTES: Final = 16 * KIB
"""First buffer of a large body, one TLS record: announcing a body costs us nothing."""

_GROWTH: Final = 16
"""A full buffer is replaced by one this much larger. Doubling would hold less, and costs 2 ms of page faults a MiB."""

SPARE_S: Final = 1.0
"""How long the memory of a large body is worth keeping for the next one."""

_OURS: Final = 2
"""What ``getrefcount`` says of a variable's object that nobody else refers to, not by a view either."""

_CUTTING: Final = -1
"""Frames of the last ``feed`` are still being taken, or the stream has failed."""

_length_at: Final = Struct(">I").unpack_from


def frame(body: bytes) -> bytes:
    """Return the body with its length prefix."""
    return len(body).to_bytes(HEADER_BYTES, "big") + body


class FrameBuffer:
    """Cuts a byte stream into frame bodies; memory held follows what was received, not what was announced.

    Attributes:
        max_frame_bytes: Largest body accepted from now on; the session raises it after WELCOME and HELLO.
    """

    __slots__ = (
        "_body",
        "_failure",
        "_filled",
        "_length",
        "_pending",
        "max_frame_bytes",
        "missing",
        "rest",
        "spare",
    )

    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._failure: RemoteProtocolError | None = None
        self._pending = bytearray()
        self.missing = 0
        """Bytes without which the pending frame cannot go on; 0 between frames, _CUTTING inside ``feed``."""
        self.rest: Iterable[bytes | bytearray] | None = None
        """Bodies that the last ``feed`` completed and that were left for later: they come before the next ``feed``."""
        self._body: bytearray | None = None
        self._filled = 0
        self._length = 0
        self.spare: bytearray | None = None
        """The last large body: the next one of its length goes there if nobody refers to it any more, because fresh
        memory costs 0.3 ms a MiB. Whoever keeps the time drops it."""

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return self.missing > 0

    @property
    def partial_bytes(self) -> int:
        """Bytes received of the frame that is not complete, its header included; 0 between frames."""
        if self._body is not None:
            return HEADER_BYTES + self._filled
        return len(self._pending)

    def feed(self, data: bytes) -> Iterable[bytes | bytearray]:
        """Take received bytes and return the body of every frame they complete, in order.

        Iterate the result to its end before the next call. Each header is checked when its turn comes, so that
        ``max_frame_bytes`` may be raised by the frame before it. A body of more than 64 KiB is a ``bytearray``
        that belongs to the caller, who refers to it for as long as it is needed.

        Raises:
            RemoteProtocolError: A length prefix is zero or exceeds ``max_frame_bytes``; raised while iterating,
                after the frames before it and before its body is buffered, so that a peer cannot make us hold
                it. Every further call raises it again.

        Wire protocol, section 2.
        """
        missing = self.missing
        if not missing:
            size = len(data)
            if size > HEADER_BYTES and _length_at(data)[0] == size - HEADER_BYTES <= self.max_frame_bytes:
                return (data[HEADER_BYTES:],)
        elif missing == _CUTTING:
            raise self._failure or LocalProtocolError("the frames of the last feed() were not all taken")
        elif self._body is not None:
            return self._fill(data)
        elif len(data) < missing:
            self._pending += data
            self.missing = missing - len(data)
            return ()
        else:
            self._pending += data
            data = bytes(self._pending)
            self._pending.clear()
        self.missing = _CUTTING
        return self._cut(data)

    def writable(self) -> memoryview | None:
        """Return where the next bytes of a large body may be written, or None if no such body is under way.

        Valid until ``wrote`` or ``feed`` is called.
        """
        body = self._body
        if body is None:
            return None
        if self._filled == len(body):
            body = self._grow(body, self._filled + 1)
        return memoryview(body)[self._filled :]

    def wrote(self, count: int) -> bytearray | None:
        """Say that ``count`` bytes were written into ``writable()``; return the body if that completes it."""
        body = self._body
        if body is None or not 0 <= count <= len(body) - self._filled:
            raise LocalProtocolError(f"{count} bytes reported, which writable() did not offer")
        self._filled += count
        self.missing = self._length - self._filled
        if self.missing:
            return None
        self._body = None
        self.spare = body
        return body

    @property
    def awaits_bulk(self) -> bool:
        """Whether so much of a large body is missing that ``fill`` gets it for less than ``feed``."""
        return self.missing > LARGE_FRAME_BYTES

    def fill(self, read_into: Callable[[memoryview], int]) -> bytearray | None:
        """Have ``read_into`` fill the large body that is under way, as far as it can; return it if it is complete."""
        while (view := self.writable()) is not None:
            count = read_into(view)
            body = self.wrote(count)
            if body is not None:
                return body
            if count < len(view):
                break
        return None

    def _cut(self, data: bytes) -> Iterator[bytes | bytearray]:
        """Yield every complete body of ``data``, which starts at a frame, and keep the rest."""
        position = 0
        size = len(data)
        missing = 0
        while position < size:
            start = position + HEADER_BYTES
            if start > size:
                missing = start - size
                break
            length = _length_at(data, position)[0]
            if not 0 < length <= self.max_frame_bytes:
                raise self._fail(length)
            end = start + length
            if end > size:
                missing = end - size
                if length > LARGE_FRAME_BYTES:
                    self._begin(length, memoryview(data)[start:])
                    position = size
                break
            yield data[start:end]
            position = end
        if position < size:
            self._pending += data[position:] if position else data
        self.missing = missing

    def _begin(self, length: int, received: memoryview) -> None:
        self._length = length
        self._filled = len(received)
        spare, self.spare = self.spare, None
        if spare is None or len(spare) != length or getrefcount(spare) > _OURS:
            spare = bytearray(min(length, max(_FIRST_BUFFER_BYTES, _GROWTH * self._filled)))
        self._body = spare
        spare[: self._filled] = received

    def _fill(self, data: bytes) -> Iterable[bytes | bytearray]:
        """Copy into the large body; return it if it is complete, and the frames behind it."""
        end = min(self._filled + len(data), self._length)
        count = end - self._filled
        body = self._body or bytearray()
        if end > len(body):
            body = self._grow(body, end)
        body[self._filled : end] = data if count == len(data) else memoryview(data)[:count]
        complete = self.wrote(count)
        if complete is None:
            return ()
        if count == len(data):
            return (complete,)
        self.missing = _CUTTING
        return chain((complete,), self._cut(data[count:]))

    def _grow(self, body: bytearray, needed: int) -> bytearray:
        """Replace the buffer by one of at least ``needed`` bytes; the last one has exactly the body's length."""
        grown = bytearray(min(self._length, max(needed, _GROWTH * len(body))))
        grown[: self._filled] = memoryview(body)[: self._filled]
        self._body = grown
        return grown

    def _fail(self, length: int) -> RemoteProtocolError:
        allowed = (
            f"at most {self.max_frame_bytes} allowed (limits.max_frame_bytes)" if length else "at least 1 expected"
        )
        self._failure = RemoteProtocolError(f"frame of {length} bytes, {allowed}")
        return self._failure
