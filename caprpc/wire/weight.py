"""How much memory a decoded value takes, for quotas: counted in C, level by level, without recursion."""

from gc import get_referents
from itertools import chain
from sys import getsizeof
from typing import Any, Final

from caprpc.wire.trees import EXTENSION_ITEMS, KEYED, NATIVE
from caprpc.wire.values import MAX_NATIVE_INTEGER, MIN_NATIVE_INTEGER

_VALUE_BYTES: Final = 80
"""Of a value that is no long text: an entry of a map with its part of the map, an empty list, a number in a list."""

_SET_BYTES: Final = 216
"""Of an empty set: the only value that takes so much more than its share."""

_LONG_BYTES: Final = 20
"""Values of more bytes than this on average are long texts: four bytes a character at worst, so they are measured."""

_CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset})
_TEXT: Final = frozenset({str})


def memory_of(value: Any, size: int, *, plain: bool) -> int:
    """Return about how many bytes of memory a value takes that was decoded from ``size`` bytes.

    Args:
        value: What the codec has built.
        size: On the wire.
        plain: No extension is in it, so that it may be walked without a look at the types.
    """
    levels = _levels(value, plain=plain)
    count = sum(map(len, levels))
    if size > _LONG_BYTES * count:
        return sum(sum(map(getsizeof, level)) for level in levels)
    sets = 0 if plain else sum(type(item) in (set, frozenset) for level in levels for item in level)
    return _VALUE_BYTES * count + size + _SET_BYTES * sets


def charged(value: Any, *, plain: bool) -> tuple[int, int]:
    """Return what decoding a value has taken of ``limits.max_items`` and of ``limits.max_pair_keys``.

    Args:
        value: What the codec has built.
        plain: As for ``memory_of``.
    """
    items, hashed = 1, 0
    for item in chain.from_iterable(_levels(value, plain=plain)):
        kind = type(item)
        if kind in NATIVE:
            if kind is int and not MIN_NATIVE_INTEGER <= item <= MAX_NATIVE_INTEGER:
                items += EXTENSION_ITEMS - 1
        elif kind is dict:
            items += 2 * len(item)
            if not _TEXT.issuperset(map(type, item)):
                items += EXTENSION_ITEMS - 1
                hashed += len(item)
        elif kind is list:
            items += len(item)
        else:
            items += EXTENSION_ITEMS - 1
            if kind in _CONTAINERS:
                items += len(item)
                if kind is not tuple and not KEYED.issuperset(map(type, item)):
                    hashed += len(item)
    return items, hashed


def _levels(value: Any, *, plain: bool) -> list[list[Any]]:
    """Return the value, what is in it, what is in that, and so on; its depth is known to be bounded."""
    levels = []
    level = [value]
    while level:
        levels.append(level)
        # Of other types than these, such as references, what they refer to is ours, and no end of it.
        level = get_referents(*(level if plain else [item for item in level if type(item) in _CONTAINERS]))
    return levels
