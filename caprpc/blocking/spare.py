"""The spare reader of a client connection: it reads only while no thread of the application waits.

Callbacks and signs of life arrive on an idle connection, too. While calls are being made the spare sleeps in
slices, because waking it for each call would cost more than the call. While somebody waits for a future without
reading, it reads at once.
"""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from caprpc.blocking.connection import Connection

SLICE_S: Final = 0.02
"""How long a connection must be without a reader before the spare reads it."""

LONGEST_S: Final = 1.0
"""How often the time is looked at on an idle connection."""

_NUDGE: Final = (1).to_bytes(8, "little")


class Spare:
    """One thread for one connection; it holds the reader's role only while it takes what has arrived."""

    def __init__(self, connection: Connection, on_tick: Callable[[float], None]) -> None:
        """Take the connection, and what is to be done about once a second besides."""
        self._connection = connection
        self._on_tick = on_tick
        # A file object and no bare descriptor: a nudge after the end must not reach whoever has its number then.
        self._wakeup = os.fdopen(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), "r+b", buffering=0)
        self._thread = threading.Thread(target=self._run, name="caprpc-spare", daemon=True)
        self._ticked = time.monotonic()
        self._over = threading.Event()
        """Whether it has ended, or not begun."""
        self._over.set()

    def start(self) -> None:
        """Begin to stand by."""
        self._over.clear()
        try:
            self._thread.start()
        except RuntimeError:
            # There can be no more threads.
            self._over.set()
            raise

    def nudge(self) -> None:
        """Look at the connection at once: there is something to read for, to write, or to be in time for."""
        with contextlib.suppress(ValueError, BlockingIOError):
            self._wakeup.write(_NUDGE)

    def join(self) -> None:
        """Wait for the thread, which ends with the connection."""
        self.nudge()
        try:
            self._join()
        except BaseException:
            # Interrupted: it ends at once nevertheless, and until then it needs what is closed below.
            self._join()
            raise
        finally:
            with self._connection.lock:
                self._wakeup.close()

    def _join(self) -> None:
        if self._thread is not threading.current_thread():
            # Whoever was interrupted while it began does not see that it is alive.
            self._over.wait()
            if self._thread.is_alive():
                self._thread.join()

    def _run(self) -> None:
        try:
            self._stand_by()
        finally:
            self._over.set()

    def _stand_by(self) -> None:
        connection = self._connection
        calls = -1
        while not connection.wire.closed:
            asked = connection.link.session.asked.count
            quiet = connection.reader is None and (asked == calls or bool(connection.attended))
            calls = asked
            if quiet or connection.wire.unsent:
                self._watch(self._time_left(LONGEST_S))
            else:
                self._sleep(self._time_left(SLICE_S))
            self._tick()

    def _time_left(self, longest: float) -> float:
        """Return how long to sleep at most, seconds: something may be due earlier."""
        return min(longest, max(0.0, self._connection.link.deadline() - time.monotonic()))

    def _sleep(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        if poll.poll(seconds * 1000):
            self._wakeup.read(8)

    def _watch(self, seconds: float) -> None:
        """Sleep until something arrives, and take it unless a thread of the application reads by then."""
        connection = self._connection
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        wanted = (0 if connection.reader is not None else select.POLLIN) | (
            select.POLLOUT if connection.wire.unsent else 0
        )
        try:
            poll.register(connection.wire.sock, wanted)
            ready = dict(poll.poll(seconds * 1000))
        except (ValueError, OSError):
            return
        if ready.pop(self._wakeup.fileno(), 0):
            self._wakeup.read(8)
        if not ready:
            return
        with connection.lock:
            if connection.wire.unsent:
                connection.send_more()
            if connection.reader is not None or connection.wire.closed:
                return
            data = connection.wire.read_now()
            notices = connection.take(data) if data is not None else []
            if connection.pending and not connection.wire.closed:
                connection.host.dispatch(connection)
        for notice in notices:
            notice.notify()

    def _tick(self) -> None:
        now = time.monotonic()
        connection = self._connection
        if now - self._ticked < LONGEST_S and now < connection.link.deadline():
            return
        with connection.lock:
            notices = [] if connection.wire.closed else connection.tick(now)
        for notice in notices:
            notice.notify()
        if now - self._ticked >= LONGEST_S:
            self._ticked = now
            self._on_tick(now)
