"""Records that survive a power cut before the call that they permit runs.

``sync`` waits for the disk after each write. ``group`` promises the same, but lets all who wrote before one wait for
the disk began share it: neither returns before an ``fdatasync`` that began after its own write has ended.
"""

import threading
from typing import Literal

from caprpc.audit.record import NO_EXTRA, Extra, FieldValue, Template
from caprpc.audit.relation import NewRecord, Relation

Durability = Literal["os", "group", "sync"]


class SyncGroup:
    """Makes what was written to one relation last.

    Invariant: the records up to ``_lasting`` survive a power cut.
    """

    __slots__ = ("_lasting", "_lock", "_relation")

    def __init__(self, relation: Relation) -> None:
        self._relation = relation
        self._lock = threading.Lock()
        self._lasting = 0

    def join(self) -> None:
        """Return when what is written now lasts: waited for by somebody else, or by us for all.

        Raises:
            AuditError: The disk failed; the relation takes no more records.
        """
        written = self._relation.written
        with self._lock:
            if self._lasting < written:
                self._lasting = self._relation.flush()


class DurableRelation:
    """A relation whose records last when ``write``, ``append`` or ``record`` returns."""

    __slots__ = ("_group", "_relation", "_shares")

    def __init__(self, relation: Relation, group: SyncGroup, *, shares: bool) -> None:
        self._relation = relation
        self._group = group
        self._shares = shares

    def template(self, **fields: FieldValue) -> Template:
        """Encode what all records of one kind on one connection have in common."""
        return self._relation.template(**fields)

    def write(self, records: list[NewRecord]) -> None:
        """Write records, and wait until they last.

        Raises:
            AuditError: They do not: what was to be recorded must not happen.
        """
        self._relation.write(records)
        self._last()

    def append(self, template: Template, question: int, fields: Extra = NO_EXTRA) -> None:
        """Write one record, and wait until it lasts.

        Raises:
            AuditError: It does not: what was to be recorded must not happen.
        """
        self._relation.append(template, question, fields)
        self._last()

    def record(self, kind: str, **fields: FieldValue) -> None:
        """Write one record of any kind, and wait until it lasts.

        Raises:
            AuditError: It does not.
        """
        self._relation.record(kind, **fields)
        self._last()

    def _last(self) -> None:
        if self._shares:
            self._group.join()
        else:
            self._relation.flush()
