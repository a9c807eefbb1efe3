"""Finds the place where a chain goes on after a restart: also after a crash, in the middle of a line or a rotation."""

import os
from dataclasses import dataclass

from caprpc.audit.chain import ChainBroken, Walk
from caprpc.audit.reader import BadRecord, RawLine, Record
from caprpc.audit.record import GENESIS, MAX_LINE_BYTES
from caprpc.audit.segment import Head
from caprpc.audit.storage import Storage, head_name, segment_name
from caprpc.errors import AuditError


@dataclass(frozen=True, slots=True)
class Resumption:
    """The last whole record of a relation, and what the crash left behind it."""

    seq: int
    leaf: str
    segment: int
    good: int
    torn: bool
    ended: bool


def resume(storage: Storage, stem: str, numbers: list[int]) -> Resumption:
    """Check the chain from its last head on, and return where it ends.

    Raises:
        AuditError: The files are not what this process wrote; an auditor has to look at them.
    """
    head = _head(storage, stem, numbers)
    walk, number, offset = Walk(head.seq, head.hash), head.segment, head.offset
    while True:
        name = segment_name(stem, number)
        fd = storage.open_read(name)
        try:
            if number == head.segment and head.seq:
                walk.last = sealed_record(fd, head)
            count = sum(1 for _ in walk.records(fd, name, offset))
        except ChainBroken as exc:
            raise _tampered(storage, str(exc.problem)) from exc
        except BadRecord as exc:
            raise _tampered(storage, f"{name}: {exc}") from exc
        finally:
            os.close(fd)
        if not head.seq and count != 1:
            raise _tampered(storage, f"{head_name(stem)} is missing")
        if walk.ended and walk.torn:
            raise _tampered(storage, f"{name}: {walk.torn} bytes behind the record that ends it")
        if not walk.ended or number + 1 not in numbers:
            return Resumption(walk.seq, walk.leaf, number, walk.good, walk.torn > 0 or walk.open_line, walk.ended)
        number, offset = number + 1, 0


def sealed_record(fd: int, head: Head) -> Record:
    """Return the record that a head names.

    Raises:
        BadRecord: Another one, or none, is at that place.
    """
    start = max(0, head.offset - MAX_LINE_BYTES - 1)
    data = os.pread(fd, head.offset - start, start)
    if start + len(data) != head.offset or not data.endswith(b"\n"):
        raise BadRecord(f"record {head.seq} to end at byte {head.offset}", "no end of a record there")
    line = data[:-1].rpartition(b"\n")[2]
    record = Record.parse(RawLine(head.offset - len(line) - 1, line, len(line), ended=True))
    if record.leaf != head.hash or record.fields["seq"] != head.seq:
        raise BadRecord(f"record {head.seq} with leaf hash {head.hash}", f"seq {record.fields['seq']}, {record.leaf}")
    return record


def _head(storage: Storage, stem: str, numbers: list[int]) -> Head:
    data = storage.read_small(head_name(stem))
    head = Head(0, GENESIS, 1, 0)
    if data is not None:
        try:
            head = Head.parse(data)
        except AuditError as exc:
            raise _tampered(storage, f"{head_name(stem)}: {exc}") from exc
    if head.segment not in numbers:
        raise _tampered(storage, f"{segment_name(stem, head.segment)} is missing")
    return head


def _tampered(storage: Storage, what: str) -> AuditError:
    return AuditError(
        f"{storage.path}: the audit log was changed after it was written: {what}\n"
        f"  hint: keep the directory for an auditor (caprpc audit verify {storage.path}) and start with a new one"
    )
