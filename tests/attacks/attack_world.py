"""Fixtures: real servers of both drivers, and hostile peers of them; every test leaves nothing behind."""

import gc
import os
import threading
import time

import pytest
from hostile_peer import dial
from vault_process import Alone
from vault_service import CLIENT, INTERFACES, QUICK, SERVER, Running, Safe

from caprpc.testing.deployment import Deployment


class World:
    """One deployment: a server's side, and a side for each client; servers and peers are ended after the test."""

    def __init__(self, directory):
        self.deployment = Deployment(directory)
        self.service = Safe()
        self._closers = []
        self._sides = {}

    def side(self, name, *, policies=None):
        """Return the side of a client, made at first use."""
        if name not in self._sides:
            self._sides[name] = self.deployment.side(name, policies or {"server": CLIENT}, INTERFACES)
        return self._sides[name]

    def serve(
        self,
        driver,
        *,
        roots=None,
        limits=QUICK,
        connection="",
        policy=SERVER,
        who=("mallory", "alice"),
        extra="",
        **more,
    ):
        """Start a server; ``connection`` is what stands under ``[limits]`` for its peers."""
        side = self._server_side(connection, policy, who, extra)
        running = Running(driver, roots or {"vault": self.service}, side, limits, **more)
        self._closers.append(running.stop)
        return running

    def serve_alone(self, driver, *, limits=QUICK, connection="", who=("mallory", "alice")):
        """Start a server in a process of its own."""
        alone = Alone(driver, self._server_side(connection, SERVER, who, ""), limits)
        self._closers.append(alone.stop)
        return alone

    def _server_side(self, connection, policy, who, extra):
        names = ", ".join(f'"spiffe://@DOMAIN@/{name}"' for name in who)
        text = policy.replace("@WHO@", names).replace("@ROOTS@", extra)
        if connection:
            text += f"[limits]\n{connection}\n"
        return self.deployment.side(f"server-{len(self._closers)}", {"peers": text}, INTERFACES, spiffe=self.server_id)

    @property
    def server_id(self):
        return f"spiffe://{self.deployment.trust_domain}/server"

    def dial(self, running, name="mallory", **more):
        """Connect a hostile client that has said nothing yet."""
        peer = dial(running.address, self.side(name), **more)
        self._closers.append(peer.close)
        return peer

    def open(self, running, name="mallory", **more):
        """Connect a hostile client and open."""
        return self.dial(running, name, **more).open()

    def end(self):
        self.service.gate.set()
        for close in reversed(self._closers):
            close()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.end()


@pytest.fixture(params=["blocking", "aio"])
def driver(request):
    return request.param


@pytest.fixture(autouse=True)
def nothing_left_behind(capfd):
    """Threads and descriptors are what they were; nothing but log lines was written to standard error (O2, O5)."""
    before = _threads()
    descriptors = _descriptors()
    yield
    end = time.monotonic() + 5.0
    while (_threads() - before or _descriptors() > descriptors) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.02)
    assert {thread.name for thread in _threads() - before} == set()
    assert _descriptors() <= descriptors
    assert "Traceback" not in capfd.readouterr().err


def _threads():
    return {thread for thread in threading.enumerate() if not thread.name.startswith("execnet")}


def _descriptors():
    return len(os.listdir("/proc/self/fd"))
