"""A child that is forked holds no socket of its parent, and is told so by whatever it asks; in both drivers."""

import asyncio
import gc
import json
import os
import signal
import socket
import sys
import warnings
from concurrent.futures import wait
from contextlib import ExitStack
from pathlib import Path

import pytest

import caprpc
import caprpc.aio
from caprpc.forks import AFTER_FORK
from tests.integration.box_service import Box, BoxOfOurs

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

CHILD_S = 30
"""After this the child is ended by a signal."""


@pytest.fixture(params=["tcp", "unix", "adopted", "subprocess"])
def way(request, caprpc_sides, tmp_path, monkeypatch):
    """How a server is reached, and the directories of a client; a command stands for a server that is started by it."""
    box = BoxOfOurs()
    roots = {"box": box}
    server, client = caprpc_sides(roots)
    if request.param == "subprocess":
        monkeypatch.chdir(Path(__file__).parent)
        identity, policies = (str(server.directories[name]) for name in ("identity", "policies"))
        command = [sys.executable, "-m", "caprpc", "serve", "box_service:roots", "--fd", "{fd}", "--grace", "0"]
        yield [*command, "--identity", identity, "--policies", policies], client.directories
        return
    serving = caprpc.Server(roots, **server.directories)
    with ExitStack() as stack:
        target = None
        if request.param == "adopted":
            target, theirs = socket.socketpair()
            serving.adopt(theirs)
        else:
            target = serving.listen("127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/s")
        stack.enter_context(serving)
        stack.callback(box.gate.set)
        yield target, client.directories


def told(function):
    """Return what a door of the child answers."""
    try:
        function()
    except caprpc.ConnectionLost as exc:
        return str(exc)
    except BaseException as exc:
        return type(exc).__name__
    return "open"


def in_a_child(look):
    """Fork, run ``look`` in the child, and return what it returns."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(CHILD_S)
            os.write(writing, json.dumps(look()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as answers:
        said = answers.read()
    os.waitpid(child, 0)
    return json.loads(said)


def sockets():
    """Return how many sockets this process holds."""
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue
    return sum(name.startswith("socket:") for name in names)


def ours(target):
    """Return how many of them are CapRPC's: our end, that of a server in here, and what it listens on."""
    return {list: 1, socket.socket: 2, str: 3}[type(target)]


def dialing(client, target):
    """Connect to a server: by its address, over a socket, or by starting it."""
    how = {list: client.connect_subprocess, socket.socket: client.adopt, str: client.connect}
    return how[type(target)](target)


def exhaust(rows):
    for _ in rows:
        pass


def test_every_door_of_a_blocking_peer_is_closed_in_a_child_and_open_in_its_parent(way):
    target, directories = way
    with caprpc.Client(**directories) as client:
        with dialing(client, target) as peer:
            box = peer.root("box", Box)
            rows, waiting = box.rows(), caprpc.submit(box.gated)
            next(rows)
            held = sockets()

            def look():
                doors = {
                    "call": lambda: box.echo(1),
                    "get": lambda: box.size,
                    "set": lambda: setattr(box, "size", 2),
                    "future": lambda: caprpc.submit(box.echo, 1),
                    "one way": lambda: caprpc.oneway(box.echo, 1),
                    "batch": lambda: caprpc.batch([(box.echo, (1,))]),
                    "pipeline": lambda: caprpc.pipe(box).same(),
                    "root": lambda: peer.root("box", Box),
                    "roots": peer.roots,
                    "derive": lambda: caprpc.attenuate(box),
                    "iterator": lambda: exhaust(rows),
                    "result": waiting.result,
                    "wait": lambda: wait([waiting], 5),
                }
                found = {name: told(door) for name, door in doors.items()}
                left = sockets()
                # A block that the child leaves: it waits for no thread of its parent, and says nothing to the peer.
                peer.close()
                return found, left

            found, left = in_a_child(look)
            assert {name: said for name, said in found.items() if said != AFTER_FORK} == {}
            assert held - left == ours(target)
            assert [box.echo(number) for number in range(3)] == [0, 1, 2], "the parent's goes on"
            waiting.cancel()


async def test_every_door_of_an_asyncio_peer_is_closed_in_a_child_and_open_in_its_parent(way):
    target, directories = way
    async with caprpc.aio.Client(**directories) as client:
        async with dialing(client, target) as peer:
            box = await peer.root("box", Box)
            rows = await box.rows()
            await anext(rows)
            held = sockets()

            def step(coroutine):
                """Go on until it waits for something that nobody in the child will ever bring."""
                coroutine.send(None)

            def look():
                doors = {
                    "call": lambda: box.echo(1),
                    "get": lambda: box.size,
                    "set": lambda: step(caprpc.aio.set_attribute(box, "size", 2)),
                    "future": lambda: caprpc.aio.submit(box.echo, 1),
                    "one way": lambda: step(caprpc.aio.oneway(box.echo, 1)),
                    "batch": lambda: step(caprpc.aio.batch([(box.echo, (1,))])),
                    "pipeline": lambda: caprpc.aio.pipe(box).same(),
                    "root": lambda: step(peer.root("box", Box)),
                    "roots": lambda: step(peer.roots()),
                    "derive": lambda: step(caprpc.aio.attenuate(box)),
                }
                found = {name: told(door) for name, door in doors.items()}
                left = sockets()
                gc.collect()
                with pytest.raises(StopIteration):
                    # A block that the child leaves waits for nothing of its parent.
                    step(peer.close())
                # What it would send if it still could, under the keys of its parent.
                told(lambda: peer._connection.end("closed"))
                return found, left

            found, left = in_a_child(look)
            assert {name: said for name, said in found.items() if said != AFTER_FORK} == {}
            assert held - left == ours(target)
            assert [await box.echo(number) for number in range(3)] == [0, 1, 2], "the parent's goes on"
            assert await asyncio.wait_for(anext(rows), 10) == 1
