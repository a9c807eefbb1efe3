"""Checks that an audit log is what was written: every record, in order, none changed, none missing before the head.

Memory stays bounded for any input, and each relation is read once. Audit log reference, section 4.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from caprpc.audit.blame import blamed
from caprpc.audit.chain import ChainBroken, Problem, Walk
from caprpc.audit.checkpoints import origin_of_stem
from caprpc.audit.directory import LogDirectory, LogIdentity, RelationFiles
from caprpc.audit.notes import VerifierKey
from caprpc.audit.reader import BadRecord, Record, read_lines
from caprpc.audit.record import MAX_LINE_BYTES
from caprpc.audit.sealed import SealBroken, SealCheck
from caprpc.audit.segment import Head
from caprpc.audit.storage import head_name, segment_name, stem_of
from caprpc.errors import AuditError

MAX_TORN_BYTES: Final = 4 * MAX_LINE_BYTES
"""A killed process leaves one unfinished line, and a disk that stays full a few more; a power cut may leave more, but
then the next start accounts for it in a gap record."""


MAX_UNSIGNED_S: Final = 60.0
"""A tick signs about once a second: more time than this in unsigned records is none of a running log."""


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
        signed: Records up to the last checkpoint: a change there is found even if chain and head were rewritten.
        unsigned: Records behind it.
        unsigned_s: Seconds from the first of these to the last: a killed process leaves about one.
        keys: Keys that signed, in order, as ``name+id+base64``.
        trust: ``given`` if one of the keys that the caller trusts has signed, ``own`` if nobody said which to trust,
            ``none`` if it cannot be decided: nothing is signed, or none of the trusted keys is for this relation.
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
    signed: int = 0
    unsigned: int = 0
    unsigned_s: float = 0.0
    keys: list[str] = field(default_factory=list)
    trust: str = "none"
    damaged_checkpoints: int = 0
    problem: Problem | None = None

    @property
    def verdict(self) -> str:
        """``intact``, or what was done: edited, inserted, deleted, reordered, truncated, forged, or left unsigned."""
        return self.problem.kind if self.problem else "intact"


@dataclass(slots=True)
class Report:
    """What was found in one log."""

    name: str
    relations: list[RelationReport] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether no relation has a problem."""
        return all(report.problem is None for report in self.relations)


def verify(path: Path, *, archived: bool = False, keys: Iterable[VerifierKey] | None = None) -> Report:
    """Check every relation of a log, and return what was found.

    With ``archived``, the first segments of a relation may have been moved elsewhere. With ``keys``, one of them must
    have signed; without, the key counts that the first record of a relation names.

    Raises:
        AuditError: The directory holds no audit log.
        OSError: It cannot be read.
    """
    directory = LogDirectory(path)
    identity = directory.identity()
    if not directory.relations:
        raise AuditError(f"{path}: no records; is this an audit log?")
    report = Report(identity.name)
    trusted = frozenset(keys) if keys is not None else None
    for files in directory.relations:
        report.relations.append(_RelationCheck(directory, identity, files, trusted).run(archived))
    report.relations += _gone(directory, identity, trusted or ())
    return report


def _gone(directory: LogDirectory, identity: LogIdentity, keys: Iterable[VerifierKey]) -> list[RelationReport]:
    """Return a report for each relation of this log that signed with one of the keys, and is not there any more."""
    there = {files.stem for files in directory.relations}
    prefix = origin_of_stem(identity.log_id, "")
    stems = {key.name.removeprefix(prefix) for key in keys if key.name.startswith(prefix)} - there
    expected = "the files of a relation whose key was given"
    return [RelationReport(stem, problem=Problem(stem, 0, 0, expected, "none", "deleted")) for stem in sorted(stems)]


class _Found(Exception):
    """The first problem of a relation."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class _RelationCheck:
    """Reads the segments of one relation in order."""

    def __init__(
        self,
        directory: LogDirectory,
        identity: LogIdentity,
        files: RelationFiles,
        trusted: frozenset[VerifierKey] | None,
    ) -> None:
        self._directory = directory
        self._identity = identity
        self._files = files
        self._report = RelationReport(files.stem)
        self._walk = Walk()
        self._head: Head | None = None
        origin = origin_of_stem(identity.log_id, files.stem)
        self._trusted = {key for key in trusted if key.name == origin} if trusted is not None else None
        self._seal = SealCheck(directory, files.stem, origin, self._trusted)
        self._unsigned_from: float | None = None
        self._unsigned_s = 0.0
        self._named_key = False
        self._doubt: SealBroken | None = None
        self._walk_from = 0

    def run(self, archived: bool) -> RelationReport:
        """Read everything; the first problem ends up in the report."""
        files, report = self._files, self._report
        try:
            # The head is read first: of a log that is being written, it names a prefix of what is read after it.
            self._head = self._load_head()
            self._seal.begin()
            first = files.numbers[0] if files.numbers else 1
            if first != 1 and archived:
                self._walk = self._start_at(first)
                first_seq = self._walk.seq
                self._walk_from = first_seq
                self._seal.begin_at(first, first_seq)
            else:
                first, first_seq = 1, 0
            last = files.numbers[-1] if files.numbers else 1
            for number in range(first, last + 1):
                self._read_segment(number, is_last=number == last)
            self._check_end(segment_name(files.stem, last), first_seq)
            self._check_signed(first_seq)
        except ChainBroken as exc:
            if exc.doubted is None:
                report.problem = self._named(exc.problem)
            else:
                report.problem = blamed(self._directory, self._head, self._walk, exc.problem, exc.doubted)
        except (_Found, SealBroken) as exc:
            report.problem = exc.problem
        report.sealed = self._head.seq if self._head else 0
        report.closed = self._walk.closed
        report.torn = self._walk.torn
        report.signed = self._seal.signed
        report.unsigned = max(self._walk.seq - max(self._seal.signed, self._walk_from), 0)
        report.unsigned_s = round(self._unsigned_s, 3) if report.unsigned and self._seal.signed else 0.0
        report.keys = [str(key) for key in self._seal.keys]
        report.damaged_checkpoints = self._seal.damaged
        if self._seal.signed:
            report.trust = "given" if self._seal.vouched else "own" if self._trusted is None else "none"
        return report

    def _named(self, problem: Problem) -> Problem:
        """Return a problem with what was done to the log: a record that comes later was not deleted."""
        if problem.kind != "deleted" or not problem.line:
            return problem
        start = b'{"seq":%d,' % (self._walk.seq + 1)
        with suppress(AuditError, OSError), self._directory.open(problem.file) as fd:
            if any(raw.data.startswith(start) for raw in read_lines(fd, problem.offset)):
                return replace(problem, kind="reordered")
        return problem

    def _check_signed(self, first_seq: int) -> None:
        """Take note of what no checkpoint covers; more than a running log leaves is a finding."""
        seal, walk = self._seal, self._walk
        if self._doubt is not None:
            raise self._doubt
        seal.end(walk.seq)
        if self._trusted and not seal.vouched:
            expected = f"a signature of {' or '.join(sorted(map(str, self._trusted)))}"
            raise _Found(Problem(self._files.stem, 0, 0, expected, "none", "forged"))
        if seal.tree is None or not self._named_key or seal.signed == walk.seq:
            return
        left = walk.seq - max(seal.signed, first_seq)
        if self._unsigned_s > MAX_UNSIGNED_S:
            what = f"{left} records behind it"
            name = head_name(self._files.stem)
            raise _Found(Problem(name, 0, 0, "a checkpoint over the last records", what, "unsigned"))

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
                    self._check_seal(record)
                    report.records += 1
                    report.first = report.first or record.text("time")
                    report.last = record.text("time")
                    if record.fields["kind"] == "gap":
                        report.gaps += 1
                        report.lost += record.number("facts")
        except FileNotFoundError as exc:
            raise _Found(Problem(name, 0, 0, "a file", "none", "deleted")) from exc
        except AuditError as exc:
            raise _Found(Problem(name, 0, 0, "a plain file", str(exc))) from exc
        if not is_last and (not walk.ended or walk.torn or walk.open_line):
            expected = "a segment record 'end', whole, at the end"
            raise _Found(Problem(name, 0, walk.good, expected, "something else", "truncated"))

    def _check_seal(self, record: Record) -> None:
        seal = self._seal
        if self._doubt is not None:
            raise self._doubt
        before = seal.signed
        try:
            seal.add(record)
        except SealBroken as exc:
            # If the next record does not follow, this one was edited where it stands, and that says more.
            self._doubt = exc
        mono = record.number("mono") / 1e9
        if seal.signed != before or record.fields["seq"] == 1 or record.text("event") == "resume":
            # The next record is the first unsigned fact, however long it lets one wait for it.
            self._unsigned_from, self._unsigned_s = None, 0.0
        elif self._unsigned_from is None:
            self._unsigned_from = mono
        else:
            self._unsigned_s = max(self._unsigned_s, mono - self._unsigned_from)
        if record.fields["kind"] == "segment" and "digest" in record.fields:
            self._named_key = True

    def _check_begin(self, record: Record, name: str, number: int) -> None:
        expected = {"log": self._identity.name, "log_id": self._identity.log_id, "segment": number}
        for key, value in expected.items():
            if record.fields.get(key) != value:
                raise _Found(Problem(name, 1, 0, f"{key} {value!a}", f"{record.fields.get(key)!a}", "forged"))
        relation = record.text("relation")
        if stem_of(relation) != self._files.stem:
            raise _Found(Problem(name, 1, 0, f"files named {stem_of(relation)}", self._files.stem, "forged"))
        self._report.relation = relation

    def _check_head(self, name: str, number: int) -> None:
        head, walk = self._head, self._walk
        if head is None or walk.seq != head.seq:
            return
        there = Head(walk.seq, walk.leaf, number, walk.good)
        if there != head:
            expected = f"record {head.seq} with hash {head.hash} to end at byte {head.offset} of segment {head.segment}"
            found = f"{there.hash}, byte {there.offset}: changed at or before this record"
            raise _Found(Problem(name, walk.line, walk.good, expected, found, "forged"))

    def _check_end(self, name: str, first_seq: int) -> None:
        head, walk = self._head, self._walk
        if walk.debris and walk.torn > MAX_TORN_BYTES:
            raise _Found(walk.debris)
        if head is None:
            # Only a process that was killed while it began the relation leaves one record and no head.
            if walk.seq > 1:
                raise _Found(Problem(head_name(self._files.stem), 0, 0, "a head", "none", "deleted"))
        elif walk.seq < head.seq:
            found = f"the end after record {walk.seq}" + (f" and {walk.torn} bytes" if walk.torn else "")
            expected = f"{head.seq} records, as the head says"
            raise _Found(Problem(name, 0, walk.good, expected, found, "truncated"))
        elif head.seq <= first_seq:
            expected = f"a head after record {first_seq}"
            raise _Found(Problem(head_name(self._files.stem), 0, 0, expected, "an older one", "forged"))
