"""Replying to the calls of a peer over an asyncio connection."""

import asyncio
import sys
import time
from abc import abstractmethod

from caprpc.aio.defects import Guarded
from caprpc.objects.dispatch import NotStarted
from caprpc.objects.link import Link
from caprpc.objects.work import AnyJob, Work, sort_out, turn_away
from caprpc.session import FOREVER, Answer, BatchAnswer


class Answering(Guarded):
    """The part of a connection that replies; owns that what waited for a reply starts behind it."""

    link: Link
    loop: asyncio.AbstractEventLoop
    tasks: dict[Answer | BatchAnswer, asyncio.Task[None]]
    """Calls that run as tasks."""

    @abstractmethod
    def flush_soon(self) -> None:
        """Send at the end of this turn of the loop."""

    @abstractmethod
    def route(self, work: Work) -> None:
        """Give every event to whoever waits for it, and start what may start."""

    @abstractmethod
    def wake_at(self, when: float) -> None:
        """Look at the time then at the latest."""

    def start_task(self, job: AnyJob) -> None:
        """Run an ``async def`` method as a task, and reply at its end."""
        if sys.version_info >= (3, 12):
            task = asyncio.Task(self._run_async(job), loop=self.loop, eager_start=True)
        else:
            task = self.loop.create_task(self._run_async(job))
        if not task.done():
            self.tasks[job.answer] = task
            task.add_done_callback(lambda ended: self._task_ended(job, ended))

    def _task_ended(self, job: AnyJob, task: asyncio.Task[None]) -> None:
        self.tasks.pop(job.answer, None)
        if task.cancelled():
            # Before it had begun: ``_run_async`` has not seen it, and the call is still to be answered.
            self.guarded(self.reply_cancelled, job)
        elif (failure := task.exception()) is not None:
            self.defect(failure)

    async def _run_async(self, job: AnyJob) -> None:
        try:
            value = await job.run_async()
        except asyncio.CancelledError as exc:
            if job.answer.cancelled:
                self.reply_cancelled(job)
            else:
                self.reply_error(job, exc)
        except (Exception, SystemExit) as exc:  # application code: whatever it raises becomes the answer of its call
            self.reply_error(job, exc)
        else:
            self.reply(job, value)

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

    def refuse(self, jobs: list[AnyJob], exc: NotStarted) -> None:
        """Send that calls of the peer do not run."""
        turn_away(jobs, exc)
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
