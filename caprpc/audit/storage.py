"""The directory of an audit log: who owns it, what its files are called, and how they are opened.

Every file is reached through the directory's descriptor, is a regular file of ours that nobody else may read, and
is never a link: a directory that is swapped under a running server cannot redirect its records.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from caprpc.errors import AuditError
from caprpc.lasting import sync_directory

GENERAL: Final = "general"
"""Relation of the facts that concern no proved peer."""

_LOCK: Final = "lock"
IDENTITY_NAME: Final = "log.json"
"""The file that says which log the directory holds."""

_KEY: Final = "redact.key"
_KEY_BYTES: Final = 32
_OTHERS: Final = 0o077
_SEGMENT: Final = re.compile(r"(?P<stem>[a-z0-9][a-z0-9.-]{0,80})\.(?P<number>[0-9]{6})\.jsonl")
_HEAD: Final = re.compile(r"(?P<stem>[a-z0-9][a-z0-9.-]{0,80})\.head")


def stem_of(relation: str) -> str:
    """Return the file name stem of a relation: readable, and different for each principal."""
    if relation == GENERAL:
        return GENERAL
    readable = re.sub(r"[^a-z0-9]+", "-", relation.lower()).strip("-")[:48] or "peer"
    digest = hashlib.sha256(relation.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{readable}-{digest[:16]}"


def segment_name(stem: str, number: int) -> str:
    """Return the name of the ``number``-th file of a relation, counted from 1."""
    return f"{stem}.{number:06d}.jsonl"


def head_name(stem: str) -> str:
    """Return the name of the file that says how far a relation was known to reach."""
    return f"{stem}.head"


def parse_segment_name(name: str) -> tuple[str, int] | None:
    """Return stem and number of a segment's file name, or None for any other name."""
    match = _SEGMENT.fullmatch(name)
    return (match["stem"], int(match["number"])) if match else None


def parse_head_name(name: str) -> str | None:
    """Return the stem of a head's file name, or None for any other name."""
    match = _HEAD.fullmatch(name)
    return match["stem"] if match else None


class Storage:
    """One audit directory that this process owns: no other process can have it at the same time.

    Attributes:
        path: The directory, for messages.
        name: Name of the log, as given when it was first opened.
        log_id: 128 random bits in hexadecimal that tell this log from every other one.
        key: Secret of this log for the digests of arguments.
    """

    def __init__(self, path: Path, name: str, directory: int, lock: int) -> None:
        self.path = path
        self.name = name
        self._directory = directory
        self._lock = lock
        self.log_id = self._identify()
        self.key = self._load_key()

    @classmethod
    def claim(cls, path: Path, name: str) -> "Storage":
        """Create the directory if it is missing, and take it for this process.

        Raises:
            AuditError: The directory belongs to someone else, others may enter it, another process writes to it,
                or it holds the log of another name.
        """
        try:
            _make_directory(path)
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            raise AuditError(f"{path}: cannot open the audit directory: {exc.strerror}") from exc
        lock = -1
        try:
            _check_private(os.fstat(directory), path, stat.S_ISDIR, "0700")
            lock = _open_private(directory, path, _LOCK, os.O_RDWR | os.O_CREAT)
            _take(lock, path)
            return cls(path, name, directory, lock)
        except BaseException:
            _close(lock)
            _close(directory)
            raise

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._directory < 0

    def names(self) -> list[str]:
        """Return the names of all files in the directory."""
        return sorted(os.listdir(self._directory))

    def open_append(self, name: str) -> int:
        """Open an existing file for appending, and check that it is ours alone."""
        return _open_private(self._directory, self.path, name, os.O_WRONLY | os.O_APPEND)

    def open_read(self, name: str) -> int:
        """Open an existing file for reading, and check that it is ours alone."""
        return _open_private(self._directory, self.path, name, os.O_RDONLY)

    def create(self, name: str) -> int:
        """Create a file that must not exist, for appending."""
        return _open_private(self._directory, self.path, name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)

    def rename(self, old: str, new: str) -> None:
        """Give a file its final name, and make that last."""
        os.rename(old, new, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self.sync_names()

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)

    def replace(self, name: str, data: bytes) -> None:
        """Write a small file so that a reader finds either the old or the new content, whole."""
        scratch = f"{name}.tmp"
        self.remove(scratch)
        fd = self.create(scratch)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(fd)
        finally:
            os.close(fd)
        os.rename(scratch, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def sync_names(self) -> None:
        """Have every name in the directory last over a power cut, and lead to what it leads to now."""
        os.fsync(self._directory)

    def read_small(self, name: str, max_bytes: int = 4096) -> bytes | None:
        """Return the content of a small file, or None if there is none."""
        try:
            fd = self.open_read(name)
        except FileNotFoundError:
            return None
        try:
            return os.read(fd, max_bytes)
        finally:
            os.close(fd)

    def is_still(self, name: str, fd: int) -> bool:
        """Return whether ``name`` still leads to the file that ``fd`` has open."""
        try:
            there = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        here = os.fstat(fd)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def close(self) -> None:
        """Let another process have the directory."""
        _close(self._lock)
        _close(self._directory)
        self._lock = self._directory = -1

    def _identify(self) -> str:
        data = self.read_small(IDENTITY_NAME)
        if data is None:
            fresh = {"caprpc": 1, "kind": "audit", "name": self.name, "id": secrets.token_hex(16)}
            data = json.dumps(fresh).encode("ascii") + b"\n"
            self.replace(IDENTITY_NAME, data)
            self.sync_names()
        try:
            found = json.loads(data)
            name, log_id = str(found["name"]), str(found["id"])
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise AuditError(f"{self.path / IDENTITY_NAME}: not the identity of an audit log") from exc
        if name != self.name:
            raise AuditError(
                f"{self.path}: holds the audit log of {name!r}, not of {self.name!r}; give each role its own directory"
            )
        return log_id

    def _load_key(self) -> bytes:
        key = self.read_small(_KEY)
        if key is None:
            key = secrets.token_bytes(_KEY_BYTES)
            self.replace(_KEY, key)
            self.sync_names()
        if len(key) != _KEY_BYTES:
            raise AuditError(f"{self.path / _KEY}: {len(key)} bytes, expected {_KEY_BYTES}")
        return key


@contextlib.contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Turn an ``OSError`` into an ``AuditError`` that says where and what."""
    try:
        yield
    except OSError as exc:
        raise AuditError(f"{path}: cannot {what}: {exc.strerror or exc}") from exc


def _make_directory(path: Path) -> None:
    """Create a directory and what is missing above it, so that a power cut leaves it there.

    Each lasts before the next is made. The deepest that is there already may be of a process that was killed before
    it did so.
    """
    missing = [place for place in (path, *path.parents) if not place.exists()]
    there = missing[-1].parent if missing else path
    with contextlib.suppress(PermissionError):
        sync_directory(there.parent)
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
        sync_directory(place.parent)


def _open_private(directory: int, path: Path, name: str, flags: int) -> int:
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise AuditError(f"{path / name}: cannot open: {exc.strerror}") from exc
    try:
        _check_private(os.fstat(fd), path / name, stat.S_ISREG, "0600")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_private(status: os.stat_result, path: Path, is_right: Callable[[int], bool], mode: str) -> None:
    if not is_right(status.st_mode):
        raise AuditError(f"{path}: not of the expected file type; an audit log has only plain files in one directory")
    if status.st_uid != os.geteuid():
        raise AuditError(f"{path}: belongs to user {status.st_uid}, expected {os.geteuid()}, who runs this process")
    if status.st_mode & _OTHERS:
        raise AuditError(f"{path}: mode {stat.S_IMODE(status.st_mode):04o} lets others in; chmod {mode} it")
    if stat.S_ISREG(status.st_mode) and status.st_nlink != 1:
        raise AuditError(f"{path}: has {status.st_nlink} names (hard links), expected 1")


def _take(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        owner = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        raise AuditError(f"{path}: {_conflict(owner)}") from exc
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)


def _conflict(owner: str) -> str:
    if owner == str(os.getpid()):
        return (
            "this process already writes to this audit log; make all of its connections with one caprpc.Client, or give"
            " the other client or server an audit directory of its own (audit=...)"
        )
    who = f"process {owner}" if owner.isdigit() else "another process"
    return f"{who} writes to this audit log; give each process its own directory, or stop that one"


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
