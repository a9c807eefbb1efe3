"""Threads for what may block: started when needed, ended when idle."""

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

IDLE_S: Final = 10.0
"""A worker that had nothing to do for this long ends."""


class Workers:
    """Runs callables on threads, started in the order in which they were submitted; at most ``limit`` threads.

    Invariant: every submitted callable is claimed by exactly one thread, or counted in ``_backlog``.
    """

    def __init__(self, limit: int, name: str) -> None:
        self.limit = limit
        self._name = name
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._free = 0
        self._backlog = 0
        self._closed = False

    def submit(self, work: Callable[[], None], *, urgent: bool = False) -> None:
        """Run ``work`` as soon as a thread is free; ``urgent`` work gets a thread beyond the limit if it must."""
        with self._lock:
            if self._closed:
                return
            if self._free:
                self._free -= 1
            elif urgent or len(self._threads) < self.limit:
                thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True)
                # Under the lock: it cannot end before it counts. One that cannot be started is none: ``close`` joins
                # only threads that were.
                thread.start()
                self._threads.add(thread)
            else:
                self._backlog += 1
            self._queue.put(work)

    def close(self, timeout_s: float) -> bool:
        """Let running work end and the threads with it; whether all did within ``timeout_s``."""
        with self._lock:
            self._closed = True
            threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        for _ in threads:
            self._queue.put(None)
        end = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _serve(self) -> None:
        try:
            while True:
                try:
                    work = self._queue.get(timeout=IDLE_S)
                except Empty:
                    if self._may_end():
                        return
                    continue
                if work is None:
                    return
                work()
                del work
                with self._lock:
                    if self._backlog:
                        self._backlog -= 1
                    else:
                        self._free += 1
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _may_end(self) -> bool:
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            return False
