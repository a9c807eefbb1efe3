"""Shares of the worker threads: one principal may not keep all of them busy, and waiting for others has an end."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Generic, TypeVar

from caprpc.limits import DEFAULT_SERVER_LIMITS

Waiting = TypeVar("Waiting")


class Shares(Generic[Waiting]):
    """Counts the workers that each principal occupies, over all its connections. Thread-safe.

    Who finds a worker neither waits nor is looked at again. Who finds none waits in one of two places: behind calls of
    its own principal, which occupies ``most`` workers, for as long as those take; or in the crowd, because others hold
    all workers, and there for ``wait_s`` at most. Who waits in the crowd counts in its principal's share.

    Who comes back for the next of its calls stands behind all others, but has no time of its own: that of calls
    which were there when it began to wait runs on, or each of them would have all of it again.

    Invariants: the crowd is empty while a worker is free; a worker that becomes free is handed to whoever has stood in
    the crowd longest; each waits in one place, and at most once.
    """

    __slots__ = (
        "_clock",
        "_crowd",
        "_entries",
        "_free",
        "_lock",
        "_marks",
        "_most",
        "_own",
        "_taken",
        "_untils",
        "_wait_s",
    )

    def __init__(
        self,
        workers: int,
        wait_s: float = DEFAULT_SERVER_LIMITS.worker_wait_s,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the number of workers, of which a principal may occupy half, and how long to wait in the crowd."""
        self._free = workers
        self._most = max(1, workers // 2)
        self._wait_s = wait_s
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: dict[str, int] = {}
        self._own: dict[str, OrderedDict[Waiting, None]] = {}
        self._crowd: OrderedDict[Waiting, tuple[str, int]] = OrderedDict()
        """With their principal, and the number of their entry among ``_untils``."""
        self._untils: list[tuple[float, int, Waiting]] = []
        """Until when each in the crowd waits, as a heap; some have left it since."""
        self._entries = count()
        self._marks: dict[Waiting, tuple[object, float]] = {}
        """The last of the calls that were there when somebody began to wait in the crowd, and until when they wait."""

    @property
    def crowded(self) -> bool:
        """Whether somebody waits in the crowd."""
        return bool(self._crowd)

    @property
    def due(self) -> float:
        """When somebody has waited in the crowd for long enough; infinite if nobody waits there."""
        with self._lock:
            return self._first_until()

    def take(self, principal: str, waiting: Waiting, calls: Sequence[object] = ()) -> bool:
        """Take a worker for the first of some calls; False if there is none now.

        Then ``give_back`` or ``overdue`` will return ``waiting``.
        """
        with self._lock:
            taken = self._taken.get(principal, 0)
            if taken >= self._most:
                self._own.setdefault(principal, OrderedDict())[waiting] = None
                return False
            self._taken[principal] = taken + 1
            if self._free > 0:
                self._free -= 1
                return True
            self._stand(principal, waiting, calls)
            return False

    def occupy(self, principal: str) -> None:
        """Count a thread that is busy already, whether there is a worker for it or not; ``give_back`` ends that."""
        with self._lock:
            self._taken[principal] = self._taken.get(principal, 0) + 1
            self._free -= 1

    def give_back(self, principal: str) -> Waiting | None:
        """Give a worker back; return who has it now, None if nobody waits for one."""
        with self._lock:
            self._leave(principal)
            self._free += 1
            if self._free > 0 and self._crowd:
                self._free -= 1
                following, _ = self._crowd.popitem(last=False)
                self._forget()
                return following
            return None

    def overdue(self, most: int) -> list[Waiting]:
        """Return who has waited in the crowd for long enough, ``most`` of them; they wait no more."""
        late: list[Waiting] = []
        with self._lock:
            now = self._clock()
            while len(late) < most and self._first_until() <= now:
                _, _, waiting = heappop(self._untils)
                principal, _ = self._crowd.pop(waiting)
                self._marks.pop(waiting, None)
                late.append(waiting)
                self._leave(principal)
        return late

    def withdraw(self, principal: str, waiting: Waiting) -> None:
        """Have somebody wait no more who has nothing to run; does nothing if a worker was handed over before."""
        with self._lock:
            self._marks.pop(waiting, None)
            if self._crowd.pop(waiting, None) is not None:
                self._leave(principal)
                self._forget()
                return
            own = self._own.get(principal)
            if own is not None:
                own.pop(waiting, None)
                if not own:
                    del self._own[principal]

    def _first_until(self) -> float:
        """Return when the time of the first of the crowd is over; the lock is held."""
        untils = self._untils
        while untils:
            until, entry, waiting = untils[0]
            if self._crowd.get(waiting, ("", -1))[1] == entry:
                return until
            heappop(untils)
        return inf

    def _stand(self, principal: str, waiting: Waiting, calls: Sequence[object]) -> None:
        """Have somebody stand in the crowd, behind all others."""
        last, until = self._marks.get(waiting, (None, 0.0))
        if last is None or not any(call is last for call in calls):
            until = self._clock() + self._wait_s
            if calls:
                self._marks[waiting] = calls[-1], until
            else:
                self._marks.pop(waiting, None)
        entry = next(self._entries)
        self._crowd[waiting] = principal, entry
        heappush(self._untils, (until, entry, waiting))

    def _forget(self) -> None:
        """Keep nothing of those who have left once the crowd is empty."""
        if not self._crowd:
            self._untils.clear()

    def _leave(self, principal: str) -> None:
        """Count one of a principal less; the next of its own waits in the crowd now, if there is one."""
        left = self._taken[principal] - 1
        own = self._own.get(principal)
        if own and left < self._most:
            following, _ = own.popitem(last=False)
            self._stand(principal, following, ())
            left += 1
            if not own:
                del self._own[principal]
        if left:
            self._taken[principal] = left
        else:
            del self._taken[principal]
