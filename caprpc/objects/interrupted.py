"""Whether code of the application runs in the midst of ours, on the same thread: a finalizer or a signal handler.

The garbage collector runs wherever something is allocated, also while the present thread holds the lock of a connection
or writes the audit log. What takes such a lock is then left to another thread, or to a later turn of the loop: the one
that was interrupted goes on first. ADR 0049.
"""

import _thread
import asyncio.events
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

_PACKAGE: Final = str(Path(__file__).parents[1]) + os.sep


def _path(module: str) -> str:
    return _PACKAGE + module.replace("/", os.sep)


_CALLS_OUT: Final = frozenset(
    {
        (_path("objects/dispatch.py"), "run"),
        (_path("objects/dispatch.py"), "run_async"),
        (_path("objects/batches.py"), "run"),
        (_path("objects/batches.py"), "run_async"),
        (_path("objects/attenuation.py"), "_end"),
        (_path("objects/grants.py"), "end"),
        (_path("objects/closing.py"), "close_now"),
        (_path("objects/hooks.py"), "connect"),
        (_path("objects/hooks.py"), "disconnect"),
        (_path("blocking/futures.py"), "notify"),
    }
)
"""Where code of the application is called, without a lock. One that is missing here makes a revocation later, not a
thread wait for itself."""

_PASSED: Final = (
    __file__,
    _path("objects/revocation.py"),
    _path("blocking/references.py"),
    _path("aio/references.py"),
    _path("interface/"),
    _path("cli/"),
    _path("demo/"),
    _path("testing/"),
)
"""What is called from both sides of a lock, or never under one: who has called it is what counts."""

_TURN: Final = (asyncio.events.__file__, "_run")
"""Where a turn of a loop begins: what is below waits for the loop."""


def amid_ours() -> bool:
    """Return whether the nearest code of ours below is none that calls the application: then it was interrupted."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        if file.startswith(_PACKAGE):
            if (file, code.co_name) in _CALLS_OUT:
                return False
            if not file.startswith(_PASSED):
                return True
        elif (file, code.co_name) == _TURN:
            return False
        frame = frame.f_back
    return False


def done_aside(action: Callable[[], object]) -> None:
    """Have a thread of its own do something, without a lock of ``threading``: any may be held here."""
    with suppress(RuntimeError):  # the process is ending, and its connections with it
        _thread.start_new_thread(action, ())
