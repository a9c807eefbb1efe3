"""The records of one peer relation: one hash chain, appended by any thread, in the order of its sequence numbers."""

import math
import os
import sys
import threading
from hashlib import sha256
from typing import Final

from caprpc.audit.clock import SECOND_NS, Clock
from caprpc.audit.flood import Flood
from caprpc.audit.record import LOG_KINDS, NO_EXTRA, Extra, FieldValue, Template, leaf_hash, out_of_order
from caprpc.audit.segment import Head, Segment
from caprpc.audit.writer import ChainWriter
from caprpc.errors import AuditError
from caprpc.forks import FORKS

SYNC_INTERVAL_S: Final = 1.0
"""Records older than this survive a power cut; a killed process loses none."""

FORKED: Final = "a forked child must not write the audit log of its parent; open another one in the child"

_MAX_FLOODS: Final = 256
"""Refusal counters above which those whose window has ended are dropped at once, and not at the next ``sync``."""

NewRecord = tuple[Template, int, Extra]
"""What a record is made from: its template, its question, and the fields that are its own."""


class _Added(threading.local):
    """Records that the present thread has added and not committed."""

    def __init__(self) -> None:
        self.items: list[NewRecord] = []


class Relation(ChainWriter):
    """Appends records; whoever returns from ``commit``, ``append`` or ``record`` knows that its records are written.

    Thread-safe. What a thread adds, the same thread commits: a failed write is reported to the thread whose call
    must not happen. In a forked child every use raises ``AuditError``.
    """

    __slots__ = (
        "_added",
        "_floods",
        "_forks",
        "_lock",
        "_pid",
        "_room",
        "_synced",
        "name",
    )

    def __init__(
        self,
        name: str,
        *,
        segment: Segment,
        seq: int,
        prev: str,
        clock: Clock,
        log_fields: dict[str, FieldValue],
        lost: int | None = None,
    ) -> None:
        super().__init__(segment, seq, prev, clock, log_fields, lost)
        self.name = name
        self._lock = threading.Lock()
        self._added = _Added()
        self._floods: dict[Template, Flood] = {}
        self._room = _MAX_FLOODS
        self._pid = os.getpid()
        self._forks = FORKS.count
        self._synced: tuple[float, int, Head | None] = (0.0, seq, None)

    def template(self, **fields: FieldValue) -> Template:
        """Encode what all records of one kind on one connection have in common; names of fields as in ``FIELDS``."""
        return Template(fields)

    def add(self, template: Template, question: int, fields: Extra = NO_EXTRA) -> None:
        """Keep a record for the next ``commit`` of this same thread."""
        self._added.items.append((template, question, fields))

    def commit(self) -> None:
        """Write everything this thread has added, with one system call.

        Raises:
            AuditError: Not all of it is written: what was to be recorded must not happen.
        """
        added = self._added.items
        if added:
            self._added.items = []
            self.write(added)

    def write(self, records: list[NewRecord]) -> None:
        """Write records of template, question and extra fields, with one system call.

        Raises:
            AuditError: Not all of it is written: what was to be recorded must not happen.
        """
        if len(records) == 1:
            self.append(*records[0])
            return
        for template, _, fields in records:
            if fields and fields.first <= template.last:
                raise out_of_order(template, fields)
        if FORKS.count != self._forks:
            self._check_process()
        with self._lock:
            self._write_all(records)

    def append(self, template: Template, question: int, fields: Extra = NO_EXTRA) -> None:
        """Write one record now: ``add`` and ``commit`` in one, for less.

        Raises:
            AuditError: It is not written: what was to be recorded must not happen.
        """
        if FORKS.count != self._forks:
            self._check_process()
        if fields and fields.first <= template.last:
            raise out_of_order(template, fields)
        with self._lock:
            if template.refusal or self._lost is not None:
                self._write_all([(template, question, fields)])
                return
            seq, (prefix, micros, mono) = self._seq + 1, self._clock.stamp()
            line = template.pattern % (seq, prefix, micros, mono, question, fields, self._prev)
            self._write(line + b"\n", seq, sha256(b"\0" + line).hexdigest().encode())

    def record(self, kind: str, **fields: FieldValue) -> None:
        """Write one record of any kind now; names of fields as in ``FIELDS``.

        Raises:
            AuditError: It is not written.
        """
        if kind in LOG_KINDS:
            raise TypeError(f"records of kind {kind!r} are written by the log itself")
        self._check_process()
        with self._lock:
            self._record({"kind": kind, **fields})

    def note(self, kind: str, **fields: FieldValue) -> None:
        """Write one record about the log itself; for the log alone.

        Raises:
            AuditError: It is not written.
        """
        self._check_process()
        with self._lock:
            self._record({"kind": kind, **fields})

    @property
    def segment_number(self) -> int:
        """Number of the file that is written now."""
        return self._segment.number

    def distrust(self, exc: AuditError) -> None:
        """Take no more records: what is on the disk is not what was written."""
        with self._lock:
            self._broken(exc)

    def sync(self, now: float) -> Head | None:
        """Make records last over a power cut, if the last time was ``SYNC_INTERVAL_S`` ago; end counts of floods.

        Waits for the disk, not holding up writers. One thread at a time. ``now`` is monotonic, in seconds. Returns how
        far the records go that last, None before the first time.

        Raises:
            AuditError: The disk failed, or someone moved or cut the file; the relation takes no more records.
        """
        self._check_process()
        with self._lock:
            self._end_floods(self._clock.monotonic_s())
            if self._lost is not None:
                self._mend(0)
            last, seq, synced = self._synced
            if self._seq == seq or now - last < SYNC_INTERVAL_S:
                return synced
            segment, head = self._segment, self._head()
            self._synced = (now, self._seq, head)
            fd = self._descriptor()
        try:
            segment.check_place()
            os.fdatasync(fd)
            segment.save_head(head)
        except (OSError, AuditError) as exc:
            with self._lock:
                raise self._broken(exc) from exc
        finally:
            os.close(fd)
        return head

    @property
    def written(self) -> int:
        """Number of the last record."""
        return self._seq

    def flush(self) -> int:
        """Make everything that is written now last over a power cut, and return the number of its last record.

        Raises:
            AuditError: The disk failed; the relation takes no more records.
        """
        with self._lock:
            seq, fd = self._seq, self._descriptor()
        try:
            os.fdatasync(fd)
        except OSError as exc:
            with self._lock:
                raise self._broken(exc) from exc
        finally:
            os.close(fd)
        return seq

    def close(self) -> Head | None:
        """Write the counts of floods and the record of a clean end, and make all of it last; return that end."""
        if os.getpid() != self._pid:
            self._segment.close()
            return None
        with self._lock:
            segment = self._segment
            if segment.closed:
                return None
            try:
                # No new file behind the last record of this run.
                segment.rotate_at = sys.maxsize
                self._end_floods(math.inf)
                self._record({"kind": "segment", "event": "close", "segment": segment.number})
                os.fdatasync(segment.fd)
                head = self._head()
                segment.save_head(head)
            except OSError as exc:
                raise AuditError(f"{segment.name}: cannot finish the audit log: {exc.strerror}") from exc
            finally:
                segment.close()
            return head

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise AuditError(FORKED)

    def _write_all(self, added: list[NewRecord]) -> None:
        if self._lost is not None:
            self._mend(len(added))
        prefix, micros, mono = self._clock.stamp()
        seq, prev, lines, floods = self._seq, self._prev, [], {}
        last: NewRecord | None = None
        line = b""
        for record in added:
            template, question, fields = record
            if template.refusal:
                flood = floods[template] = self._floods.get(template) or self._new_flood(template)
                if flood.swallow(question, fields, mono / SECOND_NS):
                    continue
            seq += 1
            if record is last:
                line = template.after(line, seq, prev)
            else:
                line = template.pattern % (seq, prefix, micros, mono, question, fields, prev)
                last = record
            prev = sha256(b"\0" + line).hexdigest().encode()
            lines.append(line)
        if lines:
            lines.append(b"")
            self._write(b"\n".join(lines), seq, prev)
        for flood in floods.values():
            self._end_flood(flood, mono / SECOND_NS)

    def _new_flood(self, template: Template) -> Flood:
        if len(self._floods) >= self._room:
            self._end_floods(self._clock.monotonic_s())
            # Those whose window goes on stay: to look at all of them for each new one would cost the square of it.
            self._room = max(_MAX_FLOODS, 2 * len(self._floods))
        return self._floods.setdefault(template, Flood(template))

    def _end_floods(self, now: float) -> None:
        """Write the counts that are due, and forget the windows that have ended."""
        for flood in list(self._floods.values()):
            self._end_flood(flood, now)
            if flood.over(now):
                del self._floods[flood.template]

    def _end_flood(self, flood: Flood, now: float) -> None:
        if not flood.due(now):
            return
        if self._lost is not None:
            self._mend(0)
        question, fields = flood.aggregate()
        stamp, pattern = self._clock.stamp(), flood.template.pattern
        line = pattern % (self._seq + 1, *stamp, question, fields, self._prev)
        self._write(line + b"\n", self._seq + 1, leaf_hash(line).encode())
        flood.clear()
