"""A program of asyncio ends cleanly with its connections open: no traceback, and no thread that keeps it."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import caprpc
from tests.integration.box_service import BoxOfOurs

HERE = Path(__file__).parent


@pytest.fixture
def program(caprpc_sides):
    """Return what runs the body of ``main(peer, box)`` in an interpreter of its own."""

    box = BoxOfOurs()
    roots = {"box": box}
    server, client = caprpc_sides(roots)
    serving = caprpc.Server(roots, **server.directories)
    address = serving.listen("127.0.0.1:0")

    def run(body):
        text = f"""
import asyncio, sys
sys.path.insert(0, {str(HERE)!r})
import caprpc.aio
from tests.integration.box_service import Box

async def main():
    peer = await caprpc.aio.connect(
        {address!r}, identity={str(client.identity)!r}, policies={str(client.policies)!r}
    )
    box = await peer.root("box", Box)
{textwrap.indent(body, "    ")}

asyncio.run(main())
"""
        command = [sys.executable, "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, [line for line in done.stderr.splitlines() if " expires on " not in line]

    with serving:
        yield run
        box.gate.set()


@pytest.mark.parametrize(
    "body",
    [
        "assert await box.echo(3) == 3",
        "call = box.gated(); await asyncio.sleep(0.1)",
        "task = asyncio.create_task(asyncio.wait_for(box.gated(), 10)); await asyncio.sleep(0.1); sys.exit(0)",
        "same = await box.same(); rows = await box.rows(); assert await anext(rows) == 0",
        "await peer.close(); await peer.close()",
    ],
    ids=["idle", "call under way", "exit in a loop", "references held", "closed twice"],
)
def test_a_program_of_asyncio_ends_cleanly_whatever_is_open(program, body):
    started = time.monotonic()
    assert program(body) == (0, [])
    assert time.monotonic() - started < 10
