"""Looking whether a log is still in its place, while another thread writes to it."""

import os
from types import SimpleNamespace

import pytest

from caprpc.audit.segment import Segment
from caprpc.errors import AuditError


@pytest.fixture
def segment(tmp_path):
    """Return what ``check_place`` looks at, over a file of 100 bytes."""
    path = tmp_path / "log"
    path.write_bytes(b"x" * 100)
    fd = os.open(path, os.O_RDWR)
    yield SimpleNamespace(name="log", fd=fd, good=100, _storage=SimpleNamespace(is_still=lambda _name, _fd: True))
    os.close(fd)


def test_record_that_is_written_meanwhile_is_no_cut(segment, monkeypatch):
    fstat = os.fstat

    def slow(fd):
        before = fstat(fd)
        os.pwrite(fd, b"y" * 50, 100)
        segment.good = 150
        return before

    monkeypatch.setattr("caprpc.audit.segment.os.fstat", slow)
    Segment.check_place(segment)


def test_log_that_was_cut_is_found(segment):
    os.ftruncate(segment.fd, 99)
    with pytest.raises(AuditError, match="someone cut the audit log"):
        Segment.check_place(segment)
