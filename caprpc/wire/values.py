"""Value types beyond MessagePack's own: their extension codes and the exact bytes of each.

Every type has one encoding; decoding refuses all others. Containers are in ``trees``.

Wire protocol, section 5.3.
"""

import re
import sys
from array import array
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from math import prod
from struct import Struct
from typing import Any, Final, NamedTuple
from uuid import UUID

from caprpc.errors import RemoteProtocolError
from caprpc.limits import Limits

CODE_REFERENCE: Final = 1
CODE_OWN_REFERENCE: Final = 2
CODE_PROMISED_ANSWER: Final = 3
CODE_INTEGER: Final = 4
CODE_COMPLEX: Final = 5
CODE_TUPLE: Final = 6
CODE_SET: Final = 7
CODE_FROZENSET: Final = 8
CODE_PAIRS: Final = 9
CODE_DECIMAL: Final = 10
CODE_DATETIME: Final = 11
CODE_DATE: Final = 12
CODE_TIME: Final = 13
CODE_TIMEDELTA: Final = 14
CODE_TIMEZONE: Final = 15
CODE_UUID: Final = 16
CODE_BUFFER: Final = 17

MAX_ID: Final = 2**53 - 1
"""Largest id of the protocol: every language holds it exactly."""

MAX_DECIMAL_EXPONENT: Final = 6_144
"""Bound of a Decimal's exponent, as in IEEE 754 decimal128: ``int(Decimal("1E+9999999"))`` must not be a weapon."""

MAX_BUFFER_DIMENSIONS: Final = 8

MIN_NATIVE_INTEGER: Final = -(2**63)
MAX_NATIVE_INTEGER: Final = 2**64 - 1

_MICROSECOND: Final = timedelta(microseconds=1)
_DAY_MICROSECONDS: Final = 86_400_000_000
_NO_OFFSET: Final = -(2**63)

REFERENCE: Final = Struct(">QQ")
_OWN_REFERENCE: Final = Struct(">Q")
_COMPLEX: Final = Struct(">dd")
_DATE: Final = Struct(">HBB")
_DATETIME: Final = Struct(">HBBBBBBI")
_TIME: Final = Struct(">BBBBI")
_TIMEDELTA: Final = Struct(">iII")
_OFFSET: Final = Struct(">q")

_DECIMAL_TEXT: Final = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?(?:E[+-][0-9]{1,5})?|Infinity|NaN)", re.ASCII)

_PLAIN_DECIMAL: Final = re.compile(r"-?[1-9][0-9]{0,25}(?:\.[0-9]{1,25})?", re.ASCII)
"""Most Decimals: canonical without a look at what Python makes of them."""

_BUFFER_FORMATS: Final = {
    "b": 1,
    "B": 1,
    "?": 1,
    "c": 1,
    "h": 2,
    "H": 2,
    "i": 4,
    "I": 4,
    "q": 8,
    "Q": 8,
    "f": 4,
    "d": 8,
}
"""Format characters of the wire and their item sizes."""
_BUFFER_CODES: Final = {ord(character): (character, size) for character, size in _BUFFER_FORMATS.items()}
_PLATFORM_FORMATS: Final = {
    ("l", 4): "i",
    ("L", 4): "I",
    ("l", 8): "q",
    ("L", 8): "Q",
    ("n", 8): "q",
    ("N", 8): "Q",
}
"""Formats whose size depends on the platform travel as those that say their size."""


class RemoteReference(NamedTuple):
    """An object of the sender: the export it gave it, and the facet it lets the receiver use."""

    export: int
    facet: int


class OwnReference(NamedTuple):
    """An object of the receiver coming home: the receiver's own export."""

    export: int


def encode_reference(value: RemoteReference) -> bytes:
    """Return 8 bytes of export and 8 bytes of facet."""
    return REFERENCE.pack(*value)


def decode_reference(data: bytes, _limits: Limits) -> RemoteReference:
    """Return the reference; its ids are not looked up here."""
    export, facet = _unpacked(REFERENCE, data, "reference")
    if export > MAX_ID or facet > MAX_ID:
        raise RemoteProtocolError("reference with an id above 2**53 - 1")
    return RemoteReference(export, facet)


def encode_own_reference(value: OwnReference) -> bytes:
    """Return 8 bytes of the receiver's export."""
    return _OWN_REFERENCE.pack(*value)


def decode_own_reference(data: bytes, _limits: Limits) -> OwnReference:
    """Return the reference; its id is not looked up here."""
    (export,) = _unpacked(_OWN_REFERENCE, data, "own reference")
    if export > MAX_ID:
        raise RemoteProtocolError("reference with an id above 2**53 - 1")
    return OwnReference(export)


def encode_integer(value: int) -> bytes:
    """Return the shortest two's complement, big-endian, of an integer that MessagePack cannot hold."""
    return value.to_bytes((value if value >= 0 else ~value).bit_length() // 8 + 1, "big", signed=True)


def decode_integer(data: bytes, limits: Limits) -> int:
    """Return the integer, of at most ``limits.max_int_bits`` bits."""
    if len(data) > limits.max_int_bits // 8 + 1:
        raise RemoteProtocolError(
            f"integer of {len(data)} bytes, at most {limits.max_int_bits} bits (limits.max_int_bits)"
        )
    value = int.from_bytes(data, "big", signed=True)
    if value.bit_length() > limits.max_int_bits:
        raise RemoteProtocolError(f"integer of more than {limits.max_int_bits} bits (limits.max_int_bits)")
    if MIN_NATIVE_INTEGER <= value <= MAX_NATIVE_INTEGER or len(encode_integer(value)) != len(data):
        raise RemoteProtocolError("big integer that is not in its shortest form")
    return value


def encode_complex(value: complex) -> bytes:
    """Return two IEEE 754 doubles, big-endian."""
    return _COMPLEX.pack(value.real, value.imag)


def decode_complex(data: bytes, _limits: Limits) -> complex:
    """Return the complex number."""
    return complex(*_unpacked(_COMPLEX, data, "complex"))


def encode_decimal(value: Decimal) -> bytes:
    """Return the exact ASCII text, as the decimal arithmetic specification writes it.

    Raises:
        ValueError: A signalling NaN, one with a payload, or an exponent out of bounds.
    """
    text = _decimal_text(value)
    if text is None:
        raise ValueError(
            f"a Decimal must be finite with an exponent within ±{MAX_DECIMAL_EXPONENT}, an infinity, or a quiet NaN"
        )
    return text.encode("ascii")


def decode_decimal(data: bytes, limits: Limits) -> Decimal:
    """Return the Decimal with its exact exponent."""
    if len(data) > decimal_digits(limits) + 16:
        raise RemoteProtocolError(
            f"Decimal of {len(data)} bytes, at most {decimal_digits(limits)} digits (limits.max_int_bits)"
        )
    text = data.decode("latin-1")
    if _PLAIN_DECIMAL.fullmatch(text) is not None:
        return Decimal(text)
    if _DECIMAL_TEXT.fullmatch(text) is None:
        raise RemoteProtocolError("Decimal that is not in its canonical form")
    value = Decimal(text)
    # Without an exponent in the text it is bounded by the length, and need not be taken apart digit by digit.
    if (_decimal_text(value) if "E" in text else str(value)) != text:
        raise RemoteProtocolError("Decimal that is not in its canonical form")
    return value


def decimal_digits(limits: Limits) -> int:
    """Return how many digits a Decimal may have: as many as the largest integer."""
    return limits.max_int_bits * 30_103 // 100_000 + 1


def _decimal_text(value: Decimal) -> str | None:
    exponent = value.as_tuple().exponent
    if type(exponent) is int:
        if not -MAX_DECIMAL_EXPONENT <= exponent <= MAX_DECIMAL_EXPONENT:
            return None
    elif exponent == "N":
        return None
    text = str(value)
    if exponent == "n" and not text.endswith("NaN"):
        return None
    # A thread may have set ``decimal.getcontext().capitals`` to 0.
    return text.replace("e+", "E+").replace("e-", "E-")


def encode_datetime(value: datetime) -> bytes:
    """Return the fields, the fold, and the UTC offset if there is one.

    Only the offset of a time zone travels, not its name or rules.
    """
    fields = _DATETIME.pack(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.fold, value.microsecond
    )
    return fields + _encode_offset(value.utcoffset(), value.tzinfo)


def decode_datetime(data: bytes, _limits: Limits) -> datetime:
    """Return a naive datetime, or one with a fixed ``timezone``."""
    year, month, day, hour, minute, second, fold, microsecond = _unpacked(_DATETIME, data[:12], "datetime")
    zone = _decode_offset(data[12:], "datetime")
    try:
        return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)
    except ValueError:
        raise RemoteProtocolError("datetime that does not exist") from None


def encode_date(value: date) -> bytes:
    """Return year, month and day."""
    return _DATE.pack(value.year, value.month, value.day)


def decode_date(data: bytes, _limits: Limits) -> date:
    """Return the date."""
    try:
        return date(*_unpacked(_DATE, data, "date"))
    except ValueError:
        raise RemoteProtocolError("date that does not exist") from None


def encode_time(value: time) -> bytes:
    """Return the fields, the fold, and the UTC offset if there is one."""
    fields = _TIME.pack(value.hour, value.minute, value.second, value.fold, value.microsecond)
    return fields + _encode_offset(value.utcoffset(), value.tzinfo)


def decode_time(data: bytes, _limits: Limits) -> time:
    """Return a naive time, or one with a fixed ``timezone``."""
    hour, minute, second, fold, microsecond = _unpacked(_TIME, data[:8], "time")
    zone = _decode_offset(data[8:], "time")
    try:
        return time(hour, minute, second, microsecond, zone, fold=fold)
    except ValueError:
        raise RemoteProtocolError("time that does not exist") from None


def encode_timedelta(value: timedelta) -> bytes:
    """Return days, seconds and microseconds as Python normalizes them."""
    return _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def decode_timedelta(data: bytes, _limits: Limits) -> timedelta:
    """Return the timedelta."""
    days, seconds, microseconds = _unpacked(_TIMEDELTA, data, "timedelta")
    if abs(days) > 999_999_999 or seconds >= 86_400 or microseconds >= 1_000_000:
        raise RemoteProtocolError("timedelta that is not in its canonical form")
    return timedelta(days, seconds, microseconds)


def encode_timezone(value: timezone) -> bytes:
    """Return the UTC offset in microseconds; a name does not travel."""
    return _encode_offset(value.utcoffset(None), value)


def decode_timezone(data: bytes, _limits: Limits) -> timezone:
    """Return a fixed ``timezone``."""
    zone = _decode_offset(data, "timezone")
    if zone is None:
        raise RemoteProtocolError("timezone without an offset")
    return zone


def encode_uuid(value: UUID) -> bytes:
    """Return the 16 bytes."""
    return value.bytes


def decode_uuid(data: bytes, _limits: Limits) -> UUID:
    """Return the UUID; any 128 bits are one."""
    if len(data) != 16:
        raise RemoteProtocolError(f"UUID of {len(data)} bytes, 16 expected")
    return UUID(bytes=data)


def encode_buffer(value: "memoryview[Any] | array[Any]") -> bytes:
    """Return format, shape and little-endian items of a contiguous buffer.

    Raises:
        ValueError: It is not C-contiguous, or has an item format or a shape that does not travel.
    """
    view = memoryview(value)
    wire = view.format if view.format in _BUFFER_FORMATS else _PLATFORM_FORMATS.get((view.format, view.itemsize), "")
    if not wire or not view.c_contiguous:
        raise ValueError(f"a buffer must be C-contiguous with one of the formats {' '.join(_BUFFER_FORMATS)}")
    shape = view.shape or ()
    if not 1 <= len(shape) <= MAX_BUFFER_DIMENSIONS or (len(shape) > 1 and 0 in shape):
        raise ValueError(f"a buffer must have 1 to {MAX_BUFFER_DIMENSIONS} dimensions, none of length 0 beside others")
    head = bytes((ord(wire), view.ndim)) + b"".join(length.to_bytes(8, "big") for length in shape)
    return head + _little_endian(view.tobytes(), view.itemsize)


def decode_buffer(data: bytes, _limits: Limits) -> "memoryview[Any]":
    """Return a read-only view of the format and shape that were sent."""
    if len(data) < 10 or data[0] not in _BUFFER_CODES or not 1 <= data[1] <= MAX_BUFFER_DIMENSIONS:
        raise RemoteProtocolError("buffer with an unknown format or number of dimensions")
    wire, size = _BUFFER_CODES[data[0]]
    start = 2 + 8 * data[1]
    if len(data) < start:
        raise RemoteProtocolError("buffer that ends in its shape")
    shape = [int.from_bytes(data[at : at + 8], "big") for at in range(2, start, 8)]
    if prod(shape) * size != len(data) - start or (len(shape) > 1 and 0 in shape):
        raise RemoteProtocolError("buffer whose shape does not fit its bytes")
    items = memoryview(_little_endian(data[start:], size))
    cast: Callable[..., memoryview[Any]] = items.cast
    return cast(wire, shape) if len(shape) > 1 else cast(wire)


def _little_endian(items: bytes, size: int) -> bytes:
    """Return native items in the wire's byte order, or the other way round."""
    if sys.byteorder == "little" or size == 1:
        return items
    swapped = array({2: "H", 4: "I", 8: "Q"}[size], items)
    swapped.byteswap()
    return swapped.tobytes()


def _encode_offset(offset: timedelta | None, zone: tzinfo | None) -> bytes:
    if offset is None:
        if zone is not None:
            raise ValueError("a time zone without an offset of its own cannot travel: convert to a fixed offset first")
        return b""
    return _OFFSET.pack(offset // _MICROSECOND)


def _decode_offset(data: bytes, what: str) -> timezone | None:
    if not data:
        return None
    (microseconds,) = _unpacked(_OFFSET, data, what)
    if not -_DAY_MICROSECONDS < microseconds < _DAY_MICROSECONDS:
        raise RemoteProtocolError(f"{what} with an offset of a day or more")
    return timezone(timedelta(microseconds=microseconds))


def _unpacked(layout: Struct, data: bytes, what: str) -> tuple[Any, ...]:
    if len(data) != layout.size:
        raise RemoteProtocolError(f"{what} of {len(data)} bytes, {layout.size} expected")
    return layout.unpack(data)


ENCODERS: Final[dict[type, tuple[int, Callable[[Any], bytes]]]] = {
    RemoteReference: (CODE_REFERENCE, encode_reference),
    OwnReference: (CODE_OWN_REFERENCE, encode_own_reference),
    complex: (CODE_COMPLEX, encode_complex),
    Decimal: (CODE_DECIMAL, encode_decimal),
    datetime: (CODE_DATETIME, encode_datetime),
    date: (CODE_DATE, encode_date),
    time: (CODE_TIME, encode_time),
    timedelta: (CODE_TIMEDELTA, encode_timedelta),
    timezone: (CODE_TIMEZONE, encode_timezone),
    UUID: (CODE_UUID, encode_uuid),
    memoryview: (CODE_BUFFER, encode_buffer),
    array: (CODE_BUFFER, encode_buffer),
}
"""Exact type to code and encoder. Integers and containers are not in it: they depend on their content."""

DECODERS: Final[dict[int, Callable[[bytes, Limits], object]]] = {
    CODE_REFERENCE: decode_reference,
    CODE_OWN_REFERENCE: decode_own_reference,
    CODE_INTEGER: decode_integer,
    CODE_COMPLEX: decode_complex,
    CODE_DECIMAL: decode_decimal,
    CODE_DATETIME: decode_datetime,
    CODE_DATE: decode_date,
    CODE_TIME: decode_time,
    CODE_TIMEDELTA: decode_timedelta,
    CODE_TIMEZONE: decode_timezone,
    CODE_UUID: decode_uuid,
    CODE_BUFFER: decode_buffer,
}
"""Code to decoder. Containers are decoded by ``trees``; CODE_PROMISED_ANSWER is reserved and refused."""
