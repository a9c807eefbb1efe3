"""Writes one hash chain to the segments of a relation: whole records, or an account of why not."""

import errno
import os
from typing import Final

from caprpc.audit.clock import Clock
from caprpc.audit.record import FieldValue, encode, leaf_hash
from caprpc.audit.segment import Head, Segment, whole_lines
from caprpc.errors import AuditError

_RETRY_ROTATION_BYTES: Final = 1024 * 1024
"""When a segment cannot be ended (a full disk), this much more goes into it before the next try."""


class ChainWriter:
    """Appends lines to the last segment, and begins the next one when it is full.

    Invariant: ``_seq`` and ``_prev`` are those of the last whole line in the file, and if anything else is
    behind that line, or a fact could not be written, ``_lost`` is not None.

    Not thread-safe: ``Relation`` is, and holds its lock around everything here.
    """

    __slots__ = ("_clock", "_log_fields", "_lost", "_prev", "_segment", "_seq", "next_key")

    def __init__(
        self,
        segment: Segment,
        seq: int,
        prev: str,
        clock: Clock,
        log_fields: dict[str, FieldValue],
        lost: int | None,
    ) -> None:
        self._segment = segment
        self._seq = seq
        self._prev = prev.encode("ascii")
        self._clock = clock
        self._log_fields = log_fields
        self._lost = lost
        self.next_key: dict[str, FieldValue] = {}
        """Fields by which the next segment names the key that signs it."""

    @property
    def fault(self) -> str:
        """Why no record is taken now, empty if that is not known to be so."""
        if self._segment.closed:
            return f"{self._segment.name}: the audit log takes no more records"
        if self._lost:
            return f"{self._segment.name}: the last write to the audit log failed"
        return ""

    def _record(self, fields: dict[str, FieldValue]) -> None:
        if self._lost is not None:
            self._mend(1)
        line = encode(self._seq + 1, self._clock.stamp(), fields, self._prev.decode())
        self._write(line + b"\n", self._seq + 1, leaf_hash(line).encode())

    def _write(self, data: bytes, seq: int, prev: bytes) -> None:
        """Write lines that end with ``seq`` and ``prev``; all of them, or raise."""
        segment = self._segment
        try:
            written = segment.write(segment.fd, data)
            if written != len(data):
                written = segment.finish(data, written)
        except OSError as exc:
            self._lose(data, 0)
            raise segment.cannot_write(exc) from exc
        if written != len(data):
            self._lose(data, written)
            raise AuditError(f"{segment.name}: {written} of {len(data)} bytes written to the audit log")
        self._seq = seq
        self._prev = prev
        segment.good += written
        if segment.good >= segment.rotate_at:
            self._rotate()

    def _lose(self, data: bytes, written: int) -> None:
        """Go to the last line that was written whole, and remember how many facts are missing after it."""
        whole, lines = whole_lines(data, written)
        if lines:
            self._seq += len(lines)
            self._prev = leaf_hash(lines[-1]).encode()
            self._segment.good += whole
        self._lost = (self._lost or 0) + data.count(b"\n") - len(lines)

    def _mend(self, facts: int) -> None:
        """Account for what a crash or a failed write left; if that fails, ``facts`` more are lost."""
        segment = self._segment
        lost = self._lost or 0
        self._lost = lost + facts
        try:
            if segment.closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            end, length, fields = segment.mendable().gap(lost)
            line = encode(self._seq + 1, self._clock.stamp(), fields, self._prev.decode())
            data = end + line + b"\n"
            if segment.append(data) != len(data):
                raise AuditError(f"{segment.name}: record of a gap in the audit log not written whole")
        except OSError as exc:
            raise segment.cannot_write(exc) from exc
        self._lost = None
        self._seq += 1
        self._prev = leaf_hash(line).encode()
        segment.good += length + len(line) + 1

    def _rotate(self) -> None:
        """End the segment and begin the next; if that fails, go on in this one and try again later."""
        segment, stamp = self._segment, self._clock.stamp()
        end = encode(
            self._seq + 1, stamp, {"kind": "segment", "event": "end", "segment": segment.number}, self._prev.decode()
        )
        fields = {
            "kind": "segment",
            "event": "begin",
            **self._log_fields,
            "segment": segment.number + 1,
            **self.next_key,
        }
        begin = encode(self._seq + 2, stamp, fields, leaf_hash(end))
        try:
            following = segment.successor(begin)
        except (OSError, AuditError):
            segment.rotate_at = segment.good + _RETRY_ROTATION_BYTES
            return
        segment.rotate_at = segment.good + _RETRY_ROTATION_BYTES
        try:
            written = segment.append(end + b"\n")
        except OSError:
            written = 0
        if written == len(end):
            # Only the newline is missing: nothing may follow in this file, and the next one must not begin yet.
            following.discard()
            self._broken(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            return
        if written < len(end):
            following.discard()
            self._lost = 0
            return
        self._seq += 2
        self._prev = leaf_hash(begin).encode()
        self._segment = following
        try:
            os.fdatasync(segment.fd)
            following.adopt()
        except OSError as exc:
            self._broken(exc)
        segment.close()

    def _head(self) -> Head:
        return Head(self._seq, self._prev.decode(), self._segment.number, self._segment.good)

    def _descriptor(self) -> int:
        try:
            return os.dup(self._segment.fd)
        except OSError as exc:
            raise self._broken(exc) from exc

    def _broken(self, exc: Exception) -> AuditError:
        """Take no more records: what is on the disk can no longer be vouched for."""
        self._segment.close()
        reason = exc.strerror if isinstance(exc, OSError) else exc
        return AuditError(f"{self._segment.name}: the audit log takes no more records: {reason}")
