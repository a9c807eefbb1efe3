"""What blocking and asyncio drivers of the cases share: the target, the budget of a round, the check of results."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from rpcbench.cases import Case
from rpcbench.measure import Sample, resident_kib
from rpcbench.peers.base import Peer
from rpcbench.site import HOST, Site

_WARM_UP_SHARE: Final = 0.2
"""Of the time of a round; warm-up lets adaptive servers adapt and imports happen."""
_LONG_S: Final = 1.0
_CONNECT_TIMEOUT_S: Final = 5.0
_SETTLE_S: Final = 0.3
"""For a server to finish accepting before its memory is read."""


class WrongResult(Exception):
    """The peer answered, but not what the case expects: its time would mean nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """The running server that a client process measures."""

    peer: Peer
    site: Site
    port: int
    server_pid: int


def warm_up_of(case: Case) -> Case:
    """The same case, shortened to its warm-up."""
    return replace(case, ops=max(1, case.ops // 10), seconds=case.seconds * _WARM_UP_SHARE)


def fills_round(case: Case, first_ns: int) -> bool:
    """True if the first operation is long enough for a sample, its cold start included, and fills the round."""
    return first_ns > max(_LONG_S, case.seconds) * 1e9


def deadline_ns(case: Case) -> int:
    """When a round that starts now has to stop, on the clock of ``perf_counter_ns``."""
    return time.perf_counter_ns() + int(case.seconds * 1e9)


def check(case: Case, result: object) -> None:
    """Compare the result of a warm-up operation with what the case expects.

    Raises:
        WrongResult: They differ.
    """
    if result != case.expected:
        raise WrongResult(f"{case.name}: expected {str(case.expected)[:60]}, received {str(result)[:60]}")


class MemoryMeter:
    """Resident memory that a server gains for each connection; started after a first one has warmed it up."""

    __slots__ = ("_before_kib", "_pid")

    def __init__(self, server_pid: int) -> None:
        time.sleep(_SETTLE_S)
        self._pid = server_pid
        self._before_kib = resident_kib(server_pid)

    def sample(self, connections: int) -> Sample:
        """The sample after that many connections have come."""
        time.sleep(_SETTLE_S)
        gained = resident_kib(self._pid) - self._before_kib
        return Sample(connections, 0.0, 0.0, 0.0, 0.0, 0.0, kib=max(0.0, gained / connections))


@contextmanager
def silent_sockets(port: int, count: int) -> Iterator[None]:
    """Hold that many TCP connections open that never send a byte.

    Raises:
        WrongResult: The server waits for the handshake of one before it accepts the next.
    """
    sockets: list[socket.socket] = []
    try:
        for number in range(count):
            try:
                sockets.append(socket.create_connection((HOST, port), timeout=_CONNECT_TIMEOUT_S))
            except TimeoutError as exc:
                raise WrongResult(f"the server stopped accepting at {number} silent connections") from exc
        yield
    finally:
        for each in sockets:
            each.close()
