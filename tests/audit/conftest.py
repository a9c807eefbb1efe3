"""A log in a fresh directory, with a clock that stands still until it is moved."""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from caprpc.audit import AuditLog, verify
from caprpc.audit.storage import stem_of
from caprpc.errors import AuditError

PEER = "spiffe://org-b.example/treasury/feed"


@dataclass
class FakeClock:
    wall: int = 1_780_000_000_123_456_789
    monotonic: int = 5_000_000_000

    def wall_ns(self):
        return self.wall

    def monotonic_ns(self):
        return self.monotonic

    def advance(self, seconds):
        self.wall += int(seconds * 1e9)
        self.monotonic += int(seconds * 1e9)


@dataclass
class Logs:
    """Opens logs in one directory and reads what they wrote."""

    path: Path
    clock: FakeClock = field(default_factory=FakeClock)
    opened: list[AuditLog] = field(default_factory=list)

    def open(self, name="server", **options):
        log = AuditLog.open(
            self.path, name=name, wall_ns=self.clock.wall_ns, monotonic_ns=self.clock.monotonic_ns, **options
        )
        self.opened.append(log)
        return log

    def abandon(self, log):
        """Let go of the directory as a killed process does: nothing more is written."""
        for opened in log._opened.values():
            opened.relation._segment.close()
        log._storage.close()
        self.opened.remove(log)

    def files(self, relation=PEER):
        return sorted(self.path.glob(f"{stem_of(relation)}.*.jsonl"))

    def lines(self, relation=PEER):
        return [line for file in self.files(relation) for line in file.read_bytes().split(b"\n") if line]

    def records(self, relation=PEER):
        return [json.loads(line) for line in self.lines(relation)]

    def records_with(self, field, relation=PEER):
        """The records that have a field; lines that are no records are passed over."""
        found = []
        for line in self.lines(relation):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if field in record:
                found.append(record)
        return found

    def head(self, relation=PEER):
        return self.path / f"{stem_of(relation)}.head"

    def verify(self, **options):
        return verify(self.path, **options)

    def problem(self):
        """The first problem of the first relation that has one."""
        return next((found.problem for found in self.verify().relations if found.problem), None)


@pytest.fixture
def logs(tmp_path):
    made = Logs(tmp_path / "audit")
    yield made
    for log in made.opened:
        # A test may have left its disk broken.
        with contextlib.suppress(AuditError):
            log.close()


@pytest.fixture
def decision():
    """Static fields of a decision record."""
    return {
        "kind": "decision",
        "peer": PEER,
        "connection": "a" * 32,
        "facet": "Counter",
        "decision": "permit",
        "rule": "org-b.toml:23",
        "policy": "sha256:" + "c" * 64,
        "operation": "call",
        "member": "line_counter",
    }


@pytest.fixture
def refusal(decision):
    return {**decision, "decision": "deny", "reason": "not-granted"}
