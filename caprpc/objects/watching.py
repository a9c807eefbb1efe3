"""Looking whether another process has revoked a grant from which something was restored here."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from caprpc.errors import StoreError
from caprpc.store import Store

POLL_S: Final = 0.25
"""How often the store is asked; from a revocation elsewhere to a refusal here it takes a little more than this at most.
One look is a read of one row (20 µs), and there is none before something was restored."""

PATIENCE: Final = 20
"""Looks in vain, one after the other, after which nothing that was restored is trusted any more: 5 s."""

_LOG: Final = logging.getLogger("caprpc")


class Watch:
    """Owns the thread that looks; started at the first restore, ended with the store."""

    __slots__ = ("_ended", "_lock", "_on_revoked", "_seen", "_store", "_thread")

    def __init__(self, store: Store, on_revoked: Callable[[list[str] | None], None]) -> None:
        """Take the store, and what is called with the ids of grants that were revoked; with None: all may have been."""
        self._store = store
        self._on_revoked = on_revoked
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._seen = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look, if that has not begun; what is revoked from now on will be seen.

        Raises:
            StoreError: The store cannot be read.
        """
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None and not self._ended.is_set():
                self._seen, _ = self._store.revoked_since(0)
                thread = threading.Thread(target=self._run, name="caprpc-grants", daemon=True)
                thread.start()
                self._thread = thread

    def stop(self) -> None:
        """End the thread; may be called twice."""
        self._ended.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        failures = 0
        while not self._ended.wait(POLL_S):
            try:
                self._seen, revoked = self._store.revoked_since(self._seen)
            except StoreError as exc:
                failures += 1
                if failures == PATIENCE:
                    _LOG.error("the store of grants cannot be read; everything restored from it ends: %s", exc)
                    self._tell(None)
            else:
                failures = 0
                if revoked:
                    self._tell(revoked)

    def _tell(self, revoked: list[str] | None) -> None:
        try:
            self._on_revoked(revoked)
        except Exception:  # one connection that cannot be told must not keep the next revocation from being seen
            _LOG.exception("internal error while ending what was restored from a revoked grant")
