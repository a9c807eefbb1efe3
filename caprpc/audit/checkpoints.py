"""The files that checkpoints and keys of a relation stand in, as they are written and as they are found."""

import errno
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from caprpc.audit.merkle import Range
from caprpc.audit.notes import MAX_NOTE_BYTES, Checkpoint, Note, NoteError, NoteSigner
from caprpc.audit.storage import Storage, stem_of
from caprpc.errors import AuditError

_CHUNK_BYTES: Final = 64 * 1024
_SIGNATURE_MARK: Final = "—".encode()
_BEFORE_NOTE: Final = b"\n\0"
"""What a note may follow: a power cut can leave zeros in place of the one before it."""

_FILE: Final = re.compile(r"(?P<stem>[a-z0-9][a-z0-9.-]{0,80})\.(?P<number>[0-9]{6})\.checkpoints")


def origin_of(log_id: str, relation: str) -> str:
    """Return the origin of a relation's tree, which is the name of its keys, too."""
    return origin_of_stem(log_id, stem_of(relation))


def origin_of_stem(log_id: str, stem: str) -> str:
    """Return the origin of the tree over the files of one name."""
    return f"caprpc/audit/{log_id}/{stem}"


def checkpoints_name(stem: str, number: int) -> str:
    """Return the name of the file of the checkpoints that were signed while the ``number``-th segment was the last."""
    return f"{stem}.{number:06d}.checkpoints"


def parse_checkpoints_name(name: str) -> tuple[str, int] | None:
    """Return stem and number of such a file's name, or None for any other name."""
    match = _FILE.fullmatch(name)
    return (match["stem"], int(match["number"])) if match else None


def key_name(stem: str) -> str:
    """Return the name of the file with the private key of a relation."""
    return f"{stem}.key"


def frontier_name(stem: str, number: int) -> str:
    """Return the name of the file with the tree as it was when the ``number``-th segment began."""
    return f"{stem}.{number:06d}.tree"


def cosigned_name(stem: str) -> str:
    """Return the name of the file that keeps the last checkpoint of ours that the peer has cosigned."""
    return f"{stem}.cosigned"


@dataclass(frozen=True, slots=True)
class Entry:
    """A checkpoint as it stands in a file; whose signatures they are is not known yet."""

    checkpoint: Checkpoint
    note: Note


def read_entries(fd: int, origin: str, size: int) -> Iterator[Entry | None]:
    """Return the checkpoints in the first ``size`` bytes of a file in order, None for each run of other bytes."""
    damaged = False
    for block in _blocks(fd, size, origin.encode() + b"\n"):
        try:
            note = Note.parse(block)
            entry = Entry(Checkpoint.parse(note.text), note)
        except NoteError:
            damaged = True
            continue
        if damaged:
            yield None
            damaged = False
        yield entry
    if damaged:
        yield None


def last_entry(fd: int, origin: str) -> Entry | None:
    """Return the last whole checkpoint of a file."""
    size = os.fstat(fd).st_size
    data = os.pread(fd, 4 * MAX_NOTE_BYTES, max(0, size - 4 * MAX_NOTE_BYTES))
    start = origin.encode() + b"\n"
    at, end = data.rfind(start), len(data)
    while at >= 0:
        try:
            if at and data[at - 1] not in _BEFORE_NOTE:
                raise NoteError("not the beginning of a line")
            note = Note.parse(_without_rest(data[at:end]))
            return Entry(Checkpoint.parse(note.text), note)
        except NoteError:
            at, end = data.rfind(start, 0, at), at
    return None


def append_entries(storage: Storage, stem: str, number: int, notes: list[Note], *, lasting: bool) -> None:
    """Add checkpoints to a file, each followed by an empty line; ``lasting`` ones survive a power cut from now on.

    Raises:
        OSError: They are not all written; what is there of them is passed over by readers.
    """
    name = checkpoints_name(stem, number)
    try:
        fd = storage.open_append(name)
    except FileNotFoundError:
        fd = storage.create(name)
    try:
        data = b"".join(note.encode() + b"\n" for note in notes)
        size = os.fstat(fd).st_size
        reading = storage.open_read(name)
        try:
            if size and os.pread(reading, 2, max(0, size - 2)) != b"\n\n":
                # A crash tore the last one; nothing of the next may stand on its line.
                data = b"\n\n" + data
        finally:
            os.close(reading)
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if lasting:
            os.fdatasync(fd)
            storage.sync_names()
    finally:
        os.close(fd)


class BoundKey(NamedTuple):
    """The key that signs while a segment is the last one."""

    segment: int
    signer: NoteSigner


def load_keys(storage: Storage, stem: str) -> list[BoundKey]:
    """Return the keys of a relation: the present one, and its successor while a change of keys is under way.

    Raises:
        AuditError: The file is there and holds something else.
    """
    data = storage.read_small(key_name(stem))
    if data is None:
        return []
    try:
        lines = [line.partition(" ") for line in data.decode("ascii").splitlines()]
        keys = [BoundKey(int(number), NoteSigner.parse(secret)) for number, _, secret in lines]
    except ValueError as exc:
        raise AuditError(f"{storage.path / key_name(stem)}: not the key of an audit log: {exc}") from exc
    if not 1 <= len(keys) <= 2:
        raise AuditError(f"{storage.path / key_name(stem)}: {len(keys)} keys, expected 1 or 2")
    return keys


def save_keys(storage: Storage, stem: str, keys: list[BoundKey]) -> None:
    """Replace the keys of a relation; the file is readable by its owner alone."""
    storage.replace(key_name(stem), "".join(f"{number} {key.secret}\n" for number, key in keys).encode("ascii"))


def encode_frontier(tree: Range) -> bytes:
    """Return the content of the file that keeps a tree."""
    found = {"caprpc": 1, "kind": "tree", "size": tree.end, "hashes": [one.hex() for one in tree.hashes]}
    return json.dumps(found).encode("ascii") + b"\n"


def parse_frontier(data: bytes) -> Range:
    """Return the tree that such a file holds; that it is the right one, only a signed root says.

    Raises:
        AuditError: It is none.
    """
    try:
        found = json.loads(data)
        size = found["size"]
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise ValueError(f"size {size!a}")
        tree = Range(0, [bytes.fromhex(one) for one in found["hashes"]], size)
        if encode_frontier(tree) != data:
            raise ValueError("another spelling")
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise AuditError("not the tree of an audit log") from exc
    return tree


def _without_rest(block: bytes) -> bytes:
    """Return a note without what stands behind its last signature line."""
    lines = block.split(b"\n")
    last = max((at for at, line in enumerate(lines) if line.startswith(_SIGNATURE_MARK)), default=-1)
    if last == len(lines) - 1:
        # The line has no end.
        return block
    return b"\n".join(lines[: last + 1]) + b"\n"


def _blocks(fd: int, size: int, start: bytes) -> Iterator[bytes]:
    """Return what begins at each line that is the origin, up to the next; cut when it is longer than a note."""
    offset, held, found = 0, b"", False
    while chunk := os.pread(fd, min(_CHUNK_BYTES, size - offset), offset):
        offset += len(chunk)
        held += chunk
        at = _next_start(held, start, 1 if found else 0)
        while at >= 0:
            if at:
                yield _without_rest(held[:at])[: MAX_NOTE_BYTES + 1]
            held, found = held[at:], True
            at = _next_start(held, start, 1)
        if len(held) > 2 * _CHUNK_BYTES:
            # No note is so long: keep enough to say so, and to find the next.
            held = held[: MAX_NOTE_BYTES + 1] + held[-len(start) :]
    if held:
        yield _without_rest(held)[: MAX_NOTE_BYTES + 1]


def _next_start(held: bytes, start: bytes, begin: int) -> int:
    at = held.find(start, begin)
    while at > 0 and held[at - 1] not in _BEFORE_NOTE:
        at = held.find(start, at + 1)
    return at
