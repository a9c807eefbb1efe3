"""Tells which of two records was changed, when the second does not name the hash of the first."""

from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Final

from caprpc.audit.chain import Problem, Walk
from caprpc.audit.directory import LogDirectory
from caprpc.audit.reader import BadRecord, Record, read_lines
from caprpc.audit.record import leaf_hash
from caprpc.audit.segment import Head
from caprpc.audit.storage import parse_segment_name, segment_name
from caprpc.errors import AuditError

_PREV: Final = slice(-66, -2)
"""Where the hash of the record before stands in a line."""


def blamed(directory: LogDirectory, head: Head | None, walk: Walk, problem: Problem, second: Record) -> Problem:
    """Return a problem between the last record of a walk and the second with the place of the one that was edited.

    What stands behind tells: the second is as it was written if its successor, or the head, names its hash; and only
    its own ``prev`` was changed if they name what its hash is with the right one. Otherwise nobody can know.
    """
    first = walk.last
    named = _hash_named_behind(directory, head, problem, second)
    if first is not None and named == second.leaf:
        file, line, offset = walk.last_at
        expected = f"hash {second.text('prev')} of record {first.number('seq')}, as the next one says"
        return Problem(file, line, offset, expected, f"hash {walk.leaf}")
    line_before = second.line[: _PREV.start] + walk.leaf.encode() + second.line[_PREV.stop :]
    if named == leaf_hash(line_before):
        return problem
    return replace(problem, found=f"{problem.found}: changed at or before this record")


def _hash_named_behind(directory: LogDirectory, head: Head | None, problem: Problem, record: Record) -> str:
    """Return the hash of a record that its successor names, or the head; empty if neither does."""
    number = record.number("seq")
    successor = _record_at(directory, problem.file, problem.offset, 1)
    place = parse_segment_name(problem.file)
    if successor is None and place is not None:
        successor = _record_at(directory, segment_name(place[0], place[1] + 1), 0, 0)
    if successor is not None and successor.number("seq") == number + 1:
        return successor.text("prev")
    return head.hash if head is not None and head.seq == number else ""


def _record_at(directory: LogDirectory, file: str, offset: int, index: int) -> Record | None:
    """Return the record on a line of a file, counted from a place in it; None if none is there."""
    with suppress(AuditError, OSError, BadRecord), directory.open(file) as fd:
        for raw in islice(read_lines(fd, offset), index, index + 1):
            return Record.parse(raw)
    return None
