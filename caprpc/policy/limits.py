"""``[limits]``: which limits of a connection a policy may set, and how far."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Final

from caprpc.limits import DEFAULT_LIMITS, KIB, MIB, Limits
from caprpc.policy.document import Table

RANGES: Final[Mapping[str, tuple[float, float]]] = {
    # Narrowing only. What a wider value would let in kills the process, not the connection: C stacks (depth),
    # quadratic arithmetic (integers), colliding keys (pairs), terminal floods (error text), slots held by a peer
    # that says nothing (hello). Keys of up to 31 bytes have the short heads that the codec does not look for.
    "max_depth": (2, DEFAULT_LIMITS.max_depth),
    "max_int_bits": (64, DEFAULT_LIMITS.max_int_bits),
    "max_key_bytes": (32, DEFAULT_LIMITS.max_key_bytes),
    "max_error_text_bytes": (0, DEFAULT_LIMITS.max_error_text_bytes),
    "max_pair_keys": (0, DEFAULT_LIMITS.max_pair_keys),
    "callback_depth": (0, DEFAULT_LIMITS.callback_depth),
    "pipeline_depth": (0, DEFAULT_LIMITS.pipeline_depth),
    "hello_timeout_s": (0.1, DEFAULT_LIMITS.hello_timeout_s),
    # Both ways: cost that the operator may decide to bear for a peer.
    "max_frame_bytes": (16 * KIB, 64 * MIB),
    "max_items": (16, 1_048_576),
    "message_references": (1, 1_048_576),
    "in_flight": (1, 4_096),
    "exports": (1, 1_048_576),
    "imports": (1, 1_048_576),
    "callbacks": (0, 2**31),
    "call_timeout_s": (0.001, 86_400),
    "idle_s": (1, 3_600),
    "frame_grace_s": (0.1, 60),
    "frame_bytes_per_s": (64, 64 * MIB),
    "write_high_water_bytes": (16 * KIB, 64 * MIB),
    "write_timeout_s": (0.1, 300),
    "principal_in_flight": (1, 65_536),
    "principal_callbacks": (1, 131_072),
    "principal_pipelined": (1, 65_536),
    "principal_argument_bytes": (16 * KIB, 65_536 * MIB),
    "principal_exports": (1, 16_777_216),
    "principal_imports": (1, 16_777_216),
    "principal_buffered_bytes": (16 * KIB, 1_024 * MIB),
    "glitch_burst": (1, 10_000),
    "glitch_per_s": (0.1, 1_000),
}
"""For each field of ``Limits`` the smallest and largest value of a policy."""
CONNECTIONS: Final = (1, 10_000)
"""Connections that the principal may have."""
INTEGERS: Final = frozenset(field.name for field in fields(Limits) if field.type is int)


def read_limits(table: Table | None) -> tuple[Limits, int | None]:
    """Return the limits of a connection, and how many connections the principal may have."""
    if table is None:
        return DEFAULT_LIMITS, None
    chosen: dict[str, float] = {}
    for key, (low, high) in RANGES.items():
        value: float | None
        if key in INTEGERS:
            value = table.integer(key, int(low), int(high))
        else:
            value = table.number(key, low, high)
        if value is not None:
            chosen[key] = value
    connections = table.integer("connections", *CONNECTIONS)
    table.finish((*RANGES, "connections"))
    if not table.keys:
        table.problems.add(table.place(), "[limits] is empty", "delete the table", code="empty")
    return replace(DEFAULT_LIMITS, **chosen), connections  # type: ignore[arg-type]  # integers were read as integers


def tighter(one: Limits, other: Limits) -> Limits:
    """Return the smaller of each limit."""
    others = asdict(other)
    return Limits(**{name: min(value, others[name]) for name, value in asdict(one).items()})
