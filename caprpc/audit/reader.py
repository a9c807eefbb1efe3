"""Reads audit logs that may be hostile: bounded memory for any input, and only the one spelling of a record."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, cast

from caprpc.audit.record import FIELDS, KINDS, MAX_LINE_BYTES, leaf_hash

_CHUNK_BYTES: Final = 256 * 1024
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_REQUIRED: Final = ("seq", "time", "mono", "kind", "prev")
_SHAPES: Final[Mapping[str, tuple[int, type | None]]] = {
    name: (position, kind) for position, (name, kind) in enumerate(FIELDS.items())
}
_UNKNOWN: Final[tuple[int, type | None]] = (-1, None)


SHORTEST_RECORD_BYTES: Final = 140
"""No record is shorter: sequence number, two times, kind and hash take that much."""


class RawLine(NamedTuple):
    """A line as it stands in a file; ``data`` is cut when ``length`` exceeds ``MAX_LINE_BYTES``."""

    offset: int
    data: bytes
    length: int
    ended: bool


class BadRecord(Exception):
    """A line is not a record.

    Attributes:
        expected: What the format or the chain demands.
        found: What is there, safe to print.
        kind: What was done to the log.
    """

    def __init__(self, expected: str, found: str, kind: str = "edited") -> None:
        self.expected = expected
        self.found = found
        self.kind = kind
        super().__init__(f"expected {expected}, found {found}")


@dataclass(frozen=True, slots=True)
class Record:
    """A line that is a well-formed record; whether it belongs where it stands, the chain says."""

    fields: Mapping[str, object]
    leaf: str
    line: bytes

    def text(self, name: str) -> str:
        """Return a field as text, empty if the record has none of that name."""
        return str(self.fields.get(name, ""))

    def number(self, name: str) -> int:
        """Return a number field, 0 if the record has none of that name."""
        return cast("int", self.fields.get(name, 0))

    @classmethod
    def parse(cls, raw: RawLine) -> "Record":
        """Read one line.

        Raises:
            BadRecord: It is too long, not printable ASCII, not JSON, not in the only spelling, or has fields that
                are unknown, missing or of the wrong type.
        """
        if raw.length > MAX_LINE_BYTES:
            raise BadRecord(f"a line of at most {MAX_LINE_BYTES} bytes", f"{raw.length} bytes")
        fields = _parse_object(raw.data)
        _check_fields(fields)
        if _spell(fields) != raw.data:
            raise BadRecord("fields in their order, without spaces, in the only spelling", "another spelling")
        return cls(fields, leaf_hash(raw.data), raw.data)


def read_lines(fd: int, offset: int = 0) -> Iterator[RawLine]:
    """Return the lines of a file from ``offset`` on, holding no more than a chunk of it at a time."""
    start, held, length = offset, b"", 0
    while chunk := os.pread(fd, _CHUNK_BYTES, offset):
        offset += len(chunk)
        if b"\n" not in chunk:
            length += len(chunk)
            held = (held + chunk[: MAX_LINE_BYTES + 1])[: MAX_LINE_BYTES + 1]
            continue
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            length += len(part)
            data = held + part if held else part
            yield RawLine(start, data[: MAX_LINE_BYTES + 1], length, ended=True)
            start, held, length = start + length + 1, b"", 0
        length += len(rest)
        held = (held + rest)[: MAX_LINE_BYTES + 1]
    if length:
        yield RawLine(start, held, length, ended=False)


def _parse_object(data: bytes) -> dict[str, object]:
    text = data.decode("ascii", "replace")
    if not text.isprintable() or "\ufffd" in text:
        raise BadRecord("printable ASCII", "other bytes")
    try:
        found = _DECODER.decode(text)
    except (ValueError, RecursionError) as exc:
        raise BadRecord("one JSON object", f"{type(exc).__name__} in a line of {len(data)} bytes") from exc
    if not isinstance(found, dict):
        raise BadRecord("one JSON object", f"a JSON {type(found).__name__}")
    return found


def _check_fields(fields: dict[str, object]) -> None:
    for name in _REQUIRED:
        if name not in fields:
            raise BadRecord(f"a field {name!r}", "none")
    last = -1
    for name, value in fields.items():
        position, expected = _SHAPES.get(name, _UNKNOWN)
        kind = type(value)
        if kind is not expected:
            if expected is None:
                raise BadRecord("known fields only", ascii(name)[:80])
            raise BadRecord(f"{name!r} of type {expected.__name__}", kind.__name__)
        if kind is int and not 0 <= cast("int", value) < 1 << 64:
            raise BadRecord(f"{name!r} from 0 to 2**64 - 1", "a number out of range")
        if kind is dict and not all(type(item) is str for item in cast("dict[str, object]", value).values()):
            raise BadRecord(f"texts in {name!r}", "another type")
        if position < last:
            raise BadRecord("fields in their order", f"{name!r} too late")
        last = position
    if fields["kind"] not in KINDS:
        raise BadRecord(f"a kind of {', '.join(sorted(KINDS))}", ascii(fields["kind"])[:80])
    if not _HASH.fullmatch(cast("str", fields["prev"])):
        raise BadRecord("'prev' of 64 hexadecimal digits", "something else")
    if not _is_time(cast("str", fields["time"])):
        raise BadRecord("'time' like 2026-01-31T23:59:59.123456Z", "something else")


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _spell(fields: dict[str, object]) -> bytes:
    text = _ENCODER.encode(fields)
    return text.replace("\x7f", "\\u007f").encode("ascii")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRecord("each key once", "a key twice")
    return found


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_without_duplicates)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))
