"""Finds records in a log for people and programs; a line that is no record is shown as such, not hidden."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from caprpc.audit.directory import LogDirectory, RelationFiles
from caprpc.audit.reader import SHORTEST_RECORD_BYTES, BadRecord, Record, read_lines
from caprpc.audit.storage import parse_segment_name, segment_name
from caprpc.errors import AuditError


@dataclass(frozen=True, slots=True)
class Entry:
    """A record, or a place where there is none.

    Attributes:
        file: Name of the file in the log's directory.
        line: Its line, counted from 1.
        text: The record as it is written, empty for damage.
        record: The record, None for damage.
        relation: The principal whose relation the file holds, or ``general``.
        damage: Why the line is no record.
    """

    file: str
    line: int
    text: str
    record: Record | None
    relation: str = ""
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records to find; an empty text selects all."""

    peer: str = ""
    """Part of the principal."""
    kind: str = ""
    """Exact kind."""
    decision: str = ""
    """``permit`` or ``deny``."""
    member: str = ""
    """Exact member."""
    reason: str = ""
    """Exact reason."""
    since: str = ""
    """Earliest time, as ``time`` is written in records."""
    until: str = ""
    """Latest time, in the same form."""
    reference: str = ""
    """A reference number, also one inside of a count of refusals."""

    def matches(self, entry: Entry) -> bool:
        """Return whether a record is selected; damage always is."""
        record = entry.record
        if record is None:
            return True
        return (
            (not self.kind or record.text("kind") == self.kind)
            and (not self.decision or record.text("decision") == self.decision)
            and (not self.member or record.text("member") == self.member)
            and (not self.reason or record.text("reason") == self.reason)
            and (not self.since or record.text("time") >= self.since)
            and (not self.until or record.text("time") <= self.until)
            and (not self.peer or self.peer in record.text("peer") or self.peer in entry.relation)
            and (not self.reference or self._has_reference(record))
        )

    def _has_reference(self, record: Record) -> bool:
        return record.text("reference") == self.reference or self.reference in record.text("references").split()


def select(path: Path, selection: Selection) -> Iterator[Entry]:
    """Return the selected records of all relations in order of time, and every damaged line.

    Raises:
        AuditError: A file of the log is not a plain file.
        OSError: The log cannot be read.
    """
    directory = LogDirectory(path)
    sources = [_timed(directory, files) for files in directory.relations]
    for _, entry in heapq.merge(*sources, key=lambda item: item[0]):
        if selection.matches(entry):
            yield entry


def record_at(directory: LogDirectory, file: str, line: int) -> Record:
    """Return the record on a line, counted from 1, of a file.

    Raises:
        AuditError: There is none.
        OSError: The file cannot be read.
    """
    if parse_segment_name(file) is None:
        raise AuditError(f"{directory.path / file}: no file of an audit log")
    with directory.open(file) as fd:
        for number, raw in enumerate(read_lines(fd), 1):
            if number == line:
                try:
                    return Record.parse(raw)
                except BadRecord as exc:
                    raise AuditError(f"{directory.path / file}:{line}: no record: {exc}") from exc
    raise AuditError(f"{directory.path / file}:{line}: no such line")


class Follower:
    """Finds the records that were written since the last time it was asked.

    Invariant: each whole line behind those that were there at first is returned once, in the order of its relation.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._relations: dict[str, str] = {}
        for _ in self._new(skip=True):
            """What is there already was shown by others."""

    def poll(self) -> Iterator[Entry]:
        """Return what is new.

        Raises:
            AuditError: A file of the log is not a plain file.
            OSError: The log cannot be read.
        """
        return self._new(skip=False)

    def _new(self, *, skip: bool) -> Iterator[Entry]:
        directory = LogDirectory(self._path)
        for files in directory.relations:
            last, offset = self._places.get(files.stem, (0, 0))
            for number in files.numbers:
                if number < last:
                    continue
                offset = offset if number == last else 0
                for entry, end in self._lines(directory, files.stem, number, offset):
                    offset = end
                    if not skip:
                        yield entry
                self._places[files.stem] = (number, offset)

    def _lines(self, directory: LogDirectory, stem: str, number: int, offset: int) -> Iterator[tuple[Entry, int]]:
        name = segment_name(stem, number)
        with directory.open(name) as fd:
            for raw in read_lines(fd, offset):
                if not raw.ended:
                    return
                end = raw.offset + raw.length + 1
                try:
                    record = Record.parse(raw)
                except BadRecord as exc:
                    yield Entry(name, 0, "", None, damage=f"{raw.length} bytes that are no record: {exc}"), end
                    continue
                self._relations[stem] = record.text("relation") or self._relations.get(stem, "")
                yield Entry(name, 0, raw.data.decode("ascii"), record, self._relations[stem]), end


def _timed(directory: LogDirectory, files: RelationFiles) -> Iterator[tuple[str, Entry]]:
    """Return entries with the time to sort them by; lines in a row that are no records are one entry."""
    time = relation = ""
    for number in files.numbers:
        name = segment_name(files.stem, number)
        damaged: BadRecord | None = None
        first, size = 0, 0
        with directory.open(name) as fd:
            for line, raw in enumerate(read_lines(fd), 1):
                try:
                    record = None if damaged and raw.length < SHORTEST_RECORD_BYTES else Record.parse(raw)
                except BadRecord as exc:
                    record = None
                    damaged, first = (damaged, first) if damaged else (exc, line)
                if record is None:
                    size += raw.length + raw.ended
                    continue
                if damaged:
                    yield time, _damage(name, first, size, damaged)
                    damaged, size = None, 0
                time, relation = record.text("time"), record.text("relation") or relation
                yield time, Entry(name, line, raw.data.decode("ascii"), record, relation)
        if damaged:
            yield time, _damage(name, first, size, damaged)


def _damage(name: str, line: int, size: int, reason: BadRecord) -> Entry:
    return Entry(name, line, "", None, damage=f"{size} bytes that are no record: {reason}")
