"""What ``caprpc serve`` serves in a process whose memory, stacks, descriptors or end are what a test is about."""

import os
import resource
import signal
import threading
from pathlib import Path

from vault_service import Safe


class Exposed(Safe):
    """A service whose process can be brought to its end, or near the end of its memory, by what is asked of it."""

    def echo(self, value):
        if value == "limit":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + (96 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return super().echo(value)

    def pay(self, amount, note=""):
        ends = {2.0: lambda: signal.raise_signal(signal.SIGSEGV), 3.0: os.abort, 4.0: lambda: Unraisable(note)}
        ends.get(amount, lambda: None)()
        return super().pay(amount, note)


class Unraisable:
    """Fails where nobody can be told."""

    def __init__(self, note):
        self.note = note

    def __del__(self):
        raise ZeroDivisionError


def roots():
    """Return the roots, on threads of the stack that is asked for."""
    if stack := int(os.environ.get("CHILD_STACK", "0")):
        threading.stack_size(stack)
    return {"vault": Exposed()}
