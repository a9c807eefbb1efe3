"""Whether this process was forked: state that may not be shared with a child is refused there, and let go of.

``os.getpid()`` is a system call (0.7 µs); a counter that Python bumps in a forked child is a look-up.
"""

import os
import socket
from typing import Final
from weakref import WeakSet


class ForkCount:
    """How often this process is a child of a fork; the hook for it cannot be unregistered, so there is one for all.

    Invariant: a child holds none of the sockets that were given to ``keep_from_children``. One that did would keep a
    port taken after its parent has gone, have callers wait for nobody, and hide the end of a connection from its peer.
    """

    __slots__ = ("_sockets", "count")

    def __init__(self) -> None:
        self.count = 0
        self._sockets: WeakSet[socket.socket] = WeakSet()
        os.register_at_fork(after_in_child=self._forked)

    def keep_from_children(self, sock: socket.socket) -> socket.socket:
        """Have a socket closed in every child; return it."""
        self._sockets.add(sock)
        return sock

    def _forked(self) -> None:
        self.count += 1
        for sock in list(self._sockets):
            # Its descriptor only: nothing is shut down, which would end the parent's connection.
            sock.close()


AFTER_FORK: Final = "a connection cannot be used after fork(): the child must make its own"
"""What a child is told that uses one."""

FORKS: Final = ForkCount()
"""Compare ``FORKS.count`` with what it was when the state was made."""
