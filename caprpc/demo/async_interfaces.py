"""``caprpc.demo.interfaces`` as a client with asyncio sees it; made by ``caprpc stubs``, do not edit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from caprpc.aio.interfaces import AsyncTextLines
from caprpc.demo.interfaces import LineCounter
from caprpc.interfaces import TextLines

__all__ = [
    "AsyncLineCounter",
]

if TYPE_CHECKING:

    class AsyncLineCounter(Protocol):
        """Counts the lines of a file that stays with the caller."""

        def line_counter(
            self,
            fileobj: TextLines | AsyncTextLines,
            function: Callable[[str], Awaitable[None] | None],
        ) -> Awaitable[int]:
            """Call the function with each line of the file, and return how many there were."""
            ...

        def misbehave(
            self,
            fileobj: TextLines | AsyncTextLines,
            function: Callable[[str], Awaitable[None] | None],
        ) -> Awaitable[list[dict[str, str]]]:
            """Try what the caller has not lent, and return what came of each attempt."""
            ...

else:
    AsyncLineCounter = LineCounter
