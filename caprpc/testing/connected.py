"""Both drivers over a socket pair: a server and a peer in one process, without a port and without a file."""

import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from caprpc import aio, blocking
from caprpc.testing.deployment import Side


@contextmanager
def connected(roots: Mapping[str, object], server: Side, client: Side) -> Iterator[blocking.Peer]:
    """Serve roots on threads and give a peer that is connected to them; both end with the block."""
    ours, theirs = socket.socketpair()
    with blocking.Client(identity=client.identity, policies=client.policies) as dialing:
        serving = blocking.Server(roots, identity=server.identity, policies=server.policies)
        serving.adopt(theirs)
        with serving, dialing.adopt(ours) as peer:
            yield peer


@asynccontextmanager
async def aio_connected(roots: Mapping[str, object], server: Side, client: Side) -> AsyncIterator[aio.Peer]:
    """Serve roots on the running loop and give a peer that is connected to them; both end with the block."""
    ours, theirs = socket.socketpair()
    async with aio.Client(identity=client.identity, policies=client.policies) as dialing:
        serving = aio.Server(roots, identity=server.identity, policies=server.policies)
        serving.adopt(theirs)
        async with serving, dialing.adopt(ours) as peer:
            yield peer
