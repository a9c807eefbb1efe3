"""How a session opens: WELCOME and HELLO, versions, limits, and the connection id.

Wire protocol, section 3.
"""

import hashlib
import re
import secrets
from typing import Final

from caprpc.errors import RemoteProtocolError
from caprpc.limits import DEFAULT_LIMITS, Limits, value_limits
from caprpc.wire.messages import Hello, PeerLimits, Welcome

VERSION: Final = 1
NONCE_BYTES: Final = 32
FEATURE_DEADLINE: Final = "deadline"
"""Its sender ends calls when the time is over that ``Meta.deadline_ms`` gives them."""

FEATURE_WITNESS: Final = "witness"
"""Its sender cosigns the checkpoints of the other side's audit log, and sends its own."""

FEATURE_PIPELINE: Final = "pipeline"
"""Its sender keeps answers (``Meta.keep``), takes calls on them, and forgets them by FINISH."""

FEATURES: Final = (FEATURE_DEADLINE, FEATURE_PIPELINE, FEATURE_WITNESS)
"""What we speak. The acceptor offers, the dialer chooses from it, and both use what was chosen."""

POLICY_PREFIX: Final = "policy:"
"""In WELCOME, in front of the digest of the policy that the acceptor holds the dialer to; not a feature to agree on."""
_POLICY: Final = re.compile(r"policy:(sha256:[0-9a-f]{64})")

_LEAST: Final = PeerLimits(1024, 1, 1, 1, 16, 64, 32, 0)
"""A peer that accepts smaller frames cannot receive our errors, and short keys cost no look at their length."""


class Opening:
    """What both sides told each other first; owns the connection id."""

    __slots__ = (
        "accepted",
        "acceptor",
        "connection_id",
        "features",
        "nonce",
        "our_leaf_key",
        "peer_leaf_key",
        "peer_limits",
        "peer_policy",
        "policy",
        "sends",
    )

    def __init__(self, *, acceptor: bool, our_leaf_key: str, peer_leaf_key: str, policy: str = "") -> None:
        self.acceptor = acceptor
        self.our_leaf_key = our_leaf_key
        self.peer_leaf_key = peer_leaf_key
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        self.policy = policy
        """The digest of our policy for the peer, as an acceptor announces it; empty: it announces none."""
        self.peer_policy = ""
        """The digest that the acceptor has announced; empty if it has announced none."""
        self.connection_id = ""
        self.peer_limits = _LEAST
        self.accepted = _LEAST
        """What we have announced: it is no fault of the peer to use it, as long as the connection lives."""
        self.features = frozenset(FEATURES)
        """What both sides speak; before the peer's first message what we do."""
        self.sends: Limits = DEFAULT_LIMITS
        """What we keep to in what we send: our own limits, and those that the peer has announced."""

    def greeting(self, limits: Limits) -> Welcome | Hello:
        """Return our first message."""
        values = value_limits(limits)
        self.accepted = PeerLimits(limits.max_frame_bytes, limits.in_flight, limits.imports, **values)
        features = sorted(self.features)
        if not self.acceptor:
            return Hello([VERSION], self.nonce, self.accepted, features)
        if self.policy:
            features.append(f"{POLICY_PREFIX}{self.policy}")
        return Welcome([VERSION], self.nonce, self.accepted, features)

    def receive(self, message: Welcome | Hello) -> None:
        """Check the peer's first message and take over what it says.

        Raises:
            RemoteProtocolError: No common version, a feature we did not offer, or a senseless limit.
        """
        if VERSION not in message.versions or (self.acceptor and message.versions != [VERSION]):
            raise RemoteProtocolError(f"versions {message.versions[:4]} offered, {VERSION} needed")
        if len(set(message.features)) != len(message.features):
            raise RemoteProtocolError("a feature that is named twice")
        if self.acceptor and not self.features.issuperset(message.features):
            raise RemoteProtocolError("features that we have not offered")
        announced = [match[1] for feature in message.features if (match := _POLICY.fullmatch(feature))]
        if len(announced) > 1:
            raise RemoteProtocolError("two policies announced")
        if len(message.nonce) != NONCE_BYTES:
            raise RemoteProtocolError(f"nonce of {len(message.nonce)} bytes, {NONCE_BYTES} expected")
        theirs = message.limits
        if (
            theirs.max_frame_bytes < _LEAST.max_frame_bytes
            or min(theirs.max_in_flight, theirs.max_references) < 1
            or any(most < _LEAST.values[knob] for knob, most in theirs.values.items())
        ):
            raise RemoteProtocolError("limits under which nothing can be called")
        self.peer_limits = theirs
        self.peer_policy = "".join(announced)
        self.features = self.features.intersection(message.features)
        ours, other = (self.nonce, message.nonce), (self.our_leaf_key, self.peer_leaf_key)
        nonces = ours if self.acceptor else ours[::-1]
        keys = other if self.acceptor else other[::-1]
        digest = hashlib.sha256(nonces[0] + nonces[1] + keys[0].encode() + keys[1].encode())
        self.connection_id = digest.hexdigest()[:32]
