"""The client process: ``python -m rpcbench.working PEER SITE PORT SERVER_PID [--core N] [--profile FILE]``.

Reads one request a line from standard input, runs the case, and answers with a sample or the reason why there is none.
"""

import argparse
import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path

from rpcbench import processes, profiling
from rpcbench.cases import Case, Shape, case_named
from rpcbench.driving import Target
from rpcbench.driving_async import Loop
from rpcbench.driving_blocking import crowd_of_threads, idle_connections, run_calls, run_connects, silent_connections
from rpcbench.measure import Sample
from rpcbench.peers import registry
from rpcbench.peers.base import Unsupported
from rpcbench.site import Site


def run_case(target: Target, case: Case) -> Sample:
    """Run one round of a case, with the blocking client where the case does not ask for another.

    Raises:
        Unsupported: The peer cannot do it.
    """
    blocking = target.peer.connect is not None
    match case.shape:
        case Shape.CALLS:
            return run_calls(target, case) if blocking else Loop(target).calls(case)
        case Shape.CONNECT:
            return run_connects(target, case) if blocking else Loop(target).connects(case)
        case Shape.CROWD_ASYNC:
            return Loop(target).crowd(case)
        case Shape.CROWD_THREADS:
            return crowd_of_threads(target, case)
        case Shape.CROWD:
            return Loop(target).crowd(case) if target.peer.connect_async else crowd_of_threads(target, case)
        case Shape.IDLE:
            return idle_connections(target, case) if blocking else Loop(target).idle(case)
        case Shape.SILENT:
            return silent_connections(target, case)


def answer(target: Target, line: str) -> dict[str, object]:
    """The reply to one request: ``{"case", "operation"?, "ops", "seconds"}`` as JSON."""
    request = json.loads(line)
    case = replace(case_named(request["case"]), ops=request["ops"], seconds=request["seconds"])
    try:
        return {"sample": run_case(target, case).to_json()}
    except Unsupported:
        return {"unsupported": True}
    except Exception as exc:  # edge to a foreign library: the report shows it, the run goes on
        return {"failure": f"{type(exc).__name__}: {exc}"[:300]}


def main() -> None:
    """Answer requests until the coordinator closes standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("site", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("server_pid", type=int)
    parser.add_argument("--core", type=int)
    parser.add_argument("--profile", type=Path)
    options = parser.parse_args()
    reply = processes.begin(options.core)
    target = Target(registry.load(options.peer), Site(options.site), options.port, options.server_pid)
    reply({"ready": True})
    profiled = profiling.all_threads(options.profile) if options.profile else contextlib.nullcontext()
    if options.profile:
        # What is read once for all connections is no part of an operation.
        reply(answer(target, sys.stdin.readline()))
    with profiled:
        for line in sys.stdin:
            reply(answer(target, line))


if __name__ == "__main__":
    main()
