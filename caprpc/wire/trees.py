"""Trees of values: containers of every kind, flattened for the encoder and built by the decoder.

A flat tree holds only what MessagePack knows (None, bool, int, float, str, bytes, list, dict with text keys)
and ``Extension``. Both directions walk within ``limits`` and by exact type; nothing of a value is called,
compared or printed, and only short hashable values of a bounded number are hashed.

Wire protocol, sections 5.2 and 5.3.
"""

from collections.abc import Callable
from itertools import pairwise
from types import NoneType
from typing import Any, Final, TypeAlias

from msgspec.msgpack import Ext as Extension

from caprpc.errors import RemoteProtocolError
from caprpc.limits import Limits
from caprpc.wire.scan import list_heap, map_heap, most_heap
from caprpc.wire.values import (
    CODE_DECIMAL,
    CODE_FROZENSET,
    CODE_INTEGER,
    CODE_PAIRS,
    CODE_REFERENCE,
    CODE_SET,
    CODE_TUPLE,
    DECODERS,
    ENCODERS,
    MAX_ID,
    MAX_NATIVE_INTEGER,
    MIN_NATIVE_INTEGER,
    REFERENCE,
    RemoteReference,
    decimal_digits,
    encode_integer,
)

Pack: TypeAlias = Callable[[Any], bytes]
Unpack: TypeAlias = Callable[[bytes], Any]

_PLAIN: Final = frozenset({NoneType, bool, float, str, bytes})
"""Types that travel as they are, whatever they hold."""

NATIVE: Final = _PLAIN | {int}
_TREE: Final = frozenset({list, dict, Extension})
"""Types that a decoded tree is descended into."""

KEYED: Final = frozenset({str, bytes})
"""Types that Python hashes with a secret, so that a peer cannot make them collide."""

_TEXT: Final = frozenset({str})
_NOT_KEYED: Final[frozenset[type]] = frozenset()

_EXTENSIONS: Final = frozenset({Extension})
_ONLY_REFERENCES: Final = {(CODE_REFERENCE, REFERENCE.size)}
_MANY: Final = 8
"""From so many references in a list on, decoding them together costs less."""

EXTENSION_ITEMS: Final = 4
"""An extension counts as this many values: decoding one takes as long."""

_HINTS: Final = {
    "bytearray": "pass bytes(value)",
    "range": "pass list(value)",
    "dict_keys": "pass list(value)",
    "dict_values": "pass list(value)",
    "deque": "pass list(value)",
    "generator": "declare Iterator[...] to pass it by reference",
}


def plain_budget(value: Any, depth: int, budget: int, max_key_bytes: int) -> int:
    """Return what is left of a budget of values, or a negative number unless the encoder may take the tree as it is.

    The encoder may if everything is of a type that MessagePack knows, dict keys are short texts, at most
    ``depth`` containers are nested and ``budget`` lasts. Integers may still be too large.
    """
    kind = type(value)
    if kind is list:
        items = value
    elif kind is dict:
        if not value:
            return budget if depth else -1
        if not _TEXT.issuperset(map(type, value)) or 4 * max(map(len, value)) > max_key_bytes:
            return -1
        items = value.values()
        budget -= len(items)
    else:
        return budget if kind in NATIVE else -1
    budget -= len(items)
    if budget < 0 or not depth:
        return -1
    if NATIVE.issuperset(map(type, items)):
        return budget
    for item in items:
        kind = type(item)
        if kind is list or kind is dict:
            if item:
                budget = plain_budget(item, depth - 1, budget, max_key_bytes)
                if budget < 0:
                    return -1
            elif depth < 2:
                return -1
        elif kind not in NATIVE:
            return -1
    return budget


class NotPlain(Exception):
    """A tree holds what the encoder must not take as it is."""


def plain_copy(value: Any, depth: int) -> Any:
    """Return a copy of a tree that nobody else can change, for the encoder to take as it is.

    Args:
        value: Of any type.
        depth: How many more containers may open.

    Raises:
        NotPlain: It is nested deeper, or not everything is of a type that MessagePack knows, with texts as dict keys.
            Integers and keys may still be too large.
    """
    kind = type(value)
    if kind is dict:
        table = value.copy()
        if depth <= 0 or not _TEXT.issuperset(map(type, table)):
            raise NotPlain
        if not NATIVE.issuperset(map(type, table.values())):
            for key, item in table.items():
                if type(item) not in NATIVE:
                    table[key] = plain_copy(item, depth - 1)
        return table
    if kind is list:
        items = value.copy()
        if depth <= 0:
            raise NotPlain
        if not NATIVE.issuperset(map(type, items)):
            for index, item in enumerate(items):
                if type(item) not in NATIVE:
                    items[index] = plain_copy(item, depth - 1)
        return items
    if kind in NATIVE:
        return value
    raise NotPlain


class Flattener:
    """Turns one value into a flat tree that nobody else can change, within ``limits`` for the whole message."""

    __slots__ = ("_items_left", "_limits", "_pack")

    def __init__(self, limits: Limits, pack: Pack) -> None:
        self._limits = limits
        self._pack = pack
        self._items_left = limits.max_items - 1

    def flatten(self, value: Any, depth: int) -> Any:
        """Return the flat tree of a value that may open ``depth`` more containers.

        Raises:
            TypeError: A value of a type that does not travel.
            ValueError: A value over a limit, or one that its type's encoding does not hold.
        """
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return self._integer(value)
        if kind is list:
            return self._items(value.copy(), depth)
        if kind is dict:
            return self._dict(value.copy(), depth)
        self._spend(EXTENSION_ITEMS - 1)
        if kind is tuple:
            return Extension(CODE_TUPLE, self._pack(self._items(list(value), depth)))
        if kind is set or kind is frozenset:
            return self._set(list(value), CODE_SET if kind is set else CODE_FROZENSET, depth)
        if kind in ENCODERS:
            code, encode = ENCODERS[kind]
            data = encode(value)
            if code == CODE_DECIMAL and len(data) > decimal_digits(self._limits):
                raise ValueError(f"Decimal of more than {decimal_digits(self._limits)} digits (limits.max_int_bits)")
            return Extension(code, data)
        raise TypeError(_no_value(kind))

    def _integer(self, value: int) -> int | Extension:
        if MIN_NATIVE_INTEGER <= value <= MAX_NATIVE_INTEGER:
            return value
        if value.bit_length() > self._limits.max_int_bits:
            raise ValueError(f"integer of more than {self._limits.max_int_bits} bits (limits.max_int_bits)")
        self._spend(EXTENSION_ITEMS - 1)
        return Extension(CODE_INTEGER, encode_integer(value))

    def _items(self, items: list[Any], depth: int) -> list[Any]:
        """Flatten a list that is ours alone, in place."""
        self._open(len(items), depth)
        if not _PLAIN.issuperset(map(type, items)):
            items[:] = [
                item
                if (kind := type(item)) in _PLAIN or (kind is int and MIN_NATIVE_INTEGER <= item <= MAX_NATIVE_INTEGER)
                else self.flatten(item, depth - 1)
                for item in items
            ]
        return items

    def _dict(self, table: dict[Any, Any], depth: int) -> Any:
        if not _TEXT.issuperset(map(type, table)):
            self._spend(EXTENSION_ITEMS - 1)
            return self._pairs(table, depth)
        self._open(2 * len(table), depth)
        most = self._limits.max_key_bytes
        for key, value in table.items():
            if len(key) * 4 > most and len(key.encode()) > most:
                raise ValueError(f"dict key of more than {most} bytes (limits.max_key_bytes)")
            if type(value) not in _PLAIN:
                table[key] = self.flatten(value, depth - 1)
        return table

    def _pairs(self, table: dict[Any, Any], depth: int) -> Extension:
        self._open(2 * len(table), depth)
        if len(table) > self._limits.max_pair_keys:
            raise ValueError(
                f"dict of {len(table)} entries whose keys are not all str, at most {self._limits.max_pair_keys} "
                f"allowed (limits.max_pair_keys)"
            )
        flat: list[Any] = []
        for key, value in table.items():
            flat.append(self.flatten(key, depth - 1))
            flat.append(self.flatten(value, depth - 1))
        return Extension(CODE_PAIRS, self._pack(flat))

    def _set(self, members: list[Any], code: int, depth: int) -> Extension:
        if len(members) > self._limits.max_pair_keys and not KEYED.issuperset(map(type, members)):
            raise ValueError(
                f"set of {len(members)} members, which are not all str or bytes: at most {self._limits.max_pair_keys} "
                f"allowed (limits.max_pair_keys)"
            )
        pack = self._pack
        ordered = sorted((pack(flat), index, flat) for index, flat in enumerate(self._items(members, depth)))
        if any(one[0] == other[0] for one, other in pairwise(ordered)):
            raise ValueError("set with two NaN")
        return Extension(code, pack([flat for _, _, flat in ordered]))

    def _open(self, count: int, depth: int) -> None:
        if depth <= 0:
            raise ValueError(
                f"value that holds itself or is nested deeper than {self._limits.max_depth} (limits.max_depth)"
            )
        self._spend(count)

    def _spend(self, count: int) -> None:
        self._items_left -= count
        if self._items_left < 0:
            raise ValueError(f"more than {self._limits.max_items} values in one message (limits.max_items)")


class Builder:
    """Turns one flat tree of a peer into values, in place, within ``limits`` for the whole message."""

    __slots__ = ("_hashed_left", "_heap_left", "_items_left", "_limits", "_pack", "_unpack")

    def __init__(self, limits: Limits, size: int, pack: Pack, unpack: Unpack) -> None:
        """Take the limits and the size of the whole value, and what encodes and decodes flat trees."""
        self._limits = limits
        self._heap_left = most_heap(size)
        self._pack = pack
        self._unpack = unpack
        self._items_left = limits.max_items - 1
        self._hashed_left = limits.max_pair_keys

    def build(self, flat: Any, depth: int) -> Any:
        """Return the value of a flat tree that may open ``depth`` more containers.

        Raises:
            RemoteProtocolError: An extension is unknown, malformed, not canonical or over a limit.
        """
        kind = type(flat)
        if kind is list:
            return self._items(flat, depth)
        if kind is dict:
            self._open(2 * len(flat), map_heap(len(flat)), depth)
            if not _TREE.isdisjoint(map(type, flat.values())):
                for key, value in flat.items():
                    if type(value) in _TREE:
                        flat[key] = self.build(value, depth - 1)
            return flat
        if kind is not Extension:
            return flat
        code = flat.code
        self._spend(EXTENSION_ITEMS - 1)
        decode = DECODERS.get(code)
        if decode is not None:
            return decode(bytes(flat.data), self._limits)
        if code == CODE_TUPLE:
            return tuple(self._items(self._inner(flat), depth))
        if code == CODE_SET:
            return self._set(flat, depth)
        if code == CODE_FROZENSET:
            return frozenset(self._set(flat, depth))
        if code == CODE_PAIRS:
            return self._pairs(flat, depth)
        raise RemoteProtocolError(f"extension type {code} is not known")

    def _items(self, items: list[Any], depth: int) -> list[Any]:
        self._open(len(items), list_heap(len(items)), depth)
        if not _TREE.isdisjoint(map(type, items)):
            if len(items) >= _MANY and _EXTENSIONS.issuperset(map(type, items)) and self._are_references(items):
                items[:] = _references(items)
                return items
            items[:] = [self.build(item, depth - 1) if type(item) in _TREE else item for item in items]
        return items

    def _are_references(self, items: list[Any]) -> bool:
        """Say whether extensions are all references, which are decoded together; they are charged here if so."""
        if {(item.code, len(item.data)) for item in items} != _ONLY_REFERENCES:
            return False
        self._spend((EXTENSION_ITEMS - 1) * len(items))
        return True

    def _inner(self, extension: Extension) -> list[Any]:
        inner = self._unpack(bytes(extension.data))
        if type(inner) is not list:
            raise RemoteProtocolError(f"extension type {extension.code} that does not hold an array")
        return inner

    def _set(self, extension: Extension, depth: int) -> set[Any]:
        inner = self._inner(extension)
        encoded = list(map(self._pack, inner))
        if any(one >= other for one, other in pairwise(encoded)):
            raise RemoteProtocolError("set whose members are not in ascending order of their encodings")
        members = self._items(inner, depth)
        self._charge_hashes(members)
        try:
            result = set(members)
        except (TypeError, ValueError):
            raise RemoteProtocolError("set member that cannot be hashed") from None
        if len(result) != len(members):
            raise RemoteProtocolError("set with equal members")
        return result

    def _pairs(self, extension: Extension, depth: int) -> dict[Any, Any]:
        flat = self._items(self._inner(extension), depth)
        keys = flat[::2]
        if len(flat) % 2:
            raise RemoteProtocolError("pairs without a last value")
        if _TEXT.issuperset(map(type, keys)):
            raise RemoteProtocolError("pairs whose keys are all texts; a map expected")
        self._charge_hashes(keys, _NOT_KEYED)
        try:
            result = dict(zip(keys, flat[1::2], strict=True))
        except (TypeError, ValueError):
            raise RemoteProtocolError("dict key that cannot be hashed") from None
        if len(result) != len(keys):
            raise RemoteProtocolError("pairs with equal keys")
        return result

    def _charge_hashes(self, values: list[Any], keyed: frozenset[type] = KEYED) -> None:
        """Bound what a peer may make us hash: 20,000 integers that collide take 1.6 s."""
        if keyed.issuperset(map(type, values)):
            return
        self._hashed_left -= len(values)
        if self._hashed_left < 0:
            raise RemoteProtocolError(
                f"more than {self._limits.max_pair_keys} dict keys and set members that are not texts "
                f"(limits.max_pair_keys)"
            )

    def _open(self, count: int, heap: int, depth: int) -> None:
        if depth <= 0:
            raise RemoteProtocolError(f"values nested deeper than {self._limits.max_depth} (limits.max_depth)")
        self._heap_left -= heap
        if self._heap_left < 0:
            raise RemoteProtocolError("value whose containers would take too much memory for its size")
        self._spend(count)

    def _spend(self, count: int) -> None:
        self._items_left -= count
        if self._items_left < 0:
            raise RemoteProtocolError(f"more than {self._limits.max_items} values in one message (limits.max_items)")


def _references(items: list[Any]) -> list[RemoteReference]:
    """Return the references of extensions that hold nothing else; their ids are not looked up here."""
    data = b"".join([item.data for item in items])
    references = list(map(RemoteReference._make, REFERENCE.iter_unpack(data)))
    if max(map(max, references)) > MAX_ID:
        raise RemoteProtocolError("reference with an id above 2**53 - 1")
    return references


def _no_value(kind: type) -> str:
    """Return why a type does not travel and what to do, by its name alone."""
    name = kind.__name__
    hint = _HINTS.get(name, "only exact value types travel; subclasses and other objects do not")
    return f"a value of type {name} cannot be sent: {hint}"
