"""Files that hold keys and trust: read only if nobody else could have touched them, written whole or not at all."""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from caprpc.errors import ConfigurationError
from caprpc.lasting import sync_directory

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
"""Largest file that is read: a revocation list of 400,000 entries."""

SECRET_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644
DIRECTORY_MODE: Final = 0o700


def read_owned(path: Path, *, secret: bool, hint: str = "") -> bytes:
    """Return the content of a regular file that only we can write and, if it is secret, only we can read.

    What was checked is what is read: everything happens on one descriptor.

    Raises:
        ConfigurationError: The file is missing, too large, no regular file, or others may touch it.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not hang. A secret may not be reached through a link somebody else can turn.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if secret else 0))
    except OSError as exc:
        raise ConfigurationError(f"cannot be read: {exc.strerror}", where=str(path), hint=hint) from exc
    try:
        _check_status(path, os.fstat(descriptor), secret=secret)
    except ConfigurationError:
        os.close(descriptor)
        raise
    with open(descriptor, "rb") as file:
        return file.read()


def check_directory(path: Path, *, hint: str = "") -> None:
    """Check that the directory exists and that nobody else can exchange files in it.

    Raises:
        ConfigurationError: It does not, or they can.
    """
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise ConfigurationError(f"directory cannot be read: {exc.strerror}", where=str(path), hint=hint) from exc
    if not stat.S_ISDIR(mode):
        raise ConfigurationError("not a directory", where=str(path), hint=hint)
    if mode & 0o022 and not mode & stat.S_ISVTX:
        raise ConfigurationError(
            f"directory is writable by others (mode {stat.S_IMODE(mode):04o})",
            where=str(path),
            hint=f"chmod go-w {path}",
        )


def write_new(path: Path, content: bytes, *, mode: int = PUBLIC_MODE) -> None:
    """Write a file that must not exist yet.

    Raises:
        ConfigurationError: It exists; nothing was written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except FileExistsError as exc:
        raise ConfigurationError(
            "exists, and is not overwritten", where=str(path), hint="choose another name, or move it away"
        ) from exc
    with open(descriptor, "wb") as file:
        _fill(file.fileno(), content, mode)


def replace(path: Path, content: bytes, *, mode: int = PUBLIC_MODE) -> None:
    """Write a file in one step: a reader sees the old content or the new one, also after a crash."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with open(descriptor, "wb") as file:
            _fill(file.fileno(), content, mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory that only we can enter; its parents are made too.

    Raises:
        ConfigurationError: It exists and is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=DIRECTORY_MODE)
    except FileExistsError as exc:
        if not path.is_dir() or any(path.iterdir()):
            raise ConfigurationError(
                "exists, and is not overwritten", where=str(path), hint="choose another directory, or move it away"
            ) from exc
        path.chmod(DIRECTORY_MODE)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes from changing the directory in the same way meanwhile."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_status(path: Path, status: os.stat_result, *, secret: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError("not a regular file", where=str(path), hint="copy the file itself here")
    if status.st_mode & (0o077 if secret else 0o022):
        does = "readable or writable" if secret else "writable"
        raise ConfigurationError(
            f"{does} by others (mode {stat.S_IMODE(status.st_mode):04o})",
            where=str(path),
            hint=f"chmod {SECRET_MODE if secret else PUBLIC_MODE:04o} {path}",
        )
    if secret and status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"private key belongs to user {status.st_uid}, not to us ({os.geteuid()})",
            where=str(path),
            hint=f"chown {os.geteuid()} {path}",
        )
    if status.st_size > MAX_FILE_BYTES:
        raise ConfigurationError(
            f"{status.st_size} bytes, at most {MAX_FILE_BYTES} allowed",
            where=str(path),
            hint="keep in it what belongs there: certificates, keys and lists are a few KiB each",
        )


def _fill(descriptor: int, content: bytes, mode: int) -> None:
    # The umask may have taken bits that the owner needs, and never adds one.
    os.fchmod(descriptor, mode)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)
