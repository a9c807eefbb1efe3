"""The cases, as data: what one operation is, how many of them make a round, and which number counts."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

MIB: Final = 1024 * 1024
WINDOW: Final = 64
"""Calls in flight: CapRPC's default limit of a connection, and what the issue compares."""
STEPS: Final = 10
"""Calls of a chain: below CapRPC's default ``pipeline_depth`` of 16."""
ITEMS: Final = 10_000
LINES: Final = 10_000
STREAM_BYTES: Final = 64 * MIB
CROWD: Final = 50
NAP_S: Final = 0.01
IDLE_CONNECTIONS: Final = 500
SILENT_CONNECTIONS: Final = 250
"""Below the 256 connections that CapRPC lets wait for a handshake by default."""
CALLBACK_ARGUMENT: Final = 20
SMALL_DICT: Final[Mapping[str, object]] = MappingProxyType({"id": 4711, "name": "Ada", "ratio": 0.5, "ok": True})
SMALL_DICT_BYTES: Final = 36
"""The dict above as MessagePack; the floor echoes as many raw bytes."""
PAYLOAD: Final = random.Random(4711).randbytes(MIB)
"""Does not compress: RPyC would otherwise send almost nothing."""


class Mode(StrEnum):
    """Where the two processes run."""

    PINNED = "pinned"
    """Both on one core: wall time is work, and repeats to 5 %."""
    UNPINNED = "unpinned"
    """Where the scheduler likes: what a user sees, wake-ups across cores included."""


class Shape(StrEnum):
    """How a case drives its operation."""

    CALLS = "calls"
    """One connection, one operation after the other."""
    CONNECT = "connect"
    """Connect, one no-op, close."""
    CROWD_ASYNC = "crowd-async"
    """Fifty connections of one event loop."""
    CROWD_THREADS = "crowd-threads"
    """Fifty connections, a thread each."""
    CROWD = "crowd"
    """Fifty connections of whichever client the peer has, asyncio first."""
    IDLE = "idle"
    """Connections that said one word and stay; memory of the server."""
    SILENT = "silent"
    """TCP connections that never say a word; memory of the server."""


class Metric(StrEnum):
    """A number of a sample."""

    P50 = "p50_us"
    P99 = "p99_us"
    CPU = "cpu_us"
    RATE = "rate"
    KIB = "kib"
    BESIDE_P50 = "beside_p50_us"

    @property
    def more_is_better(self) -> bool:
        """True for rates; every other metric is a cost."""
        return self is Metric.RATE


@dataclass(frozen=True, slots=True)
class Case:
    """One case. ``units`` is what one operation counts for (a window of 64 calls counts 64)."""

    name: str
    title: str
    operation: str
    unit: str = "call"
    units: int = 1
    arguments: tuple[object, ...] = ()
    expected: object = None
    ops: int = 20_000
    seconds: float = 0.6
    shape: Shape = Shape.CALLS
    headline: Mapping[Mode, Metric] = field(
        default_factory=lambda: {Mode.PINNED: Metric.CPU, Mode.UNPINNED: Metric.P50}
    )
    fresh: bool = False
    """Needs a server that has done nothing yet (memory)."""
    beside: str | None = None
    """Operation that a second client process repeats meanwhile."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes in which the case makes sense."""
        return tuple(self.headline)


_RATES: Final = {Mode.PINNED: Metric.RATE, Mode.UNPINNED: Metric.RATE}
_RATE_UNPINNED: Final = {Mode.UNPINNED: Metric.RATE}
_MEMORY: Final = {Mode.UNPINNED: Metric.KIB}

CASES: Final[tuple[Case, ...]] = (
    Case("noop", "no-op", "noop"),
    Case("echo", "echo of a small dict", "echo", arguments=(dict(SMALL_DICT),), expected=dict(SMALL_DICT)),
    Case(
        "flight",
        "64 in flight, sent one by one",
        "window",
        units=WINDOW,
        arguments=(WINDOW,),
        expected=WINDOW,
        headline=_RATES,
    ),
    Case(
        "coalesced",
        "64 in flight, coalesced",
        "window_coalesced",
        units=WINDOW,
        arguments=(WINDOW,),
        expected=WINDOW,
        headline=_RATES,
    ),
    Case(
        "batch",
        "64 in flight, as a batch",
        "window_batch",
        units=WINDOW,
        arguments=(WINDOW,),
        expected=WINDOW,
        headline=_RATES,
    ),
    Case("chain", "10 calls, each on the result of the last", "chain", arguments=(STEPS,), expected=STEPS),
    Case("pipeline", "the same, pipelined", "pipeline", arguments=(STEPS,), expected=STEPS),
    Case("crowd-async", "50 connections, asyncio client", "noop", shape=Shape.CROWD_ASYNC, ops=400, headline=_RATES),
    Case("crowd-threads", "50 connections, threads", "noop", shape=Shape.CROWD_THREADS, ops=400, headline=_RATES),
    Case(
        "callback", "callback inside a call", "callback", arguments=(CALLBACK_ARGUMENT,), expected=CALLBACK_ARGUMENT + 1
    ),
    Case(
        "items",
        "plain for over 10,000 items",
        "iterate",
        unit="item",
        units=ITEMS,
        arguments=(ITEMS,),
        expected=sum(range(ITEMS)),
        headline=_RATES,
    ),
    Case("bytes", "echo of 1 MiB", "echo_bytes", arguments=(PAYLOAD,), expected=PAYLOAD, headline=_RATES),
    Case(
        "stream",
        "stream of 64 MiB",
        "stream",
        unit="MiB",
        units=STREAM_BYTES // MIB,
        arguments=(STREAM_BYTES,),
        expected=STREAM_BYTES,
        headline=_RATES,
    ),
    Case("connect", "connect and first call", "noop", unit="connection", shape=Shape.CONNECT, ops=500, headline=_RATES),
    Case(
        "lines",
        "line_counter over 10,000 lines",
        "count_lines",
        expected=LINES,
        ops=5,
        seconds=2.0,
        headline={Mode.PINNED: Metric.P50, Mode.UNPINNED: Metric.P50},
    ),
    Case(
        "slow",
        "50 connections, method sleeps 10 ms",
        "nap",
        shape=Shape.CROWD,
        ops=150,
        seconds=1.5,
        beside="noop",
        headline=_RATE_UNPINNED,
    ),
    Case(
        "idle",
        "memory of an idle connection",
        "noop",
        unit="connection",
        shape=Shape.IDLE,
        ops=IDLE_CONNECTIONS,
        seconds=6.0,
        fresh=True,
        headline=_MEMORY,
    ),
    Case(
        "silent",
        "memory of a silent TCP connection",
        "noop",
        unit="connection",
        shape=Shape.SILENT,
        ops=SILENT_CONNECTIONS,
        fresh=True,
        headline=_MEMORY,
    ),
)


def case_named(name: str) -> Case:
    """The case of that name.

    Raises:
        KeyError: There is none; the message lists the names.
    """
    for case in CASES:
        if case.name == name:
            return case
    raise KeyError(f"no case {name!r}; there are: {', '.join(case.name for case in CASES)}")
