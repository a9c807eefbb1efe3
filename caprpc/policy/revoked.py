"""The list of who is out: names and keys in one file that is read apart from the policies.

Taking somebody out must not wait for a review, nor fail because a policy does not load. The file has one word on each
line: a SPIFFE ID, the name of a policy, or ``sha256:`` and the digest of a leaf certificate's key; ``#`` begins a
comment. If it cannot be read, or has anything else in it, everybody is out until it can.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from caprpc.policy.names import anchor_fault, label_fault, spiffe_fault

MAX_BYTES: Final = 4 * 1024 * 1024
"""Some 50,000 entries. A longer list wants a shorter life of certificates."""

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

_State = tuple[int, int, int, int, int]
"""What changes when a file is replaced or written: device, inode, size, and times of both kinds."""


@dataclass(frozen=True, slots=True)
class RevokedList:
    """What a file said when it was read last; replaced as a whole.

    Attributes:
        entries: Every word in it.
        fault: Why it cannot be used, with file and line; then everybody is out.
    """

    entries: frozenset[str]
    fault: str = ""

    def refuses(self, principal: str, leaf_key: str, policy: str) -> str:
        """Return why a peer is out, for the operator; empty if it is not."""
        if self.fault:
            return f"nobody is let in: {self.fault}"
        for word in (principal, leaf_key, policy):
            if word in self.entries:
                return f"{word} is on the list of the revoked"
        return ""


NOBODY: Final = RevokedList(frozenset())


class RevokedFile:
    """Reads the file again whenever it has changed; owns the newest list.

    Without a path there is no such list, and ``current`` refuses nobody.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._state: _State | None = None
        self.current = NOBODY
        self.refresh()

    def refresh(self) -> bool:
        """Look at the file; return whether the list in force has changed."""
        if self.path is None:
            return False
        state, before = _state_of(self.path), self.current
        if state is not None and state == self._state:
            return False
        self._state = state
        self.current = _read(self.path)
        if self.current.fault:
            # It is looked at again however it looks from outside: a mended permission changes nothing else.
            self._state = None
        return self.current != before


def _state_of(path: Path) -> _State | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read(path: Path) -> RevokedList:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        return _broken(f"{path} cannot be opened: {os.strerror(exc.errno or 0)}")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return _broken(f"{path} is not a regular file")
        if status.st_uid not in {0, os.geteuid()} or status.st_mode & _OTHERS_WRITE:
            return _broken(f"{path} can be written by others than its owner, this user or root")
        content = b""
        while chunk := os.read(descriptor, MAX_BYTES + 1 - len(content)):
            content += chunk
    except OSError as exc:
        return _broken(f"{path} cannot be read: {os.strerror(exc.errno or 0)}")
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        return _broken(f"{path} has more than {MAX_BYTES} bytes")
    return _parse(content, path)


def _parse(content: bytes, path: Path) -> RevokedList:
    if content and not content.endswith(b"\n"):
        # Half a line could be the beginning of another name.
        return _broken(f"{path} does not end with a newline: it may be half written")
    entries = set()
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), 1):
        word = line.partition("#")[0].strip(" \t")
        if not word:
            continue
        fault = _fault(word)
        if fault:
            return _broken(f"{path}:{number} {fault}")
        entries.add(word)
    return RevokedList(frozenset(entries))


def _fault(word: str) -> str:
    if "://" in word:
        return spiffe_fault(word)
    return anchor_fault(word) if ":" in word else label_fault(word)


def _broken(fault: str) -> RevokedList:
    return RevokedList(frozenset(), fault)
