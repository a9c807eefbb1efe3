"""Checks the signatures over a relation while its records are read: every checkpoint against the tree, every key.

Audit log reference, section 4.
"""

import os
from collections.abc import Iterator, Set
from contextlib import suppress
from hashlib import sha256
from typing import Final

from caprpc.audit.chain import Problem
from caprpc.audit.checkpoints import Entry, checkpoints_name, frontier_name, parse_frontier, read_entries
from caprpc.audit.directory import LogDirectory
from caprpc.audit.merkle import Range
from caprpc.audit.notes import NoteError, VerifierKey
from caprpc.audit.reader import Record
from caprpc.errors import AuditError

_NAMES_KEY: Final = frozenset({"begin", "resume"})


class SealBroken(Exception):
    """A checkpoint and the records do not belong together, or nobody trustworthy has signed it.

    Attributes:
        problem: Where, and why.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class SealCheck:
    """Follows tree, keys and checkpoints of one relation.

    Invariant: the first ``signed`` records are those whose root stands in a checkpoint that ``keys[-1]`` has signed,
    and each of ``keys`` but the first was vouched for by the one before.

    Attributes:
        signed: Records up to the last good checkpoint.
        checkpoints: How many were read.
        damaged: Places in their files where there are none.
        keys: The keys that signed, in order.
        vouched: A trusted key was among them.
    """

    def __init__(self, directory: LogDirectory, stem: str, origin: str, trusted: Set[VerifierKey] | None) -> None:
        self._directory = directory
        self._stem = stem
        self._origin = origin
        self._trusted = trusted
        self.tree: Range | None = Range()
        self.signed = 0
        self.checkpoints = 0
        self.damaged = 0
        self.keys: list[VerifierKey] = []
        self.vouched = False
        self._pending: VerifierKey | None = None
        self._unproved: tuple[Entry, str] | None = None
        self._entries: Iterator[tuple[Entry, str]] = iter(())
        self._next: tuple[Entry, str] | None = None

    def begin(self) -> None:
        """Find the checkpoints: of a log that is being written, later ones are about records that may not be read."""
        names = [checkpoints_name(self._stem, number) for number in self._directory.checkpoint_files(self._stem)]
        self._entries = self._read([(name, self._size(name)) for name in names])
        self._next = next(self._entries, None)

    def begin_at(self, number: int, seq: int) -> None:
        """Go on behind archived records, with the tree that the log has kept; without it nothing can be decided."""
        self.tree = None
        with suppress(AuditError, OSError), self._directory.open(frontier_name(self._stem, number)) as fd:
            tree = parse_frontier(os.read(fd, 16_384))
            self.tree = tree if tree.end == seq else None
        while self._next is not None and self._next[0].checkpoint.size <= seq:
            self._next = next(self._entries, None)

    def add(self, record: Record) -> None:
        """Take the next record.

        Raises:
            SealBroken: A checkpoint of the tree up to it says something else.
        """
        tree = self.tree
        if tree is None:
            return
        tree.append(bytes.fromhex(record.leaf))
        if record.fields["kind"] == "segment" and record.text("event") in _NAMES_KEY and "digest" in record.fields:
            self._name_key(record)
        while self._next is not None and self._next[0].checkpoint.size <= tree.end:
            self._check(*self._next, tree)
            self._next = next(self._entries, None)

    def end(self, seq: int) -> None:
        """Take note that there are no more records.

        Raises:
            SealBroken: A checkpoint tells of more, or the last one is not signed by whom it says.
        """
        if self.tree is None:
            return
        self._prove()
        if self._next is not None:
            entry, name = self._next
            self._signers(entry, name, seq)
            what = f"{entry.checkpoint.size} records, as a checkpoint says"
            raise SealBroken(Problem(name, 0, 0, what, f"the end after record {seq}", "truncated"))

    def _check(self, entry: Entry, name: str, tree: Range) -> None:
        checkpoint = entry.checkpoint
        if checkpoint.size < tree.end:
            raise SealBroken(
                Problem(name, 0, 0, f"checkpoints of {tree.end} records or more", f"one of {checkpoint.size}", "forged")
            )
        self.checkpoints += 1
        before = self.keys[-1:]
        signers = self._signers(entry, name, tree.end)
        if before and self.keys[-1:] != before:
            self._verify(entry, name, signers)
        if tree.root() != checkpoint.root:
            self._verify(entry, name, signers)
            since = f"records {self.signed + 1} to {tree.end}" if self.signed else f"{tree.end} records"
            raise SealBroken(
                Problem(name, 0, 0, f"{since} with the root that was signed", "records with another root", "forged")
            )
        self._unproved = (entry, name)
        if self._unproved_is_trusted(signers):
            self._verify(entry, name, signers)
            self.vouched = True
        self.signed = tree.end

    def _unproved_is_trusted(self, signers: list[VerifierKey]) -> bool:
        return self._trusted is not None and not self.vouched and any(one in self._trusted for one in signers)

    def _signers(self, entry: Entry, name: str, seq: int) -> list[VerifierKey]:
        """Return the keys that claim to have signed, going on to the next one if the present one vouches for it."""
        claimed = {(one.name, one.key_id) for one in entry.note.signatures}
        current = self.keys[-1] if self.keys else None
        found = [current] if current and (current.name, current.key_id) in claimed else []
        following = self._pending
        if following and (following.name, following.key_id) in claimed:
            found.append(following)
            if current is None or current in found:
                self.keys.append(following)
                self._pending = None
                return found
            expected = f"a signature of {current}, which vouches for its successor"
            raise SealBroken(Problem(name, 0, 0, expected, f"only one of {following}", "forged"))
        if not found:
            expected = f"a signature of {current or following or 'a key that the records name'}"
            raise SealBroken(Problem(name, 0, 0, expected, f"none over {seq} records", "forged"))
        return found

    def _prove(self) -> None:
        if self._unproved is not None:
            entry, name = self._unproved
            claimed = {(one.name, one.key_id) for one in entry.note.signatures}
            self._verify(entry, name, [one for one in self.keys if (one.name, one.key_id) in claimed])

    def _verify(self, entry: Entry, name: str, signers: list[VerifierKey]) -> None:
        """Check signatures; a later one stands for all before it, so that not each of them has to be checked."""
        try:
            for key in signers:
                entry.note.signature_of(key)
        except NoteError as exc:
            expected = f"a checkpoint of {entry.checkpoint.size} records signed by its key"
            raise SealBroken(Problem(name, 0, 0, expected, str(exc), "forged")) from exc

    def _name_key(self, record: Record) -> None:
        try:
            key = VerifierKey.parse(record.text("detail"))
        except NoteError:
            return
        ours = key.name == self._origin and sha256(key.public).hexdigest() == record.text("digest")
        if ours and key not in self.keys[-1:]:
            self._pending = key

    def _size(self, name: str) -> int:
        try:
            with self._directory.open(name) as fd:
                return os.fstat(fd).st_size
        except AuditError as exc:
            raise SealBroken(Problem(name, 0, 0, "a plain file", str(exc), "forged")) from exc

    def _read(self, sizes: list[tuple[str, int]]) -> Iterator[tuple[Entry, str]]:
        for name, size in sizes:
            with self._directory.open(name) as fd:
                for entry in read_entries(fd, self._origin, size):
                    if entry is None:
                        self.damaged += 1
                    else:
                        yield entry, name
