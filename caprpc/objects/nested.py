"""Calls that methods have under way: they end with the call that their method answers."""

from collections.abc import Callable

from caprpc.session import Answer, BatchAnswer

Stop = Callable[[], None]
"""Ends one call of ours, on whatever connection; it takes that connection's lock, or goes to its loop."""


class Nested:
    """What is to be stopped when a call of the peer is cancelled, or its time is over.

    Invariant: once a call is cancelled, whatever is under way for it has been stopped or is in what ``take`` returns.
    Thread-safe: each step is one operation on a dictionary.
    """

    __slots__ = ("_stops",)

    def __init__(self) -> None:
        self._stops: dict[Answer | BatchAnswer, dict[object, Stop]] = {}

    def add(self, answer: Answer | BatchAnswer, question: object, stop: Stop) -> None:
        """Have ``stop`` called when ``answer`` is cancelled; at once, if it has been. Call ``remove`` at the end."""
        self._stops.setdefault(answer, {})[question] = stop
        if answer.cancelled:
            for late in self.take(answer):
                late()

    def remove(self, answer: Answer | BatchAnswer, question: object) -> None:
        """Take note that a call has ended."""
        stops = self._stops.get(answer)
        if stops is not None:
            stops.pop(question, None)
            if not stops:
                self._stops.pop(answer, None)

    def take(self, answer: Answer | BatchAnswer) -> list[Stop]:
        """Return what is to be stopped, and forget it."""
        return list(self._stops.pop(answer, {}).values())

    def __len__(self) -> int:
        return len(self._stops)
