"""The standard streams of a command: held if they were closed, and never waited for."""

import os
import select
from contextlib import suppress
from typing import Any


def hold_standard_streams() -> None:
    """Open the null device in place of each standard stream that this process was started without.

    The next file or socket would get its descriptor, and with it what the C library and ``faulthandler`` write to
    standard error: an audit log or a peer.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def takes_a_line(stream: Any) -> bool:
    """Whether a line can be written to a stream now without waiting for whoever reads it.

    A pipe that can be written to has room for ``PIPE_BUF`` bytes, 4096 and more than a line of the log.
    """
    with suppress(AttributeError, OSError, ValueError):
        # Without a descriptor it is a stream of a test, or none.
        return bool(select.select([], [stream.fileno()], [], 0)[1])
    return True
