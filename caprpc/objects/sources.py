"""Where strangers come from: how many of each source are there, and what its connections came to before."""

from typing import Final

WASTED: Final = 48
"""Turns that came to nothing, after which a source is wasteful: less than the burst of a server, more than a handful of
clients with a certificate that has expired."""

_WASTED_WHEN_FULL: Final = 8
"""Turns owed for, after which a source gives way when all places are taken: the burst, shared by six."""

_MOST_OWED: Final = 128
"""More is not remembered, so that a source is like others again a minute after it has stopped."""

_FORGIVEN_PER_S: Final = 2.0

_WASTEFUL_SHARE: Final = 8
"""A wasteful source may have one place where others may have so many."""

_MOST_SOURCES: Final = 1024
"""Whose past is remembered, beside those who are there."""


class _Source:
    """One source: places that it has, those of them that have spoken, and turns that have come to nothing yet."""

    __slots__ = ("held", "owed", "spoke", "stamp")

    def __init__(self) -> None:
        self.held = 0
        self.spoke = 0
        self.owed = 0.0
        self.stamp = 0.0


class Sources:
    """Counts by source. A turn is owed for from its beginning until the peer has proved who it is.

    Invariant: bounded by the places of strangers and ``_MOST_SOURCES``.
    """

    __slots__ = ("_most", "_sources", "wasteful_share")

    def __init__(self, most: int) -> None:
        """Take how many places one source may have."""
        self._most = most
        self.wasteful_share = max(1, most // _WASTEFUL_SHARE)
        """How many one may have whose turns come to nothing."""
        self._sources: dict[str, _Source] = {}

    def held(self, source: str) -> int:
        """Return how many places it has."""
        known = self._sources.get(source)
        return 0 if known is None else known.held

    def share(self, source: str, now: float) -> int:
        """Return how many places it may have."""
        return self.wasteful_share if self.is_wasteful(source, now) else self._most

    def is_wasteful(self, source: str, now: float) -> bool:
        """Return whether its turns come to nothing."""
        known = self._sources.get(source)
        return known is not None and self._is_wasteful(known, now)

    def come(self, source: str) -> None:
        """One more has come."""
        known = self._sources.get(source)
        if known is None:
            if len(self._sources) >= _MOST_SOURCES:
                self._sweep()
            known = self._sources[source] = _Source()
        known.held += 1

    def leave(self, source: str) -> None:
        """One has gone, or has proved who it is."""
        known = self._sources[source]
        known.held -= 1
        known.spoke = min(known.spoke, known.held)

    def speaks(self, source: str) -> None:
        """One of those that are there has said something."""
        self._sources[source].spoke += 1

    def owes(self, source: str, now: float) -> None:
        """A turn of it has begun, or one of its connections has gone without."""
        known = self._sources.get(source)
        if known is not None:
            self._forgive(known, now)
            known.owed = min(known.owed + 1.0, _MOST_OWED)

    def justified(self, source: str) -> None:
        """A turn of it has come to something."""
        known = self._sources.get(source)
        if known is not None:
            known.owed = max(0.0, known.owed - 1.0)

    def wasteful(self, now: float) -> str | None:
        """Return the source that gives way when all places are taken: of those that owe for turns, who has most."""
        worst, most = None, self.wasteful_share
        for source, known in self._sources.items():
            if known.held <= most:
                continue
            self._forgive(known, now)
            if known.owed >= _WASTED_WHEN_FULL:
                worst, most = source, known.held
        return worst

    def has_full(self, now: float) -> bool:
        """Whether some source, which is not wasteful, has as many that have spoken as it may have places."""
        return any(known.spoke >= self._most and not self._is_wasteful(known, now) for known in self._sources.values())

    def _is_wasteful(self, known: _Source, now: float) -> bool:
        self._forgive(known, now)
        return known.owed >= WASTED

    @staticmethod
    def _forgive(known: _Source, now: float) -> None:
        if now > known.stamp:
            known.owed = max(0.0, known.owed - (now - known.stamp) * _FORGIVEN_PER_S)
            known.stamp = now

    def _sweep(self) -> None:
        """Forget the past of those who are not there; of whom has wasted most, last."""
        gone = sorted((known.owed, source) for source, known in self._sources.items() if not known.held)
        for _, source in gone[: max(1, len(gone) // 2)]:
            del self._sources[source]
