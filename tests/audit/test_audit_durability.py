"""A record is as durable as the policy says when its write returns, and never less."""

import os
import threading

import pytest

from caprpc.audit import NO_EXTRA
from caprpc.errors import AuditError
from tests.audit.conftest import PEER


class Disk:
    """Counts flushes, and can hold them until told, or fail them."""

    def __init__(self, monkeypatch):
        self.flushes = 0
        self.error = None
        self.free = threading.Event()
        self.free.set()
        self.began = threading.Event()
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, fd):
        self.flushes += 1
        self.began.set()
        assert self.free.wait(30)
        if self.error:
            raise self.error
        self._real(fd)


@pytest.fixture
def log(logs):
    opened = logs.open()
    opened.relation(PEER)
    return opened


@pytest.fixture
def disk(log, monkeypatch):
    return Disk(monkeypatch)


def writer(log, decision, durability):
    relation = log.lasting(PEER, durability)
    template = relation.template(**decision)
    return relation, lambda question: relation.write([(template, question, NO_EXTRA)])


def test_os_waits_for_no_disk(log, disk, decision):
    _, write = writer(log, decision, "os")
    write(1)
    assert disk.flushes == 0


@pytest.mark.parametrize("durability", ["group", "sync"])
def test_every_kind_of_record_is_on_the_disk_when_its_write_returns(log, disk, decision, durability):
    relation, write = writer(log, decision, durability)
    write(1)
    relation.append(relation.template(**decision), 2)
    relation.record("open", peer=PEER)
    assert disk.flushes == 3


@pytest.mark.parametrize("durability", ["group", "sync"])
def test_a_write_does_not_return_before_the_flush_has_ended(log, disk, decision, durability):
    _, write = writer(log, decision, durability)
    disk.free.clear()
    thread = threading.Thread(target=write, args=(1,))
    thread.start()
    assert disk.began.wait(30)
    assert thread.is_alive()
    disk.free.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_flush_that_began_before_a_write_does_not_count_for_it(log, disk, decision):
    _, write = writer(log, decision, "group")
    disk.free.clear()
    first = threading.Thread(target=write, args=(1,))
    first.start()
    assert disk.began.wait(30)
    before = log.relation(PEER).written
    others = [threading.Thread(target=write, args=(question,)) for question in range(2, 8)]
    for one in others:
        one.start()
    while log.relation(PEER).written < before + len(others):
        os.sched_yield()
    disk.free.set()
    for one in (first, *others):
        one.join(30)
    assert disk.flushes == 2


@pytest.mark.parametrize("durability", ["group", "sync"])
def test_a_failed_flush_refuses_the_call_and_every_later_one(log, disk, decision, durability):
    _, write = writer(log, decision, durability)
    disk.error = OSError(5, "Input/output error")
    with pytest.raises(AuditError, match="takes no more records"):
        write(1)
    disk.error = None
    with pytest.raises(AuditError):
        write(2)
