"""A loop for the ``async def`` methods of a blocking server or client: one thread, started at the first of them."""

import asyncio
import threading

from caprpc.blocking.connection import Connection
from caprpc.objects.dispatch import Job
from caprpc.objects.work import AnyJob


class AsyncMethods:
    """Runs coroutine methods concurrently on one event loop, so that they may share asyncio's locks and sessions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, connection: Connection, job: AnyJob) -> bool:
        """Start a method; its reply is sent when it ends."""
        if not isinstance(job, Job):
            return False
        loop = self._running_loop()
        asyncio.run_coroutine_threadsafe(self._run(connection, job), loop)
        return True

    def close(self) -> None:
        """Cancel what runs and end the thread."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    async def _run(self, connection: Connection, job: Job) -> None:
        try:
            value = await job.run_async()
        except (Exception, SystemExit) as exc:  # application code: whatever it raises becomes the answer of its call
            connection.reply_error(job, exc)
        except asyncio.CancelledError as exc:
            connection.reply_error(job, exc)
            raise
        else:
            connection.reply(job, value)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._loop,), name="caprpc-async", daemon=True
                )
                self._thread.start()
            return self._loop

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
