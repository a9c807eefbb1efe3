"""Floods of refusals become counts, so that a peer cannot fill our disk by asking for what it may not have."""

import json
import re
from typing import Final

from caprpc.audit.record import Extra, FieldValue, Template, extra

FLOOD_THRESHOLD: Final = 100
"""Refusals of one template that are written one by one in a window; an operator reads no more than that."""

WINDOW_S: Final = 10.0
"""Length of a window: a steady flood leaves 100 whole records and its counts each 10 s, about 4 KiB a second."""

MAX_REFERENCES: Final = 32
"""Reference numbers in one aggregate: fits ``MAX_EXTRA_BYTES`` beside a member, and costs some 30 bytes for a call."""

MAX_NAMES: Final = 4
"""Members that an aggregate of different ones names: a peer that makes up names can make up any number of them."""

_NAME_BYTES: Final = 24
"""Of each of these; one member alone is kept whole."""


_MEMBER: Final = re.compile(rb',"member":("(?:[^"\\]|\\.)*")')
"""Finds the member in encoded fields, as JSON text."""

_REFERENCE: Final = re.compile(rb',"reference":"([A-Z0-9-]{1,32})"')
"""Finds the reference number in encoded fields; a text in them cannot look like this, its quotes are escaped."""


class Flood:
    """Counts the refusals made from one template.

    Invariant: each refusal that was added is either written by itself or in ``_count`` until an aggregate takes it.
    """

    __slots__ = ("_count", "_ends", "_first", "_last", "_members", "_references", "_seen", "template")

    def __init__(self, template: Template) -> None:
        self.template = template
        self._ends = 0.0
        self._seen = 0
        self._count = 0
        self._first = 0
        self._last = 0
        self._references: list[str] = []
        self._members: dict[bytes, None] = {}
        """The first few that were counted, as JSON texts."""

    def swallow(self, question: int, fields: Extra, now: float) -> bool:
        """Count one refusal and return true, or return false if it has to be written by itself."""
        if now >= self._ends:
            self._ends = now + WINDOW_S
            self._seen = 0
        self._seen += 1
        if self._seen <= FLOOD_THRESHOLD:
            return False
        if not self._count:
            self._first = question
        self._count += 1
        self._last = question
        member = _MEMBER.search(fields)
        if member and len(self._members) <= MAX_NAMES:
            self._members[member[1]] = None
        reference = _REFERENCE.search(fields)
        if reference:
            self._references.append(reference[1].decode("ascii"))
        return True

    def due(self, now: float) -> bool:
        """Return whether the aggregate has to be written now: it is full, or its window has ended."""
        return len(self._references) >= MAX_REFERENCES or (self._count > 0 and now >= self._ends)

    def over(self, now: float) -> bool:
        """Return whether nothing is counted any more and the window has ended."""
        return not self._count and now >= self._ends

    def aggregate(self) -> tuple[int, Extra]:
        """Return the last question and the fields that stand for everything counted."""
        fields: dict[str, FieldValue] = {"count": self._count, "first": self._first, "last": self._last}
        if self._references:
            fields["references"] = " ".join(self._references)
        names: list[str] = [json.loads(member) for member in self._members]
        if len(names) == 1:
            fields["member"] = names[0]
        elif names:
            shown = ", ".join(name[:_NAME_BYTES] for name in names[:MAX_NAMES])
            fields["detail"] = f"members {shown}" + (" and others" if len(names) > MAX_NAMES else "")
        return self._last, extra(**fields)

    def clear(self) -> None:
        """Count from zero again: the aggregate is written."""
        self._count = 0
        self._references = []
        self._members = {}
