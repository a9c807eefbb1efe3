"""A run as JSON: where it ran, every sample of every round, the medians and ratios, and the verdicts."""

import importlib.metadata
import json
import os
import platform
import ssl
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rpcbench.cases import CASES, Case, Metric, Mode
from rpcbench.measure import median_ratio
from rpcbench.runner import Plan, Results
from rpcbench.targets import Verdict

_DISTRIBUTIONS: Final = (
    "caprpc",
    "rpyc",
    "Pyro5",
    "grpcio",
    "thriftpy2",
    "pycapnp",
    "msgpack",
    "msgspec",
    "cryptography",
)
OURS: Final = "caprpc"
FLOOR: Final = "floor"


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of one peer in one case and mode. Ratios compare the headline metric, round by round."""

    peer: str
    metrics: dict[Metric, float]
    client_cpu_us: float
    server_cpu_us: float
    to_floor: float | None
    ours_to_this: float | None


def row_of(results: Results, mode: Mode, case: Case, peer: str) -> Row | None:
    """The row of a peer; None if nothing was measured."""
    samples = results.samples.get((mode, case.name, peer))
    if not samples:
        return None
    headline = case.headline[mode]
    own = results.values(mode, case.name, peer, headline)
    found = {metric: results.values(mode, case.name, peer, metric) for metric in Metric}
    return Row(
        peer=peer,
        metrics={metric: median(values.values()) for metric, values in found.items() if values},
        client_cpu_us=median(sample.client_cpu_s / sample.units * 1e6 for sample in samples.values()),
        server_cpu_us=median(sample.server_cpu_s / sample.units * 1e6 for sample in samples.values()),
        to_floor=median_ratio(own, results.values(mode, case.name, FLOOR, headline)),
        ours_to_this=median_ratio(results.values(mode, case.name, OURS, headline), own),
    )


def environment() -> dict[str, object]:
    """What the numbers depend on."""
    return {
        "python": sys.version.split()[0],
        "openssl": ssl.OPENSSL_VERSION,
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg(),
        "packages": {name: version for name in _DISTRIBUTIONS if (version := _version(name))},
    }


def to_json(plan: Plan, results: Results, verdicts: list[Verdict], before: dict[str, object]) -> str:
    """The whole run as JSON text. ``before`` is the environment as it was when the run began."""
    document = {
        "environment": {**before, "load_average_after": os.getloadavg()},
        "rounds": plan.rounds,
        "scale": plan.scale,
        "cases": {case.name: {"title": case.title, "unit": case.unit} for case in CASES},
        "samples": [
            {"mode": mode, "case": case, "peer": peer, "rounds": {n: s.to_json() for n, s in samples.items()}}
            for (mode, case, peer), samples in results.samples.items()
        ],
        "medians": [
            {"mode": mode, "case": case.name, "headline": case.headline[mode], **asdict(row)}
            for mode in plan.modes
            for case in plan.cases
            if mode in case.modes
            for peer in plan.peers
            if (row := row_of(results, mode, case, peer)) is not None
        ],
        "failures": [
            {"mode": mode, "case": case, "peer": peer, "reason": reason}
            for (mode, case, peer), reason in results.failures.items()
        ],
        "targets": [
            {**asdict(verdict.target), "measured": verdict.measured, "rival": verdict.rival, "verdict": verdict.word}
            for verdict in verdicts
        ],
    }
    return json.dumps(document, indent=1)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
