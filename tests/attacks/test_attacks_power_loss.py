"""Power that is lost at any moment takes nothing that somebody was told lasts. CAP-CR-03.

Operations are recorded as the process makes them, and replayed with what was not synced lost or out of order.
``CAPRPC_ATTACK_SCALE=24`` looks at every moment and state; at 1 it is one in several.
"""

import os
import shutil
import sys
from itertools import islice

import pytest
from power_loss import Cuts, Disk, lay_out, without_syncing
from traced_disk import TracedDisk, can_trace
from vault_service import SCALE

from caprpc.audit import AuditLog, Selection, select, verify
from caprpc.store import SqliteStore
from caprpc.sturdy import digest_of

PEER = "spiffe://org-b.example/treasury/feed"
DECISION = {
    "kind": "decision",
    "peer": PEER,
    "decision": "permit",
    "facet": "Counter",
    "operation": "call",
    "member": "m",
}
STRIDE = max(1, round(24 / SCALE))
EACH = max(1, round(10 / SCALE))
"""One state in so many is looked at."""

RANDOM_STATES = 2


class Clock:
    """Time goes on only when it is told to."""

    def __init__(self):
        self.now = 5_000_000_000

    def monotonic(self):
        return self.now

    def wall(self):
        return 1_780_000_000_000_000_000 + self.now


def opened(directory, clock, write=None):
    more = {} if write is None else {"write": write}
    return AuditLog.open(
        directory, name="server", max_segment_bytes=1_500, wall_ns=clock.wall, monotonic_ns=clock.monotonic, **more
    )


def write_records(disk, durability, clock, first):
    """Append records over several segments, signed now and then; each is told of when it lasts."""
    log = opened(disk.root / "state" / "audit", clock, disk.write)
    log.relation(PEER)
    relation = log.lasting(PEER, durability)
    template = relation.template(**DECISION)
    for question in range(first, first + 7):
        relation.append(template, question)
        disk.told(question)
        if question % 2:
            clock.now += 2_000_000_000
            log.tick(clock.now / 1e9)
    log.close()


def check_log(root, told):
    """What was told is there, the log is intact, and goes on."""
    directory = root / "state" / "audit"
    if (directory / "log.json").exists() and list(directory.glob("*.jsonl")):
        report = verify(directory)
        assert report.intact, [str(one.problem) for one in report.relations]
    clock = Clock()
    clock.now += 3_600_000_000_000
    log = opened(directory, clock)
    relation = log.relation(PEER)
    relation.append(relation.template(**DECISION), 99)
    log.close()
    report = verify(directory)
    assert report.intact, [str(one.problem) for one in report.relations]
    found = [
        entry.record.fields["question"] for entry in select(directory, Selection(decision="permit")) if entry.record
    ]
    assert found == [*range(1, len(found)), 99]
    assert told <= set(found)


def survivors(disk, check, tmp_path, moments):
    """Check states; return how many there were, and those that are bad."""
    cuts, bad, count = Cuts(disk, RANDOM_STATES), [], 0
    with without_syncing():
        for state, told in islice(cuts.states(moments), 0, None, EACH):
            count += 1
            root = tmp_path / "found"
            lay_out(state, root)
            try:
                check(root, told)
            except Exception as exc:  # any refusal to go on is what the test is about
                bad.append((sorted(told), sorted(state), f"{type(exc).__name__}: {exc}"[:600]))
            shutil.rmtree(root)
    return count, bad


@pytest.mark.parametrize("durability", ["sync", "group"])
def test_no_cut_of_power_takes_a_record_that_lasts(tmp_path, durability):
    disk = Disk(tmp_path / "disk")
    with disk.recording():
        clock = Clock()
        write_records(disk, durability, clock, 1)
        clock.now += 2_000_000_000
        write_records(disk, durability, clock, 8)
    moments = range(len(disk.operations) % STRIDE, len(disk.operations) + 1, STRIDE)
    count, bad = survivors(disk, check_log, tmp_path, moments)
    print(f"{durability}: {len(disk.operations)} operations, {len(moments)} moments, {count} states, {len(bad)} bad")
    assert bad == []
    assert count > 20


def check_grants(root, told):
    """Every grant and every end of one that was told is there, and the store goes on."""
    path = root / "grants.db"
    if told:
        assert path.exists()
    store = SqliteStore(path)
    try:
        kept = {grant.grant_id: grant for grant in store.grants()}
        for what, grant_id in told:
            assert store.find(digest_of(grant_id)) == kept[grant_id]
            assert what == "granted" or kept[grant_id].revoked_at is not None
        for grant in kept.values():
            if grant.revoked_at is None:
                store.revoke(grant.grant_id, 3.0)
    finally:
        store.close()


@pytest.mark.skipif(
    not can_trace() and "CAPRPC_REQUIRE_STRACE" not in os.environ, reason="no strace here, or it may not trace"
)
def test_no_cut_of_power_takes_a_grant_or_its_end(tmp_path, pytestconfig):
    disk = TracedDisk(tmp_path / "disk")
    for name in ("first", "second"):
        arguments = (str(disk.root / "grants.db"), name, "3")
        disk.run(sys.executable, "-m", "tests.store.killed_store", *arguments, cwd=pytestconfig.rootpath)
    moments = range(0, len(disk.operations) + 1, max(1, STRIDE // 4))
    count, bad = survivors(disk, check_grants, tmp_path, moments)
    print(f"grants: {len(disk.operations)} operations, {len(moments)} moments, {count} states, {len(bad)} bad")
    assert bad == []
    assert count > 20
