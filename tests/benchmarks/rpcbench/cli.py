"""The command line of the benchmark."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rpcbench import profiling, syscalls
from rpcbench.cases import CASES, Case, Mode, case_named
from rpcbench.chart import svg_chart
from rpcbench.children import ChildFailed, Pair
from rpcbench.peers import registry
from rpcbench.record import environment, to_json
from rpcbench.report import text_report
from rpcbench.runner import Plan, Runner
from rpcbench.site import Site, make_site
from rpcbench.targets import judge

_ROUNDS: Final = 5
_QUICK_ROUNDS: Final = 1
_QUICK_SCALE: Final = 0.2
_PROFILE_SECONDS: Final = 3.0
_PROFILE_TIMEOUT_S: Final = 120.0
EX_OK: Final = 0
EX_USAGE: Final = 64
EX_UNAVAILABLE: Final = 69
EX_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status. A missed target is a result, not an error."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rpcbench-") as directory:
        site = make_site(Path(directory))
        try:
            if options.profile:
                return _profile(site, *options.profile)
            return _measure(site, options)
        except KeyboardInterrupt:
            sys.stderr.write("\ninterrupted: nothing written\n")
            return EX_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Measure CapRPC beside its peers, all over mutual TLS, server and client in separate processes.",
        epilog=f"peers: {', '.join(registry.REGISTRY)}. cases: {', '.join(case.name for case in CASES)}.",
    )
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, proves nothing")
    parser.add_argument("--peers", type=_peers, default=tuple(registry.REGISTRY), help="comma-separated; default all")
    parser.add_argument("--cases", type=_cases, default=CASES, help="comma-separated; default all")
    parser.add_argument("--modes", type=_modes, default=tuple(Mode), help="pinned,unpinned; default both")
    parser.add_argument("--rounds", type=int, choices=range(1, 101), metavar="1..100", help=f"default {_ROUNDS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample, median and verdict")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the chart")
    parser.add_argument(
        "--profile",
        nargs=2,
        metavar=("PEER", "CASE"),
        help="show where both processes spend time, and their system calls",
    )
    return parser


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in registry.REGISTRY]
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer {', '.join(unknown)}; there are: {', '.join(registry.REGISTRY)}")
    return names


def _cases(text: str) -> tuple[Case, ...]:
    try:
        return tuple(case_named(name) for name in text.split(","))
    except KeyError as exc:
        raise argparse.ArgumentTypeError(str(exc.args[0])) from exc


def _modes(text: str) -> tuple[Mode, ...]:
    try:
        return tuple(Mode(name) for name in text.split(","))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _measure(site: Site, options: argparse.Namespace) -> int:
    peers = _prepare(site, options.peers)
    if not peers:
        sys.stderr.write("none of these peers is installed: pip install -e '.[bench]'\n")
        return EX_UNAVAILABLE
    plan = Plan(
        peers=peers,
        cases=options.cases,
        modes=options.modes,
        rounds=options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS),
        scale=_QUICK_SCALE if options.quick else 1.0,
    )
    for file in (options.json, options.svg):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    before = environment()
    start_s = time.monotonic()
    results = Runner(plan, site, _progress).run()
    _progress("")
    verdicts = judge(results)
    sys.stdout.write(text_report(plan, results, verdicts))
    subtitle = f"median of {plan.rounds} rounds, Python {before['python']}, {before['cores']} cores ({before['cpu']})"
    sys.stdout.write(f"\n{subtitle}; {time.monotonic() - start_s:.0f} s\n")
    if options.json:
        options.json.write_text(to_json(plan, results, verdicts, before), encoding="utf-8")
    if options.svg:
        options.svg.write_text(svg_chart(plan, results, subtitle), encoding="utf-8")
    return EX_OK


def _prepare(site: Site, names: Sequence[str]) -> tuple[str, ...]:
    """Let each peer write what it needs into the site; leave out those that are not installed, saying so."""
    able: list[str] = []
    for name in names:
        try:
            peer = registry.load(name)
        except ImportError as exc:
            sys.stdout.write(f"{name} is left out: {exc}\n")
            continue
        if peer.prepare is not None:
            peer.prepare(site)
        able.append(name)
    return tuple(able)


def _progress(text: str) -> None:
    """Show what runs now, on one line of a terminal or on a line of its own in a log."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
    elif text:
        sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _warm_up(pair: Pair, case: Case) -> None:
    """Run the case once: what both sides read at their first connection is no part of an operation."""
    pair.client.send({"case": case.name, "ops": 1, "seconds": 0.0})
    pair.client.receive(_PROFILE_TIMEOUT_S)


def _count_system_calls(site: Site, peer: str, case: Case) -> None:
    """Run the case once more, without the profiler, and print what ``strace`` counts on both sides."""
    if not syscalls.available():
        sys.stdout.write("\nsystem calls are not counted: strace is not installed\n")
        return
    counts = {side: site.directory / f"{side}.strace" for side in ("client", "server")}
    with Pair(peer, site, None) as pair:
        _warm_up(pair, case)
        with syscalls.counting(pair.server.pid, counts["server"]), syscalls.counting(pair.client.pid, counts["client"]):
            pair.client.send({"case": case.name, "ops": case.ops, "seconds": case.seconds})
            answer = pair.client.receive(_PROFILE_TIMEOUT_S)
    match answer:
        case {"sample": {"units": int(units)}}:
            for side, path in counts.items():
                syscalls.print_counts(path, f"{peer}, {case.title}, {side}", units, sys.stdout)


def _profile(site: Site, peer: str, case_name: str) -> int:
    if peer not in registry.REGISTRY:
        sys.stderr.write(f"no peer {peer!r}; there are: {', '.join(registry.REGISTRY)}\n")
        return EX_USAGE
    try:
        case = case_named(case_name)
    except KeyError as exc:
        sys.stderr.write(f"{exc.args[0]}\n")
        return EX_USAGE
    if not _prepare(site, (peer,)):
        return EX_UNAVAILABLE
    try:
        with Pair(peer, site, None, profile=site.directory) as pair:
            _warm_up(pair, case)
            pair.client.send({"case": case.name, "ops": case.ops, "seconds": _PROFILE_SECONDS})
            answer = pair.client.receive(_PROFILE_TIMEOUT_S)
            pair.client.finish_input()
    except ChildFailed as exc:
        answer = {"failure": str(exc)}
    match answer:
        case {"sample": {"units": int(units)}}:
            for side in ("client", "server"):
                profiling.print_profile(
                    site.directory / f"{side}.prof", f"{peer}, {case.title}, {side}", units, sys.stdout
                )
            _count_system_calls(site, peer, case)
            return EX_OK
    sys.stderr.write(f"{answer}\n")
    return EX_UNAVAILABLE
