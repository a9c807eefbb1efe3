"""One audit record: its fields, their order, and its only spelling.

A record is one line: a JSON object in printable ASCII, with fixed key order and no spaces, of at most
``MAX_LINE_BYTES``. Its leaf hash is that of RFC 6962, section 2.1. Audit log reference, section 2.
"""

import hashlib
import sys
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Final

FieldValue = str | int | Mapping[str, str]


class Extra(bytes):
    """Encoded fields that follow the static part of a template; made by ``extra`` and ``duration`` only.

    Attributes:
        first: Position in ``FIELDS`` of the first of them.
    """

    first: int = sys.maxsize


Stamp = tuple[bytes, int, int]
"""Wall time down to the decimal point of the seconds, its microseconds, and monotonic nanoseconds."""

NO_EXTRA: Final = Extra(b"")

MAX_LINE_BYTES: Final = 4096
"""Longest line without its newline: readers need no more memory than this for each record."""

MAX_STATIC_BYTES: Final = 3008
"""Most that the fields known in advance may take; the rest is for ``extra`` and the chain."""

MAX_EXTRA_BYTES: Final = 832
"""Most that the fields of one call may take."""

MAX_TEXT_BYTES: Final = 256
"""Longest text in a field that is not listed in ``_LONG_TEXT``, escapes included."""

_LONG_TEXT: Final = {"peer": 2048, "relation": 2048, "detail": 1024, "references": 640}
"""SPIFFE bounds an identifier at 2,048 bytes (SPIFFE-ID, section 2.3); a detail is for people to read."""

KINDS: Final = frozenset(
    {
        "open",
        "close",
        "reject",
        "policy",
        "grant",
        "revoke",
        "decision",
        "outcome",
        "limit",
        "checkpoint",
        "segment",
        "gap",
    }
)
"""Every kind of fact. A kind that is missing here does not verify."""

LOG_KINDS: Final = frozenset({"checkpoint", "segment", "gap"})
"""Facts about the log itself, which only the log writes."""

FIELDS: Final[Mapping[str, type]] = {
    "seq": int,
    "time": str,
    "mono": int,
    "kind": str,
    "event": str,
    "log": str,
    "log_id": str,
    "relation": str,
    "segment": int,
    "peer": str,
    "address": str,
    "connection": str,
    "anchor": str,
    "leaf": str,
    "facet": str,
    "decision": str,
    "reason": str,
    "rule": str,
    "policy": str,
    "question": int,
    "operation": str,
    "member": str,
    "reference": str,
    "args": dict,
    "outcome": str,
    "error": str,
    "duration_us": int,
    "count": int,
    "first": int,
    "last": int,
    "references": str,
    "facts": int,
    "bytes": int,
    "digest": str,
    "detail": str,
    "prev": str,
}
"""Every field and its type, in the order in which a record holds them."""

_POSITION: Final = {name: position for position, name in enumerate(FIELDS)}
_PREFIX: Final = {name: b',"%b":' % name.encode("ascii") for name in FIELDS}
"""What stands before the value of each field."""
_CHAINED: Final = frozenset({"seq", "time", "mono", "prev"})
_BEFORE_QUESTION: Final = frozenset(name for name, at in _POSITION.items() if at < _POSITION["question"])

GENESIS: Final = "0" * 64
"""``prev`` of the first record of a relation."""

_HEAD: Final = b'{"seq":%d,"time":"%b%06dZ","mono":%d,"kind":'


def leaf_hash(line: bytes) -> str:
    """Return the RFC 6962 leaf hash of a line without its newline, in hexadecimal."""
    return hashlib.sha256(b"\0" + line).hexdigest()


class Template:
    """The part of a record that is the same for every call of one kind on one connection, encoded once.

    Invariant: a record made from it with fields that come after ``last`` has each field once, and in order.

    Attributes:
        pattern: Line with gaps for sequence number, the three parts of ``Stamp``, question, extra fields and
            previous hash.
        last: Position in ``FIELDS`` of the last static field, at least that of the question.
        refusal: Records made from it are refusals: a flood of them is counted instead of written.
    """

    __slots__ = ("last", "pattern", "refusal")

    def __init__(self, fields: Mapping[str, FieldValue]) -> None:
        kind = _kind_of(fields)
        members = _fitted({name: value for name, value in fields.items() if name != "kind"}, MAX_STATIC_BYTES)
        before = b"".join(text for name, text in members.items() if name in _BEFORE_QUESTION)
        after = b"".join(text for name, text in members.items() if name not in _BEFORE_QUESTION)
        static = b'"' + kind.encode("ascii") + b'"' + before.replace(b"%", b"%%") + b',"question":%d'
        self.pattern = _HEAD + static + after.replace(b"%", b"%%") + b'%b,"prev":"%b"}'
        self.last = max(_POSITION["question"], *(_POSITION[name] for name in fields))
        self.refusal = fields.get("decision") == "deny"
        if self.refusal and self.last > _POSITION["member"]:
            raise TypeError(f"a refusal with a static field {list(FIELDS)[self.last]!r}: give it with extra()")

    @staticmethod
    def after(line: bytes, seq: int, prev: bytes) -> bytes:
        """Return the line of an equal record that follows ``line``: all but its number and its chain is there."""
        return b'{"seq":%d%b%b"}' % (seq, line[len(b'{"seq":%d' % (seq - 1)) : -len(prev) - 2], prev)


def extra(**fields: FieldValue) -> Extra:
    """Encode the fields that differ from call to call, for ``Relation.add``; too long ones are cut and marked."""
    if not fields:
        return NO_EXTRA
    made = Extra(b"".join(_fitted(fields, MAX_EXTRA_BYTES).values()))
    made.first = min(_POSITION[name] for name in fields)
    return made


def out_of_order(template: Template, fields: Extra) -> TypeError:
    """Return the error for extra fields that do not come after the static ones."""
    names = list(FIELDS)
    return TypeError(f"extra field {names[fields.first]!r} after static field {names[template.last]!r}")


def duration(microseconds: int) -> Extra:
    """Encode how long a call took; the cheap form of ``extra(duration_us=...)``."""
    made = Extra(b',"duration_us":%d' % microseconds)
    made.first = _POSITION["duration_us"]
    return made


def encode(seq: int, stamp: Stamp, fields: Mapping[str, FieldValue], prev: str) -> bytes:
    """Return the line of one record, without newline.

    ``fields`` holds ``kind`` and at will others.
    """
    kind = _kind_of(fields).encode("ascii")
    members = _fitted({name: value for name, value in fields.items() if name != "kind"}, MAX_STATIC_BYTES)
    return _HEAD % (seq, *stamp) + b'"%b"%b,"prev":"%b"}' % (kind, b"".join(members.values()), prev.encode("ascii"))


def escape(text: str, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Return text as a JSON string of printable ASCII, of about ``max_bytes`` at most; a cut says how long it was."""
    if len(text) <= max_bytes:
        encoded = _json_text(text)
        if len(encoded) - 2 <= max_bytes:
            return encoded
    mark = f"[cut: {len(text)} characters]"
    budget = max(max_bytes - len(mark), 0)
    low, high = 0, min(len(text), budget)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_json_text(text[:middle])) - 2 <= budget:
            low = middle
        else:
            high = middle - 1
    return _json_text(text[:low] + mark)


def _json_text(text: str) -> bytes:
    # json escapes everything outside ASCII and below 0x20; DEL is left, and terminals obey it.
    encoded = encode_basestring_ascii(text).encode("ascii")
    return encoded.replace(b"\x7f", b"\\u007f") if b"\x7f" in encoded else encoded


def _kind_of(fields: Mapping[str, FieldValue]) -> str:
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise TypeError(f"kind {kind!r} of an audit record, expected one of {', '.join(sorted(KINDS))}")
    return kind


def _fitted(fields: Mapping[str, FieldValue], max_bytes: int) -> dict[str, bytes]:
    """Encode each field as ``,"name":value`` in record order, halving the longest until all fit."""
    for name, value in fields.items():
        _check_field(name, value)
    order = fields if len(fields) < 2 else sorted(fields, key=_POSITION.__getitem__)
    encoded = {name: _member(name, fields[name], None) for name in order}
    while len(b"".join(encoded.values())) > max_bytes:
        longest = max(encoded, key=lambda name: len(encoded[name]))
        shorter = _member(longest, fields[longest], len(encoded[longest]) // 2)
        if len(shorter) >= len(encoded[longest]):
            raise TypeError(f"{len(fields)} fields do not fit into {max_bytes} bytes of an audit record")
        encoded[longest] = shorter
    return encoded


def _check_field(name: str, value: FieldValue) -> None:
    expected = FIELDS.get(name)
    if expected is str and isinstance(value, str) and name not in _CHAINED:
        return
    if expected is None or name in _CHAINED:
        raise TypeError(f"an audit record has no field {name!r} that a caller may set")
    fits = isinstance(value, Mapping) if expected is dict else type(value) is expected
    if not fits:
        raise TypeError(f"field {name!r} of an audit record is {type(value).__name__}, expected {expected.__name__}")
    if isinstance(value, int) and not 0 <= value < 1 << 64:
        raise TypeError(f"field {name!r} of an audit record is {value}, expected 0 to 2**64 - 1")


def _member(name: str, value: FieldValue, max_bytes: int | None) -> bytes:
    limit = max_bytes if max_bytes is not None else _LONG_TEXT.get(name, MAX_TEXT_BYTES)
    if isinstance(value, str):
        return b"%b%b" % (_PREFIX[name], escape(value, limit))
    if isinstance(value, Mapping):
        return b',"%b":%b' % (name.encode("ascii"), _object(value, max_bytes if max_bytes is not None else 768))
    return b',"%b":%d' % (name.encode("ascii"), value)


def _object(entries: Mapping[str, str], max_bytes: int) -> bytes:
    """Encode a flat object of texts; entries that do not fit are counted under the empty key."""
    room = max_bytes - 32
    parts: dict[bytes, bytes] = {b'""': b""}
    for key, value in entries.items():
        name, text = escape(key, 64), escape(value, 128)
        if name in parts or len(name) + len(text) + 2 > room:
            break
        room -= len(name) + len(text) + 2
        parts[name] = text
    del parts[b'""']
    left = len(entries) - len(parts)
    if left:
        parts[b'""'] = b'"%d more"' % left
    return b"{" + b",".join(name + b":" + text for name, text in parts.items()) + b"}"
