"""Failures of our own methods in the operator's log: the first of a kind whole, those after it as a count."""

import logging
import time
from collections.abc import Callable
from typing import Final

from caprpc.objects.tracing import log_failure

SUM_S: Final = 60.0
"""How often the later failures of a kind are summed up."""

_MOST_KINDS: Final = 64
"""Kinds told apart for one connection; a peer chooses the member, and our code the exception."""

_OTHERS: Final = ("other members", "", 0)

_LOG: Final = logging.getLogger("caprpc")

Kind = tuple[str, str, int]
"""What was called, the name of the exception's type, and the line that raised it."""


class FailureLog:
    """Writes failures that one peer causes; owns that they cost one traceback for each kind and a line a minute.

    A peer that is allowed to call a method that fails could fill the log otherwise. The audit log has each of them.
    """

    __slots__ = ("_clock", "_counts", "_peer", "_since")

    def __init__(self, peer: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._peer = peer
        self._clock = clock
        self._counts: dict[Kind, tuple[int, str]] = {}
        """Failures since the last sum, and the reference number of the latest."""
        self._since = 0.0

    def add(self, called: str, exc: BaseException, reference: str) -> None:
        """Take note of a failure; the first of its kind is written with its traceback."""
        now = self._clock()
        kind = (called, type(exc).__name__, _line_of(exc))
        known = self._counts.get(kind)
        if known is None and len(self._counts) >= _MOST_KINDS:
            kind = _OTHERS
            known = self._counts.get(kind)
        if known is None:
            if not self._counts:
                self._since = now
            self._counts[kind] = (0, reference)
            log_failure(_LOG, exc, "%s for %s failed (%s)", called, self._peer, reference)
            return
        self._counts[kind] = (known[0] + 1, reference)
        self.tick(now)

    def tick(self, now: float) -> None:
        """Sum up what has failed since the last time, if that was a minute ago."""
        if self._counts and now - self._since >= SUM_S:
            self._since = now
            self.sum_up()

    def sum_up(self) -> None:
        """Write a line for each kind that has failed since the last time."""
        for kind, (count, reference) in self._counts.items():
            if count:
                called, name, _line = kind
                _LOG.error(
                    "%s for %s failed %d more times%s, the last of them %s",
                    called,
                    self._peer,
                    count,
                    f" with {name}" if name else "",
                    reference,
                )
                self._counts[kind] = (0, reference)


def _line_of(exc: BaseException) -> int:
    """Return the line that raised an exception, 0 if no trace was left."""
    line, trace = 0, exc.__traceback__
    while trace is not None:
        line, trace = trace.tb_lineno, trace.tb_next
    return line
