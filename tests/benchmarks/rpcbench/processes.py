"""What both child processes have in common: pinning, a bounded life, and a clean line to the coordinator."""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Final

LIFE_S: Final = 3_600
"""No child outlives this, whatever happens: the default action of SIGALRM ends it."""
_PR_SET_PDEATHSIG: Final = 1

Reply = Callable[[Mapping[str, object]], None]


def begin(core: int | None) -> Reply:
    """Settle this child process; returns the function that sends one JSON line to the coordinator.

    The process ends with its coordinator, and after ``LIFE_S`` at the latest. With ``core`` it runs there alone.
    Call it before anything starts a thread. Whatever libraries print goes to standard error.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.alarm(LIFE_S)
    if core is not None:
        os.sched_setaffinity(0, {core})
    line_to_coordinator = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def reply(message: Mapping[str, object]) -> None:
        line_to_coordinator.write(json.dumps(message) + "\n")
        line_to_coordinator.flush()

    return reply
