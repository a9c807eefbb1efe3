"""Every limit, with its unit, its default and the reason for it.

A connection takes the defaults below unless the policy of its peer sets a key of the same name under
``[limits]``. Messages about a limit name the knob.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection."""

    max_frame_bytes: int = MIB + 64 * KIB
    """Body of one frame: a payload of 1 MiB and its envelope. Checked before the body is buffered."""
    max_depth: int = 32
    """Nesting of values; deeper ones kill C stacks, and nobody reads them."""
    max_items: int = 65_536
    """Values in one message: bounds the memory that small wire forms make."""
    max_int_bits: int = 4_096
    """Largest integer; arithmetic on more is slow enough to be an attack."""
    max_key_bytes: int = 128
    """Longest map key, in UTF-8."""
    max_error_text_bytes: int = 256
    """Longest public error text that crosses."""
    max_pair_keys: int = 1_024
    """Entries of a dict whose keys are not all strings: such keys can be made to collide."""
    message_references: int = 256
    """References in one message: each is an entry of a table on both sides, and takes as long as forty numbers."""
    in_flight: int = 64
    """Calls of the peer that are queued or running."""
    exports: int = 4_096
    """Our objects that the peer may name at one time."""
    imports: int = 4_096
    """Their objects that we hold at one time."""
    callback_depth: int = 16
    """Calls nested in calls, both sides counted."""
    callbacks: int = 65_536
    """Calls that one call causes: ours while we run one of theirs, theirs on all that was lent to one of ours."""
    pipeline_depth: int = 16
    """Answers, one after the other, that a pipelined call may wait for: nobody sees how far such a chain has come."""
    call_timeout_s: float = 30.0
    """How long we wait for an answer unless the call says otherwise."""
    hello_timeout_s: float = 5.0
    """From a finished handshake to the peer's first message."""
    idle_s: float = 60.0
    """Silence after which we ask for a sign of life, and as long again before we give up."""
    frame_grace_s: float = 5.0
    """A frame may take this long before ``frame_bytes_per_s`` is demanded."""
    frame_bytes_per_s: int = 16 * KIB
    """Progress that a frame must make after the grace time: stops a trickle from holding a buffer."""
    write_high_water_bytes: int = MIB
    """Bytes waiting to be sent above which we start no call of the peer, and read none unless we await its answer."""
    write_timeout_s: float = 30.0
    """A peer that takes nothing for this long is gone."""
    principal_in_flight: int = 256
    """As ``in_flight``, of all connections of the peer's principal: four that do all they may, or eight with half."""
    principal_callbacks: int = 256
    """Calls of the peer within calls of ours, of all its connections; ``callback_depth`` bounds each chain of them."""
    principal_pipelined: int = 256
    """Calls of the peer that wait for an answer, of all its connections; ``pipeline_depth`` bounds each chain."""
    principal_argument_bytes: int = 64 * MIB
    """Memory of the arguments of the peer's calls that are queued or running, of all its connections: 64 of 1 MiB."""
    principal_exports: int = 16_384
    """As ``exports``, of all its connections: one entry is about 600 bytes, so 10 MB."""
    principal_imports: int = 16_384
    """As ``imports``, of all its connections."""
    principal_buffered_bytes: int = 4 * MIB
    """As ``write_high_water_bytes``, divided among as many connections as it may have."""
    glitch_burst: int = 200
    """Budget for things that are legal and useless (refused calls, late cancels, pings, tiny records)."""
    glitch_per_s: float = 20.0
    """Refill of that budget."""


def value_limits(limits: Limits) -> dict[str, int]:
    """Return the limits of values by their knobs: each side announces its own, and sends nothing over the other's."""
    return {
        "max_depth": limits.max_depth,
        "max_items": limits.max_items,
        "max_int_bits": limits.max_int_bits,
        "max_key_bytes": limits.max_key_bytes,
        "max_pair_keys": limits.max_pair_keys,
    }


def lower_limits(ours: Limits, theirs: Mapping[str, int]) -> dict[str, int]:
    """Return those limits of values, by their knobs, that are lower than our own."""
    return {knob: theirs[knob] for knob, most in value_limits(ours).items() if theirs[knob] < most}


def within(ours: Limits, theirs: Mapping[str, int]) -> Limits:
    """Return our limits, with those of values where they are lower."""
    lower = lower_limits(ours, theirs)
    return replace(ours, **lower) if lower else ours


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of one server, over all its connections."""

    handshake_timeout_s: float = 5.0
    """From accept to a finished handshake."""
    max_unauthenticated: int = 256
    """Connections that have not proved who they are."""
    unauthenticated_per_address: int = 64
    """Of these, from one source address (IPv6: one /64); the longest silent one makes room for the next. A quarter of
    all: one host that opens connections and says nothing keeps nobody else waiting."""
    max_connections: int = 16_384
    """Connections altogether."""
    connections_per_principal: int = 8
    """Connections of one principal; a policy may set ``[limits] connections``."""
    accept_per_s: float = 100.0
    """Sustained handshakes; each costs us 0.6 ms before we know who is there."""
    accept_burst: int = 50
    """Handshakes above the sustained rate."""
    argument_bytes: int = 512 * MIB
    """As ``principal_argument_bytes``, of all peers: eight that hold as much as they may leave the process alive."""
    workers: int = 128
    """For methods that block; one principal occupies half of them at most; calls beyond that wait in order."""
    worker_wait_s: float = 1.0
    """How long a call waits while others hold all workers; then it is refused, and does not run. Whose principal holds
    its half waits for its own calls, without this bound."""


FIRST_FRAME_BYTES: Final = 16 * KIB
"""Largest frame before WELCOME and HELLO have been exchanged."""

HANDSHAKE_BYTES: Final = 64 * KIB
"""Most bytes a peer may send before its handshake is finished: certificate chains are smaller."""

DEFAULT_LIMITS: Final = Limits()
DEFAULT_SERVER_LIMITS: Final = ServerLimits()
