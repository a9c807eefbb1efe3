"""Files of a policy directory: opened once, judged on the descriptor, read from it, and nothing trusted by name.

The rules are those of OpenSSH's StrictModes: who can write a policy can grant themselves everything, so a file or
directory that others can write is as bad as no policy at all.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from caprpc.policy.problems import Problems, Where
from caprpc.policy.text import refused_characters

MAX_FILE_BYTES: Final = 1024 * 1024
"""One file. A policy that a person can review is a hundred times smaller."""

_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""No link is followed, and a pipe that lies there cannot block us."""
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def opened_directory(directory: Path, problems: Problems) -> Iterator[int | None]:
    """Open a policy directory and yield its descriptor, or None if it cannot be trusted.

    The directory itself must not be a link, must belong to us or root, and may not be writable by others. The one above
    may not be writable by everybody (a sticky one such as ``/tmp`` may); a group that may write there could at worst
    put back another directory of ours, for everything in it must belong to us, too.
    """
    try:
        descriptor = os.open(directory, _OPEN_DIRECTORY)
    except OSError as exc:
        problems.add(
            str(directory), _open_error("directory", exc), _OPEN_HINTS.get(exc.errno or 0, ""), code="unsafe-file"
        )
        yield None
        return
    try:
        _judge(os.fstat(descriptor), str(directory), "directory", problems)
        parent = os.stat("..", dir_fd=descriptor)
        if parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX:
            problems.add(
                str(directory),
                "the directory above is writable by everybody, who could put another in place of this one",
                "chmod o-w the directory above",
                code="unsafe-file",
            )
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(directory: int, name: str, problems: Problems) -> bytes | None:
    """Return the bytes of a regular file in an opened directory, or None after noting why it is refused."""
    try:
        descriptor = os.open(name, _OPEN_FILE, dir_fd=directory)
    except OSError as exc:
        problems.add(name, _open_error("file", exc), _OPEN_HINTS.get(exc.errno or 0, ""), code="unsafe-file")
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            problems.add(name, "not a regular file", "replace it by a file", code="unsafe-file")
            return None
        if not _judge(status, name, "file", problems):
            return None
        return _read(descriptor, name, problems)
    finally:
        os.close(descriptor)


def decode(content: bytes, name: str, problems: Problems) -> str | None:
    """Return the text of a file, or None after noting what in it must not be there."""
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        where = Where(f"{name}:1", 1)
        said = "the file begins with a byte order mark"
        problems.add(where, said, "save it as UTF-8 without a BOM", code="unreadable-text")
        return None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        before = content[: exc.start].decode("utf-8").split("\n")
        where = Where(f"{name}:{len(before)}", len(before[-1]) + 1)
        said = f"not UTF-8: byte 0x{content[exc.start]:02x}"
        problems.add(where, said, "save the file as UTF-8", code="unreadable-text")
        return None
    refused = refused_characters(text)
    for line, column, character in refused:
        hint = "save the file with Unix line ends" if "U+000D" in character else "delete the character"
        said = f"{character} is refused: a reader cannot see what it does"
        problems.add(Where(f"{name}:{line}", column), said, hint, code="unreadable-text")
    if refused:
        return None
    problems.read(name, text)
    return text


def _read(descriptor: int, name: str, problems: Problems) -> bytes | None:
    chunks: list[bytes] = []
    size = 0
    while chunk := os.read(descriptor, MAX_FILE_BYTES + 1 - size):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_FILE_BYTES:
            problems.add(name, f"more than {MAX_FILE_BYTES} bytes", "split the policy by peer", code="unsafe-file")
            return None
    return b"".join(chunks)


def _judge(status: os.stat_result, name: str, what: str, problems: Problems) -> bool:
    """Note whether others than us and root could have written this."""
    good = True
    if status.st_uid not in {0, os.geteuid()}:
        problems.add(
            name,
            f"the {what} belongs to user {status.st_uid}",
            "it must belong to this user or to root",
            code="unsafe-file",
        )
        good = False
    if status.st_mode & _OTHERS_WRITE:
        mode = stat.S_IMODE(status.st_mode)
        problems.add(
            name, f"the {what} is writable by group or others (mode {mode:04o})", "chmod go-w it", code="unsafe-file"
        )
        good = False
    return good


def _open_error(what: str, exc: OSError) -> str:
    if exc.errno == errno.ELOOP:
        return f"the {what} is a symbolic link"
    return f"the {what} cannot be opened: {os.strerror(exc.errno or 0)}"


_OPEN_HINTS: Final = {
    errno.ELOOP: "links are refused: what was reviewed must be what is read; use a copy",
    errno.ENOTDIR: "name a directory that is not a link and holds caprpc.toml",
    errno.ENOENT: "create it, or correct the name",
    errno.EACCES: "the service must be able to read it",
}
