"""Merkle trees of RFC 6962, section 2.1: roots while records are appended, and proofs about them.

Leaves and nodes are SHA-256 digests of 32 bytes; leaf ``i`` is the leaf hash of record ``i + 1``.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

EMPTY_ROOT: Final = sha256(b"").digest()
"""Root of a tree without leaves."""

HASH_BYTES: Final = 32

MAX_PATH: Final = 64
"""Hashes in a path of a tree of less than 2**64 leaves."""

Span = tuple[int, int]
"""Leaves from the first number to before the second one."""

STEP_LEAVES: Final = 4096
"""Leaves that are read in one step: some 40 ms."""

Steps = Generator[None, None, list[bytes]]
"""Work that rests after each step, and gives hashes in the end."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


class Range:
    """The leaves from ``begin`` to before ``end``, as the roots of the fewest complete subtrees that hold them.

    Invariant: there are at most twice as many hashes as ``end`` has bits, whatever was appended.

    Attributes:
        begin: The first leaf.
        end: One more than the last leaf.
        hashes: Roots of the subtrees, from left to right.
    """

    __slots__ = ("begin", "end", "hashes")

    def __init__(self, begin: int = 0, hashes: Iterable[bytes] = (), end: int | None = None) -> None:
        self.begin = begin
        self.end = begin if end is None else end
        self.hashes = list(hashes)
        if len(self.hashes) != sum(1 for _ in _subtrees(self.begin, self.end)):
            raise ValueError(f"{len(self.hashes)} hashes for the leaves {self.begin} to {self.end}")

    def append(self, leaf: bytes, width: int = 1) -> None:
        """Add the next leaf, or the root of the next complete subtree, whose ``width`` divides ``end``."""
        start, hashes = self.end, self.hashes
        self.end = start + width
        while start & width and start - width >= self.begin:
            leaf = sha256(b"\x01" + hashes.pop() + leaf).digest()
            start -= width
            width <<= 1
        hashes.append(leaf)

    def copy(self) -> "Range":
        """Return a range of the same leaves that goes its own way."""
        return Range(self.begin, self.hashes, self.end)

    def root(self) -> bytes:
        """Return the root of the tree of all these leaves, which begin at a multiple of its width."""
        return _fold(self.hashes) if self.hashes else EMPTY_ROOT

    def parts(self) -> Iterator[tuple[Span, bytes]]:
        """Return each complete subtree with the leaves it holds."""
        return zip(_subtrees(self.begin, self.end), self.hashes, strict=True)


def fold(start: int, leaves: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """Return roots and widths of the fewest complete subtrees that hold some leaves, the first of which is ``start``.

    Level by level, which takes half of what appending each leaf does.
    """
    at, left = 0, len(leaves)
    while left:
        width = 1 << (left.bit_length() - 1)
        if start:
            width = min(width, start & -start)
        nodes = leaves[at : at + width]
        while len(nodes) > 1:
            nodes = [sha256(b"\x01" + one + other).digest() for one, other in zip(nodes[::2], nodes[1::2], strict=True)]
        yield nodes[0], width
        start, at, left = start + width, at + width, left - width


def inclusion_spans(index: int, size: int) -> list[Span]:
    """Return the subtrees whose roots make up the path of a leaf, from its sibling to the child of the root."""
    spans: list[Span] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _left_width(end - start)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """Return the subtrees whose roots prove that the tree of ``old`` leaves is a prefix of that of ``new``."""
    if old in (0, new):
        return []
    spans: list[Span] = []
    start, end = 0, new
    while old != end:
        middle = start + _left_width(end - start)
        if old <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    if start:
        spans.append((start, end))
    return spans[::-1]


def hashes_from_leaves(leaves: Iterable[bytes], spans: Sequence[Span], first: int = 0) -> list[bytes]:
    """Return the roots of disjoint subtrees in the order asked for, from one pass over leaves ``first`` and so on.

    Raises:
        ValueError: There are too few leaves.
    """
    steps = hashes_in_steps(leaves, spans, first)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: list[bytes] = done.value
            return found


def hashes_in_steps(leaves: Iterable[bytes], spans: Sequence[Span], first: int = 0) -> Steps:
    """Return what ``hashes_from_leaves`` does, as a generator that rests after each ``STEP_LEAVES`` leaves."""
    found: dict[Span, bytes] = {}
    waiting = sorted(spans)[::-1]
    current: Range | None = None
    if waiting:
        for index, leaf in enumerate(leaves, first):
            if (index - first) % STEP_LEAVES == STEP_LEAVES - 1:
                yield
            start, end = waiting[-1]
            if index < start:
                continue
            current = Range(start) if current is None else current
            current.append(leaf)
            if current.end == end:
                found[waiting.pop()] = current.root()
                current = None
                if not waiting:
                    break
    if waiting:
        raise ValueError(f"too few leaves: {waiting[-1][1]} or more needed")
    return [found[span] for span in spans]


def consistency_from_ranges(old: Range, since: Range) -> list[bytes]:
    """Return the proof that the tree of ``old`` is a prefix of the one that ``since``, right behind it, made of it."""
    if old.begin or old.end != since.begin:
        raise ValueError(f"ranges {old.begin} to {old.end} and {since.begin} to {since.end} do not meet")
    parts = [*old.parts(), *since.parts()]
    return [
        _fold([found for (first, last), found in parts if start <= first and last <= end])
        for start, end in consistency_spans(old.end, since.end)
    ]


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a path leads to, None if it is not of the length it must have. RFC 9162, 2.1.3.2."""
    if not 0 <= index < size:
        return None
    here, last, found = index, size - 1, leaf
    for sibling in path:
        if not last:
            return None
        if here & 1 or here == last:
            found = node_hash(sibling, found)
            while here and not here & 1:
                here >>= 1
                last >>= 1
        else:
            found = node_hash(found, sibling)
        here >>= 1
        last >>= 1
    return None if last else found


def is_consistent(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether a proof shows that one tree is a prefix of another. RFC 9162, 2.1.4.2."""
    if old > new or (old in (0, new) and proof):
        return False
    if old == 0:
        return old_root == EMPTY_ROOT
    if old == new:
        return old_root == new_root
    path = [old_root, *proof] if not old & (old - 1) else list(proof)
    if not path:
        return False
    here, last = old - 1, new - 1
    while here & 1:
        here >>= 1
        last >>= 1
    found_old = found_new = path[0]
    for sibling in path[1:]:
        if not last:
            return False
        if here & 1 or here == last:
            found_old, found_new = node_hash(sibling, found_old), node_hash(sibling, found_new)
            while here and not here & 1:
                here >>= 1
                last >>= 1
        else:
            found_new = node_hash(found_new, sibling)
        here >>= 1
        last >>= 1
    return not last and found_old == old_root and found_new == new_root


def _left_width(size: int) -> int:
    """Return the largest power of two that is smaller than ``size``."""
    return 1 << ((size - 1).bit_length() - 1)


def _subtrees(begin: int, end: int) -> Iterator[Span]:
    while begin < end:
        width = 1 << ((end - begin).bit_length() - 1)
        if begin:
            width = min(width, begin & -begin)
        yield begin, begin + width
        begin += width


def _fold(hashes: Sequence[bytes]) -> bytes:
    found = hashes[-1]
    for left in reversed(hashes[:-1]):
        found = node_hash(left, found)
    return found
