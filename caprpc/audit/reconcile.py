"""Compares the logs of both sides of a relation: finds the calls that only one of them has.

Each side records what the other one asked of it, and at the end of a connection how many questions it asked itself.
The connection id and the numbers of the questions are the same on both sides.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from caprpc.audit.query import Selection, select
from caprpc.audit.reader import Record
from caprpc.errors import AuditError

MOST_CONNECTIONS: Final = 1_000_000
"""Connections in one log that are held in memory; a log of more is to be given in parts."""

_MOST_SPANS: Final = 10_000
"""Runs of question numbers kept for one connection; only a log that was made up has more."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that one log has and the other has not.

    Attributes:
        only: ``ours`` or ``theirs``: the log that has it.
        connection: Its id, the same on both sides.
        what: ``connection``, ``asked`` (the asker counts it, the other has no decision of it) or ``decided`` (a
            decision on a question that the asker never asked).
        questions: First and last number, 0 for a whole connection.
    """

    only: str
    connection: str
    what: str
    questions: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Comparison:
    """What both logs say about each other.

    Attributes:
        connections: Connections that both have.
        calls: Calls that both have.
        differences: What only one has.
        undecided: Connections of which one log does not say enough, and why.
    """

    connections: int = 0
    calls: int = 0
    differences: list[Difference] = field(default_factory=list)
    undecided: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Side:
    """One connection in one log."""

    opened: bool = False
    asked: int | None = None
    lost: bool = False
    decided: list[list[int]] = field(default_factory=list)
    counted: list[tuple[int, int, int]] = field(default_factory=list)
    has_permits: bool = False

    def take(self, record: Record) -> None:
        kind = record.fields["kind"]
        if kind == "open":
            self.opened = True
        elif kind == "close":
            self.asked = record.number("count")
            self.lost = record.text("reason") == "lost"
        elif kind == "decision":
            self.has_permits = self.has_permits or record.text("decision") == "permit"
            if "count" in record.fields:
                self.counted.append((record.number("first"), record.number("last"), record.number("count")))
            else:
                self._decide(record.number("question"))

    def _decide(self, question: int) -> None:
        spans = self.decided
        if spans and spans[-1][0] <= question <= spans[-1][1] + 1:
            spans[-1][1] = max(spans[-1][1], question)
        elif len(spans) < _MOST_SPANS:
            spans.append([question, question])

    def covers(self) -> list[tuple[int, int]]:
        """Return the runs of numbers that are decided, in order, those that only a count stands for among them."""
        return _merged([*self._decided(), *((first, last) for first, last, _ in self.counted if first <= last)])

    def uncounted(self, asked: int) -> int:
        """Return how many of the first ``asked`` questions lie in a run that is counted, and were not counted."""
        known = sum(min(count, last - first + 1) for first, last, count in self.counted if first <= last)
        known += _length(_merged(self._decided()), asked)
        return max(0, _length(self.covers(), asked) - known)

    def overcounted(self) -> list[tuple[int, int]]:
        """Return the runs for which more is counted than there are questions in them, or that end before they begin."""
        return [(first, last) for first, last, count in self.counted if count > last - first + 1]

    def _decided(self) -> list[tuple[int, int]]:
        return [(first, last) for first, last in self.decided]


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return merged


def _length(spans: list[tuple[int, int]], most: int) -> int:
    """Return how many numbers up to ``most`` lie in spans that do not overlap."""
    return sum(min(last, most) - first + 1 for first, last in spans if first <= most)


def reconcile(ours: Path, theirs: Path) -> Comparison:
    """Compare our log with theirs, over the connections that either of them has with the other.

    Neither is verified: a log that is not intact proves nothing.

    Raises:
        AuditError: A log is none, or too large.
        OSError: It cannot be read.
    """
    left, right = _sides(ours), _sides(theirs)
    shared = left.keys() & right.keys()
    result = Comparison(connections=len(shared))
    peers = {relation for relation, _ in left.values()}, {relation for relation, _ in right.values()}
    for only, one, other, known in (("ours", left, right, peers[1]), ("theirs", right, left, peers[0])):
        for connection, (_, side) in one.items():
            # A log holds the connections with all peers; only a log with one relation is known to be about the other.
            if connection not in other and side.opened and len(known) == 1 and len(peers[only == "theirs"]) == 1:
                result.differences.append(Difference(only, connection, "connection"))
    for connection in sorted(shared):
        a, b = left[connection][1], right[connection][1]
        _compare(result, connection, ("ours", a), ("theirs", b))
        _compare(result, connection, ("theirs", b), ("ours", a))
    return result


def _sides(path: Path) -> dict[str, tuple[str, _Side]]:
    found: dict[str, tuple[str, _Side]] = {}
    for record, relation in _records(path):
        connection = record.text("connection")
        if connection:
            if connection not in found and len(found) >= MOST_CONNECTIONS:
                raise AuditError(f"{path}: more than {MOST_CONNECTIONS} connections; give it in parts")
            found.setdefault(connection, (relation, _Side()))[1].take(record)
    return found


def _records(path: Path) -> Iterator[tuple[Record, str]]:
    for entry in select(path, Selection()):
        if entry.record is None:
            raise AuditError(f"{path}: {entry.file}:{entry.line}: {entry.damage}")
        yield entry.record, entry.relation


def _compare(result: Comparison, connection: str, asker: tuple[str, _Side], answerer: tuple[str, _Side]) -> None:
    """Compare what one side asked with what the other decided."""
    (asking, asked), (deciding, decided) = asker, answerer
    if asked.asked is None:
        if decided.decided or decided.counted:
            result.undecided.append((connection, f"{asking} does not say how it ended, so not how much was asked"))
        return
    spans = decided.covers()
    made_up = [(max(first, asked.asked + 1), last) for first, last in spans if last > asked.asked]
    made_up += decided.overcounted()
    result.differences += [Difference(deciding, connection, "decided", span) for span in made_up]
    uncounted = decided.uncounted(asked.asked)
    result.calls += _length(spans, asked.asked) - uncounted
    missing, at = [], 1
    if uncounted:
        # The count says how many, and where the first and the last of them are; which, only the asker knows.
        text = f"{deciding} counts {uncounted} fewer than there are questions in what it counts"
        if asked.lost or decided.lost or not decided.has_permits:
            result.undecided.append((connection, text))
        else:
            missing += [(max(first, 1), min(last, asked.asked)) for first, last, _ in decided.counted if first <= last]
    for first, last in spans:
        if first > asked.asked:
            break
        if at < first:
            missing.append((at, first - 1))
        at = max(at, last + 1)
    if at <= asked.asked:
        # What was under way when the connection was lost may never have come.
        if not (asked.lost or decided.lost):
            missing.append((at, asked.asked))
        else:
            result.undecided.append((connection, f"questions {at} to {asked.asked} were under way when it was lost"))
    if missing and not decided.has_permits:
        result.undecided.append((connection, f"{deciding} records no permitted calls (level deny)"))
        return
    result.differences += [Difference(asking, connection, "asked", span) for span in missing]
