"""Runs cases with blocking clients."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

from rpcbench.cases import CROWD, Case
from rpcbench.driving import MemoryMeter, Target, check, deadline_ns, fills_round, silent_sockets, warm_up_of
from rpcbench.measure import Meter, Sample
from rpcbench.peers.base import Client, Unsupported


def run_calls(target: Target, case: Case) -> Sample:
    """One connection, one operation after the other."""
    with closing(_connect(target)) as client:
        operation: Callable[..., object] = getattr(client, case.operation)
        meter = Meter(target.server_pid)
        start_ns = time.perf_counter_ns()
        check(case, operation(*case.arguments))
        first_ns = time.perf_counter_ns() - start_ns
        if fills_round(case, first_ns):
            return meter.sample([first_ns], case.units)
        _repeat(operation, warm_up_of(case))
        meter = Meter(target.server_pid)
        return meter.sample(_repeat(operation, case), case.units)


def run_connects(target: Target, case: Case) -> Sample:
    """Connect, one call, close; again and again."""

    def operation() -> None:
        with closing(_connect(target)) as client:
            client.noop()

    _repeat(operation, warm_up_of(case))
    meter = Meter(target.server_pid)
    return meter.sample(_repeat(operation, case), case.units)


def crowd_of_threads(target: Target, case: Case) -> Sample:
    """Fifty connections, each with its own thread, all starting at once."""
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(_connect(target))) for _ in range(CROWD)]
        for client in clients:
            getattr(client, case.operation)()
        together = threading.Barrier(CROWD + 1)
        durations: list[list[int]] = [[] for _ in clients]
        failures: list[Exception] = []

        def work(client: Client, into: list[int]) -> None:
            together.wait()
            try:
                into.extend(_repeat(getattr(client, case.operation), case))
            except Exception as exc:  # carried to the main thread, which raises it
                failures.append(exc)

        threads = [threading.Thread(target=work, args=pair) for pair in zip(clients, durations, strict=True)]
        for thread in threads:
            thread.start()
        meter = Meter(target.server_pid)
        together.wait()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return meter.sample([each for some in durations for each in some], case.units)


def idle_connections(target: Target, case: Case) -> Sample:
    """Server memory for connections that made one call and stay; fewer than asked if time runs out."""
    with ExitStack() as stack:
        stack.enter_context(closing(_connect(target))).noop()
        meter = MemoryMeter(target.server_pid)
        end_ns = deadline_ns(case)
        count = 0
        while count < case.ops and time.perf_counter_ns() < end_ns:
            stack.enter_context(closing(_connect(target))).noop()
            count += 1
        return meter.sample(count)


def silent_connections(target: Target, case: Case) -> Sample:
    """Server memory for TCP connections that say nothing."""
    with silent_sockets(target.port, 5):
        meter = MemoryMeter(target.server_pid)
        with silent_sockets(target.port, case.ops):
            return meter.sample(case.ops)


def _connect(target: Target) -> Client:
    if target.peer.connect is None:
        raise Unsupported
    return target.peer.connect(target.site, target.port)


def _repeat(operation: Callable[..., object], case: Case) -> list[int]:
    """Durations in nanoseconds of at most ``case.ops`` operations, begun within ``case.seconds``."""
    arguments = case.arguments
    clock = time.perf_counter_ns
    end = deadline_ns(case)
    durations: list[int] = []
    for _ in range(case.ops):
        start = clock()
        operation(*arguments)
        stop = clock()
        durations.append(stop - start)
        if stop > end:
            break
    return durations
