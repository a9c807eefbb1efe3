"""The file that a relation appends to, and the note beside it that says how far the chain reaches."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from caprpc.audit.record import FieldValue
from caprpc.audit.storage import Storage, head_name, segment_name
from caprpc.errors import AuditError

WriteFunction = Callable[[int, bytes], int]
"""``os.write``, or what a test puts in its place."""

SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""Size above which a segment ends: it verifies in a second or two, and archives in handy pieces."""

_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """A point of the chain: the record ``seq`` has the leaf hash ``hash`` and ends at ``offset`` of ``segment``."""

    seq: int
    hash: str
    segment: int
    offset: int

    def encode(self) -> bytes:
        """Return the content of a head file."""
        return json.dumps({"caprpc": 1, "kind": "head", **asdict(self)}).encode("ascii") + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> "Head":
        """Read the content of a head file.

        Raises:
            AuditError: It is not one.
        """
        try:
            found = json.loads(data)
            head = cls(found["seq"], found["hash"], found["segment"], found["offset"])
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise AuditError("not a head of an audit log") from exc
        numbers = (head.seq, head.segment, head.offset)
        if any(type(number) is not int or number < 0 for number in numbers) or head.encode() != data:
            raise AuditError("not a head of an audit log")
        return head


@dataclass(frozen=True, slots=True)
class Debris:
    """What is behind the last whole record: its length, its SHA-256 so far, and whether a newline ends it."""

    length: int
    digest: "hashlib._Hash"
    ended: bool

    def gap(self, facts: int) -> tuple[bytes, int, dict[str, FieldValue]]:
        """Return what ends its last line, its whole length then, and the fields of the record that accounts for it."""
        end = b"" if self.ended else b"\n"
        self.digest.update(end)
        length = self.length + len(end)
        event, digest = "torn" if length else "unwritten", self.digest.hexdigest()
        return end, length, {"kind": "gap", "event": event, "facts": facts, "bytes": length, "digest": digest}


class Segment:
    """One file of a relation, open for appending.

    Invariant: its first ``good`` bytes are whole records of the chain; what is behind them, a crash or a failed
    write left there, and a ``gap`` record has to account for it before anything else is appended.
    """

    __slots__ = ("_storage", "fd", "good", "max_bytes", "number", "rotate_at", "stem", "write")

    def __init__(
        self, storage: Storage, stem: str, number: int, *, fd: int, good: int, max_bytes: int, write: WriteFunction
    ) -> None:
        self._storage = storage
        self.write = write
        self.stem = stem
        self.number = number
        self.fd = fd
        self.good = good
        self.max_bytes = max_bytes
        self.rotate_at = max_bytes

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self.fd < 0

    def close(self) -> None:
        """Close the file; writing to it fails from now on."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def name(self) -> str:
        """Name of the file in its directory."""
        return segment_name(self.stem, self.number)

    def append(self, data: bytes) -> int:
        """Write as much as the system takes, and return how much; the caller moves ``good``.

        Raises:
            OSError: Nothing at all was written.
        """
        return self.finish(data, self.write(self.fd, data))

    def finish(self, data: bytes, written: int) -> int:
        """Go on after a short write as long as that makes progress, and return how much is written in all.

        An error after the first bytes shows as a short count.
        """
        while written < len(data):
            try:
                step = self.write(self.fd, data[written:])
            except OSError:
                return written
            if step <= 0:
                return written
            written += step
        return written

    def mendable(self) -> "Debris":
        """Complete the last whole line if only its newline is missing, and return what is behind it.

        Raises:
            AuditError: The file is shorter than what was written to it.
            OSError: The disk failed.
        """
        fd = self._storage.open_read(self.name)
        try:
            size = os.fstat(fd).st_size
            if size < self.good:
                raise AuditError(f"{self.name}: {size} bytes, expected {self.good} or more: someone cut the audit log")
            if self.good and os.pread(fd, 1, self.good - 1) != b"\n":
                if size == self.good and self.write(self.fd, b"\n") != 1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self.good += 1
                size = max(size, self.good)
            return Debris(size - self.good, digest_of(fd, self.good, size), os.pread(fd, 1, size - 1) == b"\n")
        finally:
            os.close(fd)

    def cannot_write(self, exc: OSError) -> AuditError:
        """Return the error for a record that could not be written."""
        if self.closed:
            return AuditError(f"{self.name}: the audit log is closed")
        return AuditError(f"{self.name}: cannot write to the audit log: {exc.strerror or exc}")

    def check_place(self) -> None:
        """Check that the name in the directory still leads to the file we write, in its full length.

        Raises:
            AuditError: Someone moved, replaced or cut it.
        """
        if not self._storage.is_still(self.name, self.fd):
            raise AuditError(f"{self.name}: the audit log was moved or replaced while it was being written")
        # What is good is read first: another thread may write while this one looks.
        good = self.good
        size = os.fstat(self.fd).st_size
        if size < good:
            raise AuditError(f"{self.name}: {size} bytes, expected {good} or more: someone cut the audit log")

    def successor(self, first_line: bytes) -> "Segment":
        """Write the next segment with its first record under a scratch name; ``adopt`` gives it its own.

        Raises:
            OSError: The record could not be written whole; nothing is left behind.
        """
        return begin_segment(
            self._storage, self.stem, self.number + 1, first_line, max_bytes=self.max_bytes, write=self.write
        )

    def adopt(self) -> None:
        """Give this segment, made by ``successor``, its final name."""
        self._storage.rename(f"{self.name}.tmp", self.name)

    def discard(self) -> None:
        """Remove this segment, made by ``successor``, again."""
        self._storage.remove(f"{self.name}.tmp")
        self.close()

    def save_head(self, head: Head) -> None:
        """Note beside the segments that the chain reached this record; the records before must be synced."""
        self._storage.replace(head_name(self.stem), head.encode())


def whole_lines(data: bytes, written: int) -> tuple[int, list[bytes]]:
    """Return the lines of which all but the newline is among the first bytes, and how many bytes these are."""
    whole = written if data[written : written + 1] == b"\n" else data.rfind(b"\n", 0, written) + 1
    return whole, data[:whole].splitlines()


def digest_of(fd: int, start: int, end: int) -> "hashlib._Hash":
    """Return the SHA-256 of the bytes of a file from ``start`` to ``end``."""
    digest = hashlib.sha256()
    while start < end:
        chunk = os.pread(fd, min(_CHUNK_BYTES, end - start), start)
        if not chunk:
            break
        digest.update(chunk)
        start += len(chunk)
    return digest


def begin_segment(
    storage: Storage, stem: str, number: int, first_line: bytes, *, max_bytes: int, write: WriteFunction
) -> Segment:
    """Write a segment that holds one record, durably, under a scratch name; ``adopt`` gives it its own.

    Raises:
        OSError: The record could not be written whole; nothing is left behind.
    """
    scratch = f"{segment_name(stem, number)}.tmp"
    storage.remove(scratch)
    fd = storage.create(scratch)
    size = len(first_line) + 1
    segment = Segment(storage, stem, number, fd=fd, good=size, max_bytes=max_bytes, write=write)
    try:
        written = segment.append(first_line + b"\n")
        if written != size:
            raise OSError(errno.ENOSPC, f"{written} of {size} bytes written")
        os.fdatasync(fd)
    except BaseException:
        segment.discard()
        raise
    return segment
