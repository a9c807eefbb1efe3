"""Who reads the wall clock, and why. Timeouts are never among them: it may be stepped while somebody waits."""

import ast

import pytest

WALL = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.asctime", "time.strftime"}
WALL_METHODS = {"now", "utcnow", "today"}

ALLOWED = {
    "caprpc/audit/clock.py": "the time in records",
    "caprpc/audit/log.py": "the time in records",
    "caprpc/cli/": "what policies, certificates and grants say of dates",
    "caprpc/demo/": "what policies say of dates",
    "caprpc/objects/admission.py": "whether certificates, policies and grants are still good",
    "caprpc/objects/epoch.py": "whether policies are still good",
    "caprpc/pki/": "from when to when a certificate is good",
    "caprpc/testing/pki.py": "from when to when a certificate is good",
    "caprpc/tls/credentials.py": "whether certificates are still good",
}


def readings(tree):
    """Yield where the wall clock is read or handed on: ``time.time``, ``datetime.now``, and names imported for it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            owner = text.rpartition(".")[0].rpartition(".")[2]
            if text in WALL or (node.attr in WALL_METHODS and owner in {"datetime", "date"}):
                yield node.lineno, text
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from ((node.lineno, alias.name) for alias in node.names if f"time.{alias.name}" in WALL)


def test_nobody_reads_the_wall_clock_for_a_timeout(package):
    found = {(m.path, line, what) for m in package for line, what in readings(m.tree)}
    assert [one for one in sorted(found) if not one[0].startswith(tuple(ALLOWED))] == []
    assert [place for place in ALLOWED if not any(path.startswith(place) for path, _, _ in found)] == []


@pytest.mark.parametrize(
    "source", ["time.time()", "f(time.time_ns)", "datetime.now(UTC)", "datetime.datetime.utcnow()", "date.today()",
               "from time import time", "time.gmtime()"]
)  # fmt: skip
def test_readings_of_the_wall_clock_are_found(source):
    assert len(list(readings(ast.parse(source)))) == 1


def test_monotonic_clocks_are_none():
    assert list(readings(ast.parse("time.monotonic(); loop.time(); perf_counter(); sources.now"))) == []
