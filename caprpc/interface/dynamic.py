"""Values beyond plain MessagePack, and ``Any``: every value type with its exact type, never a reference."""

from array import array
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import NoneType
from typing import Any, Final
from uuid import UUID

from caprpc.interface.forms import PLAIN_TYPES, Form, plain_form
from caprpc.interface.mismatch import Mismatch, type_name
from caprpc.interface.references import ReferenceReader, ReferenceWriter

MAX_ANY_DEPTH: Final = 64
"""Nesting that the walk below follows; ``limits.max_depth`` is smaller and is checked by the wire."""

MAX_ANY_ITEMS: Final = 1_048_576
"""Items that the walk below copies: as many as a policy may set ``limits.max_items`` to, which the wire checks."""


def _copy_of(buffer: Any) -> Any:
    """Return a buffer that nobody else can fill anew before it is sent, as the next method of a batch may.

    What has no wire form is handed on for the encoder to refuse.
    """
    if type(buffer) is array:
        return buffer[:]
    try:
        return memoryview(buffer.tobytes()).cast(buffer.format, buffer.shape)
    except (TypeError, ValueError):
        return buffer


def _buffer_form() -> Form:
    """Return the form of ``memoryview``: an ``array`` may be sent, a read-only view arrives."""
    local_types = frozenset({memoryview, array})

    def encode(value: Any, _refs: ReferenceWriter, _parameter: str) -> Any:
        if type(value) not in local_types:
            raise Mismatch("memoryview", type_name(value))
        return _copy_of(value)

    def decode(raw: Any, _refs: ReferenceReader) -> Any:
        if type(raw) is not memoryview:
            raise Mismatch("memoryview", type_name(raw))
        return raw

    return Form("memoryview", encode, decode, local_types, frozenset({memoryview}))


VALUE_FORMS: Final[Mapping[type, Form]] = {
    complex: plain_form(complex, "complex"),
    Decimal: plain_form(Decimal, "Decimal"),
    UUID: plain_form(UUID, "UUID"),
    datetime: plain_form(datetime, "datetime"),
    date: plain_form(date, "date"),
    time: plain_form(time, "time"),
    timedelta: plain_form(timedelta, "timedelta"),
    timezone: plain_form(timezone, "timezone"),
    memoryview: _buffer_form(),
}
"""The value types that the wire carries as extensions."""

_ATOMS: Final = frozenset({NoneType, bool, int, float, str, bytes, array, *VALUE_FORMS})
_BUFFERS: Final = frozenset({array, memoryview})
_FIXED: Final = _ATOMS - _BUFFERS
"""Types whose objects nobody can change."""
_CONTAINERS: Final = frozenset({list, tuple, set, frozenset, dict})


class _Items:
    """How many items a snapshot may still take: what is shared is copied for each place where it stands."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_ANY_ITEMS

    def take(self, count: int) -> None:
        """Count the entries of one container."""
        self.left -= count
        if self.left < 0:
            raise Mismatch("Any", f"a value of more than {MAX_ANY_ITEMS} items")


def _encode_any(value: Any, _refs: ReferenceWriter, _parameter: str) -> Any:
    return value if type(value) in _FIXED else _snapshot(value, MAX_ANY_DEPTH, _Items())


def _snapshot(value: Any, depth: int, budget: _Items) -> Any:
    """Return a copy of a value that nobody else can change, of value types all through."""
    kind = type(value)
    if kind in _FIXED:
        return value
    if kind in _BUFFERS:
        return _copy_of(value)
    if kind not in _CONTAINERS:
        raise Mismatch("Any", type_name(value), "only values travel as Any; declare an Interface for an object")
    if not depth:
        raise Mismatch("Any", f"{kind.__name__} that holds itself or is nested too deep")
    budget.take(len(value))
    if kind is dict:
        table = value.copy()
        if _FIXED.issuperset(map(type, table)) and _FIXED.issuperset(map(type, table.values())):
            return table
        return {_snapshot(key, depth - 1, budget): _snapshot(item, depth - 1, budget) for key, item in table.items()}
    items = list(value)
    if not _FIXED.issuperset(map(type, items)):
        items = [_snapshot(item, depth - 1, budget) for item in items]
    return items if kind is list else kind(items)


def _decode_any(raw: Any, _refs: ReferenceReader) -> Any:
    if type(raw) not in _ATOMS:
        _check(raw, MAX_ANY_DEPTH)
    return raw


def _check(raw: Any, depth: int) -> None:
    """Refuse a received value with a reference anywhere in it; what was decoded is ours and needs no copy."""
    kind = type(raw)
    if kind in _ATOMS:
        return
    if kind not in _CONTAINERS or not depth:
        raise Mismatch("Any", type_name(raw))
    if kind is dict:
        if not _ATOMS.issuperset(map(type, raw)):
            for key in raw:
                _check(key, depth - 1)
        parts = raw.values()
    else:
        parts = raw
    if not _ATOMS.issuperset(map(type, parts)):
        for part in parts:
            _check(part, depth - 1)


_ALL: Final = _ATOMS | _CONTAINERS
ANY_FORM: Final = Form("Any", _encode_any, _decode_any, _ALL, _ALL, atoms=_FIXED, trees=PLAIN_TYPES)
