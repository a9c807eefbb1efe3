"""Values beyond plain MessagePack, and ``Any``: every value type with its exact type, no references."""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any, Final
from uuid import UUID

from caprpc.interface.forms import Form, plain_form
from caprpc.interface.mismatch import Mismatch, type_name
from caprpc.interface.references import ReferenceReader, ReferenceWriter

VALUE_FORMS: Final[Mapping[type, Form]] = {
    complex: plain_form(complex, "complex"),
    Decimal: plain_form(Decimal, "Decimal"),
    UUID: plain_form(UUID, "UUID"),
    datetime: plain_form(datetime, "datetime"),
    date: plain_form(date, "date"),
    time: plain_form(time, "time"),
    timedelta: plain_form(timedelta, "timedelta"),
    memoryview: plain_form(memoryview, "memoryview"),
}
_ATOMS: Final = frozenset({NoneType, bool, int, float, str, bytes, *VALUE_FORMS})
_CONTAINERS: Final = frozenset({list, tuple, set, frozenset, dict})
MAX_DEPTH = 32


def _encode_any(value: Any, refs: ReferenceWriter, parameter: str, depth: int = 0) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind not in _CONTAINERS:
        raise Mismatch("Any", type_name(value))
    if depth >= MAX_DEPTH:
        raise Mismatch("Any", "deep")
    if kind is dict:
        snapshot = value.copy()
        return {
            _encode_any(k, refs, parameter, depth + 1): _encode_any(v, refs, parameter, depth + 1)
            for k, v in snapshot.items()
        }
    return kind([_encode_any(item, refs, parameter, depth + 1) for item in list(value)])


def _decode_any(raw: Any, refs: ReferenceReader) -> Any:
    kind = type(raw)
    if kind in _ATOMS:
        return raw
    if kind is dict:
        for k, v in raw.items():
            _decode_any(k, refs)
            _decode_any(v, refs)
        return raw
    if kind in _CONTAINERS:
        for item in raw:
            _decode_any(item, refs)
        return raw
    raise Mismatch("Any", type_name(raw))


ANY_FORM: Final = Form("Any", _encode_any, _decode_any, _ATOMS | _CONTAINERS, _ATOMS | _CONTAINERS)
