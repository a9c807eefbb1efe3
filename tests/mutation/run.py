"""Mutation testing of the policy validator and the guard: ``python tests/mutation/run.py --help``.

Each mutant is one small change to one module. The tests that run the changed function run against it, and one of them
must fail. What survives is a test that is missing, or a change that changes nothing: those that are believed to be
such are listed in ``equivalents.toml``, each with the reason.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]

from mutants import Mutant, mutants, sampled  # noqa: E402  # found by the line above
from running import Covered, ended, start, trace  # noqa: E402

PACKAGE = ROOT / "caprpc" / "policy"
LEFT_OUT = ("__init__.py",)
FAST_TESTS = (
    *(f"tests/policy/test_policy_{name}.py" for name in ("load", "refusals", "documents", "text", "schema", "guard")),
    *(f"tests/policy/test_policy_{name}.py" for name in ("arguments", "narrowing", "passing", "restore", "tools")),
    *(
        f"tests/policy/test_{name}.py"
        for name in (
            "policy_edges",
            "policy_corners",
            "facet_limits",
            "shared_facets",
            "revoked_file",
            "signed_policies",
            "authority",
            "tool_questions",
        )
    ),
    *(f"tests/objects/test_{name}.py" for name in ("attenuation", "member_limits", "principal_limits", "shares")),
)


@dataclass(frozen=True)
class Task:
    """One mutant to run."""

    module: str
    path: Path
    source: str
    mutant: Mutant

    @property
    def place(self) -> str:
        """``policy/guard.py:213``."""
        return f"{self.path.relative_to(ROOT / 'caprpc')}:{self.mutant.line}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation testing of caprpc/policy.")
    parser.add_argument("modules", nargs="*", help="names of modules, such as guard; all if none")
    parser.add_argument("--sample", type=int, default=40, help="most mutants of a module (40); 0 for all")
    parser.add_argument("--seed", type=int, default=1, help="chooses the sample (1)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="children at once")
    parser.add_argument("--max-s", type=float, default=3600, help="no further mutants after so many seconds (3600)")
    parser.add_argument("--json", type=Path, help="write the result of every mutant there")
    parser.add_argument("--again", type=Path, help="run only what the output of an earlier run names as not killed")
    options = parser.parse_args()
    os.chdir(ROOT)
    covered, everything = _traced()
    tasks = list(_tasks(options.modules, options.sample, options.seed))
    if options.again is not None:
        named = {_unplaced(line) for line in options.again.read_text().splitlines() if " | " in line}
        tasks = [task for task in tasks if (task.path.name, task.mutant.key) in named]
    print(f"{len(tasks)} mutants, {len(everything)} tests", flush=True)
    results = _run(tasks, covered, everything, options.jobs, time.monotonic() + options.max_s)
    if options.json is not None:
        options.json.write_text(json.dumps([[t.place, t.mutant.key, verdict] for t, verdict in results], indent=1))
    return _report(results, len(tasks))


def _tasks(names: list[str], most: int, seed: int) -> Iterator[Task]:
    for path in sorted(PACKAGE.glob("*.py")):
        if path.name in LEFT_OUT or (names and path.stem not in names):
            continue
        source = path.read_text()
        found = mutants(source)
        for mutant in sampled(found, most or len(found), seed, path.stem):
            yield Task(f"caprpc.policy.{path.stem}", path, source, mutant)


def _unplaced(line: str) -> tuple[str, str]:
    """Return file and mutant of ``survived: policy/guard.py:213 NAME | OPERATOR: TEXT``; lines may have moved since."""
    place, _, key = line.partition(": ")[2].partition(" ")
    return Path(place.partition(":")[0]).name, key


def _traced() -> tuple[Covered, list[str]]:
    """Trace the tests in a child, so that this process never imports the package."""
    with tempfile.NamedTemporaryFile("r+", suffix=".json") as file:
        child = os.fork()
        if not child:
            code = 70
            try:
                os.dup2(2, 1)
                covered, order = trace(PACKAGE, FAST_TESTS)
                Path(file.name).write_text(json.dumps([[[*key, tests] for key, tests in covered.items()], order]))
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise SystemExit("the tests do not pass without a mutant: run them first")
        entries, order = json.load(file)
    return {(path, line): tests for path, line, tests in entries}, order


def _run(tasks: list[Task], covered: Covered, everything: list[str], jobs: int, until: float) -> list[tuple[Task, str]]:
    results: list[tuple[Task, str]] = []
    running: dict[int, tuple[Task, float]] = {}
    pending = iter(tasks)
    with tempfile.TemporaryDirectory() as logs:
        while True:
            while len(running) < jobs and time.monotonic() < until and (task := next(pending, None)) is not None:
                mutant = task.mutant
                tests = covered.get((str(task.path), mutant.function), []) if mutant.function else everything
                if not tests:
                    results.append((task, "not run by any test"))
                    continue
                log = Path(logs, f"{len(results)}-{len(running)}.log")
                running[start(task.module, task.path, mutant.applied(task.source), tests, log)] = task, time.monotonic()
            if not running:
                return results
            child, verdict = ended({child: since for child, (_, since) in running.items()})
            task, _ = running.pop(child)
            results.append((task, verdict))
            if verdict != "killed":
                print(f"{verdict}: {task.place} {task.mutant.key}", flush=True)


def _report(results: list[tuple[Task, str]], planned: int) -> int:
    equivalents = tomllib.loads((HERE / "equivalents.toml").read_text())
    killed: Counter[str] = Counter()
    total: Counter[str] = Counter()
    same: Counter[str] = Counter()
    left: list[str] = []
    for task, verdict in sorted(results, key=lambda result: result[0].place):
        module = task.module.rpartition(".")[2]
        total[module] += 1
        if verdict == "killed":
            killed[module] += 1
        elif task.mutant.key in equivalents.get(module, {}):
            same[module] += 1
        else:
            left.append(f"{verdict}: {task.place} {task.mutant.key}")
    print(f"\n{'module':<14}{'mutants':>8}{'killed':>8}{'same':>6}{'score':>8}")
    for module in total:
        print(_row(module, total[module], killed[module], same[module]))
    print(_row("together", total.total(), killed.total(), same.total()))
    print("same: believed to be equivalent, equivalents.toml says why; the score is of the others")
    for line in left:
        print(line)
    if len(results) < planned:
        print(f"{planned - len(results)} mutants were not run: time is up (--max-s)")
    return 1 if left or len(results) < planned else 0


def _row(name: str, total: int, killed: int, same: int) -> str:
    score = 100 * killed / (total - same) if total > same else 100.0
    return f"{name:<14}{total:>8}{killed:>8}{same:>6}{score:>7.1f}%"


if __name__ == "__main__":
    sys.exit(main())
