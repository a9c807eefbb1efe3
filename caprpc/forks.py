"""Whether this process was forked: state that may not be shared with a child is refused there.

``os.getpid()`` is a system call (0.7 µs); a counter that Python bumps in a forked child is a look-up.
"""

import os
from typing import Final


class ForkCount:
    """How often this process is a child of a fork; the hook for it cannot be unregistered, so there is one for all."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.count += 1


FORKS: Final = ForkCount()
"""Compare ``FORKS.count`` with what it was when the state was made."""
