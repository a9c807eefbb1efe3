"""Follows a hash chain through the files of one relation, record by record."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from caprpc.audit.reader import SHORTEST_RECORD_BYTES, BadRecord, RawLine, Record, read_lines
from caprpc.audit.record import GENESIS
from caprpc.audit.segment import digest_of


@dataclass(frozen=True, slots=True)
class Problem:
    """The first place where a log is not what it should be."""

    file: str
    line: int
    offset: int
    expected: str
    found: str
    kind: str = "edited"
    """What was done: edited, inserted, deleted, reordered, truncated or forged."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: expected {self.expected}, found {self.found} (byte {self.offset})"


class ChainBroken(Exception):
    """A record is not the successor of the one before it.

    Attributes:
        problem: Where, and why.
        doubted: The record, if it follows in number and names another hash: then it or the one before was changed.
    """

    def __init__(self, problem: Problem, doubted: Record | None = None) -> None:
        self.problem = problem
        self.doubted = doubted
        super().__init__(str(problem))


class OtherHash(BadRecord):
    """A record names another hash than that of the record before it."""


class Walk:
    """Accepts records in the order of their chain.

    Attributes:
        seq: Number of the last record accepted.
        leaf: Its leaf hash.
        last: The record itself, None before the first.
        last_at: Its file, line and offset.
        line: Its line in the present file.
        good: Offset in the present file up to which everything is accepted.
        torn: Bytes behind ``good`` when the file ended: what a crash leaves, never a whole record.
        debris: Where they begin, and why they are no record.
        open_line: The last record accepted lacks only its newline.
    """

    def __init__(self, seq: int = 0, leaf: str = GENESIS) -> None:
        self.seq = seq
        self.leaf = leaf
        self.last: Record | None = None
        self.last_at = ("", 0, 0)
        self.line = 0
        self.good = 0
        self.torn = 0
        self.debris: Problem | None = None
        self.open_line = False
        self._file = ""
        self._mono = 0

    @property
    def ended(self) -> bool:
        """Whether the last record says that the chain goes on in the next file."""
        return _segment_event(self.last) == "end"

    @property
    def closed(self) -> bool:
        """Whether the last record says that the log was closed in good order."""
        return _segment_event(self.last) == "close"

    def records(self, fd: int, file: str, offset: int = 0) -> Iterator[Record]:
        """Return the records of a file from ``offset`` on.

        Bytes that are no record are passed over only if a ``gap`` record behind them names them exactly, or if
        nothing but them is left.

        Raises:
            ChainBroken: At the first record that does not belong where it stands.
        """
        self._file = file
        self.good = offset
        self.torn = 0
        self.debris = None
        self.open_line = False
        debris: Problem | None = None
        for line, raw in enumerate(read_lines(fd, offset), 1):
            if debris and raw.length < SHORTEST_RECORD_BYTES:
                continue
            try:
                record = Record.parse(raw)
            except BadRecord as exc:
                debris = debris or self._problem(line, raw, exc)
                continue
            try:
                self._check(record)
                self._check_gap(record, raw, fd, debris)
            except BadRecord as exc:
                doubted = record if isinstance(exc, OtherHash) and not debris else None
                raise ChainBroken(debris or self._problem(line, raw, exc), doubted) from exc
            debris = None
            self.seq, self.leaf, self.last = self.seq + 1, record.leaf, record
            self.line, self.good = line, raw.offset + raw.length + raw.ended
            self.last_at = (file, line, raw.offset)
            self.open_line = not raw.ended
            yield record
        if debris:
            self.torn = os.fstat(fd).st_size - self.good
            self.debris = debris

    def _problem(self, line: int, raw: RawLine, exc: BadRecord) -> Problem:
        return Problem(self._file, line, raw.offset, exc.expected, exc.found, exc.kind)

    def _check(self, record: Record) -> None:
        if record.fields["seq"] != self.seq + 1:
            kind = "deleted" if record.number("seq") > self.seq else "inserted"
            raise BadRecord(f"seq {self.seq + 1}", f"seq {record.fields['seq']}", kind)
        if record.fields["prev"] != self.leaf:
            raise OtherHash(f"prev {self.leaf}", f"prev {record.fields['prev']}")
        event, before = _segment_event(record), _segment_event(self.last)
        if (event == "begin") != (self.good == 0):
            raise BadRecord("a segment record 'begin' first in each file, and only there", event or "another record")
        if self.last and (event == "begin") != (before == "end"):
            raise BadRecord("the next file behind a segment record 'end', and only there", event or "another record")
        if before == "close" and event != "resume" and record.fields["kind"] != "gap":
            raise BadRecord("a segment record 'resume' or a gap behind 'close'", event or "another record")
        mono = record.number("mono")
        if mono < self._mono and event not in {"begin", "resume"} and record.fields["kind"] != "gap":
            raise BadRecord(f"mono of at least {self._mono}", f"mono {mono}")
        self._mono = mono

    def _check_gap(self, record: Record, raw: RawLine, fd: int, debris: Problem | None) -> None:
        named = record.number("bytes") if record.fields["kind"] == "gap" else 0
        there = raw.offset - self.good
        if named != there:
            raise BadRecord(f"a gap record for {there} bytes", f"one for {named}" if named else "none")
        if debris and record.fields.get("digest") != digest_of(fd, self.good, raw.offset).hexdigest():
            raise BadRecord("the SHA-256 of what is in the gap", "another")


def _segment_event(record: Record | None) -> str:
    return record.text("event") if record and record.fields["kind"] == "segment" else ""
