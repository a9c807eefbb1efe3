"""A process killed at any system call loses no acknowledged record, and leaves a log that verifies and goes on."""

import os
import signal
import struct

import pytest

from tests.audit.conftest import PEER, Logs

CALLS = ("open", "fdatasync", "fsync", "rename", "unlink", "ftruncate", "pwrite", "mkdir")


class Executioner:
    """Kills the process at its n-th system call of the audit log; a write goes through in part first."""

    def __init__(self, at, part):
        self.left = at
        self.part = part

    def reached(self):
        self.left -= 1
        return self.left < 0

    def write(self, fd, data):
        if self.reached():
            REAL_WRITE(fd, data[: int(len(data) * self.part)])
            os.kill(os.getpid(), signal.SIGKILL)
        return REAL_WRITE(fd, data)

    def watch(self, call):
        def watched(*args, **kwargs):
            if self.reached():
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return watched


REAL_WRITE = os.write


def work(logs, acknowledge, write, decision):
    """Append numbered records over several segments and runs, and tell the parent of each one that is written."""
    question = 0
    for _ in range(2):
        log = logs.open(max_segment_bytes=1_500, write=write)
        relation = log.relation(PEER)
        template = relation.template(**decision)
        for burst in (1, 3, 1):
            for _ in range(burst):
                question += 1
                relation.add(template, question)
            relation.commit()
            REAL_WRITE(acknowledge, struct.pack("<I", question))
        logs.clock.advance(2)
        log.tick(logs.clock.monotonic / 1e9)
        log.close()


def killed_at(path, at, part, decision):
    """Run ``work`` in a child that is killed at its n-th system call; return what it acknowledged, and if it died."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        executioner = Executioner(at, part)
        for name in CALLS:
            setattr(os, name, executioner.watch(getattr(os, name)))
        os.write = executioner.write
        try:
            work(Logs(path), writing, executioner.write, decision)
        finally:
            os._exit(0)
    os.close(writing)
    acknowledged = 0
    while data := os.read(reading, 4):
        acknowledged = struct.unpack("<I", data)[0]
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return acknowledged, os.WIFSIGNALED(status)


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_kill_at_every_system_call(tmp_path, decision, part, first):
    """Every third call from ``first`` on, so that the three tests share the work."""
    at, died = first, True
    while died:
        logs = Logs(tmp_path / f"{at}")
        acknowledged, died = killed_at(logs.path, at, part, decision)
        check(logs, acknowledged, at, decision)
        at += 3
    assert acknowledged == 10
    assert at > 40


def check(logs, acknowledged, at, decision):
    if (logs.path / "log.json").exists() and list(logs.path.glob("*.jsonl")):
        report = logs.verify()
        assert report.intact, (at, report)
    log = logs.open(max_segment_bytes=1_500)
    relation = log.relation(PEER)
    relation.append(relation.template(**decision), 99)
    log.close()
    report = logs.verify()
    assert report.intact, (at, report)
    assert all(found.closed and not found.torn for found in report.relations)
    questions = [record["question"] for record in logs.records_with("question")]
    assert questions[-1] == 99
    assert questions[:-1] == list(range(1, len(questions)))
    assert len(questions) - 1 >= acknowledged, at


@pytest.mark.parametrize("debris", [b'{"seq":9', b"\n\n", b"\x00" * 5_000, b"garbage\nmore\n", b"}", b"x" * 100_000])
def test_debris_of_a_power_cut_is_kept_and_accounted_for(logs, decision, debris):
    log = logs.open()
    relation = log.relation(PEER)
    relation.append(relation.template(**decision), 1)
    logs.abandon(log)
    file = logs.files()[0]
    with file.open("ab") as stream:
        stream.write(debris)
    before = file.read_bytes()
    log = logs.open()
    log.relation(PEER).append(relation.template(**decision), 2)
    log.close()
    assert file.read_bytes().startswith(before)
    gap = next(record for record in logs.records_with("bytes"))
    assert gap["kind"] == "gap"
    assert gap["event"] == "torn"
    assert gap["bytes"] == len(debris) + (not debris.endswith(b"\n"))
    assert [r["question"] for r in logs.records_with("question")] == [1, 2]
    report = logs.verify()
    assert report.intact
    assert report.relations[1].gaps == 1


def test_torn_tail_of_a_killed_process_is_reported_and_no_problem(logs, decision):
    log = logs.open()
    relation = log.relation(PEER)
    relation.append(relation.template(**decision), 1)
    logs.abandon(log)
    with logs.files()[0].open("ab") as stream:
        stream.write(b'{"seq":3,"ti')
    found = logs.verify().relations[1]
    assert (found.problem, found.torn, found.closed) == (None, 12, False)


def test_record_that_lacks_only_its_newline_is_kept(logs, decision):
    log = logs.open()
    relation = log.relation(PEER)
    relation.append(relation.template(**decision), 1)
    logs.abandon(log)
    file = logs.files()[0]
    file.write_bytes(file.read_bytes()[:-1])
    assert logs.problem() is None
    log = logs.open()
    log.relation(PEER)
    log.close()
    assert [r["question"] for r in logs.records_with("question")] == [1]
    assert logs.verify().intact
