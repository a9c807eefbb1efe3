"""Checks that an audit log is what was written: every record, in order, none changed, none missing before the head.

Memory stays bounded for any input, and each relation is read once. Audit log reference, section 4.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from caprpc.audit.chain import ChainBroken, Problem, Walk
from caprpc.audit.directory import LogDirectory, LogIdentity, RelationFiles
from caprpc.audit.reader import BadRecord, Record, read_lines
from caprpc.audit.record import MAX_LINE_BYTES
from caprpc.audit.segment import Head
from caprpc.audit.storage import head_name, segment_name, stem_of
from caprpc.errors import AuditError

MAX_TORN_BYTES: Final = 4 * MAX_LINE_BYTES
"""A killed process leaves one unfinished line, and a disk that stays full a few more; a power cut may leave more, but
then the next start accounts for it in a gap record."""


@dataclass(slots=True)
class RelationReport:
    """What was found in one relation.

    Attributes:
        relation: The principal, or ``general``; the name of the files if nothing could be read.
        records: Whole records that were accepted.
        first: Time of the first of them.
        last: Time of the last.
        sealed: Records up to the head: a change there is found even if the chain behind it was rewritten.
        closed: The log was closed in good order, or at least says so.
        torn: Bytes at the end that are no whole record: a crash, or a writer at work.
        gaps: Gap records: places where a crash or a full disk kept facts from being written.
        lost: Facts that those gaps count.
        problem: The first place where the relation is not what was written; nothing behind it was read.
    """

    relation: str
    records: int = 0
    first: str = ""
    last: str = ""
    sealed: int = 0
    closed: bool = False
    torn: int = 0
    gaps: int = 0
    lost: int = 0
    problem: Problem | None = None


@dataclass(slots=True)
class Report:
    """What was found in one log."""

    name: str
    relations: list[RelationReport] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether no relation has a problem."""
        return all(report.problem is None for report in self.relations)


def verify(path: Path, *, archived: bool = False) -> Report:
    """Check every relation of a log, and return what was found.

    With ``archived``, the first segments of a relation may have been moved elsewhere.

    Raises:
        AuditError: The directory holds no audit log.
        OSError: It cannot be read.
    """
    directory = LogDirectory(path)
    identity = directory.identity()
    if not directory.relations:
        raise AuditError(f"{path}: no records; is this an audit log?")
    report = Report(identity.name)
    for files in directory.relations:
        report.relations.append(_RelationCheck(directory, identity, files).run(archived))
    return report


class _Found(Exception):
    """The first problem of a relation."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class _RelationCheck:
    """Reads the segments of one relation in order."""

    def __init__(self, directory: LogDirectory, identity: LogIdentity, files: RelationFiles) -> None:
        self._directory = directory
        self._identity = identity
        self._files = files
        self._report = RelationReport(files.stem)
        self._walk = Walk()
        self._head: Head | None = None

    def run(self, archived: bool) -> RelationReport:
        """Read everything; the first problem ends up in the report."""
        files, report = self._files, self._report
        try:
            # The head is read first: of a log that is being written, it names a prefix of what is read after it.
            self._head = self._load_head()
            first = files.numbers[0] if files.numbers else 1
            if first != 1 and archived:
                self._walk = self._start_at(first)
                first_seq = self._walk.seq
            else:
                first, first_seq = 1, 0
            last = files.numbers[-1] if files.numbers else 1
            for number in range(first, last + 1):
                self._read_segment(number, is_last=number == last)
            self._check_end(segment_name(files.stem, last), first_seq)
        except _Found as exc:
            report.problem = exc.problem
        except ChainBroken as exc:
            report.problem = exc.problem
        report.sealed = self._head.seq if self._head else 0
        report.closed = self._walk.closed
        report.torn = self._walk.torn
        return report

    def _load_head(self) -> Head | None:
        try:
            return self._directory.head(self._files)
        except AuditError as exc:
            raise _Found(Problem(head_name(self._files.stem), 0, 0, "a head", str(exc))) from exc

    def _start_at(self, number: int) -> Walk:
        """Return a walk that trusts the first record of a segment, whose predecessors are archived."""
        name = segment_name(self._files.stem, number)
        with self._directory.open(name) as fd:
            raw = next(read_lines(fd), None)
        try:
            if raw is None:
                raise BadRecord("a record", "an empty file")
            record = Record.parse(raw)
        except BadRecord as exc:
            raise _Found(Problem(name, 1, 0, exc.expected, exc.found)) from exc
        return Walk(max(record.number("seq") - 1, 0), record.text("prev"))

    def _read_segment(self, number: int, *, is_last: bool) -> None:
        name, walk, report = segment_name(self._files.stem, number), self._walk, self._report
        try:
            with self._directory.open(name) as fd:
                for record in walk.records(fd, name):
                    if walk.line == 1:
                        self._check_begin(record, name, number)
                    self._check_head(name, number)
                    report.records += 1
                    report.first = report.first or record.text("time")
                    report.last = record.text("time")
                    if record.fields["kind"] == "gap":
                        report.gaps += 1
                        report.lost += record.number("facts")
        except FileNotFoundError as exc:
            raise _Found(Problem(name, 0, 0, "a file", "none")) from exc
        except AuditError as exc:
            raise _Found(Problem(name, 0, 0, "a plain file", str(exc))) from exc
        if not is_last and (not walk.ended or walk.torn or walk.open_line):
            raise _Found(Problem(name, 0, walk.good, "a segment record 'end', whole, at the end", "something else"))

    def _check_begin(self, record: Record, name: str, number: int) -> None:
        expected = {"log": self._identity.name, "log_id": self._identity.log_id, "segment": number}
        for key, value in expected.items():
            if record.fields.get(key) != value:
                raise _Found(Problem(name, 1, 0, f"{key} {value!a}", f"{record.fields.get(key)!a}"))
        relation = record.text("relation")
        if stem_of(relation) != self._files.stem:
            raise _Found(Problem(name, 1, 0, f"files named {stem_of(relation)}", self._files.stem))
        self._report.relation = relation

    def _check_head(self, name: str, number: int) -> None:
        head, walk = self._head, self._walk
        if head is None or walk.seq != head.seq:
            return
        there = Head(walk.seq, walk.leaf, number, walk.good)
        if there != head:
            expected = f"record {head.seq} with hash {head.hash} to end at byte {head.offset} of segment {head.segment}"
            raise _Found(Problem(name, walk.line, walk.good, expected, f"{there.hash}, byte {there.offset}"))

    def _check_end(self, name: str, first_seq: int) -> None:
        head, walk = self._head, self._walk
        if walk.debris and walk.torn > MAX_TORN_BYTES:
            raise _Found(walk.debris)
        if head is None:
            # Only a process that was killed while it began the relation leaves one record and no head.
            if walk.seq > 1:
                raise _Found(Problem(head_name(self._files.stem), 0, 0, "a head", "none"))
        elif walk.seq < head.seq:
            found = f"the end after record {walk.seq}" + (f" and {walk.torn} bytes" if walk.torn else "")
            raise _Found(Problem(name, 0, walk.good, f"{head.seq} records, as the head says", found))
        elif head.seq <= first_seq:
            raise _Found(Problem(head_name(self._files.stem), 0, 0, f"a head after record {first_seq}", "an older one"))
