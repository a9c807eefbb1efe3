"""The client of the demonstration, over either driver: it lends a file and a function, and is told the count."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caprpc import aio, blocking
from caprpc.demo.interfaces import LineCounter


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the client got: who answered, how many lines, and what the server says of its attempts."""

    server: str
    connection_id: str
    count: int
    attempts: list[dict[str, str]]


def count_lines(
    url: str,
    directories: dict[str, Path],
    path: Path,
    noisy: Callable[[str], None],
    counted: Callable[[int], None],
    *,
    on_loop: bool,
) -> Outcome:
    """Connect, have the lines counted, then let the server misbehave; ``counted`` is called in between."""
    if on_loop:
        return asyncio.run(_on_loop(url, directories, path, noisy, counted))
    with blocking.connect(url, **directories) as peer:  # type: ignore[arg-type]
        counter = peer.root("counter", LineCounter)
        with path.open(encoding="utf-8") as file:
            count = counter.line_counter(file, noisy)
        counted(count)
        with path.open(encoding="utf-8") as file:
            attempts = counter.misbehave(file, noisy)
        return Outcome(peer.principal, peer.connection_id, count, attempts)


async def _on_loop(
    url: str,
    directories: dict[str, Path],
    path: Path,
    noisy: Callable[[str], None],
    counted: Callable[[int], None],
) -> Outcome:
    async with await aio.connect(url, **directories) as peer:  # type: ignore[arg-type]
        counter = await peer.root("counter", LineCounter)
        with path.open(encoding="utf-8") as file:
            count = await counter.line_counter(file, noisy)  # type: ignore[misc]
        counted(count)
        with path.open(encoding="utf-8") as file:
            attempts = await counter.misbehave(file, noisy)  # type: ignore[misc]
        return Outcome(peer.principal, peer.connection_id, count, attempts)
