"""The peer is the witness: checkpoints of both logs go over the connection, are checked, kept and cosigned.

A log that was rewritten with all its keys still differs from what its peer has seen. All work is done by the tick;
the connection only carries what waits. Audit log reference, section 8; wire protocol, section 4.5.
"""

import hashlib
import json
import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from caprpc.audit.checkpoints import cosigned_name
from caprpc.audit.merkle import Range, Steps, consistency_from_ranges, is_consistent
from caprpc.audit.notes import (
    KIND_COSIGNER,
    Checkpoint,
    Note,
    NoteError,
    NoteSigner,
    Signature,
    VerifierKey,
    from_base64,
    to_base64,
)
from caprpc.audit.relation import Relation
from caprpc.audit.sealing import Sealer
from caprpc.audit.storage import Storage, stem_of
from caprpc.errors import AuditError, printable
from caprpc.wire import messages as m

MOST_ORIGINS: Final = 64
"""Logs of one principal that are witnessed: one for each of its processes; more are refused."""

RESEND_S: Final = 10.0
"""A checkpoint without an answer is followed by the next one after this time."""

_INBOX: Final = 4
"""Messages kept until the next tick; an honest peer has one of each kind under way."""

_ROLLED_BACK: Final = 2
"""So many checkpoints in a row that are older than one we have seen: no message overtook another."""

_COSIGNER: Final = "witness.key"
_STUBBORN: Final = 3
"""So many refusals without a cosignature between them are told."""

_SMALL_BYTES: Final = 16 * 1024
_LOG: Final = logging.getLogger("caprpc")


@dataclass(frozen=True, slots=True)
class Seen:
    """The last checkpoint of one log of a peer that we have cosigned."""

    checkpoint: Checkpoint
    key: VerifierKey
    note: Note

    def answer(self, cosigner: VerifierKey) -> m.Cosigned:
        """Return what tells the peer that we have seen it."""
        line = next((str(one) for one in self.note.signatures if one.key_id == cosigner.key_id), "")
        return m.Cosigned(self.checkpoint.origin, self.checkpoint.size, line, str(cosigner))

    def encode(self, cosigner: VerifierKey) -> bytes:
        """Return the content of the file that keeps it."""
        found = {"caprpc": 1, "kind": "witness", "key": str(self.key), "cosigner": str(cosigner)}
        return json.dumps({**found, "note": str(self.note)}).encode("ascii") + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> "Seen":
        """Read the content of such a file.

        Raises:
            AuditError: It is none.
        """
        try:
            found = json.loads(data)
            note = Note.parse(found["note"].encode())
            return cls(Checkpoint.parse(note.text), VerifierKey.parse(found["key"]), note)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise AuditError("not what a witness keeps") from exc


def witness_name(stem: str, origin: str) -> str:
    """Return the name of the file that keeps what we saw of one log of a peer."""
    return f"{stem}.{hashlib.sha256(origin.encode()).hexdigest()[:16]}.witness"


class Witness:
    """Shows our log of one relation to its peer, and watches the peer's.

    Invariant: for each origin we cosign only trees that extend every one that we cosigned before.

    ``receive`` and ``take`` may be called by any thread, and do nothing but keep or hand out; ``work`` is the tick's.
    """

    def __init__(self, storage: Storage, relation: Relation, sealer: Sealer, signer: NoteSigner) -> None:
        self._storage = storage
        self._stem = stem_of(relation.name)
        self._relation = relation
        self._signer = signer
        self._inbox: deque[m.Checkpoint | m.Cosigned] = deque(maxlen=_INBOX)
        self._lock = threading.Lock()
        self._outbox: list[m.Checkpoint | m.Cosigned] = []
        self.ours = Shown(storage, self._stem, sealer)
        self._seen = self._load()
        self._outbox += [one.answer(signer.key) for one in list(self._seen.values())[:_INBOX]]
        self._older: dict[str, int] = {}
        self._told: set[tuple[str, str]] = set()

    @property
    def waiting(self) -> bool:
        """Whether ``take`` would return something."""
        return bool(self._outbox)

    def receive(self, message: m.Checkpoint | m.Cosigned) -> None:
        """Keep a message of the peer until the next tick."""
        self._inbox.append(message)

    def take(self) -> list[m.Checkpoint | m.Cosigned]:
        """Return what is to be sent over a connection now."""
        with self._lock:
            waiting, self._outbox = self._outbox, []
        return waiting

    def work(self, now: float, wall_s: int) -> None:
        """Answer what has come, and put our latest checkpoint up for sending; times in seconds.

        Raises:
            AuditError: Something that has to be recorded could not be.
            OSError: What was seen could not be kept.
        """
        made: list[m.Checkpoint | m.Cosigned] = []
        while self._inbox:
            message = self._inbox.popleft()
            if isinstance(message, m.Checkpoint):
                made.append(self._cosign(message, wall_s))
            else:
                for event, detail in self.ours.answered(message):
                    self._tell(event, self._stem, detail)
        ours = self.ours.next(now)
        if self.ours.lost_place:
            self._tell("lost-place", self._stem, "no proof from where the peer stands: those segments are archived")
        if ours is not None:
            made.append(ours)
        if made:
            with self._lock:
                kept = [one for one in self._outbox if ours is None or not isinstance(one, m.Checkpoint)]
                self._outbox = [*kept[-_INBOX:], *made]

    def _cosign(self, message: m.Checkpoint, wall_s: int) -> m.Cosigned:
        """Return a cosignature, or without one the size up to which we have seen the log."""
        try:
            checkpoint, key, signers, text = self._read(message)
        except NoteError as exc:
            self._tell("bad-checkpoint", self._stem, str(exc))
            return self._refusal("", 0)
        origin, seen = checkpoint.origin, self._seen.get(checkpoint.origin)
        if seen is None:
            if len(self._seen) >= MOST_ORIGINS:
                self._tell("too-many-logs", self._stem, f"more than {MOST_ORIGINS}, the next is {origin}")
                return self._refusal(origin, 0)
            self._tell("new-log", origin, f"{origin}, {checkpoint.size} records, key {key}")
        else:
            refused = self._contradiction(message, checkpoint, seen, text)
            if refused:
                return self._refusal(origin, seen.checkpoint.size)
            if seen.key not in signers:
                self._tell("new-key", str(key), f"{origin}: the key {seen.key} did not vouch for {key}")
        note = Note.parse(message.note)
        cosignature = self._signer.sign(note.text, wall_s)
        kept = Seen(checkpoint, key, Note(note.text, (*note.signatures[:2], cosignature)))
        self._storage.replace(witness_name(self._stem, origin), kept.encode(self._signer.key))
        self._seen[origin] = kept
        self._older.pop(origin, None)
        return kept.answer(self._signer.key)

    def _refusal(self, origin: str, size: int) -> m.Cosigned:
        return m.Cosigned(origin, size, "", str(self._signer.key))

    def _read(self, message: m.Checkpoint) -> tuple[Checkpoint, VerifierKey, list[VerifierKey], str]:
        """Return checkpoint, newest key and all keys that signed it.

        Raises:
            NoteError: It is no checkpoint, or the keys that it names have not all signed it.
        """
        note = Note.parse(message.note)
        checkpoint = Checkpoint.parse(note.text)
        keys = [VerifierKey.parse(text) for text in message.keys]
        if any(key.name != checkpoint.origin or note.signature_of(key) is None for key in keys):
            raise NoteError("a checkpoint that the keys it names have not all signed")
        return checkpoint, keys[-1], keys, note.text

    def _contradiction(self, message: m.Checkpoint, checkpoint: Checkpoint, seen: Seen, text: str) -> bool:
        """Whether a checkpoint does not extend the one that we have seen, or does not show it yet."""
        old = seen.checkpoint
        if checkpoint.size < old.size:
            count = self._older[old.origin] = self._older.get(old.origin, 0) + 1
            if count >= _ROLLED_BACK:
                self._accuse("rollback", seen, text, f"{checkpoint.size} records, and had {old.size}")
            return True
        if checkpoint.size > old.size and message.old != old.size:
            return True
        # A tree that was seen already comes with a proof from where its owner believed us to be.
        proof = message.proof if checkpoint.size > old.size else []
        if not is_consistent(old.size, checkpoint.size, old.root, checkpoint.root, proof):
            detail = f"its {checkpoint.size} records do not begin with the {old.size} seen"
            self._accuse("split-view", seen, text, detail)
            return True
        return False

    def _accuse(self, event: str, seen: Seen, text: str, detail: str) -> None:
        """Keep both checkpoints as evidence, and say so."""
        name = f"{witness_name(self._stem, seen.checkpoint.origin)}.{event}"
        if (event, seen.checkpoint.origin) not in self._told and self._storage.read_small(name) is None:
            self._storage.replace(name, (str(seen.note) + "\n" + text).encode()[:_SMALL_BYTES])
        self._tell(event, seen.checkpoint.origin, f"{seen.checkpoint.origin}: {detail}")

    def _tell(self, event: str, key: str, detail: str) -> None:
        """Record something once, and tell the operator."""
        if (event, key) in self._told or len(self._told) > 4 * MOST_ORIGINS:
            return
        self._told.add((event, key))
        text = printable(detail, 900)
        level = logging.INFO if event == "new-log" else logging.ERROR
        _LOG.log(level, "audit log of %s: %s: %s", self._relation.name, event, text)
        self._relation.note("checkpoint", event=event, peer=self._relation.name, detail=text)

    def _load(self) -> dict[str, Seen]:
        found = {}
        for name in self._storage.names():
            if name.startswith(f"{self._stem}.") and name.endswith(".witness"):
                seen = Seen.parse(self._storage.read_small(name, _SMALL_BYTES) or b"")
                found[seen.checkpoint.origin] = seen
        return found


class _Sent(NamedTuple):
    """A checkpoint that is shown to the peer, or will be once its proof is found."""

    note: Note
    tree: Range
    keys: list[str]
    old: int
    """Up to where the peer has seen the log."""


class Shown:
    """What the peer has cosigned of our log, and what it is to see next.

    Invariant: ``_base`` is the tree of the last checkpoint that the peer is known to have seen, None if that tree is
    not known here; at most one checkpoint is under way. A peer that says where it stands has us read no more of the
    log at a time than a step.
    """

    def __init__(self, storage: Storage, stem: str, sealer: Sealer) -> None:
        self._storage = storage
        self._stem = stem
        self._sealer = sealer
        self._old = 0
        self._base: Range | None = Range()
        self._witness: VerifierKey | None = None
        self._under_way: tuple[Note, Range] | None = None
        self._search: tuple[_Sent, Steps] | None = None
        self.lost_place = False
        """No proof can be made from where the peer stands: the segments before are archived."""
        self._refusals = 0
        self._sent_at = 0.0
        self._load()
        if self._base is not None:
            sealer.ranges = [Range(self._base.end)]

    def next(self, now: float) -> m.Checkpoint | None:
        """Return the next checkpoint to send, None if there is nothing new or the last one is not answered."""
        if self._search is not None:
            return self._go_on(now)
        latest = self._sealer.latest
        if latest is None or latest.checkpoint.size != self._sealer.tree.end:
            return None
        size = latest.checkpoint.size
        waits = self._under_way is not None or self._refusals > 0
        if size == self._old or (waits and now - self._sent_at < RESEND_S):
            return None
        since = next((one for one in self._sealer.ranges if one.begin == self._old and one.end == size), None)
        sent = _Sent(latest.note, self._sealer.tree.copy(), self._sealer.signing_keys, self._old)
        if self._base is not None and since is not None:
            proof = consistency_from_ranges(self._base, since)
        elif self._old == 0:
            proof = []
        else:
            steps = self._sealer.consistency(self._old, size)
            self.lost_place = steps is None
            if steps is None:
                return None
            # What comes behind it is collected while the proof is looked for.
            self._sealer.ranges = [*self._sealer.ranges[-1:], Range(size)]
            self._search = (sent, steps)
            return self._go_on(now)
        self._sealer.ranges = [*([since] if since is not None else []), Range(size)]
        return self._send(sent, proof, now)

    def _go_on(self, now: float) -> m.Checkpoint | None:
        """Look on for a proof, a step; return the checkpoint once it is found."""
        search, self._search = self._search, None
        if search is not None:
            try:
                next(search[1])
            except StopIteration as done:
                return self._send(search[0], done.value, now)
        self._search = search
        return None

    def _send(self, sent: _Sent, proof: list[bytes], now: float) -> m.Checkpoint:
        self._under_way, self._sent_at = (sent.note, sent.tree), now
        return m.Checkpoint(sent.note.encode(), sent.old, proof, sent.keys)

    def answered(self, message: m.Cosigned) -> list[tuple[str, str]]:
        """Take the witness's answer; return what has to be told.

        Raises:
            OSError: The cosignature cannot be kept.
        """
        if message.origin not in ("", self._sealer.origin) or self._sealer.latest is None:
            return []
        under_way, self._under_way = self._under_way, None
        if under_way is None or not message.signature or message.size != under_way[1].end:
            return self._not_cosigned(message.size, asked=under_way is not None and message.signature == "")
        note, tree = under_way
        try:
            key = VerifierKey.parse(message.key)
            cosigned = Note(note.text, (*note.signatures, Signature.parse(message.signature)))
            if cosigned.signature_of(key) is None:
                raise NoteError("a cosignature of something else")
        except NoteError as exc:
            return [("bad-cosignature", str(exc))]
        told = []
        if self._witness is not None and self._witness != key:
            told.append(("new-witness", f"{key}, before {self._witness}"))
        self._old, self._base, self._witness, self._refusals = tree.end, tree, key, 0
        self._search = None
        self._sealer.ranges = [one for one in self._sealer.ranges if one.begin == tree.end]
        found = {
            "caprpc": 1,
            "kind": "cosigned",
            "witness": str(key),
            "note": str(cosigned),
            "hashes": [to_base64(one) for one in tree.hashes],
        }
        self._storage.replace(cosigned_name(self._stem), json.dumps(found).encode("ascii") + b"\n")
        return told

    def _not_cosigned(self, size: int, *, asked: bool) -> list[tuple[str, str]]:
        """Find out from where the witness wants the next proof, or that it wants none."""
        self._refusals += asked
        if size > self._sealer.tree.end:
            return [("ahead", f"the peer has seen {size} records of this log, which has {self._sealer.tree.end}")]
        if size == self._old:
            # One refusal may be of a checkpoint that another one has overtaken.
            stubborn = self._refusals >= _STUBBORN
            return [("not-cosigned", f"the peer does not cosign what comes after {size} records")] if stubborn else []
        # It has lost what it saw last, or its answer got lost: prove from where it stands.
        self._old, self._base = size, Range() if size == 0 else None
        self._search = None
        return []

    def _load(self) -> None:
        data = self._storage.read_small(cosigned_name(self._stem), _SMALL_BYTES)
        if data is None:
            return
        try:
            found = json.loads(data)
            checkpoint = Checkpoint.parse(Note.parse(found["note"].encode()).text)
            tree = Range(0, [from_base64(one) for one in found["hashes"]], checkpoint.size)
            if tree.root() != checkpoint.root:
                raise ValueError("another tree")
            self._old, self._base, self._witness = tree.end, tree, VerifierKey.parse(found["witness"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise AuditError(f"{self._storage.path / cosigned_name(self._stem)}: not a cosigned checkpoint") from exc


def load_cosigner(storage: Storage) -> NoteSigner:
    """Return the key with which this log's owner witnesses the logs of others, made when there is none.

    Raises:
        AuditError: The file holds something else.
        OSError: It cannot be kept.
    """
    data = storage.read_small(_COSIGNER)
    if data is None:
        signer = NoteSigner.generate(f"caprpc/witness/{storage.log_id}", KIND_COSIGNER)
        storage.replace(_COSIGNER, f"{signer.secret}\n".encode("ascii"))
        return signer
    try:
        return NoteSigner.parse(data.decode("ascii").strip())
    except ValueError as exc:
        raise AuditError(f"{storage.path / _COSIGNER}: not the key of a witness: {exc}") from exc
