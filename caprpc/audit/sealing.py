"""Signs what a relation has written: a Merkle tree over its records, and checkpoints of it.

All of it is done by the tick, off the path of calls: the records are read back from the disk, so that a checkpoint
vouches for what is there. Audit log reference, section 4.
"""

import os
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from caprpc.audit.chain import ChainBroken, Walk
from caprpc.audit.checkpoints import (
    BoundKey,
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
from caprpc.audit.merkle import Range, Steps, consistency_spans, fold, hashes_in_steps
from caprpc.audit.notes import KIND_LOG, Checkpoint, Note, NoteError, NoteSigner
from caprpc.audit.record import GENESIS, MAX_LINE_BYTES, FieldValue
from caprpc.audit.relation import Relation
from caprpc.audit.segment import Head
from caprpc.audit.storage import Storage, head_name, parse_segment_name, segment_name, stem_of
from caprpc.errors import AuditError

RECORDS_PER_CHECKPOINT: Final = 256
"""No more records than this stand between two checkpoints: a proof is about a small piece of the log."""

_CHUNK_BYTES: Final = 32 * 1024
"""Read and hashed at once, about 100 records: the interpreter lock is let go after so many."""

_PREV: Final = slice(-66, -2)
"""Where the hash of the record before stands in a line."""


class Sealer:
    """Follows the files of one relation and signs their tree, with another key in each segment.

    Invariant: ``tree`` is over exactly the records up to ``_place``, each the successor of the one before; each
    checkpoint is of such a tree, extends every earlier one, and is of records that a power cut leaves.

    Not thread-safe: the tick of a log runs in one thread at a time.

    Attributes:
        tree: Over the records followed so far.
        latest: The last checkpoint that was signed, None before the first.
        ranges: Records behind trees that a witness has seen or is about to see, for the next proof to it.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._stem = stem_of(name)
        self.origin = origin_of(storage.log_id, name)
        self.tree = Range()
        self.latest: Entry | None = None
        self.ranges: list[Range] = []
        self._place = Head(0, GENESIS, 1, 0)
        self._keys = load_keys(storage, self._stem)
        self._former: list[BoundKey] = []
        self._named = 1
        self._ready = False
        self._lost_key = not self._keys

    @property
    def has_key(self) -> bool:
        """Whether there is a key that some record has named."""
        return bool(self._keys)

    def key_for(self, number: int, *, save: bool = True) -> dict[str, FieldValue]:
        """Return the fields by which a record names the key of a segment, which is made now if need be.

        Raises:
            OSError: It cannot be kept.
        """
        if not self._keys or (len(self._keys) == 1 and self._keys[-1].segment < number):
            keys = [*self._keys, BoundKey(number, NoteSigner.generate(self.origin, KIND_LOG))]
            if save:
                save_keys(self._storage, self._stem, keys)
            self._keys = keys
        key = self._keys[-1].signer.key
        return {"digest": sha256(key.public).hexdigest(), "detail": str(key)}

    def save_keys(self) -> None:
        """Keep the keys, now that a record names them.

        Raises:
            OSError: They cannot be kept.
        """
        save_keys(self._storage, self._stem, self._keys)

    @property
    def signing_keys(self) -> list[str]:
        """The keys that have signed ``latest``, the newest last."""
        claimed = {one.key_id for one in self.latest.note.signatures} if self.latest else set()
        return [str(one.key) for _, one in self._former + self._keys if one.key.key_id in claimed]

    def consistency(self, old: int, new: int) -> Steps | None:
        """Return what proves one of our trees by another from the records, for a witness that lost its place.

        It rests after each step: a log of any length may have to be read. None if the first segments are archived.

        Raises:
            AuditError: The log is not what was written.
        """
        names = map(parse_segment_name, self._storage.names())
        numbers = [found[1] for found in names if found and found[0] == self._stem]
        if 1 not in numbers:
            return None
        return hashes_in_steps(self._leaves(max(numbers)), consistency_spans(old, new))

    def _leaves(self, last: int) -> Iterator[bytes]:
        walk = Walk()
        for number in range(1, last + 1):
            fd = self._storage.open_read(segment_name(self._stem, number))
            try:
                for record in walk.records(fd, segment_name(self._stem, number)):
                    yield bytes.fromhex(record.leaf)
            except ChainBroken as exc:
                raise self._tampered(str(exc.problem)) from exc
            finally:
                os.close(fd)

    def keep(self, relation: Relation, now: float) -> None:
        """Make the records of a relation last and sign them, about once a second; ``now`` is monotonic, in seconds.

        Raises:
            AuditError: The relation failed, and takes no more records; or it could not be signed now.
        """
        head = relation.sync(now)
        try:
            if head is not None:
                self.seal(head)
                if len(self._keys) < 2:
                    relation.next_key = self.key_for(relation.segment_number + 1)
        except AuditError as exc:
            relation.distrust(exc)
            raise
        except OSError as exc:
            raise self._unsigned(exc) from exc

    def finish(self, relation: Relation) -> None:
        """Close a relation and sign all of it.

        Raises:
            AuditError: It could not be finished or signed.
        """
        head = relation.close()
        try:
            if head is not None:
                self.seal(head)
        except OSError as exc:
            raise self._unsigned(exc) from exc

    def _unsigned(self, exc: OSError) -> AuditError:
        return AuditError(f"{self._stem}: cannot sign the audit log now: {exc.strerror or exc}")

    def seal(self, head: Head) -> list[Note]:
        """Sign the tree up to a record that is on the disk; return the checkpoints, the last of them of that record.

        Raises:
            AuditError: What is on the disk is not what was written.
            OSError: It could not be read, or the checkpoints not be written; the next try makes up for it.
        """
        if not self._ready:
            self._resume(head.segment)
        latest = self.latest
        if latest is not None and head.seq < latest.checkpoint.size:
            raise self._tampered(f"{head.seq} records, and a checkpoint of {latest.checkpoint.size} was signed")
        if latest is not None and head.seq == latest.checkpoint.size == self.tree.end:
            return []
        notes: list[Note] = []
        self._follow(head, notes)
        if latest is not None and self.tree.end == latest.checkpoint.size:
            return []
        if not notes or Checkpoint.parse(notes[-1].text).size != self.tree.end:
            notes.append(self._sign())
        changes_key = self._named == 2
        append_entries(self._storage, self._stem, head.segment, notes, lasting=changes_key)
        self.latest = Entry(Checkpoint.parse(notes[-1].text), notes[-1])
        if changes_key:
            # The old key has vouched for the new one, and a power cut cannot undo that: nobody needs it any more.
            save_keys(self._storage, self._stem, self._keys[1:])
            self._former, self._keys, self._named = self._keys[:1], self._keys[1:], 1
        return notes

    def _sign(self) -> Note:
        return Checkpoint(self.origin, self.tree.end, self.tree.root()).sign(
            [signer for _, signer in self._keys[: self._named]]
        )

    def _resume(self, last_segment: int) -> None:
        """Find the last checkpoint of the process before, and a tree from which to go on."""
        self.latest = self._last_checkpoint(last_segment)
        for number in range(last_segment, 1, -1):
            data = self._storage.read_small(frontier_name(self._stem, number))
            if data is None:
                continue
            tree = parse_frontier(data)
            if self._will_be_checked(tree):
                fd = self._storage.open_read(segment_name(self._stem, number))
                try:
                    line = os.pread(fd, MAX_LINE_BYTES, 0).partition(b"\n")[0]
                finally:
                    os.close(fd)
                self.tree, self._place = tree, Head(tree.end, line[_PREV].decode("ascii", "replace"), number, 0)
                break
        self._ready = True

    def _will_be_checked(self, tree: Range) -> bool:
        """Whether the last checkpoint tells if this is the tree that was written."""
        latest = self.latest
        if latest is None or tree.end > latest.checkpoint.size:
            return False
        return tree.end < latest.checkpoint.size or tree.root() == latest.checkpoint.root

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
        """Refuse a checkpoint of somebody else; if our key was lost, its successor says so in the records."""
        try:
            if any(entry.note.signature_of(signer.key) for _, signer in self._keys):
                return
        except NoteError as exc:
            raise self._tampered(f"{checkpoints_name(self._stem, number)}: {exc}") from exc
        if not self._lost_key:
            raise self._tampered(f"{checkpoints_name(self._stem, number)}: signed by another key than ours")

    def _follow(self, head: Head, notes: list[Note]) -> None:
        try:
            while self._place.segment < head.segment:
                self._read_to(None, notes)
                number = self._place.segment + 1
                self._place = Head(self.tree.end, self._place.hash, number, 0)
                self._storage.replace(frontier_name(self._stem, number), encode_frontier(self.tree))
            self._read_to(head.offset, notes)
        except ChainBroken as exc:
            raise self._tampered(str(exc.problem)) from exc
        if self._place != head:
            raise self._tampered(f"{head_name(self._stem)}: record {head.seq} is not the one that was written")

    def _read_to(self, end: int | None, notes: list[Note]) -> None:
        """Add the records of a segment up to an offset, None for its end."""
        name = segment_name(self._stem, self._place.segment)
        fd = self._storage.open_read(name)
        try:
            end = os.fstat(fd).st_size if end is None else end
            while self._place.offset < end:
                offset = self._place.offset
                data = os.pread(fd, min(_CHUNK_BYTES, end - offset), offset)
                cut = data.rfind(b"\n") + 1
                if not cut or not self._add(data[:cut], notes):
                    self._walk(fd, name, end, notes)
                    return
        finally:
            os.close(fd)

    def _add(self, data: bytes, notes: list[Note]) -> bool:
        """Add whole lines; false at the first that does not follow the one before."""
        leaf, offset = self._place.hash.encode(), self._place.offset
        if not offset:
            self._begin(data.partition(b"\n")[0])
        leaves: list[bytes] = []
        follows = True
        for line in data.split(b"\n")[:-1]:
            if line[_PREV] != leaf:
                follows = False
                break
            digest = sha256(b"\0" + line)
            leaf = digest.hexdigest().encode()
            offset += len(line) + 1
            leaves.append(digest.digest())
        self._place = Head(self.tree.end + len(leaves), leaf.decode(), self._place.segment, offset)
        self._push(leaves, notes)
        return follows

    def _walk(self, fd: int, name: str, end: int, notes: list[Note]) -> None:
        """Add records one by one: what a crash or a full disk left stands between them."""
        place = self._place
        walk = Walk(place.seq, place.hash)
        for record in walk.records(fd, name, place.offset):
            self._push([bytes.fromhex(record.leaf)], notes)
            self._place = Head(walk.seq, walk.leaf, place.segment, walk.good)
            if walk.good >= end:
                return

    def _begin(self, line: bytes) -> None:
        """Sign with the next key, too, if the first record of a segment names it."""
        if len(self._keys) > 1 and b'"%b"' % str(self._keys[1].signer.key).encode() in line:
            self._named = 2

    def _push(self, leaves: list[bytes], notes: list[Note]) -> None:
        """Add leaves; stop at each size at which a checkpoint is due, or there was one."""
        tree, taken = self.tree, 0
        while taken < len(leaves):
            start, latest = tree.end, self.latest
            known = 0 if latest is None else latest.checkpoint.size
            stops = [one.end for one in self.ranges]
            stop = min(size for size in (_next_due(start), known, *stops, start + len(leaves) - taken) if size > start)
            for root, width in fold(start, leaves[taken : taken + stop - start]):
                for one in self.ranges:
                    if one.end == tree.end:
                        one.append(root, width)
                tree.append(root, width)
            taken += stop - start
            if latest is None or stop > known:
                if stop % RECORDS_PER_CHECKPOINT == 0:
                    notes.append(self._sign())
            elif stop == known and tree.root() != latest.checkpoint.root:
                raise self._tampered(f"the tree of {stop} records has another root than the checkpoint of it")

    def _tampered(self, what: str) -> AuditError:
        return AuditError(
            f"{self._storage.path}: the audit log was changed after it was written: {what}\n"
            f"  hint: keep the directory for an auditor (caprpc audit verify {self._storage.path}) and start a new one"
        )


def _next_due(size: int) -> int:
    """Return the next size of a tree at which a checkpoint is due."""
    return size - size % RECORDS_PER_CHECKPOINT + RECORDS_PER_CHECKPOINT
