"""The file of acknowledged changes beside a store: by it a store that came back from an old backup is known.

One line for each change with a checksum, appended and synced after the change is kept and before anybody is told. A
store that has fewer changes than this file was replaced by an older copy; what was revoked since is written here.
"""

import os
import re
import stat
import zlib
from pathlib import Path
from typing import Final

from caprpc.errors import ConfigurationError, StoreError
from caprpc.lasting import sync_directory

SUFFIX: Final = ".acknowledged"

_HEADER: Final = re.compile(r"caprpc-acknowledged 2 ([0-9a-f]{32})")
_LINE: Final = re.compile(r"(([0-9]{1,18}) (granted|revoked) (G-[A-Z2-9]{12})) ([0-9a-f]{8})")
_CUT: Final = re.compile(
    r"[0-9]{0,18}|[0-9]{1,18} ([a-z]{0,7}|(granted|revoked) (G?|G-[A-Z2-9]{0,12}|G-[A-Z2-9]{12} [0-9a-f]{0,7}))"
)
"""What is left of a line whose writer was killed."""


class Acknowledged:
    """What has been acknowledged, as far as the file says.

    Attributes:
        store_id: Of the store that it belongs to.
        revision: The newest one that was acknowledged.
        granted: Every grant that was acknowledged.
        revoked: Every grant whose revocation was.
    """

    __slots__ = ("granted", "path", "revision", "revoked", "store_id")

    def __init__(self, path: Path, store_id: str) -> None:
        self.path = path
        self.store_id = store_id
        self.revision = 0
        self.granted: set[str] = set()
        self.revoked: set[str] = set()

    @classmethod
    def read(cls, path: Path) -> "Acknowledged | None":
        """Return what the file says, None if there is none.

        Raises:
            ConfigurationError: It is no such file, or others may touch it.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise ConfigurationError(
                f"cannot be read: {exc.strerror}",
                where=str(path),
                hint="it has to be a regular file of the user that this process runs as",
            ) from exc
        with open(descriptor, encoding="ascii", errors="replace") as file:
            check_private(path, os.fstat(descriptor))
            lines = file.read().split("\n")
        header = _HEADER.fullmatch(lines[0])
        if header is None:
            raise ConfigurationError(
                "is no file of acknowledged changes", where=str(path), hint="put back the one that was there"
            )
        found = cls(path, header[1])
        for line in lines[1:]:
            change = _LINE.fullmatch(line)
            if change is not None and change[5] == _check(change[1]):
                found._take(int(change[2]), change[3], change[4])
            elif _CUT.fullmatch(line.rstrip("\0")) is None:
                raise ConfigurationError(
                    "is damaged: a line is not as it was written", where=str(path), hint="put back a copy that is whole"
                )
            # Else it is the line of a process that was killed, or of a machine that lost power when the file had its
            # new length and not yet all that it was to hold: not acknowledged.
        return found

    @classmethod
    def create(cls, path: Path, store_id: str) -> "Acknowledged":
        """Make the file of a new store in one step; the directory is locked."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        _write(temporary, f"caprpc-acknowledged 2 {store_id}\n", os.O_TRUNC)
        temporary.replace(path)
        sync_directory(path.parent)
        return cls(path, store_id)

    def append(self, changes: list[tuple[int, str, str]]) -> None:
        """Add changes (revision, ``granted`` or ``revoked``, grant id), and return once they last.

        Raises:
            StoreError: They could not be written.
        """
        lines = [f"{revision} {what} {grant_id}" for revision, what, grant_id in changes]
        text = "".join(f"\n{line} {_check(line)}" for line in lines) + "\n"
        try:
            # It begins with a newline: what a crash has left of a line before must not spoil this one.
            _write(self.path, text, os.O_APPEND, create=False)
        except OSError as exc:
            raise StoreError(f"{self.path}: a change could not be acknowledged: {exc.strerror or exc}") from exc

    def _take(self, revision: int, what: str, grant_id: str) -> None:
        self.revision = max(self.revision, revision)
        (self.revoked if what == "revoked" else self.granted).add(grant_id)


def _check(line: str) -> str:
    """Return the checksum of a line: it finds a bit that flipped, and guards nothing."""
    return f"{zlib.crc32(line.encode('ascii')):08x}"


def check_private(path: Path, status: os.stat_result) -> None:
    """Check that a file is a plain one of ours that nobody else may read or write.

    Raises:
        ConfigurationError: It is not.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError("not a regular file", where=str(path), hint="name a file, or none that exists")
    if status.st_mode & 0o077:
        raise ConfigurationError(
            f"readable or writable by others (mode {stat.S_IMODE(status.st_mode):04o})",
            where=str(path),
            hint=f"chmod 0600 {path}",
        )
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"belongs to user {status.st_uid}, not to us ({os.geteuid()})",
            where=str(path),
            hint=f"run as user {status.st_uid}, or: chown {os.geteuid()} {path}",
        )


def _write(path: Path, text: str, how: int, *, create: bool = True) -> None:
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | how | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        data = text.encode("ascii")
        if os.write(descriptor, data) != len(data):
            raise OSError("written in part only")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
