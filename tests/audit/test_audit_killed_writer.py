"""A real writer is killed: every record that it had acknowledged is there, and ``verify`` says how long the tail is."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from caprpc.audit import AuditLog, verify
from caprpc.audit.query import Selection, select
from caprpc.cli import main

WRITER = Path(__file__).with_name("killed_writer.py")
PEER = "spiffe://org-b.example/treasury/feed"


@pytest.fixture
def killed(tmp_path):
    """Run the writer until its log was signed twice and has more; kill it; return the log and what was acknowledged."""
    directory = tmp_path / "audit"
    process = subprocess.Popen(
        [sys.executable, str(WRITER), str(directory)], stdout=subprocess.PIPE, text=True, cwd=WRITER.parents[2]
    )
    try:
        ticks, written, since = 0, 0, 0.0
        for line in process.stdout:
            if line == "ticked\n":
                ticks, since = ticks + 1, time.monotonic()
            else:
                written = int(line)
            if ticks == 2 and time.monotonic() - since > 0.3:
                break
        process.kill()
        rest = process.communicate(timeout=30)[0]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -9
    last = [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n") and line.strip().isdecimal()]
    return directory, max([written, *last])


def relation_of(report):
    return next(one for one in report.relations if one.relation == PEER)


def test_the_log_is_intact_and_the_tail_is_named(killed):
    directory, acknowledged = killed
    found = relation_of(verify(directory))
    assert (found.verdict, found.closed) == ("intact", False)
    questions = [entry.record.fields["question"] for entry in select(directory, Selection(kind="decision"))]
    assert questions[:acknowledged] == list(range(1, acknowledged + 1))
    assert found.signed > 0
    assert found.signed + found.unsigned == found.records
    assert found.unsigned > 0
    assert 0.2 < found.unsigned_s < 5.0

    told = CliRunner().invoke(main, ["audit", "verify", str(directory)])
    assert told.exit_code == 0
    assert f"{found.unsigned} records at the end, over {found.unsigned_s:.1f} s, are not signed" in told.stdout
    assert "not closed: running, or killed" in told.stdout
    plain = json.loads(CliRunner().invoke(main, ["audit", "verify", str(directory), "--json"]).stdout)
    [shown] = [one for one in plain["relations"] if one["relation"] == PEER]
    assert (shown["unsigned"], shown["unsigned_s"]) == (found.unsigned, found.unsigned_s)


def test_the_next_run_goes_on_and_signs_the_tail(killed):
    directory, _ = killed
    before = relation_of(verify(directory))
    log = AuditLog.open(directory, name="server")
    log.relation(PEER)
    log.close()
    after = relation_of(verify(directory))
    assert (after.verdict, after.closed, after.unsigned, after.unsigned_s) == ("intact", True, 0, 0.0)
    assert after.records > before.records
