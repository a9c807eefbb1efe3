"""The messages of ``caprpc/1``, one class for each kind.

Every message is a MessagePack array whose first element is the kind. The classes below are typed and of
finite depth, so that decoding them is safe for hostile input (a payload stays an opaque byte string until
the guard has permitted the operation). Extra elements are refused.

Wire protocol, section 4.
"""

from typing import Final, TypeAlias

import msgspec

NO_QUESTION: Final = -1

LIFETIME_CONNECTION: Final = 0
LIFETIME_CALL: Final = 1


class Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, tag_field="kind"):
    """Base of all kinds: an array, no unknown elements."""


class PeerLimits(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """What the sender of a WELCOME or HELLO will accept from the other side."""

    max_frame_bytes: int
    max_in_flight: int
    max_references: int
    max_depth: int


class Welcome(Message, tag=1):
    """The acceptor's first message, sent after it has verified the dialer's certificate and found its policy."""

    versions: list[int]
    nonce: bytes
    limits: PeerLimits
    features: list[str]


class Hello(Message, tag=2):
    """The dialer's first message; ``versions`` holds exactly the version it chose."""

    versions: list[int]
    nonce: bytes
    limits: PeerLimits
    features: list[str]


class Facet(Message, tag=3):
    """What the receiver may do with references of this facet; sent once, before the first such reference."""

    facet: int
    interface: str
    members: list[tuple[int, str]]
    lifetime: int


class Meta(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """What travels beside a call."""

    cause: int | None = None
    """The receiver's own open question on whose behalf this call is made."""
    deadline_ms: int | None = None
    keep: bool = False
    """Keep the answer for pipelined calls until FINISH."""
    trace: bytes | None = None


class Call(Message, tag=4):
    """Ask for one operation on one reference of the receiver."""

    question: int
    target: int
    """An export of the receiver; a negative number is ``~question``, a promised answer of the receiver."""
    operation: int
    member: str
    meta: Meta | None
    payload: bytes


class Return(Message, tag=5):
    """A question ends with a value."""

    question: int
    payload: bytes


class Raise(Message, tag=6):
    """A question ends with an error.

    ``taken`` says whether the arguments were decoded and their references accepted; if not, the asker takes
    the reference counts in them back.
    """

    question: int
    taken: bool
    code: str
    type: str
    text: str
    reference: str


class Cancel(Message, tag=7):
    """The asker no longer needs the answer; the answer still comes, exactly once."""

    question: int


class Release(Message, tag=8):
    """The holder gives back counts: pairs of export and count, each at least 1."""

    counts: list[tuple[int, int]]


class Finish(Message, tag=9):
    """The asker no longer needs a kept answer."""

    question: int


class Revoked(Message, tag=10):
    """The exporter has revoked these exports."""

    exports: list[int]


class Ping(Message, tag=11):
    """Ask for a PONG with the same number."""

    number: int


class Pong(Message, tag=12):
    """Answer to a PING."""

    number: int


class GoAway(Message, tag=13):
    """No new questions from now on (``drain``), or the connection ends now (any other code)."""

    code: str
    text: str
    reference: str


class Run(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Consecutive calls of a batch that name the same operation on the same target."""

    target: int
    operation: int
    member: str
    payload: bytes
    """Values: a list with one ``[args, kwargs]`` for each call."""


class Batch(Message, tag=14):
    """Many calls under one question and one answer; each is guarded and audited on its own."""

    question: int
    meta: Meta | None
    runs: list[Run]


class Failure(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One failed call of a batch, named by its position."""

    position: int
    taken: bool
    code: str
    type: str
    text: str
    reference: str


class BatchReturn(Message, tag=15):
    """Answer to a BATCH: values in order (None where a call failed), and the failures by position."""

    question: int
    failures: list[Failure]
    payload: bytes


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
)
