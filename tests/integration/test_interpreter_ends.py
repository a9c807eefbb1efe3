"""A program of asyncio ends cleanly with its connections open: no traceback, and no thread that keeps it."""

import subprocess
import sys
import textwrap
import time

import pytest

import caprpc

SERVICE = """
from collections.abc import Iterator

from caprpc import Interface, method


class Box(Interface):
    @method(effect="read")
    def same(self) -> "Box": ...

    @method(effect="read")
    def echo(self, number: int) -> int: ...

    @method(effect="read")
    def rows(self) -> Iterator[int]: ...

    @method(effect="read", blocking=True)
    def wait(self) -> None: ...
"""


@pytest.fixture
def box(tmp_path, monkeypatch):
    """The module of the interface, importable here and in the program."""
    (tmp_path / "box_of_tests.py").write_text(SERVICE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import box_of_tests

    yield box_of_tests.Box
    del sys.modules["box_of_tests"]


@pytest.fixture
def program(box, caprpc_sides, tmp_path):
    """Return what runs the body of ``main(peer, box)`` in an interpreter of its own."""

    class BoxOfOurs(box):
        def same(self):
            return self

        def echo(self, number):
            return number

        def rows(self):
            return iter(range(1_000_000))

        def wait(self):
            end = time.monotonic() + 20
            while not caprpc.current().cancelled and time.monotonic() < end:
                time.sleep(0.01)

    roots = {"box": BoxOfOurs()}
    server, client = caprpc_sides(roots)
    serving = caprpc.Server(roots, **server.directories)
    address = serving.listen("127.0.0.1:0")

    def run(body):
        text = f"""
import asyncio, sys
sys.path.insert(0, {str(tmp_path)!r})
import caprpc.aio
from box_of_tests import Box

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


@pytest.mark.parametrize(
    "body",
    [
        "assert await box.echo(3) == 3",
        "call = box.wait(); await asyncio.sleep(0.1)",
        "task = asyncio.create_task(asyncio.wait_for(box.wait(), 10)); await asyncio.sleep(0.1); sys.exit(0)",
        "same = await box.same(); rows = await box.rows(); assert await anext(rows) == 0",
        "await peer.close(); await peer.close()",
    ],
    ids=["idle", "call under way", "exit in a loop", "references held", "closed twice"],
)
def test_a_program_of_asyncio_ends_cleanly_whatever_is_open(program, body):
    started = time.monotonic()
    assert program(body) == (0, [])
    assert time.monotonic() - started < 10
