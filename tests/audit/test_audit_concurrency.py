"""Threads share a log, processes do not."""

import os
import subprocess
import sys
import threading

import pytest

from caprpc.errors import AuditError
from tests.audit.conftest import PEER

THREADS = 8
RECORDS = 200


def in_child(work):
    """Run ``work`` in a forked child; return what it returned, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, str(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text


def test_eight_threads_lose_and_mix_nothing(logs, decision):
    log = logs.open(max_segment_bytes=100_000)
    relation = log.relation(PEER)
    template = relation.template(**decision)
    start, errors = threading.Barrier(THREADS), []

    def write(thread):
        try:
            start.wait()
            for number in range(0, RECORDS, 4):
                for question in range(number, number + 3):
                    relation.add(template, thread * 1_000_000 + question)
                relation.commit()
                relation.append(template, thread * 1_000_000 + number + 3)
                log.tick(number * 1.0)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert not errors
    questions = [record["question"] for record in logs.records_with("question")]
    assert len(questions) == THREADS * RECORDS
    for thread in range(THREADS):
        own = [question % 1_000_000 for question in questions if question // 1_000_000 == thread]
        assert own == list(range(RECORDS))
    assert logs.verify().intact


def test_failed_write_is_reported_to_the_thread_that_added(logs, decision):
    """Another thread's successful commit must not hide that a record of ours is missing."""
    fail = [False]

    def write(fd, data):
        if fail[0]:
            raise OSError(28, "No space left on device")
        return os.write(fd, data)

    relation = logs.open(write=write).relation(PEER)
    template = relation.template(**decision)
    for question in (1, 2):
        relation.add(template, question)

    def other():
        relation.commit()
        relation.append(template, 3)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert [r["question"] for r in logs.records_with("question")] == [3]
    fail[0] = True
    with pytest.raises(AuditError):
        relation.commit()


def test_second_process_is_refused_and_told_who_has_the_log(logs):
    logs.open()
    code = (
        "import sys; from pathlib import Path; from caprpc.audit import AuditLog\n"
        "try: AuditLog.open(Path(sys.argv[1]), name='server')\n"
        "except Exception as exc: print(type(exc).__name__, exc)"
    )
    done = subprocess.run([sys.executable, "-c", code, logs.path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("AuditError")
    assert f"process {os.getpid()} writes to this audit log" in done.stdout


def test_same_process_cannot_open_it_twice(logs):
    logs.open()
    with pytest.raises(AuditError, match=r"this process already writes .* one caprpc\.Client"):
        logs.open()


def test_next_process_may_have_it_after_close(logs):
    logs.open().close()
    logs.open().close()
    assert logs.verify().intact


def test_forked_child_cannot_write(logs, decision):
    log = logs.open()
    relation = log.relation(PEER)
    template = relation.template(**decision)
    relation.append(template, 1)
    before = logs.lines()

    def attempts():
        refused = 0
        for attempt in (
            lambda: relation.append(template, 2),
            lambda: (relation.add(template, 2), relation.add(template, 3), relation.commit()),
            lambda: relation.record("open", peer=PEER),
            lambda: log.tick(9.0),
            lambda: log.relation("spiffe://org-c.example/x"),
            lambda: log.general.record("open"),
        ):
            try:
                attempt()
            except AuditError as exc:
                refused += "forked child" in str(exc)
        log.close()
        return refused

    assert in_child(attempts) == "6"
    assert logs.lines() == before
    relation.append(template, 4)
    log.close()
    assert logs.verify().intact


def test_forked_child_does_not_hang_on_a_lock_that_was_held(logs, decision):
    log = logs.open()
    relation = log.relation(PEER)
    template = relation.template(**decision)

    def attempt():
        try:
            relation.append(template, 2)
        except AuditError:
            return "refused"

    with relation._lock, log._lock, log._syncing:
        assert in_child(attempt) == "refused"


def test_child_does_not_free_the_log_for_others(logs):
    log = logs.open()
    in_child(log.close)
    with pytest.raises(AuditError, match="writes to this audit log"):
        logs.open()
