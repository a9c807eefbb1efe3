"""CAP-CR-04: a server that is killed at random times under load; what its clients were told is true."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter

import journal_process
import pytest
from journal_process import Journal
from vault_service import SCALE

import caprpc
from caprpc.audit import verify

KILLS = int(3 * SCALE)
CLIENTS = 8
SERVER = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/client"]
[roots]
journal = "Journal"
[offer.Journal]
interface = "Journal"
call = ["put"]
[limits]
connections = 100
"""
CLIENT = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Journal]
call = ["put"]
"""


class Killed:
    """A server that is started again on the same address each time that it was killed."""

    def __init__(self, driver, side, path):
        self._arguments = [driver, str(side.identity), str(side.policies)]
        self._path = path
        self.address = "127.0.0.1:0"
        self.start()

    def start(self):
        arguments = [*self._arguments, self.address.removeprefix("caprpc://"), str(self._path)]
        self._process = subprocess.Popen(
            [sys.executable, journal_process.__file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._process.stdout.readline().strip()
        assert self.address, "it did not start"

    def kill(self):
        self._process.kill()
        with self._process:
            self._process.wait()

    def stop(self):
        with self._process:
            self._process.stdin.close()
            assert self._process.wait(20) == 0


class Client:
    """Writes numbers of its own, each once, and keeps what it was told of each."""

    def __init__(self, first, address, side, ends):
        self.told = {}
        self._first = first
        self._address = address
        self._side = side
        self._ends = ends
        self.thread = threading.Thread(target=self._run, name=f"client-{first}")
        self.thread.start()

    def _run(self):
        number, peer = self._first, None
        while not self._ends.is_set():
            try:
                if peer is None:
                    peer = self._side.connect(self._address)
                    journal = peer.root("journal", Journal)
            except caprpc.CapRPCError:
                peer = self._close(peer)
                time.sleep(0.02)
                continue
            try:
                assert journal.put(number) == number
                self.told[number] = "done"
            except Exception as exc:  # every kind is looked at by the test
                self.told[number] = type(exc)
                peer = self._close(peer)
            number += CLIENTS
        self._close(peer)

    @staticmethod
    def _close(peer):
        if peer is not None:
            peer.close()


class ClientSide:
    """One client of the package for all threads: they share its audit log."""

    def __init__(self, side):
        self.client = caprpc.Client(**side.directories)

    def connect(self, address):
        return self.client.connect(address)


@pytest.mark.parametrize("driver", ["blocking", "aio"])
def test_nothing_acknowledged_is_lost_and_nothing_done_twice(world, driver, tmp_path):
    server = world.deployment.side("journal", {"peers": SERVER}, [Journal], spiffe=world.server_id)
    side = world.deployment.side("client", {"server": CLIENT}, [Journal])
    journal = tmp_path / "written"
    killed, ends, choose = Killed(driver, server, journal), threading.Event(), random.Random(4)
    shared = ClientSide(side)
    clients = [Client(first, killed.address, shared, ends) for first in range(CLIENTS)]
    try:
        for _ in range(KILLS):
            time.sleep(choose.uniform(0.05, 0.4))
            killed.kill()
            killed.start()
        time.sleep(0.5)
    finally:
        ends.set()
        for client in clients:
            client.thread.join(30)
        killed.stop()
        shared.client.close()
    told = {number: what for client in clients for number, what in client.told.items()}
    written = Counter(map(int, journal.read_text(encoding="ascii").split()))
    done = {number for number, what in told.items() if what == "done"}
    assert max(written.values()) == 1, "something was done twice"
    assert done <= set(written), "something was acknowledged and is lost"
    assert set(written) <= set(told), "something was done that nobody has asked for"
    failed = Counter(what for what in told.values() if what != "done")
    assert set(failed) == {caprpc.ConnectionLost}, failed
    report = verify(server.audit)
    assert report.intact, report
    print(driver, KILLS, "kills:", len(done), "done,", dict(failed), len(set(written) - done), "done and not told")
