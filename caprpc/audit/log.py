"""The audit log of one process role: a directory, and a relation for each peer in it."""

import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caprpc.audit.clock import SECOND_NS, Clock
from caprpc.audit.durable import Durability, DurableRelation, SyncGroup
from caprpc.audit.record import GENESIS, FieldValue, encode, leaf_hash
from caprpc.audit.redact import Redactor
from caprpc.audit.relation import FORKED, Relation
from caprpc.audit.resume import resume
from caprpc.audit.sealing import Sealer
from caprpc.audit.segment import SEGMENT_BYTES, Head, Segment, WriteFunction, begin_segment
from caprpc.audit.storage import GENERAL, Storage, parse_segment_name, segment_name, stem_of
from caprpc.audit.witness import Witness, load_cosigner
from caprpc.errors import AuditError


@dataclass(frozen=True, slots=True)
class _Opened:
    """A relation and what works beside it; the general one has no peer to be its witness."""

    relation: Relation
    group: SyncGroup
    sealer: Sealer
    witness: Witness | None


class AuditLog:
    """Opens relations, and makes them last.

    Invariant: while it is open, no other process writes to its directory.

    Attributes:
        general: The relation for facts that concern no proved peer: listening, rejected connections, policies.
        redactor: Makes the digests that stand for argument values.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        max_segment_bytes: int,
        write: WriteFunction,
        wall_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
    ) -> None:
        self._storage = storage
        self._max_bytes = max_segment_bytes
        self._write = write
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._opened: dict[str, _Opened] = {}
        self._cosigner = load_cosigner(storage)
        self.redactor = Redactor(storage.key)
        self.general = self._open_relation(GENERAL)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        name: str,
        max_segment_bytes: int = SEGMENT_BYTES,
        write: WriteFunction = os.write,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> "AuditLog":
        """Take the directory for this process and continue the chains in it.

        Raises:
            AuditError: Another process has it, others may read it, or what is in it cannot be continued.
        """
        storage = Storage.claim(directory, name)
        try:
            return cls(
                storage, max_segment_bytes=max_segment_bytes, write=write, wall_ns=wall_ns, monotonic_ns=monotonic_ns
            )
        except OSError as exc:
            storage.close()
            raise AuditError(f"{directory}: cannot open the audit log: {exc.strerror or exc}") from exc
        except BaseException:
            storage.close()
            raise

    def relation(self, principal: str) -> Relation:
        """Return the relation of a proved peer, opened at its first use.

        Raises:
            AuditError: Its files cannot be continued.
        """
        if os.getpid() != self._pid:
            raise AuditError(FORKED)
        if principal == GENERAL:
            raise AuditError(f"{GENERAL!r} is not the principal of a peer")
        found = self._opened.get(principal)
        if found is not None:
            return found.relation
        try:
            return self._open_relation(principal)
        except OSError as exc:
            raise AuditError(f"{self._storage.path}: cannot open a relation: {exc.strerror or exc}") from exc

    def lasting(self, principal: str, durability: Durability) -> Relation | DurableRelation:
        """Return an opened relation in the form whose records last as long as asked for when they are written."""
        found = self._opened[principal]
        if durability == "os":
            return found.relation
        return DurableRelation(found.relation, found.group, shares=durability == "group")

    def witness(self, principal: str) -> Witness:
        """Return what shows the log of a relation to its peer, and watches the peer's.

        Raises:
            AuditError: The relation is not open, or has no peer.
        """
        found = self._opened.get(principal)
        if found is None or found.witness is None:
            raise AuditError(f"{self._storage.path}: no relation with {principal!a} is open")
        return found.witness

    @property
    def directory(self) -> Path:
        """Where the log is."""
        return self._storage.path

    def faults(self) -> tuple[str, ...]:
        """Return why relations take no records now, a sentence each."""
        return tuple(fault for opened in list(self._opened.values()) if (fault := opened.relation.fault))

    def tick(self, now: float) -> None:
        """Sync what is older than a second, sign it, and write the counts of refusals that are due.

        Waits for the disk: call it once a second from a thread that serves nobody. ``now`` is monotonic, in seconds.

        Raises:
            AuditError: A relation failed, and takes no more records; or it could not be signed now. The others were.
        """
        if os.getpid() != self._pid:
            raise AuditError(FORKED)
        failures: list[AuditError] = []
        with self._syncing:
            for opened in list(self._opened.values()):
                try:
                    opened.sealer.keep(opened.relation, now)
                    self._watch(opened, now)
                except AuditError as exc:
                    failures.append(exc)
        if failures:
            raise failures[0]

    def close(self) -> None:
        """End every relation with its record of a clean end, sign it, and let another process have the directory."""
        if self._storage.closed:
            return
        if os.getpid() != self._pid:
            for opened in self._opened.values():
                opened.relation.close()
            self._storage.close()
            return
        failures: list[AuditError] = []
        with self._syncing, self._lock:
            for opened in self._opened.values():
                try:
                    self._watch(opened, self._monotonic_ns() / SECOND_NS)
                    opened.sealer.finish(opened.relation)
                except AuditError as exc:
                    failures.append(exc)
            self._storage.close()
        if failures:
            raise failures[0]

    def _watch(self, opened: _Opened, now: float) -> None:
        """Exchange checkpoints with the peer of a relation."""
        if opened.witness is not None:
            try:
                opened.witness.work(now, self._wall_ns() // SECOND_NS)
            except OSError as exc:
                raise AuditError(f"{self._storage.path}: cannot keep what a peer shows: {exc.strerror}") from exc

    def _open_relation(self, name: str) -> Relation:
        with self._lock:
            if name in self._opened:
                return self._opened[name].relation
            stem = stem_of(name)
            names = map(parse_segment_name, self._storage.names())
            numbers = [found[1] for found in names if found and found[0] == stem]
            sealer = Sealer(self._storage, name)
            relation = self._continued(name, stem, numbers, sealer) if numbers else self._begun(name, stem, sealer)
            relation.next_key = sealer.key_for(1)
            witness = Witness(self._storage, relation, sealer, self._cosigner) if name != GENERAL else None
            self._opened[name] = _Opened(relation, SyncGroup(relation), sealer, witness)
            return relation

    def _begun(self, name: str, stem: str, sealer: Sealer) -> Relation:
        """Begin the chain of a relation."""
        clock = Clock(self._wall_ns, self._monotonic_ns)
        line = self._begin_line(name, 1, GENESIS, clock, {"segment": 1, **sealer.key_for(1)})
        segment = self._create_segment(stem, 1, line)
        segment.save_head(Head(1, leaf_hash(line), 1, segment.good))
        # A log of more records that has no head at all is one whose head was taken away.
        self._storage.sync_names()
        return self._relation(name, segment, seq=1, leaf=leaf_hash(line), clock=clock)

    def _continued(self, name: str, stem: str, numbers: list[int], sealer: Sealer) -> Relation:
        """Go on with the chain of a relation where it ended."""
        clock = Clock(self._wall_ns, self._monotonic_ns)
        found = resume(self._storage, stem, numbers)
        if found.ended:
            self._end_line(segment_name(stem, found.segment), torn=found.torn)
            number = found.segment + 1
            key = sealer.key_for(number)
            line = self._begin_line(name, found.seq + 1, found.leaf, clock, {"segment": number, **key})
            segment = self._create_segment(stem, number, line)
            return self._relation(name, segment, seq=found.seq + 1, leaf=leaf_hash(line), clock=clock)
        fd = self._storage.open_append(segment_name(stem, found.segment))
        segment = Segment(
            self._storage, stem, found.segment, fd=fd, good=found.good, max_bytes=self._max_bytes, write=self._write
        )
        relation = self._relation(
            name, segment, seq=found.seq, leaf=found.leaf, clock=clock, lost=0 if found.torn else None
        )
        try:
            key = {} if sealer.has_key else sealer.key_for(found.segment, save=False)
            # The record below may end the segment, and the next one names a key, too.
            relation.next_key = key or sealer.key_for(1)
            relation.note("segment", event="resume", segment=found.segment, **key)
            if key:
                sealer.save_keys()
                self._storage.sync_names()
        except (AuditError, OSError):
            segment.close()
            raise
        return relation

    def _end_line(self, name: str, *, torn: bool) -> None:
        """Have a segment last that a killed process had ended, before the next one can; add the newline it lacks."""
        fd = self._storage.open_append(name)
        try:
            if torn and self._write(fd, b"\n") != 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def _begin_line(self, name: str, seq: int, prev: str, clock: Clock, segment: dict[str, FieldValue]) -> bytes:
        fields = {"kind": "segment", "event": "begin", **self._log_fields(name), **segment}
        return encode(seq, clock.stamp(), fields, prev)

    def _create_segment(self, stem: str, number: int, line: bytes) -> Segment:
        segment = begin_segment(self._storage, stem, number, line, max_bytes=self._max_bytes, write=self._write)
        segment.adopt()
        return segment

    def _relation(
        self, name: str, segment: Segment, *, seq: int, leaf: str, clock: Clock, lost: int | None = None
    ) -> Relation:
        return Relation(
            name, segment=segment, seq=seq, prev=leaf, clock=clock, log_fields=self._log_fields(name), lost=lost
        )

    def _log_fields(self, name: str) -> dict[str, FieldValue]:
        return {"log": self._storage.name, "log_id": self._storage.log_id, "relation": name}
