"""The targets of the project, as data, and whether a run met them."""

from dataclasses import dataclass
from statistics import median
from typing import Final

from rpcbench.cases import Metric, Mode
from rpcbench.measure import median_ratio
from rpcbench.runner import Results

FLOOR: Final = ("floor",)
PEERS: Final = ("rpyc", "rpyc-tuned", "pyro5", "grpc", "grpc-aio", "thrift", "capnp")
RPYC: Final = ("rpyc", "rpyc-tuned")
GRPC: Final = ("grpc", "grpc-aio")


@dataclass(frozen=True, slots=True)
class Target:
    """One promise: a metric of ours is at most (a cost) or at least (a rate) ``bound``.

    With ``against`` the bound is a factor on the best of those peers in ``against_cases``; if it is ``added``, what may
    be more than there; without, a plain number.
    """

    text: str
    mode: Mode
    case: str
    metric: Metric
    bound: float
    subject: str = "caprpc"
    against: tuple[str, ...] = ()
    against_cases: tuple[str, ...] = ()
    added: bool = False

    @property
    def relation(self) -> str:
        """How the measured number must stand to the bound."""
        return "at least" if self.metric.more_is_better else "at most"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run says about a target. ``measured`` is None where something was not measured."""

    target: Target
    measured: float | None
    rival: str | None

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None if unknown."""
        if self.measured is None:
            return None
        if self.target.metric.more_is_better:
            return self.measured >= self.target.bound
        return self.measured <= self.target.bound

    @property
    def word(self) -> str:
        """``met``, ``missed`` or ``not measured``."""
        return {True: "met", False: "missed", None: "not measured"}[self.met]


_PINNED, _FREE = Mode.PINNED, Mode.UNPINNED
_DENY: Final = "caprpc-deny"
"""Audit level ``deny``: a granted call writes no record, so this is also what stands for "without audit"."""
_OUTCOME: Final = "caprpc-outcome"
_PYRO5: Final = ("pyro5",)
_TUNED: Final = ("rpyc-tuned",)
_CROWDS: Final = ("crowd-async", "crowd-threads")

TARGETS: Final[tuple[Target, ...]] = (
    Target("no-op, CPU: at most 1.6 x the floor", _PINNED, "noop", Metric.CPU, 1.6, against=FLOOR),
    Target("no-op, CPU, without audit: 1.35 x the floor", _PINNED, "noop", Metric.CPU, 1.35, _DENY, FLOOR),
    Target(
        "no-op: outcome adds 15 us to decision", _PINNED, "noop", Metric.CPU, 15.0, _OUTCOME, ("caprpc",), added=True
    ),
    Target("no-op: outcome adds 15 us to deny", _PINNED, "noop", Metric.CPU, 15.0, _OUTCOME, (_DENY,), added=True),
    Target("no-op, CPU: below every TLS peer's", _PINNED, "noop", Metric.CPU, 1.0, against=PEERS),
    Target("no-op, p50: at most half the floor's", _FREE, "noop", Metric.P50, 0.5, against=FLOOR),
    Target("echo, CPU: at most 1.6 x the floor", _PINNED, "echo", Metric.CPU, 1.6, against=FLOOR),
    Target("echo, CPU, without audit: 1.35 x the floor", _PINNED, "echo", Metric.CPU, 1.35, _DENY, FLOOR),
    Target("echo, CPU: below every TLS peer's", _PINNED, "echo", Metric.CPU, 1.0, against=PEERS),
    Target("echo, p50: at most half the floor's", _FREE, "echo", Metric.P50, 0.5, against=FLOOR),
    Target("64 coalesced: level with Pyro5's batch", _FREE, "coalesced", Metric.RATE, 1.0, _DENY, _PYRO5, ("batch",)),
    Target("64 as a batch: 1.5 x Pyro5's batch", _FREE, "batch", Metric.RATE, 1.5, _DENY, _PYRO5, ("batch",)),
    Target("64 one by one: 3 x tuned RPyC", _FREE, "flight", Metric.RATE, 3.0, "caprpc", _TUNED, ("flight",)),
    Target("64 coalesced: 3 x tuned RPyC", _FREE, "coalesced", Metric.RATE, 3.0, "caprpc", _TUNED, ("flight",)),
    Target("64 as a batch: 3 x tuned RPyC", _FREE, "batch", Metric.RATE, 3.0, "caprpc", _TUNED, ("flight",)),
    Target("50 connections: 2.5 x the best peer", _FREE, "crowd-async", Metric.RATE, 2.5, "caprpc", PEERS, _CROWDS),
    Target("callback, CPU: at most 0.35 x RPyC", _PINNED, "callback", Metric.CPU, 0.35, against=RPYC),
    Target("plain for: at least 1 M items/s", _FREE, "items", Metric.RATE, 1e6),
    Target("1 MiB echo: 1.2 x gRPC", _FREE, "bytes", Metric.RATE, 1.2, against=GRPC),
    Target("64 MiB stream: 1.2 x gRPC", _FREE, "stream", Metric.RATE, 1.2, against=GRPC),
    Target("connect and call: 1.2 x the best TLS peer", _FREE, "connect", Metric.RATE, 1.2, against=PEERS),
    Target("idle connection: at most 40 KiB", _FREE, "idle", Metric.KIB, 40.0),
    Target("silent TCP connection: at most 1 KiB", _FREE, "silent", Metric.KIB, 1.0),
    Target("50 slow callers: 4,500 of 5,000 calls/s", _FREE, "slow", Metric.RATE, 4_500.0),
    Target("no-op beside them: p50 below 200 us", _FREE, "slow", Metric.BESIDE_P50, 200.0),
    Target("line_counter: at most 0.3 x RPyC", _FREE, "lines", Metric.P50, 0.3, against=RPYC),
)


def judge(results: Results, targets: tuple[Target, ...] = TARGETS) -> list[Verdict]:
    """The verdict on each target, in their order. The rival is the peer that makes the target hardest."""
    return [_judge(results, target) for target in targets]


def _median_added(ours: dict[int, float], theirs: dict[int, float]) -> float | None:
    added = [ours[number] - theirs[number] for number in ours.keys() & theirs.keys()]
    return median(added) if added else None


def _judge(results: Results, target: Target) -> Verdict:
    ours = results.values(target.mode, target.case, target.subject, target.metric)
    if not ours:
        return Verdict(target, None, None)
    if not target.against:
        return Verdict(target, median(ours.values()), None)
    candidates: list[tuple[float, str]] = []
    for case in target.against_cases or (target.case,):
        for peer in target.against:
            theirs = results.values(target.mode, case, peer, target.metric)
            ratio = _median_added(ours, theirs) if target.added else median_ratio(ours, theirs)
            if ratio is not None:
                candidates.append((ratio, peer))
    if not candidates:
        return Verdict(target, None, None)
    ratio, rival = min(candidates) if target.metric.more_is_better else max(candidates)
    return Verdict(target, ratio, rival)
