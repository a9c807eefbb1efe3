"""The examples of the guide to iteration and streams run, over sockets, with the policies of the page."""

import asyncio
import re

import pytest

import caprpc
import caprpc.aio
from caprpc.testing.deployment import Deployment

PEER = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'


class Page:
    """The code of one page."""

    def __init__(self, repository, name):
        text = (repository / "docs" / "how-to" / name).read_text(encoding="utf-8")
        self.python = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        self.toml = re.findall(r"^```toml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        self.names = {"caprpc": caprpc, "__name__": "how_to"}

    def run(self, *blocks):
        for block in blocks:
            exec(compile(block, "how-to", "exec"), self.names)
        return self.names


@pytest.fixture
def served(repository, tmp_path):
    """Return a function that serves an implementation of a page and opens blocking or asyncio peers."""
    stopped = []

    def serve(page, interface, implementation, root):
        deployment = Deployment(tmp_path)
        offer, accept = page.toml
        server = deployment.side("server", {"client": PEER.format("client") + offer}, [page.names[interface]])
        client = deployment.side("client", {"server": PEER.format("server") + accept}, [page.names[interface]])
        running = caprpc.Server(
            {root: page.names[implementation]()}, **server.directories, audit=tmp_path / "server-audit"
        )
        options = {**client.directories, "audit": tmp_path / "client-audit"}
        address = running.listen("127.0.0.1:0")
        running.start()
        stopped.append(running)
        return running, lambda module: module.connect(address, **options)

    yield serve
    for running in stopped:
        running.stop(1)


def test_iterate_and_stream(repository, served, tmp_path):
    page = Page(repository, "iterate-and-stream.md")
    declare, implement, loop, early, choose, stream, files, on_loop = page.python
    names = page.run(declare, implement)
    names["path"] = tmp_path / "copy"
    _, connect = served(page, "Archive", "ArchiveOfAcme", "archive")
    with connect(caprpc) as peer:
        names["peer"] = peer
        page.run(loop, early, choose)
        assert (names["total"], names["first"], names["count"]) == (sum(range(10_000)), {"number": 0}, 10_000)
        assert names["seen"][-1] == 10_000
        page.run(stream, files)
        exported = b"".join(b"%d\n" % n for n in range(100_000))
        assert names["path"].read_bytes() == exported
        assert names["seen"][-1] == len(exported)
        assert b"".join(names["export_file"](names["path"])) == exported
        with pytest.raises(LookupError, match="no table"):
            peer.root("archive", names["Archive"]).rows("other")
    page.run(on_loop)

    async def main():
        async with connect(caprpc.aio) as peer:
            return await names["transfer"](peer)

    assert asyncio.run(main()) == (sum(range(10_000)), len(exported))
