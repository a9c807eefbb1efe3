"""Clocks, CPU and memory of processes, and the statistics of a round."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

from rpcbench.cases import Metric

_CPUCLOCK_SCHED: Final = 2
"""Linux: below the complement of a process id, the clock of its CPU time (what ``clock_getcpuclockid`` returns)."""
_TRAIL_S: Final = 0.003
"""A server may still be at work (audit, bookkeeping) when its reply is here; that work is part of the operation."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round of one case gave. ``units`` operations took ``wall_s``; latencies are of single operations."""

    units: int
    wall_s: float
    client_cpu_s: float
    server_cpu_s: float
    p50_us: float
    p99_us: float
    kib: float | None = None
    beside_p50_us: float | None = None

    def value(self, metric: Metric) -> float | None:
        """The number asked for; None if this case does not measure it."""
        match metric:
            case Metric.P50:
                return self.p50_us
            case Metric.P99:
                return self.p99_us
            case Metric.CPU:
                return (self.client_cpu_s + self.server_cpu_s) / self.units * 1e6
            case Metric.RATE:
                return self.units / self.wall_s if self.wall_s else None
            case Metric.KIB:
                return self.kib
            case Metric.BESIDE_P50:
                return self.beside_p50_us

    def to_json(self) -> dict[str, object]:
        """The fields as they are."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        return cls(**fields)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0 to 1) of the ascending values do not exceed (nearest rank).

    Raises:
        ValueError: There are no values.
    """
    if not ordered:
        raise ValueError("percentile of no values")
    rank = -int(-share * len(ordered) // 1)
    return ordered[max(0, min(len(ordered), rank) - 1)]


def median_ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float | None:
    """Median of the ratios in each round that has both: they saw the same machine, so its drift cancels."""
    ratios = [our / theirs[number] for number, our in ours.items() if theirs.get(number)]
    return median(ratios) if ratios else None


def process_cpu_s(pid: int) -> float:
    """CPU seconds that the process and its ended threads have used, in nanosecond steps."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no resident memory: it has ended")


class Meter:
    """Reads wall and CPU clocks of client and server around the operations of one round."""

    __slots__ = ("_client_s", "_server_pid", "_server_s", "_wall_s")

    def __init__(self, server_pid: int) -> None:
        self._server_pid = server_pid
        self._server_s = process_cpu_s(server_pid)
        self._client_s = time.process_time()
        self._wall_s = time.perf_counter()

    def sample(self, durations_ns: list[int], units_each: int) -> Sample:
        """End the round: the sample of these operations, each counting ``units_each``."""
        wall_s = time.perf_counter() - self._wall_s
        client_s = time.process_time() - self._client_s
        time.sleep(_TRAIL_S)
        server_s = process_cpu_s(self._server_pid) - self._server_s
        durations_ns.sort()
        return Sample(
            units=len(durations_ns) * units_each,
            wall_s=wall_s,
            client_cpu_s=client_s,
            server_cpu_s=server_s,
            p50_us=percentile(durations_ns, 0.50) / 1e3,
            p99_us=percentile(durations_ns, 0.99) / 1e3,
        )
