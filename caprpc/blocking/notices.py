"""What is to be done once a connection's lock is not held any more: it takes other locks, or runs foreign code."""

from collections.abc import Callable
from typing import Final, Protocol

from caprpc.session import Question


class Notice(Protocol):
    """Somebody is to be told of something."""

    def notify(self) -> object:
        """Tell it; without the lock of any connection."""


NOBODY: Final[list[Notice]] = []
"""Nobody is to be told; shared and never changed."""


class Stopping:
    """A call of ours ends with the call of the peer that it was made for."""

    __slots__ = ("notify",)

    def __init__(self, stop: Callable[[], None]) -> None:
        self.notify = stop


class RunOut:
    """The time for a call of ours is over, and no thread waits for it."""

    __slots__ = ("_end", "_question")

    def __init__(self, end: Callable[[Question], None], question: Question) -> None:
        self._end = end
        self._question = question

    def notify(self) -> None:
        """End it with ``DeadlineExceeded``."""
        self._end(self._question)
