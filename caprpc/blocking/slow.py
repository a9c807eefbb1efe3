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
            return job.waits or not job.members.isdisjoint(self._slow)
        plan = job.plan
        return not plan.is_async and (plan.member in self._slow or plan.member.blocking)

    def stalled(self, job: AnyJob) -> None:
        """A call has stopped the polling thread."""
        now = time.monotonic()
        for member in job.members:
            if now - self._strikes.get(member, float("-inf")) < _STRIKE_S:
                self._slow[member] = _FORGIVE_AFTER
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
