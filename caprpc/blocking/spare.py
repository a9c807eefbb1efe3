"""The spare reader of a client connection: it reads only while no thread of the application waits.

Callbacks and signs of life arrive on an idle connection, too. While calls are being made the spare sleeps in
slices, because waking it for each call would cost more than the call.
"""

import select
import threading
import time
from collections.abc import Callable
from typing import Final

from caprpc.blocking.connection import Connection

SLICE_S: Final = 0.02
"""How long a connection must be without a reader before the spare reads it."""

LONGEST_S: Final = 1.0
"""How often deadlines are looked at on an idle connection."""


class Spare:
    """One thread for one connection; it holds the reader's role only while it takes what has arrived."""

    def __init__(self, connection: Connection, on_tick: Callable[[float], None]) -> None:
        """Take the connection, and what is to be done about once a second besides."""
        self._connection = connection
        self._on_tick = on_tick
        self._nudged = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caprpc-spare", daemon=True)
        self._ticked = time.monotonic()

    def start(self) -> None:
        """Begin to stand by."""
        self._thread.start()

    def nudge(self) -> None:
        """Read at once if nobody does: an awaitable was made and no thread waits for it."""
        self._nudged.set()

    def join(self) -> None:
        """Wait for the thread, which ends with the connection."""
        self._nudged.set()
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        connection = self._connection
        quiet = 0
        calls = -1
        while not connection.wire.closed:
            if not self._nudged.is_set():
                asked = connection.link.session.asked.count
                quiet = quiet + 1 if connection.reader is None and asked == calls else 0
                calls = asked
            if quiet or self._nudged.is_set():
                self._nudged.clear()
                self._watch()
            else:
                self._nudged.wait(SLICE_S)
            self._tick()

    def _watch(self) -> None:
        """Sleep until something arrives, and take it unless a thread of the application reads by then."""
        connection = self._connection
        poll = select.poll()
        try:
            poll.register(connection.wire.sock, select.POLLIN | (select.POLLOUT if connection.wire.unsent else 0))
            ready = poll.poll(LONGEST_S * 1000)
        except (ValueError, OSError):
            return
        if not ready:
            return
        with connection.lock:
            if connection.wire.unsent:
                connection.send_more()
            if connection.reader is not None or connection.wire.closed:
                return
            data = connection.wire.read_now()
            futures = connection.take(data) if data is not None else []
            if connection.pending and not connection.wire.closed:
                connection.host.dispatch(connection)
        for future in futures:
            future.notify()

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked < LONGEST_S:
            return
        self._ticked = now
        connection = self._connection
        with connection.lock:
            futures = [] if connection.wire.closed else connection.tick(now)
        for future in futures:
            future.notify()
        self._on_tick(now)
