"""The thread that looks whether the polling thread is stuck, and that keeps time for a server."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

WATCH_S: Final = 0.003
"""A method that runs longer than one to two of these is taken to block."""

TICK_S: Final = 1.0
"""How often deadlines of all connections are looked at."""

_PARK_AFTER: Final = 100
"""Quiet looks after which the watchdog sleeps until a method runs again."""

_LOG: Final = logging.getLogger("caprpc")


class Watchdog:
    """Calls ``stuck`` with what was running at two looks in a row, ``on_tick`` every second, and what is due later."""

    def __init__(
        self,
        running: Callable[[], object | None],
        stuck: Callable[[], None],
        on_tick: Callable[[float], None],
    ) -> None:
        self._running = running
        self._stuck = stuck
        self._on_tick = on_tick
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.awake = threading.Event()
        """Cleared while the watchdog sleeps for want of work; whoever runs a method sets it."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caprpc-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking, soon."""
        self._stopped.set()
        self.awake.set()

    def join(self) -> None:
        """Wait for the thread to end."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def later(self, when: float, what: Callable[[], None]) -> None:
        """Call ``what`` at a time of the monotonic clock."""
        self._later.append((when, what))
        if not self.awake.is_set():
            self.awake.set()

    def _run(self) -> None:
        seen: object | None = None
        quiet = 0
        ticked = time.monotonic()
        while not self._stopped.is_set():
            running = self._running()
            if running is not None and running is seen:
                self._call(self._stuck)
                running = None
            quiet = quiet + 1 if running is None else 0
            seen = running
            now = time.monotonic()
            if self._later:
                self._run_due(now)
            if now - ticked >= TICK_S:
                ticked = now
                self._call(lambda: self._on_tick(now))  # noqa: B023 - called before the next look
            if quiet < _PARK_AFTER:
                time.sleep(WATCH_S)
                continue
            quiet = 0
            self.awake.clear()
            # What started in between has set nothing: look once more before sleeping.
            if self._running() is None:
                due = min((when for when, _ in list(self._later)), default=now + TICK_S)
                self.awake.wait(max(0.0, min(TICK_S, due - now)))

    def _run_due(self, now: float) -> None:
        for item in [item for item in self._later if item[0] <= now]:
            self._later.remove(item)
            self._call(item[1])

    def _call(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception:  # without a watchdog a blocking method would stop the server: it must outlive any defect
            _LOG.exception("internal error in the watchdog")
