"""Faults of the host and of the service itself: forks, memory that runs out, odd environments. CAP-RU, CAP-SI."""

import os
import signal
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from vault_service import Safe

from caprpc.wire import messages as m


class Forks(Safe):
    """A service one of whose methods forks, and whose child stays, as a pool of multiprocessing does."""

    def __init__(self):
        super().__init__()
        self.children = []

    def add(self, a, b=0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
        self.children.append(child)
        return child

    def end(self):
        for child in self.children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def inherited(child):
    """Return the inodes of the sockets that a process has."""
    names = []
    for descriptor in Path(f"/proc/{child}/fd").iterdir():
        with suppress(OSError):
            names.append(os.readlink(descriptor))
    return {int(name[8:-1]) for name in names if name.startswith("socket:[")}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_method_that_forks_leaves_no_socket_of_the_server_in_its_child(world, driver):
    service = Forks()
    running = world.serve(driver, roots={"vault": service})
    # What this process has for other reasons (a loop's pair to wake it) says nothing about the server's.
    peer = world.open(running)
    vault = peer.root()
    child = peer.value(vault, "add", [1])
    try:
        port = int(running.address.rsplit(":", 1)[1])
        end = time.monotonic() + 5
        # fork() may return here before the child has run anything.
        while (held := [ends for ends in _tcp_of(inherited(child)) if ends[0] == port]) and time.monotonic() < end:
            time.sleep(0.01)
        assert held == []
        assert peer.value(vault, "echo", [3]) == 3
        running.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=2)
        assert [message for message in peer.rest() if not isinstance(message, m.GoAway)] == []
    finally:
        service.end()


def _tcp_of(inodes):
    """Return (local port, remote port) of each TCP socket among some inodes."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[9]) in inodes:
            found.append(tuple(int(words[place].split(":")[1], 16) for place in (1, 2)))
    return found
