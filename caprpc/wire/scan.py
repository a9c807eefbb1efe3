"""A linear look at a value blob before anything is built from it.

Counts values and estimates the memory they take, so that a small message cannot make a large heap, and
refuses everything but the canonical encoding. Payloads of texts and byte strings are skipped, not read.

Wire protocol, sections 5.1 and 5.2.
"""

from typing import Final

from caprpc.errors import RemoteProtocolError
from caprpc.limits import Limits

MAX_EXPANSION: Final = 64
"""Bytes of heap that one byte of a message may cost; a list of empty maps would cost 88."""

_LIST_HEAP: Final = 72
_SLOT_HEAP: Final = 8
_EMPTY_MAP_HEAP: Final = 80
_MAP_HEAP: Final = 160
_ENTRY_HEAP: Final = 64
_TEXT_HEAP: Final = 80
_BYTES_HEAP: Final = 48
_NUMBER_HEAP: Final = 32
_EXTENSION_HEAP: Final = 160
_SET_HEAP: Final = 130
_SET_CODES: Final = frozenset({7, 8})
"""What CPython 3.11 to 3.13 take, rounded up; the estimate is part of the wire protocol (section 5.2)."""

_INTEGERS: Final = {
    0xCC: (1, 0x80, 0x100),
    0xCD: (2, 0x100, 0x1_0000),
    0xCE: (4, 0x1_0000, 0x1_0000_0000),
    0xCF: (8, 0x1_0000_0000, 0x1_0000_0000_0000_0000),
    0xD0: (1, -0x80, -0x20),
    0xD1: (2, -0x8000, -0x80),
    0xD2: (4, -0x8000_0000, -0x8000),
    0xD3: (8, -0x8000_0000_0000_0000, -0x8000_0000),
}
"""Head to width and the half-open range whose shortest form this is."""

_SIZED: Final = {
    0xC4: (1, 0),
    0xC5: (2, 0x100),
    0xC6: (4, 0x1_0000),
    0xD9: (1, 0x20),
    0xDA: (2, 0x100),
    0xDB: (4, 0x1_0000),
    0xC7: (1, 0),
    0xC8: (2, 0x100),
    0xC9: (4, 0x1_0000),
    0xDC: (2, 0x10),
    0xDD: (4, 0x1_0000),
    0xDE: (2, 0x10),
    0xDF: (4, 0x1_0000),
}
"""Head to the width of the length that follows, and the least length for which this is the shortest form."""

_FIXED_EXTENSIONS: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_FIXED_LENGTHS: Final = frozenset(_FIXED_EXTENSIONS.values())


def scan(blob: bytes, limits: Limits) -> int:
    """Return the number of values in one canonical blob.

    Raises:
        RemoteProtocolError: The blob is malformed, not canonical, or over a bound of ``limits``.
    """
    scanner = _Scanner(blob, limits)
    try:
        scanner.run()
    except IndexError:
        raise RemoteProtocolError(f"value of {len(blob)} bytes ends too early") from None
    if scanner.heap > MAX_EXPANSION * len(blob):
        raise RemoteProtocolError(
            f"value of {len(blob)} bytes would take {scanner.heap} bytes of memory, at most {MAX_EXPANSION} times its "
            f"size allowed"
        )
    return scanner.items


class _Scanner:
    """Walks one blob with a stack of its own; ``items`` never exceeds ``limits.max_items``."""

    __slots__ = ("blob", "heap", "items", "limits", "position")

    def __init__(self, blob: bytes, limits: Limits) -> None:
        self.blob = blob
        self.limits = limits
        self.position = 0
        self.items = 0
        self.heap = 0

    def run(self) -> None:
        """Walk the whole blob."""
        blob = self.blob
        max_items = self.limits.max_items
        max_depth = self.limits.max_depth
        outer: list[tuple[int, set[bytes] | None]] = []
        left = 1
        keys: set[bytes] | None = None
        while True:
            if not left:
                if not outer:
                    break
                left, keys = outer.pop()
                continue
            left -= 1
            if keys is not None:
                self._key(keys)
            self.items += 1
            if self.items > max_items:
                raise RemoteProtocolError(f"more than {max_items} values in one message (limits.max_items)")
            head = blob[self.position]
            if head < 0x80:
                self.position += 1
                continue
            if head >= 0xE0:
                self.position += 1
                self.heap += _NUMBER_HEAP
                continue
            if 0xA0 <= head < 0xC0:
                self._skip_text(self.position + 1, head - 0xA0)
                continue
            count = self._container(head)
            if count is None:
                self._leaf(head)
                continue
            if len(outer) >= max_depth:
                raise RemoteProtocolError(f"values nested deeper than {max_depth} (limits.max_depth)")
            if count > max_items - self.items:
                raise RemoteProtocolError(f"more than {max_items} values in one message (limits.max_items)")
            outer.append((left, keys))
            left = count
            keys = set() if self._is_map(head) else None
        if self.position != len(blob):
            raise RemoteProtocolError(f"{len(blob) - self.position} bytes after the value")

    def _key(self, keys: set[bytes]) -> None:
        """Read one map key: a short text that the map does not hold yet."""
        blob = self.blob
        head = blob[self.position]
        start = self.position + 1
        if 0xA0 <= head < 0xC0:
            length = head - 0xA0
        elif 0xD9 <= head <= 0xDB:
            start, length = self._length(head)
        else:
            raise RemoteProtocolError("map key that is not a text")
        if length > self.limits.max_key_bytes:
            raise RemoteProtocolError(
                f"map key of {length} bytes, at most {self.limits.max_key_bytes} allowed (limits.max_key_bytes)"
            )
        key = blob[start : start + length]
        if key in keys:
            raise RemoteProtocolError("map with a duplicate key")
        keys.add(key)
        self.items += 1
        self._skip_text(start, length)

    def _container(self, head: int) -> int | None:
        """Return the number of elements or entries if ``head`` opens a container, and pass its head."""
        if head < 0xA0:
            self.position += 1
            count = head & 0x0F
        elif head >= 0xDC:
            self.position, count = self._length(head)
        else:
            return None
        if not self._is_map(head):
            self.heap += _LIST_HEAP + _SLOT_HEAP * count
        else:
            self.heap += _MAP_HEAP + _ENTRY_HEAP * count if count else _EMPTY_MAP_HEAP
        return count

    @staticmethod
    def _is_map(head: int) -> bool:
        return head < 0x90 or head >= 0xDE

    def _leaf(self, head: int) -> None:
        """Pass nil, a boolean, a number, a long text, a byte string or an extension."""
        if head in (0xC0, 0xC2, 0xC3):
            self.position += 1
        elif head in _INTEGERS:
            width, low, high = _INTEGERS[head]
            start = self.position + 1
            end = start + width
            if end > len(self.blob):
                raise IndexError
            number = int.from_bytes(self.blob[start:end], "big", signed=head >= 0xD0)
            if not low <= number < high:
                raise RemoteProtocolError("integer that is not in its shortest form")
            self.position = end
            self.heap += _NUMBER_HEAP
        elif head == 0xCB:
            self._skip(self.position + 1, 8)
            self.heap += _NUMBER_HEAP
        elif head in _FIXED_EXTENSIONS:
            self._skip_extension(self.position + 1, _FIXED_EXTENSIONS[head])
        elif head in _SIZED:
            start, length = self._length(head)
            if head <= 0xC6:
                self._skip(start, length)
                self.heap += _BYTES_HEAP + length if length > 1 else 0
            elif head <= 0xC9:
                if length in _FIXED_LENGTHS:
                    raise RemoteProtocolError("extension that is not in its shortest form")
                self._skip_extension(start, length)
            else:
                self._skip_text(start, length)
        else:
            raise RemoteProtocolError(f"byte {head:#04x} where a value begins")

    def _length(self, head: int) -> tuple[int, int]:
        """Return where the content behind a length begins, and the length."""
        width, least = _SIZED[head]
        start = self.position + 1
        end = start + width
        if end > len(self.blob):
            raise IndexError
        length = int.from_bytes(self.blob[start:end], "big")
        if length < least:
            raise RemoteProtocolError("length that is not in its shortest form")
        return end, length

    def _skip_extension(self, start: int, length: int) -> None:
        code = self.blob[start]
        if code >= 0x80:
            raise RemoteProtocolError(f"extension type {code - 0x100}")
        self._skip(start + 1, length)
        self.heap += _EXTENSION_HEAP + length
        if code in _SET_CODES:
            self.heap += _SET_HEAP

    def _skip_text(self, start: int, length: int) -> None:
        self._skip(start, length)
        if length > 1:
            self.heap += _TEXT_HEAP + length

    def _skip(self, start: int, length: int) -> None:
        self.position = start + length
        if self.position > len(self.blob):
            raise IndexError
