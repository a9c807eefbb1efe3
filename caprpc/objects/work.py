"""What a driver has to do after bytes have come: jobs to run, questions that ended, and how the connection stands."""

from caprpc.errors import AuditError, RemoteProtocolError
from caprpc.objects.batches import BatchJob
from caprpc.objects.dispatch import Job
from caprpc.objects.link import Link
from caprpc.session import Answer, BatchAnswer, CancelRequest, Ended, Event, Opened, Question, Refusal

AnyJob = Job | BatchJob


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
    try:
        _sort(link, events, work)
    except RemoteProtocolError as exc:
        work.jobs.clear()
        _sort(link, link.protocol_error(exc), work)
    except AuditError as exc:
        work.jobs.clear()
        _sort(link, link.abort("internal", f"the audit log takes no records: {exc}"), work)
    if link.admitted is not None and link.endpoint.recorder.dirty:
        work.jobs = link.endpoint.commit(work.jobs)
    return work


def _sort(link: Link, events: list[Event], work: Work) -> None:
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
            work.jobs.append(link.endpoint.prepare_batch(event))
        elif isinstance(event, CancelRequest):
            work.cancelled.append(event.answer)
        elif isinstance(event, Opened):
            link.opened()
            work.opened = True
        elif isinstance(event, Ended):
            work.ended = event
