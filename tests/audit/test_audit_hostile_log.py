"""The verifier and the reader are safe on logs that someone made to hurt them."""

import os
import subprocess
import sys

import pytest

from caprpc.audit import Selection, select
from tests.audit.conftest import PEER

MAX_RSS_KIB = 100 * 1024
# The peak of this program alone: ru_maxrss keeps what the process was before it became this program.
MEASURE = """
import sys
from pathlib import Path
from caprpc.audit import Selection, select, verify
report = verify(Path(sys.argv[1]))
problem = next(found.problem for found in report.relations if found.problem)
lines = sum(entry.record is None for entry in select(Path(sys.argv[1]), Selection()))
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(peak.split()[1], lines, problem)
"""


@pytest.fixture
def log_file(logs):
    log = logs.open()
    log.relation(PEER).record("open", peer=PEER)
    log.close()
    return logs.files()[0]


def measured(logs):
    done = subprocess.run([sys.executable, "-c", MEASURE, logs.path], capture_output=True, text=True, check=True)
    rss, damaged, problem = done.stdout.strip().split(" ", 2)
    assert int(rss) < MAX_RSS_KIB
    assert len(problem) < 1_000
    return int(damaged), problem


def test_line_of_a_gigabyte(logs, log_file):
    os.truncate(log_file, 1 << 30)
    damaged, problem = measured(logs)
    assert damaged == 1
    assert "4096 bytes" in problem


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 4_000,
        b'{"seq":' * 500,
        b'{"a":' + b"[" * 4_000,
        b"\xff\xfe" * 1_000,
        b"9" * 4_096,
        b'{"seq":' + b"9" * 4_000 + b"}",
        b'{"' + b"\\ud800" * 600 + b'":1}',
        b"\x00" * 4_096,
        b"\xe2\x80\xae\x1b[2J",
    ],
    ids=range(9),
)
def test_many_bad_lines(logs, log_file, line):
    with log_file.open("ab") as stream:
        for _ in range(500):
            stream.write(line + b"\n")
        stream.write(b'{"seq":4}\n')
    problem = logs.problem()
    assert problem is None if len(line) < 20 else problem.line == 4
    assert sum(entry.record is None for entry in select(logs.path, Selection())) == 1


def test_millions_of_empty_lines(logs, log_file):
    with log_file.open("r+b") as stream:
        stream.write(b"\n" * 1_000_000)
    damaged, _ = measured(logs)
    assert damaged == 1


def test_deep_and_large_side_files(logs, log_file):
    logs.head().write_bytes(b"[" * 100_000)
    assert "not a head" in logs.problem().found
    (logs.path / "log.json").write_bytes(b'{"name":' * 100_000)
    with pytest.raises(Exception, match="not the identity"):
        logs.verify()


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[]", b'{"seq":1}', b"\xff", b'{"caprpc":1}'])
def test_broken_heads(logs, log_file, data):
    logs.head().write_bytes(data)
    assert "not a head" in logs.problem().found


def test_pipe_in_place_of_a_segment_does_not_block(logs, log_file):
    log_file.unlink()
    os.mkfifo(log_file)
    assert "not a plain file" in logs.problem().found


def test_many_gap_records_with_the_right_length_do_not_hash_the_debris_again_and_again(logs, log_file):
    """The first gap record that fits in place and does not in content ends the reading."""
    from caprpc.audit.record import encode, leaf_hash

    lines = log_file.read_bytes().splitlines()
    prefix = b"\n".join(lines[:2]) + b"\n"
    fields = {"kind": "gap", "event": "torn", "facts": 0, "bytes": 5, "digest": "0" * 64}
    gap = encode(3, (b"2026-05-28T20:26:40.", 1, 5_000_000_000), fields, leaf_hash(lines[1]))
    log_file.write_bytes(prefix + b"junk\n" + gap + b"\n" + b"\n".join(lines[2:]) + b"\n")
    problem = logs.problem()
    assert (problem.line, problem.expected) == (3, "one JSON object")
