"""A disk that is full or failing stops calls, loses nothing that was acknowledged, and is accounted for afterwards."""

import errno
import os

import pytest

from caprpc.audit import extra
from caprpc.errors import AuditError
from tests.audit.conftest import PEER


class Disk:
    """``os.write`` that fails on demand: after ``room`` more bytes, or with at most ``most`` bytes for each call."""

    def __init__(self):
        self.room = None
        self.most = None
        self.error = errno.ENOSPC
        self.calls = 0

    def __call__(self, fd, data):
        self.calls += 1
        if self.most is not None:
            data = data[: self.most]
        if self.room is not None:
            if not self.room:
                raise OSError(self.error, os.strerror(self.error))
            data = data[: self.room]
            self.room -= len(data)
        return os.write(fd, data)


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def relation(logs, disk):
    return logs.open(write=disk).relation(PEER)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_failed_write_raises_and_writes_nothing(logs, disk, relation, decision, error):
    disk.room, disk.error = 0, error
    relation.add(relation.template(**decision), 1)
    with pytest.raises(AuditError, match=os.strerror(error)):
        relation.commit()
    assert len(logs.records()) == 1
    assert logs.problem() is None


def test_record_raises_too(disk, relation):
    disk.room = 0
    with pytest.raises(AuditError, match="cannot write to the audit log"):
        relation.record("open", peer=PEER)


def test_one_failed_call_is_one_attempt(disk, relation, decision):
    disk.room = 0
    before = disk.calls
    for question in range(10):
        with pytest.raises(AuditError):
            relation.append(relation.template(**decision), question)
    assert disk.calls - before <= 10


def test_log_recovers_with_a_gap_that_counts_what_is_missing(logs, disk, relation, decision):
    template = relation.template(**decision)
    relation.append(template, 1)
    disk.room = 0
    for question in (2, 3):
        with pytest.raises(AuditError):
            relation.append(template, question)
    for question in (4, 5):
        relation.add(template, question)
    with pytest.raises(AuditError):
        relation.commit()
    disk.room = None
    relation.append(template, 6)
    kinds = [(r["kind"], r.get("event"), r.get("facts"), r.get("question")) for r in logs.records()[1:]]
    assert kinds == [
        ("decision", None, None, 1),
        ("gap", "unwritten", 4, None),
        ("decision", None, None, 6),
    ]
    assert logs.problem() is None


@pytest.mark.parametrize("count", [1, 3])
def test_write_that_stops_at_any_byte(logs, disk, decision, count):
    """Whatever part of a burst reached the disk, the burst is refused, and the log verifies at once and afterwards."""
    relation = logs.open(write=disk).relation(PEER)
    template = relation.template(kind="decision", facet="F", decision="permit")
    relation.append(template, 0)
    size = logs.files()[0].stat().st_size
    relation.append(template, 1)
    length = (logs.files()[0].stat().st_size - size) * count
    rooms = range(0, length, count * count)
    for room in rooms:
        disk.room = room
        for question in range(count):
            relation.add(template, 1000 + question)
        with pytest.raises(AuditError):
            relation.commit()
        assert logs.problem() is None, room
        disk.room = None
        relation.append(template, room)
        assert logs.problem() is None, room
    gaps = logs.records_with("facts")
    whole = [r for r in logs.records_with("question") if r["question"] >= 1000]
    assert len(gaps) == len(rooms)
    # Records of refused bursts are either whole or counted as missing.
    assert sum(gap["facts"] for gap in gaps) + len(whole) == len(rooms) * count


def test_gap_that_cannot_be_written_is_tried_again(logs, disk, relation, decision):
    template = relation.template(**decision)
    for room in (100, 50, 30, 0, 200):
        disk.room = room
        with pytest.raises(AuditError):
            relation.append(template, room)
        assert logs.problem() is None
    disk.room = None
    relation.append(template, 7)
    gap = logs.records_with("facts")[0]
    assert gap["facts"] == 5
    assert logs.verify().relations[1].lost == 5
    assert logs.problem() is None


def test_short_writes_are_finished(logs, disk, relation, decision):
    disk.most = 7
    template = relation.template(**decision)
    for question in range(5):
        relation.add(template, question)
    relation.commit()
    assert [r["question"] for r in logs.records_with("question")] == [0, 1, 2, 3, 4]
    assert logs.records_with("facts") == []
    assert logs.problem() is None


def test_write_that_takes_nothing_does_not_loop(logs, disk, relation, decision):
    disk.most = 0
    with pytest.raises(AuditError):
        relation.append(relation.template(**decision), 1)


def test_restart_after_a_failed_write(logs, disk, relation, decision):
    disk.room = 33
    with pytest.raises(AuditError):
        relation.append(relation.template(**decision), 1)
    logs.abandon(logs.opened[0])
    log = logs.open()
    log.relation(PEER).append(relation.template(**decision), 2)
    log.close()
    assert [r["question"] for r in logs.records_with("question")] == [2]
    assert logs.verify().intact


@pytest.mark.parametrize("room", range(0, 900, 7))
def test_rotation_that_fails_does_not_fail_the_call(logs, disk, decision, room):
    log = logs.open(write=disk, max_segment_bytes=1_000)
    relation = log.relation(PEER)
    template = relation.template(**decision)
    relation.append(template, 1)
    line = len(logs.lines()[-1]) + 1
    disk.room = line + room
    relation.append(template, 2)
    disk.room = None
    written = [1, 2]
    try:
        relation.append(template, 3)
        written.append(3)
    except AuditError:
        # The end of the segment lacks its newline: only a restart can go on.
        assert logs.problem() is None
        logs.abandon(log)
        log = logs.open()
        log.relation(PEER).append(template, 3)
        written.append(3)
    log.close()
    assert [r["question"] for r in logs.records_with("question")] == written
    assert logs.verify().intact


def test_disk_that_is_full_at_start_refuses_to_open(logs, disk):
    disk.room = 10
    with pytest.raises(AuditError, match=r"10 of .* bytes written"):
        logs.open(write=disk)
    disk.room = None
    logs.open(write=disk)
    assert logs.problem() is None


def test_refusals_that_were_counted_survive_a_failed_write(logs, disk, relation, refusal):
    template = relation.template(**refusal)
    more = extra(reference="R-7KQ2M9XW4HTA")
    for question in range(130):
        relation.append(template, question, more)
    disk.room = 0
    logs.clock.advance(100)
    with pytest.raises(AuditError):
        logs.opened[0].tick(logs.clock.monotonic / 1e9)
    disk.room = None
    logs.opened[0].tick(logs.clock.monotonic / 1e9)
    assert sum(r.get("count", 1) for r in logs.records_with("decision")) == 130
    assert logs.problem() is None


def test_relation_takes_nothing_more_when_its_file_was_cut(logs, relation, decision):
    template = relation.template(**decision)
    relation.append(template, 1)
    os.truncate(logs.files()[0], 10)
    with pytest.raises(AuditError, match="someone cut the audit log"):
        logs.opened[0].tick(5.0)
    with pytest.raises(AuditError):
        relation.append(template, 2)


@pytest.mark.parametrize("how", ["moved", "removed", "replaced", "linked"])
def test_relation_takes_nothing_more_when_its_file_was_taken_away(logs, relation, decision, how, tmp_path):
    template = relation.template(**decision)
    relation.append(template, 1)
    file = logs.files()[0]
    data = file.read_bytes()
    file.rename(tmp_path / "moved") if how != "removed" else file.unlink()
    if how == "replaced":
        file.write_bytes(data)
    if how == "linked":
        file.symlink_to(tmp_path / "moved")
    with pytest.raises(AuditError, match="moved or replaced"):
        logs.opened[0].tick(5.0)
    with pytest.raises(AuditError, match=r"closed|no more"):
        relation.append(template, 2)


def test_failed_sync_stops_the_relation(logs, relation, decision, monkeypatch):
    template = relation.template(**decision)
    relation.append(template, 1)

    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(AuditError, match="takes no more records"):
        logs.opened[0].tick(5.0)
    monkeypatch.undo()
    with pytest.raises(AuditError):
        relation.append(template, 2)
    logs.opened[0].general.record("open", address="x")


def test_closed_log_takes_no_records(logs, relation, decision):
    logs.opened[0].close()
    for _ in range(2):
        with pytest.raises(AuditError, match="closed"):
            relation.append(relation.template(**decision), 1)
    logs.opened[0].close()
    assert logs.verify().intact
