"""Identifiers and operation codes that every floor shares.

Wire protocol, sections 4 and 6.
"""

import secrets
from typing import Final, NewType

ExportId = NewType("ExportId", int)
"""Names an object in the table of the side that exports it; never reused within a connection."""

QuestionId = NewType("QuestionId", int)
"""Names a question in the table of the side that asks it; never reused within a connection."""

FacetId = NewType("FacetId", int)
"""Names a facet that the exporter has announced on this connection."""

ROOT_EXPORT: Final = ExportId(0)
"""The immortal first export of both sides; its only operation is ``root``."""

OP_ROOT: Final = 0
OP_CALL: Final = 1
OP_GET: Final = 2
OP_SET: Final = 3
OP_INVOKE: Final = 4
OP_ITERATE: Final = 5
OP_NEXT: Final = 6
OP_CLOSE: Final = 7
OP_LENGTH: Final = 8
OP_CONTAINS: Final = 9
OP_INDEX_GET: Final = 10
OP_INDEX_SET: Final = 11
OP_ENTER: Final = 12
OP_EXIT: Final = 13
OP_ATTENUATE: Final = 14
OP_REVOKE: Final = 15
OP_RESTORE: Final = 16
OP_COMPARE: Final = 17

OPERATION_NAMES: Final[dict[int, str]] = {
    OP_ROOT: "root",
    OP_CALL: "call",
    OP_GET: "get",
    OP_SET: "set",
    OP_INVOKE: "invoke",
    OP_ITERATE: "iterate",
    OP_NEXT: "next",
    OP_CLOSE: "close",
    OP_LENGTH: "length",
    OP_CONTAINS: "contains",
    OP_INDEX_GET: "index_get",
    OP_INDEX_SET: "index_set",
    OP_ENTER: "enter",
    OP_EXIT: "exit",
    OP_ATTENUATE: "attenuate",
    OP_REVOKE: "revoke",
    OP_RESTORE: "restore",
    OP_COMPARE: "compare",
}
"""Every operation a CALL may name. A code that is missing here is a protocol error."""

NAMED_OPERATIONS: Final = frozenset({OP_ROOT, OP_CALL, OP_GET, OP_SET, OP_RESTORE, OP_COMPARE})
"""Operations that carry a member name; all others carry the empty string. A CALL of ``root`` with the empty string asks
which roots there are."""

IMPLICIT_OPERATIONS: Final = frozenset({OP_ATTENUATE, OP_REVOKE})
"""Operations that a reference has without a grant: they only ever take away. FACET does not list them."""

UNCOUNTED_OPERATIONS: Final = IMPLICIT_OPERATIONS | {OP_CLOSE, OP_EXIT}
"""Operations that only give something up: a number of uses does not count them and never keeps a peer from them."""

_REFERENCE_ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_REFERENCE_LENGTH: Final = 12
"""60 random bits: a peer cannot find another peer's reference number by trying."""


def new_reference() -> str:
    """Return a fresh reference number such as ``R-7KQ2M9XW4HTA``.

    A refused peer sees only this number; the operator finds the whole reason under it in the audit log.
    """
    return "R-" + _random_letters()


def new_grant_id() -> str:
    """Return a fresh id for a grant, such as ``G-7KQ2M9XW4HTA``: it names the grant and gives nothing."""
    return "G-" + _random_letters()


def _random_letters() -> str:
    bits = secrets.randbits(5 * _REFERENCE_LENGTH)
    return "".join(_REFERENCE_ALPHABET[(bits >> (5 * i)) & 31] for i in range(_REFERENCE_LENGTH))
