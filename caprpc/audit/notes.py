"""Signed notes and checkpoints as C2SP defines them, so that other people's tools verify our logs.

c2sp.org/signed-note, c2sp.org/tlog-checkpoint and c2sp.org/tlog-cosignature; keys are written as Go's ``sumdb/note``
writes them. Parsers take what a stranger sends: they are bounded, and accept one spelling of each thing.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from caprpc.audit.merkle import HASH_BYTES

KIND_LOG: Final = 1
"""Signature type of a log: Ed25519 over the text."""

KIND_COSIGNER: Final = 4
"""Signature type of a witness: Ed25519 over a time and the text."""

MAX_NOTE_BYTES: Final = 4096
"""Longest note that is read: a checkpoint of ours with four signatures takes a quarter of it."""

MAX_SIGNATURES: Final = 16
"""Signatures in a note; a verifier has to accept as many."""

MAX_NAME_BYTES: Final = 200
"""Longest name of a key or an origin."""

_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}")
_PRIVATE: Final = "PRIVATE+KEY+"


class NoteError(ValueError):
    """A text is no signed note, no checkpoint or no key; says why."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """Who may have signed a note: a name, what kind of signature, and an Ed25519 public key."""

    name: str
    kind: int
    public: bytes

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """Read ``name+id+base64``.

        Raises:
            NoteError: It is something else.
        """
        name, key_id, data = _key_parts(text)
        key = cls(name, data[0], data[1:])
        if key.key_id.hex() != key_id:
            raise NoteError(f"a key with the id {key.key_id.hex()}, its text says {key_id}")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_base64(bytes([self.kind]) + self.public)}"

    @property
    def key_id(self) -> bytes:
        """The 4 bytes by which a signature says which key made it."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def accepts(self, message: bytes, signature: bytes) -> bool:
        """Return whether this key made a signature over a message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class NoteSigner:
    """Signs notes with one key."""

    __slots__ = ("_private", "_seed", "key")

    def __init__(self, name: str, kind: int, seed: bytes) -> None:
        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = VerifierKey(name, kind, self._private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str, kind: int) -> "NoteSigner":
        """Return a signer with a fresh key."""
        return cls(name, kind, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> "NoteSigner":
        """Read what ``secret`` returned.

        Raises:
            NoteError: It is something else.
        """
        if not text.startswith(_PRIVATE):
            raise NoteError(f"a private key begins with {_PRIVATE}")
        name, key_id, data = _key_parts(text.removeprefix(_PRIVATE))
        signer = cls(name, data[0], data[1:])
        if signer.key.key_id.hex() != key_id:
            raise NoteError("a private key whose id is that of another one")
        return signer

    @property
    def secret(self) -> str:
        """The private key as text; for a file that nobody else may read."""
        data = _base64(bytes([self.key.kind]) + self._seed)
        return f"{_PRIVATE}{self.key.name}+{self.key.key_id.hex()}+{data}"

    def sign(self, text: str, time_s: int = 0) -> "Signature":
        """Return our signature; a witness signs at ``time_s``, seconds since 1970."""
        if self.key.kind == KIND_COSIGNER:
            data = time_s.to_bytes(8, "big") + self._private.sign(_cosigned(text, time_s))
        else:
            data = self._private.sign(text.encode())
        return Signature(self.key.name, self.key.key_id, data)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line of a note."""

    name: str
    key_id: bytes
    data: bytes

    def __str__(self) -> str:
        return f"— {self.name} {_base64(self.key_id + self.data)}"

    @classmethod
    def parse(cls, line: str) -> "Signature":
        """Read one signature line, without its newline.

        Raises:
            NoteError: It is something else.
        """
        mark, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if mark != "—":
            raise NoteError("a signature line begins with an em dash and a space")
        _check_name(name)
        data = _from_base64(encoded)
        if len(data) < 5:
            raise NoteError(f"a signature of {len(data)} bytes")
        return cls(name, data[:4], data[4:])

    @property
    def time_s(self) -> int:
        """When a witness signed, seconds since 1970."""
        return int.from_bytes(self.data[:8], "big")


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signatures, none of them verified yet."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: bytes, most_bytes: int = MAX_NOTE_BYTES) -> "Note":
        """Read a signed note of at most so many bytes.

        Raises:
            NoteError: It is something else, or too long.
        """
        if len(data) > most_bytes:
            raise NoteError(f"a note of {len(data)} bytes, at most {most_bytes} accepted")
        try:
            whole = data.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise NoteError("a note that is not UTF-8") from exc
        if any(character < " " and character != "\n" for character in whole):
            raise NoteError("a note with control characters")
        head, blank, tail = whole.rpartition("\n\n")
        if not blank or not tail.endswith("\n"):
            raise NoteError("a note without a blank line and signatures behind it")
        lines = tail[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise NoteError(f"a note with {len(lines)} signatures, at most {MAX_SIGNATURES} accepted")
        return cls(head + "\n", tuple(map(Signature.parse, lines)))

    def __str__(self) -> str:
        return self.text + "\n" + "".join(f"{signature}\n" for signature in self.signatures)

    def encode(self) -> bytes:
        """Return the note as it is stored and sent."""
        return str(self).encode()

    def signature_of(self, key: VerifierKey) -> Signature | None:
        """Return the signature that a key made, None if there is none.

        Raises:
            NoteError: One that claims to be of this key is not: the whole note is bad.
        """
        found = None
        for signature in self.signatures:
            if (signature.name, signature.key_id) != (key.name, key.key_id):
                continue
            if not _is_signed(self.text, key, signature):
                raise NoteError(f"a signature of {key.name} that its key did not make")
            found = signature
        return found


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: its origin, how many leaves it has, and the root over them."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read the text of a note as a checkpoint; lines behind the third say nothing to us.

        Raises:
            NoteError: It is something else.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
            raise NoteError("a checkpoint has three lines or more, none of them empty")
        origin, size, root = lines[:3]
        if len(origin.encode()) > MAX_NAME_BYTES:
            raise NoteError(f"an origin of more than {MAX_NAME_BYTES} bytes")
        if not _SIZE.fullmatch(size):
            raise NoteError("a tree size that is no decimal number")
        digest = _from_base64(root)
        if len(digest) != HASH_BYTES:
            raise NoteError(f"a root hash of {len(digest)} bytes")
        return cls(origin, int(size), digest)

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"

    def sign(self, signers: Sequence[NoteSigner]) -> Note:
        """Return the note that says so, signed by each."""
        text = str(self)
        return Note(text, tuple(signer.sign(text) for signer in signers))


def to_base64(data: bytes) -> str:
    """Return standard Base 64 with padding."""
    return _base64(data)


def from_base64(text: str) -> bytes:
    """Read standard Base 64 with padding, in its only spelling.

    Raises:
        NoteError: It is something else.
    """
    return _from_base64(text)


def _is_signed(text: str, key: VerifierKey, signature: Signature) -> bool:
    if key.kind == KIND_LOG:
        return len(signature.data) == _SIGNATURE_BYTES and key.accepts(text.encode(), signature.data)
    if key.kind == KIND_COSIGNER and len(signature.data) == 8 + _SIGNATURE_BYTES and signature.time_s < 1 << 63:
        return key.accepts(_cosigned(text, signature.time_s), signature.data[8:])
    return False


def _cosigned(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def _key_parts(text: str) -> tuple[str, str, bytes]:
    if len(text) > MAX_NAME_BYTES + 64:
        raise NoteError(f"a key of {len(text)} characters")
    parts = text.split("+", 2)
    if len(parts) != 3 or not _KEY_ID.fullmatch(parts[1]):
        raise NoteError("a key is a name, 8 hexadecimal digits and Base 64, with + between them")
    _check_name(parts[0])
    data = _from_base64(parts[2])
    if len(data) != 1 + _KEY_BYTES or data[0] not in (KIND_LOG, KIND_COSIGNER):
        raise NoteError("a key that is not one of Ed25519, of type 1 or 4")
    return parts[0], parts[1], data


def _check_name(name: str) -> None:
    if not name or len(name.encode("utf-8", "backslashreplace")) > MAX_NAME_BYTES:
        raise NoteError(f"a key name of 1 to {MAX_NAME_BYTES} bytes expected")
    if not name.isprintable() or "+" in name or any(character.isspace() for character in name):
        raise NoteError("a key name with a space, a plus sign or something that does not print")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _from_base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as exc:
        raise NoteError("not Base 64") from exc
    if _base64(data) != text:
        raise NoteError("Base 64 in another than its only spelling")
    return data
