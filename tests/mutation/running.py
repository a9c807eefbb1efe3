"""Running tests against a mutant: in a forked child that imports the mutant in place of the module."""

import ast
import importlib.util
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType

import pytest

TEST_TIMEOUT_S = 20
MUTANT_TIMEOUT_S = 120
PYTEST = (
    *("-q", "-x", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"),
    # Rewriting assertions would load the modules of the package by itself, without the mutant: it brings a plugin.
    "--assert=plain",
    # Tests that measure time would fail because of what runs beside them, and count as a kill.
    *("-k", "not less_than_a_second and not time_is_linear"),
)
KILLED = frozenset({pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR})
"""The last two: the mutant could not be imported, so that no test could be collected, or not even pytest begin."""

Covered = Mapping[tuple[str, int], Sequence[str]]
"""For each function, as file and first line, the tests that run it, the fastest first."""


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self._tree = tree

    def get_code(self, fullname: str) -> CodeType:
        """Return the mutant's code; never from the cache of the module, and never into it."""
        return compile(self._tree, self.path, "exec")


class _Finder(MetaPathFinder):
    """Finds the mutant under the name of the module."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        self._name = name
        self._path = path
        self._tree = tree

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        loader = _Loader(fullname, self._path, self._tree)
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


class _Only:
    """Runs some of the collected tests, in the order in which they are named."""

    def __init__(self, tests: Iterable[str]) -> None:
        self._order = {test: index for index, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        kept = [item for item in items if item.nodeid in self._order]
        items[:] = sorted(kept, key=lambda item: self._order[item.nodeid])


class _Tracing:
    """Notes which functions of the package each test runs, and how long it takes."""

    def __init__(self, inside: Path) -> None:
        self._inside = str(inside)
        self._seen: set[CodeType] = set()
        self.covered: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = {}

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            self._seen.add(frame.f_code)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        self._seen = set()
        started = time.perf_counter()
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        yield
        sys.setprofile(None)
        threading.setprofile(None)
        self.seconds[item.nodeid] = time.perf_counter() - started
        for code in self._seen:
            if code.co_filename.startswith(self._inside):
                self.covered[code.co_filename, code.co_firstlineno].add(item.nodeid)


def trace(inside: Path, tests: Sequence[str]) -> tuple[Covered, list[str]]:
    """Run tests that must pass; return which functions each runs, and all tests, the fastest first.

    It imports the package into this process: call it in a child.
    """
    tracing = _Tracing(inside)
    code = pytest.main([*PYTEST, *tests], plugins=[tracing])
    if code != pytest.ExitCode.OK:
        raise SystemExit(f"the tests fail without any mutant: exit code {code}")
    order = sorted(tracing.seconds, key=tracing.seconds.__getitem__)
    rank = {test: index for index, test in enumerate(order)}
    return {key: sorted(found, key=rank.__getitem__) for key, found in tracing.covered.items()}, order


def start(module: str, path: Path, tree: ast.Module, tests: Sequence[str], log: Path) -> int:
    """Start tests against a mutant in a child; return its process id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.meta_path.insert(0, _Finder(module, str(path), tree))
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        code = int(pytest.main([*PYTEST, f"--timeout={TEST_TIMEOUT_S}", *files], plugins=[_Only(tests)]))
    finally:
        os._exit(code)


def ended(children: Mapping[int, float]) -> tuple[int, str]:
    """Wait until one of the children, each with its start, has ended; return it and ``killed`` or ``survived``."""
    while True:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            code = os.waitstatus_to_exitcode(status)
            if code not in KILLED and code != pytest.ExitCode.OK and code >= 0:
                return child, f"exit code {code}"
            return child, "survived" if code == pytest.ExitCode.OK else "killed"
        for late in (one for one, since in children.items() if time.monotonic() - since > MUTANT_TIMEOUT_S):
            # It is in a loop that the timeout of the test could not end. Its end is noted as any other.
            os.kill(late, signal.SIGKILL)
        time.sleep(0.02)
