"""Running the calls of a peer on some thread, and replying to them."""

import threading
from abc import ABC, abstractmethod
from typing import Final

from caprpc.blocking.notices import NOBODY, Notice
from caprpc.objects.dispatch import NotStarted
from caprpc.objects.link import Link
from caprpc.objects.work import AnyJob, turn_away

NO_RESULT: Final = object()
"""In place of a result: the call has been answered, or will be by whoever runs it."""

_TOGETHER_BYTES: Final = 64 * 1024
"""Replies of more than this do not wait for those behind them."""


class Answering(ABC):
    """The part of a connection that answers; owns that a reply is sent as soon as nothing else is about to join it."""

    lock: threading.Lock
    link: Link
    pending: list[AnyJob]
    in_pool: bool

    @abstractmethod
    def flush(self) -> None:
        """Encrypt and send what is ready."""

    @abstractmethod
    def start_resolved(self) -> list[Notice]:
        """Start the calls that waited for an answer which has just been given; the lock is held."""

    @abstractmethod
    def start_async(self, job: AnyJob) -> bool:
        """Start an ``async def`` method on the loop kept for such methods; it replies by itself."""

    def run(self, job: AnyJob) -> None:
        """Run one call of the peer on this thread and reply."""
        result = self.run_only(job)
        if result is not NO_RESULT:
            self.reply(job, result)

    def run_only(self, job: AnyJob) -> object:
        """Run one call of the peer on this thread; return what is left to ``reply`` with, or ``NO_RESULT``."""
        if job.answer.cancelled:
            self.reply_cancelled(job)
            return NO_RESULT
        if job.is_async and self.start_async(job):
            return NO_RESULT
        try:
            return job.run()
        except BaseException as exc:  # application code: whatever it raises becomes the answer of its call
            self.reply_error(job, exc)
            if not isinstance(exc, Exception) and threading.current_thread() is threading.main_thread():
                raise
            return NO_RESULT

    def reply(self, job: AnyJob, value: object) -> None:
        """Send the result of a call of the peer; if more calls wait to run right here, the replies go together."""
        job.forget()
        with self.lock:
            self.link.endpoint.finish(job, value)
            notices = self.start_resolved() if self.link.session.kept.resolved else NOBODY
            if not self.pending or self.in_pool or self.link.session.queued_bytes > _TOGETHER_BYTES:
                self.flush()
        for notice in notices:
            notice.notify()

    def reply_error(self, job: AnyJob, exc: BaseException) -> None:
        """Send what a call of the peer failed with."""
        job.forget()
        with self.lock:
            self.link.endpoint.fail(job, exc)
            notices = self.start_resolved() if self.link.session.kept.resolved else NOBODY
            self.flush()
        for notice in notices:
            notice.notify()

    def refuse(self, jobs: list[AnyJob], exc: NotStarted) -> list[Notice]:
        """Send that calls of the peer do not run; the lock is held."""
        turn_away(jobs, exc)
        notices = self.start_resolved() if self.link.session.kept.resolved else NOBODY
        self.flush()
        return notices

    def reply_cancelled(self, job: AnyJob) -> None:
        """Send that a call of the peer was cancelled."""
        with self.lock:
            self.link.endpoint.finish_cancelled(job)
            notices = self.start_resolved() if self.link.session.kept.resolved else NOBODY
            self.flush()
        for notice in notices:
            notice.notify()
