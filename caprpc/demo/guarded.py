"""The roots of the demonstration for a server that ends with the process which started it, however that one ends."""

import os
import signal
import threading
from collections.abc import Mapping

from caprpc.demo import service


def roots() -> Mapping[str, object]:
    """Return the roots, and have the server stop when standard input ends."""
    _stop_with_input()
    return service.roots()


def async_roots() -> Mapping[str, object]:
    """Return the roots with ``async def`` methods, and have the server stop when standard input ends."""
    _stop_with_input()
    return service.async_roots()


def _stop_with_input() -> None:
    """Stop in order once nobody holds the other end: a killed demonstration closes nothing by itself."""

    def watch() -> None:
        while os.read(0, 1024):
            continue
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="caprpc-demo-parent", daemon=True).start()
