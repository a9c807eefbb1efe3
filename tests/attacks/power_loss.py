"""A disk that loses power: what a process does to files is recorded, and every state that it may find is laid out.

What was not synced may be there or not, in any order: each write whole, torn, or as zeros where only the new length
arrived; each new name, new content of a name, and removal by itself. A sync of a file keeps its content, a sync of a
directory its names, and nothing else keeps anything (Pillai et al., "All File Systems Are Not Created Equal", 2014).
"""

import fcntl
import hashlib
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

REAL = {
    name: getattr(os, name)
    for name in ("open", "write", "pwrite", "ftruncate", "rename", "replace", "unlink", "mkdir", "fsync", "fdatasync")
}


@dataclass(frozen=True)
class Names:
    """Names of one directory that change together; None: no longer there."""

    node: int
    names: dict[str, int | None]


@dataclass(frozen=True)
class Data:
    """Bytes that are written at a place of one file; None: the file ends there."""

    node: int
    offset: int
    data: bytes | None


@dataclass(frozen=True)
class Sync:
    """What was done to one file or directory before, lasts."""

    node: int


@dataclass(frozen=True)
class Told:
    """Somebody was told that this lasts."""

    what: object


class Disk:
    """Records what is done below a directory, which itself lasts.

    Attributes:
        operations: In order.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.operations: list[Names | Data | Sync | Told] = []
        self._nodes = {self._key(root): 0}
        self._count = 1
        self.directories = {0}

    @contextmanager
    def recording(self) -> Iterator[None]:
        for name in REAL:
            setattr(os, name, getattr(self, name, None) or getattr(self, f"_{name}"))
        try:
            yield
        finally:
            for name, function in REAL.items():
                setattr(os, name, function)

    def told(self, what: object) -> None:
        self.operations.append(Told(what))

    def note(self, operation: Names | Data | Sync) -> None:
        self.operations.append(operation)

    def node_at(self, path: Path) -> int | None:
        with suppress(FileNotFoundError):
            return self._nodes.get(self._key(path))
        return None

    def new(self, path: Path) -> int:
        """Number a file that was not there before."""
        self._nodes[self._key(path)] = self._count
        self._count += 1
        return self._count - 1

    def open(self, path, flags, mode=0o777, *, dir_fd=None):
        place = self._place(path, dir_fd)
        known = self.node_at(place)
        there = os.path.lexists(place)
        directory = self.node_at(place.parent)
        if directory is not None and flags & os.O_CREAT and not there:
            fd = REAL["open"](path, flags, mode, dir_fd=dir_fd)
            self.note(Names(directory, {place.name: self.new(place)}))
            return fd
        if known is not None and flags & os.O_TRUNC:
            self.note(Data(known, 0, None))
        return REAL["open"](path, flags, mode, dir_fd=dir_fd)

    def write(self, fd, data):
        node = self._node_of(fd)
        if node is not None:
            appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
            offset = os.fstat(fd).st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
            self.note(Data(node, offset, bytes(data)))
        return REAL["write"](fd, data)

    def pwrite(self, fd, data, offset):
        node = self._node_of(fd)
        if node is not None:
            self.note(Data(node, offset, bytes(data)))
        return REAL["pwrite"](fd, data, offset)

    def ftruncate(self, fd, length):
        node = self._node_of(fd)
        if node is not None:
            self.note(Data(node, length, None))
        return REAL["ftruncate"](fd, length)

    def rename(self, old, new, *, src_dir_fd=None, dst_dir_fd=None):
        before, after = self._place(old, src_dir_fd), self._place(new, dst_dir_fd)
        node = self.node_at(before)
        if node is not None:
            assert before.parent == after.parent
            self.note(Names(self.node_at(after.parent), {after.name: node, before.name: None}))
        return REAL["rename"](old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    replace = rename

    def unlink(self, path, *, dir_fd=None):
        place = self._place(path, dir_fd)
        directory = self.node_at(place.parent)
        if directory is not None and os.path.lexists(place):
            self.note(Names(directory, {place.name: None}))
            del self._nodes[self._key(place)]
        return REAL["unlink"](path, dir_fd=dir_fd)

    def mkdir(self, path, mode=0o777, *, dir_fd=None):
        place = self._place(path, dir_fd)
        REAL["mkdir"](path, mode, dir_fd=dir_fd)
        directory = self.node_at(place.parent)
        if directory is not None:
            node = self.new(place)
            self.directories.add(node)
            self.note(Names(directory, {place.name: node}))

    def fsync(self, fd):
        node = self._node_of(fd)
        if node is None:
            return
        self.note(Sync(node))

    fdatasync = fsync

    def _place(self, path, dir_fd) -> Path:
        if dir_fd is None:
            return Path(path).absolute()
        return Path(os.readlink(f"/proc/self/fd/{dir_fd}")) / path

    def _node_of(self, fd: int) -> int | None:
        status = os.fstat(fd)
        return self._nodes.get((status.st_dev, status.st_ino))

    @staticmethod
    def _key(path: Path) -> tuple[int, int]:
        status = path.lstat()
        return status.st_dev, status.st_ino


State = dict[str, bytes | None]
"""Content by path below the root; None for a directory."""


class Cuts:
    """The states in which a disk may be found when the power goes after some of its operations."""

    def __init__(self, disk: Disk, random_states: int) -> None:
        self._disk = disk
        self._random_states = random_states
        self._random = random.Random(3)
        self._seen: set[tuple[bytes, object]] = set()
        self.laid_out = 0

    def states(self, moments) -> Iterator[tuple[State, set]]:
        """Yield every state that is not like an earlier one, and what somebody had been told by then."""
        for moment in moments:
            done = self._disk.operations[:moment]
            told = frozenset(one.what for one in done if isinstance(one, Told))
            lasting, pending = self._split(done)
            for forms in self._choices(pending):
                self.laid_out += 1
                state = self._state(lasting, pending, forms)
                key = (digest_of(state), told)
                if key not in self._seen:
                    self._seen.add(key)
                    yield state, set(told)

    @staticmethod
    def _split(done):
        """Return what lasts and what may be lost."""
        synced = {one.node: at for at, one in enumerate(done) if isinstance(one, Sync)}
        changes = [(at, one) for at, one in enumerate(done) if isinstance(one, Names | Data)]
        lasting = [one for at, one in changes if at < synced.get(one.node, -1)]
        return lasting, [one for at, one in changes if at > synced.get(one.node, -1)]

    def _choices(self, pending) -> Iterator[list[str]]:
        count = len(pending)
        yield ["lost"] * count
        if not count:
            return
        yield ["whole"] * count
        for at in range(count):
            for form in ("whole", "torn", "zeros"):
                yield ["lost"] * at + [form] + ["lost"] * (count - at - 1)
            for form in ("lost", "torn", "zeros"):
                yield ["whole"] * at + [form] + ["whole"] * (count - at - 1)
        for _ in range(self._random_states):
            yield self._random.choices(["whole", "lost", "torn", "zeros"], [4, 4, 1, 1], k=count)

    def _state(self, lasting, pending, forms) -> State:
        names: dict[int, dict[str, int]] = defaultdict(dict)
        content: dict[int, bytearray] = defaultdict(bytearray)
        for one, form in [*((one, "whole") for one in lasting), *zip(pending, forms, strict=True)]:
            if form == "lost":
                continue
            if isinstance(one, Names):
                for name, node in one.names.items():
                    names[one.node].pop(name, None)
                    if node is not None:
                        names[one.node][name] = node
            else:
                self._write(content[one.node], one, form)
        found: State = {}
        self._walk(found, "", 0, names, content)
        return found

    def _write(self, content: bytearray, one: Data, form: str) -> None:
        if one.data is None:
            del content[one.offset :]
            return
        data = one.data
        if form == "torn":
            data = data[: self._random.randrange(len(data))] if data else data
        elif form == "zeros":
            data = bytes(len(data))
        if len(content) < one.offset:
            content.extend(bytes(one.offset - len(content)))
        content[one.offset : one.offset + len(data)] = data

    def _walk(self, found, path, node, names, content) -> None:
        for name, child in names[node].items():
            place = f"{path}{name}"
            if child in self._disk.directories:
                found[place] = None
                self._walk(found, f"{place}/", child, names, content)
            else:
                found[place] = bytes(content[child])


def digest_of(state: State) -> bytes:
    text = hashlib.sha256()
    for path in sorted(state):
        text.update(repr((path, state[path])).encode())
    return text.digest()


def lay_out(state: State, root: Path) -> None:
    """Make files and directories as they were found."""
    root.mkdir()
    for path in sorted(state):
        content = state[path]
        if content is None:
            (root / path).mkdir(mode=0o700)
        else:
            (root / path).touch(mode=0o600)
            (root / path).write_bytes(content)


@contextmanager
def without_syncing() -> Iterator[None]:
    """The check of a state needs no disk."""
    os.fsync = os.fdatasync = lambda fd: None
    try:
        yield
    finally:
        os.fsync, os.fdatasync = REAL["fsync"], REAL["fdatasync"]
