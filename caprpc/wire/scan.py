"""A linear look at a value blob before anything is built from it.

Counts values and estimates the memory they take, so that a small message cannot make a large heap, and
refuses everything but the canonical encoding. Payloads of texts and byte strings are skipped, not read.

Wire protocol, sections 5.1 and 5.2.
"""

import re
import sys
from typing import Final

from msgspec.msgpack import Ext as Extension

from caprpc.errors import LimitExceeded, RemoteProtocolError
from caprpc.limits import KIB, Limits
from caprpc.wire.values import CODE_OWN_REFERENCE, CODE_REFERENCE

MAX_EXPANSION: Final = 64
"""Bytes of heap that one byte of a message may cost; a list of empty maps would cost 88."""

EXPANSION_FREE_BYTES: Final = 8 * KIB
"""Values up to this size may expand as they like, to 704 KiB at most: a batch of calls without arguments does."""

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

_FIRST_BYTES: Final = {
    0xCC: (2, 0x80, 0xFF),
    0xCD: (3, 0x01, 0xFF),
    0xCE: (5, 0x01, 0xFF),
    0xCF: (9, 0x01, 0xFF),
    0xD0: (2, 0x80, 0xDF),
    0xD1: (3, 0x80, 0xFE),
    0xD2: (5, 0x80, 0xFE),
    0xD3: (9, 0x80, 0xFE),
}
"""Head to size, and the first bytes that alone prove the shortest form."""

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

UNCOUNTED: Final = sys.maxsize
"""As many references as there is room for."""
_REFERENCE_BYTES: Final = 10
"""The least that a reference takes in a message, its head included: one of the receiver's own that comes home."""
_REFERENCE_CODES: Final = frozenset({CODE_REFERENCE, CODE_OWN_REFERENCE})


def _sizes() -> list[int]:
    """Return for each head the size of its value where the head alone says it, else 0."""
    sizes = [0] * 0x100
    sizes[0x00:0x80] = [1] * 0x80
    sizes[0xA0:0xC0] = range(1, 33)
    sizes[0xC0] = sizes[0xC2] = sizes[0xC3] = 1
    sizes[0xCB] = 9
    sizes[0xE0:] = [1] * 0x20
    return sizes


def _costs() -> list[int]:
    """Return for each head of ``_sizes`` the memory that its value takes."""
    costs = [0] * 0x100
    costs[0xA2:0xC0] = range(_TEXT_HEAP + 2, _TEXT_HEAP + 32)
    costs[0xCB] = _NUMBER_HEAP
    costs[0xE0:] = [_NUMBER_HEAP] * 0x20
    costs[0x80] = _EMPTY_MAP_HEAP
    costs[0x90] = _LIST_HEAP
    return costs


_SIZES_DEEPEST: Final = tuple(_sizes())
"""Where no further container may open."""
_SIZES: Final = tuple(1 if head in (0x80, 0x90) else size for head, size in enumerate(_SIZES_DEEPEST))
_COSTS: Final = tuple(_costs())


_RUN: Final = 32
_RUN_HEAP: Final = 32
"""No value of a run takes more memory than so much for each of its bytes: a negative integer of one byte does."""


def _run_pattern() -> re.Pattern[bytes]:
    """Return what matches ``_RUN`` canonical values that hold no others; the C of ``re`` walks them.

    Possessive: what is no run is known after one look at each value.
    """
    numbers = (
        rb"[\x00-\x7F\xC0\xC2\xC3\xE0-\xFF]|\xCB.{8}|\xCC[\x80-\xFF]|\xCD(?!\x00).{2}|\xCE(?!\x00\x00).{4}"
        rb"|\xCF(?!\x00{4}).{8}|\xD0[\x80-\xDF]|\xD1(?!\xFF[\x80-\xFF])[\x80-\xFF].|\xD2(?!\xFF{2}[\x80-\xFF])[\x80-\xFF].{3}"
        rb"|\xD3(?!\xFF{4}[\x80-\xFF])[\x80-\xFF].{7}"
    )
    texts = b"|".join(re.escape(bytes((0xA0 + size,))) + b".{%d}" % size for size in range(32))
    sized = [
        b"|".join(re.escape(bytes((size,))) + b".{%d}" % size for size in range(least, 0x100)) for least in (0, 0x20)
    ]
    values = b"|".join((numbers, texts, rb"\xC4(?:" + sized[0] + b")", rb"\xD9(?:" + sized[1] + b")"))
    return re.compile(b"(?:" + values + b"){%d}+" % _RUN, re.DOTALL)


_run_at: Final = _run_pattern().match


def list_heap(count: int) -> int:
    """Estimate the memory of an array, its elements aside."""
    return _LIST_HEAP + _SLOT_HEAP * count


def map_heap(count: int) -> int:
    """Estimate the memory of a map, its keys and values aside."""
    return _MAP_HEAP + _ENTRY_HEAP * count if count else _EMPTY_MAP_HEAP


def most_heap(size: int) -> int:
    """Return how much memory a value of ``size`` bytes may take."""
    return MAX_EXPANSION * (size if size > EXPANSION_FREE_BYTES else 2 * EXPANSION_FREE_BYTES)


class TooManyReferences(LimitExceeded):
    """More references are in one message than ``limits.message_references`` allows."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"more than {most} references in one message (limits.message_references); an iterator gives them in pieces"
        )


class References:
    """Counts the references of one message, wherever they stand in it."""

    __slots__ = ("_left", "_most")

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    @classmethod
    def within(cls, most: int, size: int) -> "References | None":
        """Return what counts at most so many; None if a blob of so many bytes cannot hold more."""
        return cls(most) if size > most * _REFERENCE_BYTES else None

    def extension(self, code: int, data: bytes) -> Extension:
        """Make an extension, counted."""
        self.see(code)
        return Extension(code, data)

    def begin_again(self) -> None:
        """Forget what was counted: it is looked at anew."""
        self._left = self._most

    def see(self, code: int) -> None:
        """Take note of an extension.

        Raises:
            TooManyReferences: It is one reference more than may be in a message.
        """
        if code in _REFERENCE_CODES:
            self._left -= 1
            if self._left < 0:
                raise TooManyReferences(self._most)


def scan(blob: bytes, limits: Limits, references: References | None = None) -> int:
    """Return the number of values in one canonical blob.

    Raises:
        RemoteProtocolError: The blob is malformed, not canonical, or over a bound of ``limits``.
        TooManyReferences: More references are in it than ``references`` allows; what is behind them is not looked at.
    """
    scanner = _Scanner(blob, limits, references)
    try:
        # What runs take is estimated from above; where that is too much it is looked at one by one.
        items = scanner.run(runs=True)
        if items:
            return items
        if references is not None:
            references.begin_again()
        return scanner.run(runs=False)
    except IndexError:
        raise RemoteProtocolError(f"value of {len(blob)} bytes ends too early") from None


class _Scanner:
    """Walks one blob with a stack of its own; position, count and heap are the caller's locals, for speed."""

    __slots__ = ("_blob", "_limits", "_references")

    def __init__(self, blob: bytes, limits: Limits, references: References | None = None) -> None:
        self._blob = blob
        self._limits = limits
        self._references = references

    def run(self, *, runs: bool) -> int:
        """Walk the whole blob; return the number of values in it, 0 if ``runs`` may have taken too much memory."""
        blob, max_depth = self._blob, self._limits.max_depth
        max_heap = most_heap(len(blob))
        outer: list[tuple[int, set[bytes] | None]] = []
        sizes = _SIZES
        left, items, position, heap = 1, 1, 0, 0
        keys: set[bytes] | None = None
        next_run = 0 if runs else len(blob)
        while True:
            while left:
                if left >= _RUN and keys is None and position >= next_run:
                    end, count = self._runs(position, left)
                    left -= count
                    heap += _RUN_HEAP * (end - position)
                    # What stands in the way is not looked at again with each value.
                    position, next_run = end, end + 2 * _RUN
                    continue
                left -= 1
                if keys is not None:
                    position = self._key(position, keys)
                head = blob[position]
                size = sizes[head]
                if size:
                    position += size
                    heap += _COSTS[head]
                elif head in _INTEGERS:
                    size, least, most = _FIRST_BYTES[head]
                    if not least <= blob[position + 1] <= most:
                        self._check_integer(position, head)
                    position += size
                    heap += _NUMBER_HEAP
                elif head < 0xA0 or head >= 0xDC:
                    position, count = self._container(position, head, len(outer))
                    outer.append((left, keys))
                    left = count
                    is_map = head < 0x90 or head >= 0xDE
                    keys = set() if is_map else None
                    items += 2 * count if is_map else count
                    heap += map_heap(count) if is_map else list_heap(count)
                    if items > self._limits.max_items or heap > max_heap:
                        return self._over(items, heap, runs=runs)
                    sizes = _SIZES if len(outer) < max_depth else _SIZES_DEEPEST
                else:
                    position, cost = self._long(position, head)
                    heap += cost
            if not outer:
                break
            left, keys = outer.pop()
            sizes = _SIZES
        if heap > max_heap:
            return self._over(items, heap, runs=runs)
        if position != len(blob):
            raise (
                IndexError
                if position > len(blob)
                else RemoteProtocolError(f"{len(blob) - position} bytes after the value")
            )
        return items

    def _runs(self, position: int, left: int) -> tuple[int, int]:
        """Pass as many whole runs of values as stand here, ``left`` values at most; return where, and how many."""
        count = 0
        while left - count >= _RUN and (found := _run_at(self._blob, position)) is not None:
            count += _RUN
            position = found.end()
        return position, count

    def _key(self, position: int, keys: set[bytes]) -> int:
        """Read one map key, a short text that the map does not hold yet; return where its value begins."""
        blob = self._blob
        head = blob[position]
        start = position + 1
        if 0xA0 <= head < 0xC0:
            length = head - 0xA0
        elif 0xD9 <= head <= 0xDB:
            start, length = self._length(position, head)
        else:
            raise RemoteProtocolError("map key that is not a text")
        if length > self._limits.max_key_bytes:
            raise RemoteProtocolError(
                f"map key of {length} bytes, at most {self._limits.max_key_bytes} allowed (limits.max_key_bytes)"
            )
        end = start + length
        # A large payload is a view of a buffer, and of such a slice no hash is taken.
        key = bytes(blob[start:end])
        if key in keys:
            raise RemoteProtocolError("map with a duplicate key")
        keys.add(key)
        return end

    def _container(self, position: int, head: int, depth: int) -> tuple[int, int]:
        """Return where the elements begin, and how many elements or entries there are."""
        if depth >= self._limits.max_depth:
            raise RemoteProtocolError(f"values nested deeper than {self._limits.max_depth} (limits.max_depth)")
        if head < 0xA0:
            return position + 1, head & 0x0F
        return self._length(position, head)

    def _check_integer(self, position: int, head: int) -> None:
        """Refuse an integer that is not in its shortest form, where its first byte does not tell."""
        width, low, high = _INTEGERS[head]
        start = position + 1
        number = int.from_bytes(self._blob[start : start + width], "big", signed=head >= 0xD0)
        if not low <= number < high:
            raise RemoteProtocolError("integer that is not in its shortest form, or ends too early")

    def _long(self, position: int, head: int) -> tuple[int, int]:
        """Pass a long text, a byte string or an extension; return where it ends and what it costs."""
        if head in _FIXED_EXTENSIONS:
            return self._extension(position + 1, _FIXED_EXTENSIONS[head])
        if head not in _SIZED:
            raise RemoteProtocolError(f"byte {head:#04x} where a value begins")
        start, length = self._length(position, head)
        if head <= 0xC6:
            return start + length, _BYTES_HEAP + length if length > 1 else 0
        if head >= 0xD9:
            return start + length, _TEXT_HEAP + length
        if length in _FIXED_LENGTHS:
            raise RemoteProtocolError("extension that is not in its shortest form")
        return self._extension(start, length)

    def _extension(self, start: int, length: int) -> tuple[int, int]:
        code = self._blob[start]
        if code >= 0x80:
            raise RemoteProtocolError(f"extension type {code - 0x100}")
        if self._references is not None:
            self._references.see(code)
        return start + 1 + length, _EXTENSION_HEAP + length + (_SET_HEAP if code in _SET_CODES else 0)

    def _length(self, position: int, head: int) -> tuple[int, int]:
        """Return where the content behind a length begins, and the length."""
        width, least = _SIZED[head]
        start = position + 1
        end = start + width
        if end > len(self._blob):
            raise IndexError
        length = int.from_bytes(self._blob[start:end], "big")
        if length < least:
            raise RemoteProtocolError("length that is not in its shortest form")
        return end, length

    def _over(self, items: int, heap: int, *, runs: bool) -> int:
        if runs and items <= self._limits.max_items:
            return 0
        raise self._too_much(items, heap)

    def _too_much(self, items: int, heap: int) -> RemoteProtocolError:
        if items > self._limits.max_items:
            return RemoteProtocolError(f"more than {self._limits.max_items} values in one message (limits.max_items)")
        size = len(self._blob)
        return RemoteProtocolError(
            f"value of {size} bytes would take {heap} bytes of memory, at most {MAX_EXPANSION} times its size allowed"
        )
