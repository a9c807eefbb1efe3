"""The tree of authority: what was derived from a right lives, lasts and counts no more than what it came from.

A right belongs to a reference that was narrowed, lent for a time, or passed on. Whatever is handed over through that
reference stands under the same right. Ordinary references have none. Time is an argument.
"""

import threading
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from caprpc.errors import LimitExceeded
from caprpc.policy.quotas import Bucket

if TYPE_CHECKING:
    from caprpc.policy.attenuation import Narrowing

MOST_DERIVATIONS: Final = 16
"""Rights one above the other: each operation asks all of them. Fixed (wire protocol, section 10)."""

_LOCK: Final = threading.RLock()
"""Rights are shared by connections with locks of their own, and derived from one another across them. Held for a few
instructions, never while anything else is called; a finalizer or a signal handler that derives or revokes may all the
same run in between, on the very thread that holds it. Sets are therefore copied by one instruction before they are
walked, and a right is among the children of what it is derived from before it asks whether that is alive."""


class Right:
    """One derived right.

    Invariant: it permits no more than every right above it (``lineage``), now and later.
    """

    __slots__ = (
        "__weakref__",
        "_above",
        "_bucket",
        "_children",
        "_counted",
        "_watchers",
        "alive",
        "applies_to",
        "chain",
        "depth",
        "expires_at",
        "narrowing",
        "uses_left",
    )

    def __init__(
        self,
        above: Iterable["Right"] = (),
        *,
        expires_at: float = inf,
        uses: int | None = None,
        rate: float | None = None,
        narrowing: "Narrowing | None" = None,
        chain: tuple[str, ...] = (),
    ) -> None:
        """Derive a right.

        Args:
            above: What it is derived from; it ends with any of them.
            expires_at: Seconds of the clock that ``refusal`` is asked with.
            uses: How many operations, on the reference and on everything obtained through it.
            rate: Operations per second, with as many at once (at least 1).
            narrowing: Which members and arguments; for references of the interfaces in ``applies_to``.
            chain: The principals that it was passed on to, nearest first, as told by the holder.

        Raises:
            LimitExceeded: There are more than ``MOST_DERIVATIONS`` one above the other.
        """
        above = tuple(above)
        self.depth: int = 1 + max((right.depth for right in above), default=0)
        if self.depth > MOST_DERIVATIONS:
            raise LimitExceeded(f"a reference derived {self.depth} times, at most {MOST_DERIVATIONS} times allowed")
        self.narrowing = narrowing
        self.applies_to: set[str] = set()
        """Interfaces as which the narrowed object was handed over."""
        self.chain: tuple[str, ...] = chain or next((right.chain for right in above if right.chain), ())
        self.uses_left = uses
        self._watchers: set[ref[Any]] = set()
        self._bucket = None if rate is None else Bucket("rate", max(1.0, rate), rate)
        self._children: set[ref[Right]] = set()
        # Itself is in neither: a right goes with the last reference to it, without the garbage collector.
        self._above: tuple[Right, ...] = tuple({id(right): right for one in above for right in one.lineage}.values())
        self._counted = tuple(right for right in self._above if right.counts)
        with _LOCK:
            self.expires_at: float = min((expires_at, *(right.expires_at for right in above)))
            self.alive = True
            for right in above:
                right._children.add(ref(self, right._children.discard))
            if not all(right.alive for right in above):
                self.alive = False

    @property
    def lineage(self) -> tuple["Right", ...]:
        """Every right above, and itself."""
        return (*self._above, self)

    @property
    def counts(self) -> bool:
        """Whether operations under it are counted by itself."""
        return self.uses_left is not None or self._bucket is not None

    def refusal(self, now: float, uses: int = 0) -> str:
        """Return why nothing may be done under it now (``revoked``, ``expired``, ``uses``), empty if it may."""
        if not self.alive:
            return "revoked"
        if now >= self.expires_at:
            return "expired"
        if uses:
            for right in self._counting():
                if right.uses_left is not None and right.uses_left < uses:
                    return "uses"
        return ""

    def take(self, now: float, uses: int = 1) -> str:
        """Count operations that start now, in all of the lineage or in none; return what forbids them, or nothing."""
        counting = self._counting()
        if not counting:
            return self.refusal(now)
        with _LOCK:
            refused = self.refusal(now)
            if refused:
                return refused
            for right in counting:
                if right.uses_left is not None and right.uses_left < uses:
                    return "uses"
                bucket = right._bucket
                if bucket is not None:
                    bucket.earn(now)
                    if bucket.spent + uses > bucket.capacity:
                        return "rate"
            for right in counting:
                if right.uses_left is not None:
                    right.uses_left -= uses
                if right._bucket is not None:
                    right._bucket.spent += uses
        return ""

    def revoke(self) -> list["Right"]:
        """End it and everything derived from it, at once; return what was alive, for whoever tells the holders."""
        with _LOCK:
            ended: list[Right] = []
            todo = [self]
            while todo:
                right = todo.pop()
                if right.alive:
                    right.alive = False
                    ended.append(right)
                    todo += [child for known in list(right._children) if (child := known()) is not None]
        return ended

    def watch(self, watcher: object) -> None:
        """Remember, weakly, who has handed something over under it."""
        watchers = self._watchers
        with _LOCK:
            watchers.add(ref(watcher))
            if len(watchers) & (len(watchers) - 1) == 0:
                # Now and then, so that a right which goes out over one connection after the other does not grow.
                watchers.difference_update([known for known in list(watchers) if known() is None])

    def watchers(self) -> list[Any]:
        """Return who has handed something over under it and still exists, each once."""
        return [watcher for known in list(self._watchers) if (watcher := known()) is not None]

    def narrowings(self, interface: str) -> list["Narrowing"]:
        """Return what narrows references of an interface under this right."""
        return [r.narrowing for r in self.lineage if r.narrowing is not None and interface in r.applies_to]

    def _counting(self) -> tuple["Right", ...]:
        return (*self._counted, self) if self.counts else self._counted


REVOKED: Final = Right()
"""The right of an export that was revoked by itself."""
REVOKED.revoke()

OVER: Final = Right(expires_at=-inf)
"""The right of an export whose call has ended."""
