"""What a driver has to do after bytes have come: jobs to run, questions that ended, and how the connection stands."""

from collections.abc import Iterable, Iterator
from typing import Final

from caprpc.errors import AuditError, RemoteProtocolError
from caprpc.ids import new_reference
from caprpc.objects.batch_plans import prepare_batch
from caprpc.objects.batches import BatchJob
from caprpc.objects.dispatch import Job, NotStarted
from caprpc.objects.link import Link
from caprpc.session import Answer, BatchAnswer, CancelRequest, Ended, Event, Opened, Overdue, Question, Refusal
from caprpc.wire.messages import Checkpoint, Cosigned

AnyJob = Job | BatchJob

_ENDINGS: Final = (Question, CancelRequest, Ended)


class Work:
    """Sorted events of one read."""

    __slots__ = ("cancelled", "ended", "jobs", "opened", "questions")

    def __init__(self) -> None:
        self.jobs: list[AnyJob] = []
        self.questions: list[Question] = []
        self.cancelled: list[Answer | BatchAnswer] = []
        self.opened = False
        self.ended: Ended | None = None


def sort_out(link: Link, events: list[Event]) -> Work:
    """Turn events into work: permitted calls become jobs, and their decisions are written before this returns.

    The driver holds the connection's lock.
    """
    work = Work()
    todo = iter(events)
    try:
        _sort(link, todo, work)
    except RemoteProtocolError as exc:
        _drop(link, events, work)
        _sort_rest(link, todo, link.protocol_error(exc), work)
    except AuditError as exc:
        _drop(link, events, work)
        _sort_rest(link, todo, link.abort("internal", f"the audit log takes no records: {exc}"), work)
    if link.admitted is not None:
        work.jobs = link.endpoint.commit(work.jobs)
    return work


def admit(link: Link, answer: Answer) -> Job | Work:
    """Return the job of the one call that has come, its decision written; or the work of what happened instead.

    The short form of ``sort_out`` for what happens most.
    """
    endpoint = link.endpoint
    try:
        job = endpoint.prepare(answer)
        endpoint.recorder.commit()
    except RemoteProtocolError as exc:
        _let_go(link, answer)
        return sort_out(link, link.protocol_error(exc))
    except AuditError as exc:
        answer.let_go()
        work = sort_out(link, [])
        reference = new_reference()
        endpoint.recorder.unrecorded("a call", exc, reference)
        endpoint.session.raise_(answer, "internal", reference=reference)
        return work
    return job if job is not None else Work()


def turn_away(jobs: list[AnyJob], exc: NotStarted) -> None:
    """Answer calls that do not run after all; the connection's lock is held."""
    for job in jobs:
        job.forget()
        if job.answer.cancelled:
            job.endpoint.finish_cancelled(job)
        else:
            job.endpoint.fail(job, exc)


def _drop(link: Link, events: list[Event], work: Work) -> None:
    """Have no call of one read run, neither those that are planned nor those that nobody has looked at."""
    for job in work.jobs:
        job.drop()
    work.jobs.clear()
    for event in events:
        if isinstance(event, Answer | BatchAnswer):
            _let_go(link, event)


def _let_go(link: Link, answer: Answer | BatchAnswer) -> None:
    """Count a call no more that will never run, and whose connection ends."""
    answer.let_go()
    link.session.answers.arguments.let_go(answer.answer_id)


def _sort_rest(link: Link, todo: Iterator[Event], aborted: list[Event], work: Work) -> None:
    """Sort what is left when the connection has to end: whoever waits is told, and no call of the peer runs any more.

    The session may have ended before, by a later message of the same read: then its end is in ``todo``.
    """
    _sort(link, (event for event in (*todo, *aborted) if isinstance(event, _ENDINGS)), work)


def _sort(link: Link, events: Iterable[Event], work: Work) -> None:
    for event in events:
        kind = type(event)
        if kind is Answer:
            job = link.endpoint.prepare(event)  # type: ignore[arg-type]
            if job is not None:
                work.jobs.append(job)
        elif kind is Question:
            work.questions.append(event)  # type: ignore[arg-type]
        elif isinstance(event, Refusal):
            link.endpoint.refused(event)
        elif isinstance(event, BatchAnswer):
            work.jobs.append(prepare_batch(event, link.endpoint))
        elif isinstance(event, CancelRequest):
            work.cancelled.append(event.answer)
        elif isinstance(event, Overdue):
            work.cancelled.append(event.answer)
            link.endpoint.overdue(event)
        elif isinstance(event, Opened):
            link.opened()
            work.opened = True
        elif isinstance(event, Ended):
            work.ended = event
        elif isinstance(event, Checkpoint | Cosigned):
            link.witnessed(event)
