"""One run: rounds, in each round the modes, in each mode the cases, and for each case all peers in turn."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from rpcbench.cases import Case, Metric, Mode, case_named
from rpcbench.children import ChildFailed, Pair
from rpcbench.measure import Sample
from rpcbench.site import Site

_ANSWER_TIMEOUT_S: Final = 40.0
"""On top of the time of a round: connecting fifty clients of the slowest peer takes a while."""
_BESIDE_DELAY_S: Final = 0.2
_BESIDE_SHARE: Final = 0.6
"""The second client starts after the first and stops before it, so that it sees nothing but the load."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures."""

    peers: tuple[str, ...]
    cases: tuple[Case, ...]
    modes: tuple[Mode, ...]
    rounds: int
    scale: float = 1.0
    """Multiplies the time of each round; below one for a quick look."""


@dataclass(frozen=True, slots=True)
class Results:
    """What a run gave. A missing key means that the peer cannot do the case."""

    samples: dict[tuple[Mode, str, str], dict[int, Sample]] = field(default_factory=dict)
    failures: dict[tuple[Mode, str, str], str] = field(default_factory=dict)

    def values(self, mode: Mode, case: str, peer: str, metric: Metric) -> dict[int, float]:
        """The metric of a peer, by the number of each round that has it."""
        samples = self.samples.get((mode, case, peer), {})
        measured = {number: sample.value(metric) for number, sample in samples.items()}
        return {number: value for number, value in measured.items() if value is not None}


class Runner:
    """Keeps one server and one client process for each peer during a mode of a round, and asks them in turn."""

    def __init__(self, plan: Plan, site: Site, progress: Progress) -> None:
        self._plan = plan
        self._site = site
        self._progress = progress
        self._pairs: dict[str, Pair] = {}
        self._unable: set[tuple[str, str]] = set()
        self.results = Results()

    def run(self) -> Results:
        """Run all rounds. A peer that fails in a case is started afresh for the next one."""
        for number in range(self._plan.rounds):
            for mode in self._plan.modes:
                try:
                    self._round(number, mode)
                finally:
                    self._end_all()
        return self.results

    def _round(self, number: int, mode: Mode) -> None:
        shift = number % len(self._plan.peers)
        peers = self._plan.peers[shift:] + self._plan.peers[:shift]
        for case in self._plan.cases:
            if mode not in case.modes:
                continue
            self._progress(f"round {number + 1} of {self._plan.rounds}, {mode}, {case.title}")
            for peer in peers:
                if (peer, case.name) not in self._unable:
                    self._measure(number, mode, case, peer)

    def _measure(self, number: int, mode: Mode, case: Case, peer: str) -> None:
        key = (mode, case.name, peer)
        try:
            with self._pair(mode, case, peer) as pair:
                answer = self._ask(pair, case)
        except ChildFailed as exc:
            answer = {"failure": str(exc)}
        match answer:
            case {"sample": dict(fields)}:
                self.results.samples.setdefault(key, {})[number] = Sample.from_json(fields)
            case {"unsupported": True}:
                self._unable.add((peer, case.name))
            case _:
                self.results.failures[key] = str(answer.get("failure"))
                if peer in self._pairs:
                    self._pairs.pop(peer).end()

    @contextmanager
    def _pair(self, mode: Mode, case: Case, peer: str) -> Iterator[Pair]:
        core = _pinning_core() if mode is Mode.PINNED else None
        if case.fresh:
            with Pair(peer, self._site, core) as fresh:
                yield fresh
            return
        if peer not in self._pairs:
            self._pairs[peer] = Pair(peer, self._site, core)
        yield self._pairs[peer]

    def _ask(self, pair: Pair, case: Case) -> dict[str, object]:
        request = self._request(case)
        timeout_s = _ANSWER_TIMEOUT_S + case.seconds * 2
        if case.beside is None:
            pair.client.send(request)
            return pair.client.receive(timeout_s)
        beside_case = case_named(case.beside)
        beside = pair.another_client()
        try:
            pair.client.send(request)
            time.sleep(_BESIDE_DELAY_S)
            beside.send(self._request(replace(beside_case, seconds=case.seconds * _BESIDE_SHARE)))
            other = beside.receive(timeout_s)
            answer = pair.client.receive(timeout_s)
        finally:
            beside.end()
        match answer, other:
            case {"sample": dict(fields)}, {"sample": {"p50_us": p50}}:
                fields["beside_p50_us"] = p50
            case {"sample": _}, _:
                return {"failure": f"the client beside it: {other.get('failure')}"}
        return answer

    def _request(self, case: Case) -> dict[str, object]:
        return {"case": case.name, "ops": case.ops, "seconds": case.seconds * self._plan.scale}

    def _end_all(self) -> None:
        while self._pairs:
            self._pairs.popitem()[1].end()


def _pinning_core() -> int:
    """The last core: interrupts and everything else tend to be on the first."""
    return max(os.sched_getaffinity(0))
