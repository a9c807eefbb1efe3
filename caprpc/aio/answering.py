"""Replying to the calls of a peer over an asyncio connection."""

import time
from abc import ABC, abstractmethod

from caprpc.objects.link import Link
from caprpc.objects.work import AnyJob, Work, sort_out
from caprpc.session import FOREVER


class Answering(ABC):
    """The part of a connection that replies; owns that what waited for a reply starts behind it."""

    link: Link

    @abstractmethod
    def flush_soon(self) -> None:
        """Send at the end of this turn of the loop."""

    @abstractmethod
    def route(self, work: Work) -> None:
        """Give every event to whoever waits for it, and start what may start."""

    @abstractmethod
    def wake_at(self, when: float) -> None:
        """Look at the time then at the latest."""

    def reply(self, job: AnyJob, value: object) -> None:
        """Send the result of a call of the peer."""
        job.forget()
        self.link.endpoint.finish(job, value)
        self._replied()

    def reply_error(self, job: AnyJob, exc: BaseException) -> None:
        """Send what a call of the peer failed with."""
        job.forget()
        self.link.endpoint.fail(job, exc)
        self._replied()

    def reply_cancelled(self, job: AnyJob) -> None:
        """Send that a call of the peer was cancelled."""
        job.forget()
        self.link.endpoint.finish_cancelled(job)
        self._replied()

    def _replied(self) -> None:
        """Send a reply soon, and start the calls that waited for it."""
        self.flush_soon()
        if self.link.session.kept.resolved:
            self.route(self.resolved())

    def resolved(self) -> Work:
        """Return the calls that waited for an answer which has just been given; the end of the connection is taken."""
        work = sort_out(self.link, self.link.session.run_resolved(time.monotonic()))
        soonest = self.link.session.answers.soonest
        if soonest != FOREVER:
            self.wake_at(soonest)
        if work.ended is not None:
            self.route(work)
            return Work()
        return work
