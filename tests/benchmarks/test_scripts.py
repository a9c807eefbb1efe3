"""The scripts that print numbers run, and print what they promise; the numbers are for a machine at rest."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from idle_many import Site

from caprpc.policy import PolicySet

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.timeout(300)


def run(script, *arguments):
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE.parents[1]).stdout


@pytest.mark.parametrize("driver", ["blocking", "aio"])
def test_streams_and_memory(driver):
    """Whoever held all of it would grow by 32 MiB; the bound is that of a gigabyte."""
    said = run("stream_rss.py", "32", driver)
    grown = re.fullmatch(
        r"32 MiB in [0-9.]+ s: \d+ MiB/s\ngrowth of the resident set: client ([-0-9.]+) MiB, server ([-0-9.]+) MiB\n",
        said,
    )
    assert grown, said
    assert all(float(mib) < 16 for mib in grown.groups()), said


def test_revocations():
    said = run("revoke_latency.py", "--rounds", "2")
    lines = re.findall(r"^(\w+) server, (\w+): ([0-9.]+) ms .* had returned: (\d+)", said, re.MULTILINE)
    kinds = [(driver, way) for driver in ("blocking", "aio") for way in ("handle", "object", "principal")]
    assert [line[:2] for line in lines] == kinds
    assert all(int(late) <= 2 for *_, late in lines)
    assert all(float(ms) < 1000 for _, _, ms, _ in lines)


def test_capabilities():
    said = run("capability_cost.py", "--rounds", "1", "--calls", "2", "--derived", "1,20")
    rows = [line.split(" | ") for line in said.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    measured = {row[0].removeprefix("| "): row[1:] for row in rows}
    assert {"plain call", "forwarded, hops: 2", "restore, revoked", "revoke 20 derived", "describe"} <= measured.keys()
    assert "revoke 1 derived, 20 others out" in measured
    for cells in measured.values():
        assert len(cells) == 6
        assert all(float(cells[column].replace(",", "")) > 0 for column in (0, 1, 3, 4))


@pytest.mark.parametrize("driver", ["blocking", "aio"])
def test_connections_that_say_nothing(driver):
    said = run("idle_many.py", "--connections", "30", "--quiet-s", "0.2", "--driver", driver)
    kinds = re.findall(
        r"^  30 (.*): all there .* KiB and ([0-9.]+) descriptors; (\d+) more threads", said, re.MULTILINE
    )
    assert [kind for kind, _, _ in kinds] == ["silent TCP connections", "idle connections over mutual TLS"]
    assert all(1 <= float(descriptors) < 2 and int(threads) <= 4 for _, descriptors, threads in kinds)
    assert len(re.findall(r"beside them: connect and first call \d+ ms; a no-op: median \d+ us", said)) == 2


@pytest.mark.parametrize(
    ("count", "descriptors", "says"),
    [
        ("10001", "", "--connections 10001: 1 to 10000, the most that a policy may set for one peer"),
        ("0", "", "--connections 0: 1 to 10000"),
        ("500", "ulimit -n 300; ", "--connections 500: at most 200 here, as a process may have 300 descriptors"),
    ],
)
def test_connections_that_cannot_be_are_refused_with_what_is_possible(count, descriptors, says):
    command = f'{descriptors}exec "$0" "$1" --connections {count}'
    script = ["bash", "-c", command, sys.executable, str(HERE / "idle_many.py")]
    refused = subprocess.run(script, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert says in refused.stderr


@pytest.mark.parametrize("connections", [1, 10_000])
def test_the_most_connections_are_what_policies_may_say(tmp_path, connections):
    """The bench at its full size takes minutes; that a server would start with its policies does not."""
    site = Site(tmp_path, connections)
    for _, policies in (site.server, site.client):
        assert PolicySet.load(policies, now=datetime.now(UTC)).policies


def test_methods_that_block_beside_others():
    said = run("stall_beside.py", "--rounds", "1")
    rows = re.findall(r"^\| (blocking|aio) \|(.*)\|$", said, re.MULTILINE)
    assert [driver for driver, _ in rows] == ["blocking", "aio"]
    assert all(len(re.findall(r"([0-9.]+), ([0-9.]+)", cells)) == 4 for _, cells in rows)
