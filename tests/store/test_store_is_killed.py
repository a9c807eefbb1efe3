"""Real processes, killed at any moment: nothing that was acknowledged is lost, and the store opens again."""

import random
import signal
import subprocess
import sys
import time

from caprpc.store import SqliteStore
from caprpc.sturdy import digest_of

ROUNDS = 6
PROCESSES = 2


def start(path, repository, name):
    command = [sys.executable, "-m", "tests.store.killed_store", str(path), name]
    return subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE)


def complete_lines(output):
    """Return what was said in full: the last line of a killed process may be half a line."""
    return [tuple(line.split()) for line in output.decode().split("\n")[:-1]]


def check(path, acknowledged):
    """Compare the store with the oracle: everything that a process had said before it died."""
    store = SqliteStore(path)
    try:
        kept = {grant.grant_id: grant for grant in store.grants()}
        for what, grant_id in acknowledged:
            assert grant_id in kept
            assert store.find(digest_of(grant_id)) == kept[grant_id]
            if what == "revoked":
                assert kept[grant_id].revoked_at is not None
        revision, revoked = store.revoked_since(0)
        assert revision == len(kept) + len(revoked)
        assert set(revoked) == {grant_id for grant_id, grant in kept.items() if grant.revoked_at is not None}
    finally:
        store.close()


def test_two_processes_killed_at_random_lose_nothing_that_was_acknowledged(path, pytestconfig):
    chance = random.Random(20_261_122)
    acknowledged = []
    for _ in range(ROUNDS):
        running = [start(path, pytestconfig.rootpath, name) for name in "ab"[:PROCESSES]]
        try:
            first = running[0].stdout.readline()
            time.sleep(chance.uniform(0.0, 0.1))
        finally:
            for process in running:
                process.send_signal(signal.SIGKILL)
            said = [process.communicate()[0] for process in running]
        assert all(process.returncode == -signal.SIGKILL for process in running)
        acknowledged += [line for output in (first + said[0], said[1]) for line in complete_lines(output)]
        check(path, acknowledged)
    assert len(acknowledged) > ROUNDS


def test_a_restart_keeps_everything(stores, add):
    store = stores()
    given = [add(store) for _ in range(5)]
    store.revoke(given[0][0].grant_id, 3.0)
    store.close()
    again = stores()
    assert [again.find(digest_of(secret)).state(4.0) for _, secret in given] == ["revoked"] + ["live"] * 4
