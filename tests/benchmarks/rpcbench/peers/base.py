"""What a peer's module provides: a server function, and clients with one method for each case."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from rpcbench.site import Site

Announce = Callable[[int], None]


class Unsupported(Exception):
    """The peer has no such feature; the table shows a dash."""


class Client:
    """One blocking connection. A peer overrides what it can do, and returns what the case expects."""

    def close(self) -> None:
        """End the connection."""
        raise NotImplementedError

    def noop(self) -> None:
        """Call a method without arguments that returns None."""
        raise Unsupported

    def echo(self, value: dict[str, object]) -> object:
        """Send a small dict, and return what came back."""
        raise Unsupported

    def window(self, calls: int) -> int:
        """Start that many no-ops, each sent on its own; then take all answers. Return their number."""
        raise Unsupported

    def window_coalesced(self, calls: int) -> int:
        """The same, where the peer offers to send what is ready in one go."""
        raise Unsupported

    def window_batch(self, calls: int) -> int:
        """The same, as the peer's batch of calls."""
        raise Unsupported

    def chain(self, steps: int) -> int:
        """Make that many calls, each on the reference that the last returned; return what the last says."""
        raise Unsupported

    def pipeline(self, steps: int) -> int:
        """The same without waiting in between."""
        raise Unsupported

    def callback(self, number: int) -> int:
        """Pass a function that adds one; the server calls it with ``number`` and returns its result."""
        raise Unsupported

    def iterate(self, count: int) -> int:
        """Take ``range(count)`` from the server with a plain ``for``; return the sum."""
        raise Unsupported

    def echo_bytes(self, data: bytes) -> bytes:
        """Send a large byte string, and return what came back."""
        raise Unsupported

    def stream(self, size: int) -> int:
        """Receive ``size`` bytes in pieces; return how many came."""
        raise Unsupported

    def nap(self) -> None:
        """Call a method that sleeps ``NAP_S``."""
        raise Unsupported

    def count_lines(self) -> int:
        """Pass the open text file and a function; the server iterates the one and calls the other for each line."""
        raise Unsupported


class AsyncClient:
    """One asyncio connection, with the same methods."""

    async def close(self) -> None:
        """End the connection."""
        raise NotImplementedError

    async def noop(self) -> None:
        """See ``Client``."""
        raise Unsupported

    async def echo(self, value: dict[str, object]) -> object:
        """See ``Client``."""
        raise Unsupported

    async def window(self, calls: int) -> int:
        """See ``Client``."""
        raise Unsupported

    async def window_coalesced(self, calls: int) -> int:
        """See ``Client``."""
        raise Unsupported

    async def window_batch(self, calls: int) -> int:
        """See ``Client``."""
        raise Unsupported

    async def chain(self, steps: int) -> int:
        """See ``Client``."""
        raise Unsupported

    async def pipeline(self, steps: int) -> int:
        """See ``Client``."""
        raise Unsupported

    async def callback(self, number: int) -> int:
        """See ``Client``."""
        raise Unsupported

    async def iterate(self, count: int) -> int:
        """See ``Client``."""
        raise Unsupported

    async def echo_bytes(self, data: bytes) -> bytes:
        """See ``Client``."""
        raise Unsupported

    async def stream(self, size: int) -> int:
        """See ``Client``."""
        raise Unsupported

    async def nap(self) -> None:
        """See ``Client``."""
        raise Unsupported

    async def count_lines(self) -> int:
        """See ``Client``."""
        raise Unsupported


def run_on_asyncio(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a client's coroutine on a fresh event loop of the standard library."""
    return asyncio.run(main)


@dataclass(frozen=True, slots=True)
class Peer:
    """One system under test. ``serve`` announces its port on 127.0.0.1 and then serves until the process is ended."""

    title: str
    serve: Callable[[Site, Announce], None]
    connect: Callable[[Site, int], Client] | None = None
    connect_async: Callable[[Site, int], Awaitable[AsyncClient]] | None = None
    run_async: Callable[[Coroutine[Any, Any, Any]], Any] = run_on_asyncio
    prepare: Callable[[Site], None] | None = None
    """Writes what the peer needs into the site (policies, schemas), once for a run."""
