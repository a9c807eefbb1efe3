"""The messages of ``caprpc/1``, one class for each kind.

Every message is a MessagePack array whose first element is the kind. The classes below are typed and of
finite depth, so that decoding them is safe for hostile input (a payload stays an opaque byte string until
the guard has permitted the operation). Extra elements are refused.

Wire protocol, section 4.
"""

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta as Bound

from caprpc.limits import DEFAULT_LIMITS

MAX_ID: Final = 2**53 - 1
"""Largest number in a message: every language holds it exactly."""

NONCE_BYTES: Final = 32

Id: TypeAlias = Annotated[int, Bound(ge=0, le=MAX_ID)]
Target: TypeAlias = Annotated[int, Bound(ge=-MAX_ID - 1, le=MAX_ID)]
Count: TypeAlias = Annotated[int, Bound(ge=1, le=MAX_ID)]
Operation: TypeAlias = Annotated[int, Bound(ge=0, le=255)]
Version: TypeAlias = Annotated[int, Bound(ge=1, le=65_535)]
Name: TypeAlias = Annotated[str, Bound(max_length=128)]
"""A member, an interface or an error type; empty where an operation has no member."""
Code: TypeAlias = Annotated[str, Bound(max_length=32)]
Text: TypeAlias = Annotated[str, Bound(max_length=256)]
ReferenceNumber: TypeAlias = Annotated[str, Bound(max_length=32)]

LIFETIME_CONNECTION: Final = 0
LIFETIME_CALL: Final = 1


class Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, tag_field="kind"):
    """Base of all kinds: an array, no unknown elements."""


class PeerLimits(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """What the sender of a WELCOME or HELLO will accept from the other side; all eight are always written."""

    max_frame_bytes: Id
    max_in_flight: Id
    max_references: Id
    max_depth: Id
    max_items: Id = DEFAULT_LIMITS.max_items
    max_int_bits: Id = DEFAULT_LIMITS.max_int_bits
    max_key_bytes: Id = DEFAULT_LIMITS.max_key_bytes
    max_pair_keys: Id = DEFAULT_LIMITS.max_pair_keys

    @property
    def values(self) -> dict[str, int]:
        """The limits of values by their knobs."""
        return {
            "max_depth": self.max_depth,
            "max_items": self.max_items,
            "max_int_bits": self.max_int_bits,
            "max_key_bytes": self.max_key_bytes,
            "max_pair_keys": self.max_pair_keys,
        }


class Welcome(Message, tag=1):
    """The acceptor's first message, sent after it has verified the dialer's certificate and found its policy."""

    versions: Annotated[list[Version], Bound(min_length=1, max_length=16)]
    nonce: Annotated[bytes, Bound(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    limits: PeerLimits
    features: Annotated[list[Name], Bound(max_length=32)]


class Hello(Message, tag=2):
    """The dialer's first message; ``versions`` holds exactly the version it chose."""

    versions: Annotated[list[Version], Bound(min_length=1, max_length=16)]
    nonce: Annotated[bytes, Bound(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    limits: PeerLimits
    features: Annotated[list[Name], Bound(max_length=32)]


class Facet(Message, tag=3):
    """What the receiver may do with references of this facet; sent once, before the first such reference."""

    facet: Id
    interface: Name
    members: Annotated[list[tuple[Operation, Name]], Bound(max_length=4_096)]
    lifetime: Annotated[int, Bound(ge=0, le=1)]


class Meta(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """What travels beside a call."""

    cause: Id | None = None
    """The receiver's own open question on whose behalf this call is made."""
    deadline_ms: Id | None = None
    keep: bool = False
    """Keep the answer for pipelined calls until FINISH."""
    trace: Annotated[bytes, Bound(max_length=64)] | None = None


class Call(Message, tag=4):
    """Ask for one operation on one reference of the receiver."""

    question: Id
    target: Target
    """An export of the receiver; a negative number is ``~question``, a promised answer of the receiver."""
    operation: Operation
    member: Name
    meta: Meta | None
    payload: bytes


class Return(Message, tag=5):
    """A question ends with a value."""

    question: Id
    payload: bytes


class BulkCall(Message, tag=4):
    """A CALL with a large payload, which stays where the frame was received."""

    question: Id
    target: Target
    operation: Operation
    member: Name
    meta: Meta | None
    payload: memoryview


class BulkReturn(Message, tag=5):
    """A RETURN with a large payload, which stays where the frame was received."""

    question: Id
    payload: memoryview


class Raise(Message, tag=6):
    """A question ends with an error.

    ``taken`` says whether the arguments were decoded and their references accepted; if not, the asker takes
    the reference counts in them back.
    """

    question: Id
    taken: bool
    code: Code
    type: Name
    text: Text
    reference: ReferenceNumber


class Cancel(Message, tag=7):
    """The asker no longer needs the answer; the answer still comes, exactly once."""

    question: Id


class Release(Message, tag=8):
    """The holder gives back counts: pairs of export and count, each at least 1."""

    counts: Annotated[list[tuple[Id, Count]], Bound(min_length=1, max_length=65_536)]


class Finish(Message, tag=9):
    """The asker no longer needs a kept answer."""

    question: Id


class Revoked(Message, tag=10):
    """The exporter has revoked these exports."""

    exports: Annotated[list[Id], Bound(min_length=1, max_length=65_536)]


class Ping(Message, tag=11):
    """Ask for a PONG with the same number."""

    number: Id


class Pong(Message, tag=12):
    """Answer to a PING."""

    number: Id


class GoAway(Message, tag=13):
    """No new questions from now on (``drain``), or the connection ends now (any other code)."""

    code: Code
    text: Text
    reference: ReferenceNumber


class Run(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Consecutive calls of a batch that name the same operation on the same target."""

    target: Target
    operation: Operation
    member: Name
    count: Count
    """Number of calls; known before the payload is decoded, so that each can be guarded first."""
    payload: bytes
    """Values: a list with one ``[args, kwargs]`` for each call."""


class Batch(Message, tag=14):
    """Many calls under one question and one answer; each is guarded and audited on its own."""

    question: Id
    meta: Meta | None
    runs: Annotated[list[Run], Bound(min_length=1, max_length=4_096)]


class Failure(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One failed call of a batch, named by its position."""

    position: Id
    taken: bool
    code: Code
    type: Name
    text: Text
    reference: ReferenceNumber


class BatchReturn(Message, tag=15):
    """Answer to a BATCH: values in order (None where a call failed), and the failures by position."""

    question: Id
    failures: Annotated[list[Failure], Bound(max_length=65_536)]
    payload: bytes


Digest: TypeAlias = Annotated[bytes, Bound(min_length=32, max_length=32)]


class Checkpoint(Message, tag=16):
    """How far the sender's audit log goes, signed; the receiver is its witness."""

    note: Annotated[bytes, Bound(min_length=1, max_length=2_048)]
    """C2SP checkpoint, signed by each of ``keys``."""
    old: Id
    """Size of the tree that the witness has seen last, as far as the sender knows; 0 for none."""
    proof: Annotated[list[Digest], Bound(max_length=64)]
    """RFC 6962 consistency proof from that tree to the one of the note."""
    keys: Annotated[list[Annotated[str, Bound(max_length=320)]], Bound(min_length=1, max_length=2)]
    """The log's key; while it changes keys, the old and the new one."""


class Cosigned(Message, tag=17):
    """Answer to a CHECKPOINT, or what the witness saw before this connection."""

    origin: Annotated[str, Bound(max_length=200)]
    """Which log."""
    size: Id
    """The largest tree of that log that the witness has seen; 0 if it takes nothing of it."""
    signature: Annotated[str, Bound(max_length=512)]
    """Signature line of a C2SP cosignature over the note, without its newline; empty if the witness does not sign."""
    key: Annotated[str, Bound(max_length=320)]
    """The witness's key."""


AnyMessage: TypeAlias = (
    Welcome
    | Hello
    | Facet
    | Call
    | Return
    | Raise
    | Cancel
    | Release
    | Finish
    | Revoked
    | Ping
    | Pong
    | GoAway
    | Batch
    | BatchReturn
    | Checkpoint
    | Cosigned
)
