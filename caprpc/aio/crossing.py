"""What another thread has the loop of a connection do, and waits for."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

_WAIT_S: Final = 1.0
"""How long a thread waits for a loop that is busy, or that has been stopped; what it asked for is done all the same."""


def done_on(loop: asyncio.AbstractEventLoop, function: Callable[[], int]) -> int:
    """Have a loop run a function, from another thread, and return its result.

    A thread that has a loop of its own does not wait, and gets 0: two loops that waited for each other would never end.
    """
    if loop.is_closed():
        return 0
    result: Future[int] = Future()

    def run() -> None:
        try:
            result.set_result(function())
        except Exception as exc:  # it belongs to the thread that waits
            result.set_exception(exc)

    loop.call_soon_threadsafe(run)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with suppress(TimeoutError):
            return result.result(_WAIT_S)
    return 0
