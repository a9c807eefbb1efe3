"""Proofs that one record is in a log, as files of C2SP's ``tlog-proof``: complete, small, and good without the log."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from caprpc.audit.chain import ChainBroken, Walk
from caprpc.audit.checkpoints import Entry, checkpoints_name, cosigned_name, origin_of_stem, read_entries
from caprpc.audit.directory import LogDirectory, RelationFiles
from caprpc.audit.merkle import HASH_BYTES, MAX_PATH, hashes_from_leaves, inclusion_spans, root_from_inclusion
from caprpc.audit.notes import KIND_LOG, Checkpoint, Note, NoteError, Signature, VerifierKey, from_base64, to_base64
from caprpc.audit.query import record_at
from caprpc.audit.reader import Record
from caprpc.audit.storage import parse_segment_name, segment_name
from caprpc.errors import AuditError

_FIRST_LINE: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,18}")
MAX_PROOF_BYTES: Final = 16 * 1024
"""Longest proof that is read: a record, 64 hashes and a note take less."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A record, where it stands, and the way from it to the root of a checkpoint; nothing of it is verified yet."""

    line: bytes
    index: int
    path: tuple[bytes, ...]
    note: Note

    @classmethod
    def parse(cls, data: bytes) -> "Proof":
        """Read a proof file.

        Raises:
            NoteError: It is something else, or has no record in its extra line.
        """
        if len(data) > MAX_PROOF_BYTES:
            raise NoteError(f"a proof of {len(data)} bytes, at most {MAX_PROOF_BYTES} accepted")
        head, blank, note = data.partition(b"\n\n")
        if not blank:
            raise NoteError("a proof without a checkpoint behind an empty line")
        try:
            first, extra, index, *path = head.decode("ascii").split("\n")
        except (UnicodeDecodeError, ValueError) as exc:
            raise NoteError("a proof has a first line, an extra line with the record, and an index") from exc
        if first != _FIRST_LINE or not extra.startswith("extra ") or not index.startswith("index "):
            raise NoteError(f"a proof begins with {_FIRST_LINE}, then 'extra' with the record, then 'index'")
        if not _INDEX.fullmatch(index[6:]) or len(path) > MAX_PATH:
            raise NoteError("an index that is no decimal number, or too many hashes")
        hashes = tuple(map(from_base64, path))
        if any(len(one) != HASH_BYTES for one in hashes):
            raise NoteError(f"hashes of {HASH_BYTES} bytes expected")
        return cls(from_base64(extra[6:]), int(index[6:]), hashes, Note.parse(note))

    def encode(self) -> bytes:
        """Return the content of a proof file."""
        lines = [_FIRST_LINE, f"extra {to_base64(self.line)}", f"index {self.index}", *map(to_base64, self.path)]
        return "\n".join(lines).encode("ascii") + b"\n\n" + self.note.encode()

    def check(self, keys: Iterable[VerifierKey]) -> list[Signature]:
        """Return the signatures of ``keys`` over the tree in which the record stands, none if none of them signed.

        The keys of other logs do not count.

        Raises:
            NoteError: The record is not in that tree, or a signature is not of its key.
        """
        checkpoint = Checkpoint.parse(self.note.text)
        leaf = sha256(b"\0" + self.line).digest()
        if root_from_inclusion(leaf, self.index, checkpoint.size, self.path) != checkpoint.root:
            raise NoteError(f"the record is not number {self.index + 1} of the {checkpoint.size} that were signed")
        # The key of one log says nothing about another: it has the name of the log it is for.
        found = (self.note.signature_of(key) for key in keys if key.kind != KIND_LOG or key.name == checkpoint.origin)
        return [signature for signature in found if signature is not None]


def walk(directory: LogDirectory, files: RelationFiles) -> Iterator[Record]:
    """Return the records of a relation from the first on, each checked to follow the one before.

    Raises:
        AuditError: One does not, or the first segments are missing.
    """
    if not files.numbers or files.numbers[0] != 1:
        raise AuditError(f"{directory.path}: the first segment of {files.stem} is not here")
    chain = Walk()
    try:
        for number in files.numbers:
            name = segment_name(files.stem, number)
            with directory.open(name) as fd:
                yield from chain.records(fd, name)
    except ChainBroken as exc:
        raise AuditError(f"{directory.path}: not intact: {exc.problem}") from exc


def checkpoints_of(directory: LogDirectory, stem: str) -> Iterator[Entry]:
    """Return the checkpoints of a relation in order; whose they are is not checked."""
    origin = origin_of_stem(directory.identity().log_id, stem)
    for number in directory.checkpoint_files(stem):
        with directory.open(checkpoints_name(stem, number)) as fd:
            yield from (entry for entry in read_entries(fd, origin, 1 << 62) if entry is not None)


def prove(path: Path, file: str, line: int) -> Proof:
    """Return the proof for the record on a line, counted from 1, of a segment's file.

    The checkpoint is the one that the peer has cosigned last, if it covers the record, else the first that does.

    Raises:
        AuditError: There is no such record, the log is not intact before the checkpoint, or none is behind it.
    """
    directory = LogDirectory(path)
    parsed = parse_segment_name(file)
    files = next((one for one in directory.relations if parsed and one.stem == parsed[0]), None)
    if files is None or parsed is None or parsed[1] not in files.numbers:
        raise AuditError(f"{path / file}: no file of this audit log")
    record = record_at(directory, file, line)
    index = record.number("seq") - 1
    entry = _cosigned(directory, files.stem, index) or _covering(checkpoints_of(directory, files.stem), index)
    if entry is None:
        raise AuditError(f"{path / file}:{line}: not signed yet: no checkpoint covers record {index + 1}")
    size = entry.checkpoint.size
    leaves = (bytes.fromhex(one.leaf) for one in walk(directory, files))
    try:
        hashes = hashes_from_leaves(leaves, inclusion_spans(index, size))
    except ValueError as exc:
        raise AuditError(f"{path}: fewer records than the {size} that were signed") from exc
    proof = Proof(record.line, index, tuple(hashes), entry.note)
    try:
        proof.check(())
    except NoteError as exc:
        raise AuditError(f"{path}: not intact: {exc}") from exc
    return proof


def _cosigned(directory: LogDirectory, stem: str, index: int) -> Entry | None:
    try:
        with directory.open(cosigned_name(stem)) as fd:
            note = Note.parse(json.loads(os.read(fd, MAX_PROOF_BYTES))["note"].encode())
        checkpoint = Checkpoint.parse(note.text)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise AuditError(f"{directory.path / cosigned_name(stem)}: not a cosigned checkpoint") from exc
    return Entry(checkpoint, note) if checkpoint.size > index else None


def _covering(entries: Iterable[Entry], index: int) -> Entry | None:
    return next((entry for entry in entries if entry.checkpoint.size > index), None)
