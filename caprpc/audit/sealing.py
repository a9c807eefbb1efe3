"""Signs what a relation has written: a Merkle tree over its records, and checkpoints of it.

All of it is done by the tick, off the path of calls: the records are read back from the disk, so that a checkpoint
vouches for what is there. Audit log reference, section 4.
"""

import os
from hashlib import sha256
from typing import Final

from caprpc.audit.chain import ChainBroken, Walk
from caprpc.audit.checkpoints import (
    Entry,
    append_entries,
    checkpoints_name,
    encode_frontier,
    frontier_name,
    last_entry,
    load_keys,
    origin_of,
    parse_frontier,
    save_keys,
)
from caprpc.audit.merkle import Range
from caprpc.audit.notes import KIND_LOG, Checkpoint, Note, NoteError, NoteSigner
from caprpc.audit.record import GENESIS
from caprpc.audit.relation import Relation
from caprpc.audit.segment import Head
from caprpc.audit.storage import Storage, head_name, segment_name, stem_of
from caprpc.errors import AuditError

RECORDS_PER_CHECKPOINT: Final = 256
"""No more records than this stand between two checkpoints: a proof is about a small piece of the log."""

_CHUNK_BYTES: Final = 32 * 1024
"""Read and hashed at once, about 100 records: the interpreter lock is let go after so many."""

_PREV: Final = slice(-66, -2)
"""Where the hash of the record before stands in a line."""


class Sealer:
    """Follows the files of one relation and signs their tree.

    Invariant: ``tree`` is over exactly the records before ``_offset`` of ``_segment``, each the successor of the one
    before; each checkpoint is of such a tree, extends every earlier one, and is of records that a power cut leaves.

    Not thread-safe: the tick of a log runs in one thread at a time.

    Attributes:
        tree: Over the records followed so far.
        latest: The last checkpoint that was signed, None before the first.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._stem = stem_of(name)
        self.origin = origin_of(storage.log_id, name)
        self.tree = Range()
        self.latest: Entry | None = None
        self._segment = 1
        self._offset = 0
        self._leaf = GENESIS.encode()
        self._keys: list[NoteSigner] = []
        self._key_segment = 0
        self._ready = False
        self.since: Range | None = None
        """Records behind the last tree that a witness has seen, for the next proof to it."""

    def announce(self, relation: Relation) -> None:
        """Record which key signs from now on, if a segment has begun since the last time.

        Raises:
            AuditError: The record could not be written.
        """
        if not self._ready:
            self._resume(relation.segment_number)
        number = relation.segment_number
        if self._keys and number == self._key_segment:
            return
        if len(self._keys) < 2:
            fresh = NoteSigner.generate(self.origin, KIND_LOG)
            keys = [*self._keys, fresh]
            save_keys(self._storage, self._stem, keys)
            self._keys = keys
        key = self._keys[-1].key
        relation.checkpoint("key", segment=number, digest=sha256(key.public).hexdigest(), detail=str(key))
        self._key_segment = number

    def seal(self, head: Head) -> list[Note]:
        """Sign the tree up to a record that is on the disk; return the checkpoints, the last of them of that record.

        Raises:
            AuditError: What is on the disk is not what was written.
            OSError: It could not be read, or the checkpoints not be written; the next try makes up for it.
        """
        if self.latest is not None and head.seq <= self.latest.checkpoint.size:
            return []
        notes: list[Note] = []
        self._follow(head, notes)
        if not notes or self._is_older(notes[-1]):
            notes.append(self._sign())
        append_entries(self._storage, self._stem, head.segment, notes)
        self.latest = Entry(Checkpoint.parse(notes[-1].text), notes[-1])
        if len(self._keys) == 2:
            # The old key has vouched for the new one; nobody needs it any more.
            save_keys(self._storage, self._stem, self._keys[1:])
            self._keys = self._keys[1:]
        return notes

    def _is_older(self, note: Note) -> bool:
        return Checkpoint.parse(note.text).size != self.tree.end

    def _sign(self) -> Note:
        return Checkpoint(self.origin, self.tree.end, self.tree.root()).sign(self._keys)

    def _resume(self, last_segment: int) -> None:
        """Load keys, tree and last checkpoint of the process before."""
        self._keys = load_keys(self._storage, self._stem)
        self.latest = self._last_checkpoint(last_segment)
        number = last_segment
        while number > 1:
            data = self._storage.read_small(frontier_name(self._stem, number))
            if data is not None:
                self._begin_at(number, parse_frontier(data))
                break
            number -= 1
        if self._keys and self.latest is not None and len(self._keys) == 1:
            self._key_segment = self._segment_of_key(last_segment)
        self._ready = True

    def _begin_at(self, number: int, tree: Range) -> None:
        """Go on behind the records before a segment."""
        fd = self._storage.open_read(segment_name(self._stem, number))
        try:
            line = os.pread(fd, _CHUNK_BYTES, 0).partition(b"\n")[0]
        finally:
            os.close(fd)
        self.tree, self._segment, self._offset, self._leaf = tree, number, 0, line[_PREV]

    def _last_checkpoint(self, number: int) -> Entry | None:
        """Return the last checkpoint, which must be ours."""
        while number > 0:
            try:
                fd = self._storage.open_read(checkpoints_name(self._stem, number))
            except FileNotFoundError:
                number -= 1
                continue
            try:
                entry = last_entry(fd, self.origin)
            finally:
                os.close(fd)
            if entry is not None:
                self._check_ours(entry, number)
                return entry
            number -= 1
        return None

    def _check_ours(self, entry: Entry, number: int) -> None:
        try:
            if any(entry.note.signature_of(signer.key) for signer in self._keys):
                return
        except NoteError as exc:
            raise self._tampered(f"{checkpoints_name(self._stem, number)}: {exc}") from exc
        if self._keys:
            raise self._tampered(f"{checkpoints_name(self._stem, number)}: signed by another key than ours")

    def _segment_of_key(self, last_segment: int) -> int:
        """Return the segment in which checkpoints are that the present key signed."""
        name = checkpoints_name(self._stem, last_segment)
        try:
            os.close(self._storage.open_read(name))
        except FileNotFoundError:
            return 0
        return last_segment

    def _follow(self, head: Head, notes: list[Note]) -> None:
        try:
            while self._segment < head.segment:
                self._read_to(None, notes)
                self._segment, self._offset = self._segment + 1, 0
                self._storage.replace(frontier_name(self._stem, self._segment), encode_frontier(self.tree))
            self._read_to(head.offset, notes)
        except ChainBroken as exc:
            raise self._tampered(str(exc.problem)) from exc
        if self.tree.end != head.seq or self._leaf.decode() != head.hash:
            raise self._tampered(f"{head_name(self._stem)}: record {head.seq} is not the one that was written")

    def _read_to(self, end: int | None, notes: list[Note]) -> None:
        """Add the records of a segment up to an offset, None for its end."""
        name = segment_name(self._stem, self._segment)
        fd = self._storage.open_read(name)
        try:
            end = os.fstat(fd).st_size if end is None else end
            while self._offset < end:
                data = os.pread(fd, min(_CHUNK_BYTES, end - self._offset), self._offset)
                cut = data.rfind(b"\n") + 1
                if not cut or not self._add(data[:cut], notes):
                    self._walk(fd, name, end, notes)
                    return
        finally:
            os.close(fd)

    def _add(self, data: bytes, notes: list[Note]) -> bool:
        """Add whole lines; false at the first that does not follow the one before."""
        leaf = self._leaf
        for line in data.split(b"\n")[:-1]:
            if line[_PREV] != leaf:
                return False
            digest = sha256(b"\0" + line)
            self._leaf = leaf = digest.hexdigest().encode()
            self._offset += len(line) + 1
            self._push(digest.digest(), notes)
        return True

    def _walk(self, fd: int, name: str, end: int, notes: list[Note]) -> None:
        """Add records one by one: what a crash or a full disk left stands between them."""
        walk = Walk(self.tree.end, self._leaf.decode())
        for record in walk.records(fd, name, self._offset):
            self._leaf, self._offset = record.leaf.encode(), walk.good
            self._push(bytes.fromhex(record.leaf), notes)
            if walk.good >= end:
                return

    def _push(self, leaf: bytes, notes: list[Note]) -> None:
        self.tree.append(leaf)
        size = self.tree.end
        if self.since is not None and self.since.end == size - 1:
            self.since.append(leaf)
        if self.latest is None or size > self.latest.checkpoint.size:
            if size % RECORDS_PER_CHECKPOINT == 0:
                notes.append(self._sign())
        elif size == self.latest.checkpoint.size and self.tree.root() != self.latest.checkpoint.root:
            raise self._tampered(f"the tree of {size} records has another root than the checkpoint of it")

    def _tampered(self, what: str) -> AuditError:
        return AuditError(
            f"{self._storage.path}: the audit log was changed after it was written: {what}\n"
            f"  hint: keep the directory for an auditor (caprpc audit verify {self._storage.path}) and start a new one"
        )
