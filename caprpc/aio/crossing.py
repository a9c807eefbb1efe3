"""What another thread has the loop of a connection do, and waits for."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

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


def refuse_to_block(what: str) -> RuntimeError:
    """Return the error of a wait on the thread of the loop, which alone could end it."""
    return RuntimeError(
        f"{what} would block the event loop: make the calling method `async def` and await it (caprpc.aio), on a "
        "reference that an `async def` method was given, or declare it with @method(blocking=True) so that it runs on "
        "a thread"
    )


class LoopFuture(Future[Any]):
    """What a thread gets for a call that a loop makes; the thread of that loop cannot wait for it."""

    def __init__(self, loop_thread: int) -> None:
        super().__init__()
        self._loop_thread = loop_thread

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise what the call raised.

        Raises:
            RuntimeError: This is the thread of the loop, and the call has not ended.
        """
        self._refuse_on_loop()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised; raises as ``result`` if there is no end yet."""
        self._refuse_on_loop()
        return super().exception(timeout)

    def _refuse_on_loop(self) -> None:
        if threading.get_ident() == self._loop_thread and not self.done():
            raise refuse_to_block("waiting for a submitted call")
