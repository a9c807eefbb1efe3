"""Which members are known to block: their calls go to a worker at once."""

import time
from typing import Final

from caprpc.interface import Member
from caprpc.objects.batches import BatchJob
from caprpc.objects.work import AnyJob

_STRIKE_S: Final = 1.0
"""Two stalls within this make a member slow; a single one may be the machine's doing."""

_FORGIVE_AFTER: Final = 32
"""Fast runs on a worker after which a member may run in place again."""

_MOST_SLOW: Final = 1024
"""Members that are known to block; the one that was found out first is forgotten for the next."""

FAST_S: Final = 0.001
"""A run on a worker that takes less has not blocked: a callback to a peer that is awake takes half of it."""


class SlowMembers:
    """Learns from stalls of the polling thread and from runs on workers."""

    __slots__ = ("_slow", "_strikes")

    def __init__(self) -> None:
        self._slow: dict[Member, int] = {}
        self._strikes: dict[Member, float] = {}

    def blocks(self, job: AnyJob) -> bool:
        """Whether a call must not run on the polling thread."""
        if isinstance(job, BatchJob):
            return not job.is_async and (job.waits or not job.members.isdisjoint(self._slow))
        plan = job.plan
        return not plan.is_async and (plan.member in self._slow or plan.member.blocking)

    def stalled(self, job: AnyJob) -> None:
        """A call has stopped the polling thread."""
        now = time.monotonic()
        # Members of roots are made for each connection: who never strikes twice would be kept for ever.
        self._strikes = {member: when for member, when in self._strikes.items() if now - when < _STRIKE_S}
        for member in job.members:
            if member in self._strikes:
                self._slow[member] = _FORGIVE_AFTER
                if len(self._slow) > _MOST_SLOW:
                    del self._slow[next(iter(self._slow))]
            self._strikes[member] = now

    def ran(self, job: AnyJob, seconds: float) -> None:
        """A call has run on a worker for so long."""
        if seconds >= FAST_S:
            return
        for member in job.members:
            left = self._slow.get(member)
            if left is None:
                continue
            if left <= 1:
                self._slow.pop(member, None)
            else:
                self._slow[member] = left - 1
