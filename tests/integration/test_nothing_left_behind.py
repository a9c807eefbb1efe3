"""A connection that does not come about ends in the documented error, and leaves no thread or descriptor."""

import asyncio
import os
import socket
import threading

import pytest

import caprpc
import caprpc.aio
from caprpc.testing.deployment import Deployment

POLICY = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
"""
NEVER = 60.0


@pytest.fixture
def directories(tmp_path):
    return Deployment(tmp_path).side("alice", {"server": POLICY}).directories


@pytest.fixture
def silent():
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"caprpc://127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def nobody():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    return f"caprpc://127.0.0.1:{port}"


def held():
    """What this process holds: descriptors, and the names of its threads."""
    return len(os.listdir("/proc/self/fd")), sorted(thread.name for thread in threading.enumerate())


def connect(directories, url, timeout_s):
    with caprpc.connect(url, timeout_s=timeout_s, **directories):
        pytest.fail("connected to nobody")


async def connect_on_loop(directories, url, timeout_s):
    async with await caprpc.aio.connect(url, timeout_s=timeout_s, **directories):
        pytest.fail("connected to nobody")


def refused_on_loop(directories, url, prepare=lambda _loop: None):
    """Return the error and what the process holds before and after, loop and all."""

    async def attempt():
        prepare(asyncio.get_running_loop())
        before = held()
        with pytest.raises(caprpc.ConnectRefused) as caught:
            await connect_on_loop(directories, url, 0.2)
        # The transport closes its socket in the next turn.
        await asyncio.sleep(0)
        return caught.value, before, held()

    return asyncio.run(attempt())


def test_a_silent_server(directories, silent):
    before = held()
    with pytest.raises(caprpc.ConnectRefused, match="no answer from"):
        connect(directories, silent, 0.2)
    assert held() == before


def test_a_silent_server_on_a_loop(directories, silent):
    error, before, after = refused_on_loop(directories, silent)
    assert "no answer within 0.2 s" in str(error)
    assert after == before


def test_nobody_listens(directories, nobody):
    before = held()
    with pytest.raises(caprpc.ConnectRefused, match="is the server running there"):
        connect(directories, nobody, 5.0)
    assert held() == before


def test_nobody_listens_on_a_loop(directories, nobody):
    error, before, after = refused_on_loop(directories, nobody)
    assert "is the server running there" in str(error)
    assert after == before


def test_a_network_that_swallows_everything_on_a_loop(directories, nobody):
    async def swallow(*_arguments):
        await asyncio.sleep(NEVER)

    def prepare(loop):
        loop.sock_connect = swallow

    error, before, after = refused_on_loop(directories, nobody, prepare)
    assert "no answer within 0.2 s" in str(error)
    assert after == before


def test_a_cancelled_attempt_on_a_loop(directories, silent):
    async def attempt():
        before = held()
        task = asyncio.create_task(connect_on_loop(directories, silent, NEVER))
        while held()[0] == before[0]:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        return before, held()

    before, after = asyncio.run(attempt())
    assert after == before
