"""A loop for the ``async def`` methods of a blocking server or client: one thread, started at the first of them."""

import asyncio
import threading
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import Final

from caprpc.blocking.connection import Connection
from caprpc.objects.closing import close_now, close_rest
from caprpc.objects.work import AnyJob
from caprpc.session import Answer, BatchAnswer, Closer

_CLOSING_S: Final = 5.0
"""How long the end of the loop waits for what is being closed on it."""


class AsyncMethods:
    """Runs coroutine methods concurrently on one event loop, so that they may share asyncio's locks and sessions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()
        """What peers have let go of and is being closed; touched on the loop only."""
        self._running: dict[Answer | BatchAnswer, Future[None]] = {}

    def start(self, connection: Connection, job: AnyJob) -> bool:
        """Start a method; its reply is sent when it ends."""
        with self._lock:
            loop = self._running_loop()
        answer = job.answer
        self._running[answer] = asyncio.run_coroutine_threadsafe(self._run(connection, job), loop)
        self._running[answer].add_done_callback(lambda _future: self._running.pop(answer, None))
        return True

    def wait_for(self, result: Awaitable[None]) -> None:
        """Await something on the loop, and return when it has ended; not to be called on the loop."""

        async def run() -> None:
            await result

        with self._lock:
            loop = self._running_loop()
        asyncio.run_coroutine_threadsafe(run(), loop).result()

    def cancel(self, answer: Answer | BatchAnswer) -> None:
        """Cancel the method that answers a call nobody waits for any more."""
        running = self._running.get(answer)
        if running is not None:
            running.cancel()

    def let_go(self, closers: list[Closer]) -> None:
        """Close what a peer has let go of on this thread, and on the loop what must be awaited."""
        rest = close_now(closers)
        if not rest:
            return
        with self._lock:
            if not self._closed:
                loop = self._running_loop()
                # Before the loop is told to stop, so that it begins; ``_serve`` waits for it.
                loop.call_soon_threadsafe(self._begin_closing, loop, rest)
                return
        asyncio.run(close_rest(rest))

    def close(self) -> None:
        """Cancel what runs and end the thread."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    async def _run(self, connection: Connection, job: AnyJob) -> None:
        try:
            value = await job.run_async()
        except (Exception, SystemExit) as exc:  # application code: whatever it raises becomes the answer of its call
            connection.reply_error(job, exc)
        except asyncio.CancelledError as exc:
            if not job.answer.cancelled:
                connection.reply_error(job, exc)
                raise
            connection.reply_cancelled(job)
        else:
            connection.reply(job, value)

    def _begin_closing(self, loop: asyncio.AbstractEventLoop, rest: list[Awaitable[object]]) -> None:
        task = loop.create_task(close_rest(rest))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, started if need be; the lock is held."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._serve, args=(self._loop,), name="caprpc-async", daemon=True)
            self._thread.start()
        return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            for task in asyncio.all_tasks(loop) - self._closing:
                task.cancel()
            tasks = asyncio.all_tasks(loop)
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=_CLOSING_S))
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
