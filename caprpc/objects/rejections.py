"""Records of peers that were not let in: whoever can reach the port must not be able to fill our disk."""

import threading
from typing import Final

from caprpc.audit import Relation
from caprpc.errors import AuditError
from caprpc.objects.accepting import source_of

WHOLE: Final = 20
"""Records of one source and reason that are written one by one in a window; an operator reads no more of the same."""

WINDOW_S: Final = 10.0

MOST_REFERENCES: Final = 32
"""Reference numbers in one aggregate."""

MOST_KINDS: Final = 256
"""Sources and reasons that are told apart at one time; those behind them are counted by reason alone."""

Kind = tuple[str, str]
"""Source of the connection, and reason."""


class _Count:
    """What has come of one kind in a window, and what of it no record tells of yet."""

    __slots__ = ("ends", "references", "seen")

    def __init__(self) -> None:
        self.ends = 0.0
        self.seen = 0
        self.references: list[str] = []


class Rejections:
    """Writes who was not let in. Thread-safe.

    Invariant: each one has a record of its own, or its number is in an aggregate of its source and reason.
    """

    __slots__ = ("_counts", "_lock", "_relation")

    def __init__(self, relation: Relation) -> None:
        self._relation = relation
        self._counts: dict[Kind, _Count] = {}
        self._lock = threading.Lock()

    def add(self, address: str, reason: str, reference: str, now: float, **more: str) -> None:
        """Record one, now or with those that follow; ``now`` is monotonic, in seconds."""
        # Over a Unix socket it says which process it is, and each may be another.
        kind = (source_of(address.rpartition(":")[0] or "unix"), reason)
        with self._lock:
            if kind not in self._counts and len(self._counts) >= MOST_KINDS:
                self._end(now)
                if len(self._counts) >= MOST_KINDS:
                    kind = ("", reason)
            count = self._counts.setdefault(kind, _Count())
            if now >= count.ends:
                self._sum_up(kind, count)
                count.seen, count.ends = 0, now + WINDOW_S
            count.seen += 1
            if count.seen <= WHOLE:
                self._write(address=address, reason=reason, reference=reference, **more)
                return
            count.references.append(reference)
            if len(count.references) >= MOST_REFERENCES:
                self._sum_up(kind, count)

    def tick(self, now: float) -> None:
        """Write the counts of windows that have ended."""
        with self._lock:
            self._end(now)

    def _end(self, now: float) -> None:
        for kind, count in list(self._counts.items()):
            if now >= count.ends:
                self._sum_up(kind, count)
                del self._counts[kind]

    def _sum_up(self, kind: Kind, count: _Count) -> None:
        references, count.references = count.references, []
        if references:
            source, reason = kind
            detail = f"more than {WHOLE} within {WINDOW_S:g} s from {source or 'many addresses'}"
            numbers = " ".join(references)
            self._write(address=source, reason=reason, count=len(references), references=numbers, detail=detail)

    def _write(self, **fields: str | int) -> None:
        try:
            self._relation.record("reject", **fields)
        except AuditError:
            # Nobody was admitted, and the log reports by itself that it cannot be written.
            return
