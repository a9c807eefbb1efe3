"""What a thread or task is in: the call that its method answers, and the time that a block gives its calls."""

import time
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Final

from caprpc.peer import PeerIdentity
from caprpc.session import FOREVER, Answer, BatchAnswer, Budget, Origin

if TYPE_CHECKING:
    from caprpc.objects.batches import BatchJob
    from caprpc.objects.dispatch import Job


class CallContext:
    """The call that the running method answers.

    Attributes:
        peer: Who called, as proved by its certificate.
    """

    __slots__ = ("_due", "_job", "peer")

    def __init__(self, job: "Job | BatchJob") -> None:
        session = job.endpoint.session
        self.peer: PeerIdentity = session.peer
        self._job = job
        self._due = session.answers.due(job.answer)

    @property
    def principal(self) -> str:
        """The caller's identity, such as ``spiffe://org-b.example/treasury/feed``."""
        return self.peer.principal

    @property
    def chain(self) -> tuple[str, ...]:
        """The caller, and behind it those to whom the reference was passed on, nearest first.

        The caller is proved by its certificate; who stands behind it is what it told us when it passed the reference
        on, and no more trustworthy than the caller.
        """
        answer = self._job.answer
        right = answer.export.right if isinstance(answer, Answer) else None
        return (self.principal,) if right is None else (self.principal, *right.chain)

    @property
    def cancelled(self) -> bool:
        """Whether the caller no longer waits, its time is over, or its connection has ended."""
        return self._job.answer.cancelled

    @property
    def deadline(self) -> float | None:
        """When the time for the call is over, on the clock of ``time.monotonic()``; None if nobody has said so.

        The least of what the caller gives it and of what the policy does (``timeout_s``).
        """
        return None if self._due == FOREVER else self._due

    @property
    def depth(self) -> int:
        """How many calls, of both sides, this one is nested in."""
        return self._job.answer.depth


class Within:
    """A block ``with deadline(...)`` in a thread or task: when its calls are due, and the job around it, if any."""

    __slots__ = ("due", "job")

    def __init__(self, due: float, job: "Job | BatchJob | None") -> None:
        self.due = due
        self.job = job


CURRENT: Final[ContextVar["Job | BatchJob | Within | None"]] = ContextVar("caprpc_current", default=None)
"""The job that runs in this thread or task, or the block with a deadline that it is in."""

NO_CALL: Final = "is only known inside a method that a peer has called"


def current() -> CallContext:
    """Return the call that the running method answers.

    Raises:
        LookupError: No method of ours is being called in this thread or task.
    """
    job = running_job()
    if job is None:
        raise LookupError(f"caprpc.current() {NO_CALL}")
    return CallContext(job)


def running_job() -> "Job | BatchJob | None":
    """Return the job that runs in this thread or task."""
    within = CURRENT.get()
    return within.job if type(within) is Within else within  # type: ignore[return-value]


def origin_of(within: "Job | BatchJob | Within", caller: object, now: float) -> Origin:
    """Return what a call is made within that ``caller`` is about to make.

    A call is on behalf of another only if both are of the same connection. All of them inherit its time, and count for
    what it may cause.
    """
    due = FOREVER
    budget: Budget | None = None
    job: Job | BatchJob | None
    if type(within) is Within:
        due, job = within.due, within.job
    else:
        job = within  # type: ignore[assignment]  # the other two that it may be
    answer: Answer | BatchAnswer | None = None
    if job is not None:
        due = min(due, job.endpoint.session.answers.due(job.answer))
        budget = job.budget()
        if job.endpoint.connection is caller:
            answer = job.answer
    return Origin(answer, due, now, budget)


class deadline:  # noqa: N801 - used like a function: ``with deadline(2.0):``
    """Give every call that is made in the block at most so many seconds from now, all of them together.

    ``with caprpc.deadline(2.0):`` holds for calls of this thread or task over any connection, and for what the peers
    do on behalf of them. It never gives more time than the block or the call around it. A call that has not been
    answered by then raises ``DeadlineExceeded``; the peer is told the time and ends the call by itself.

    Args:
        seconds: At least 0.

    Raises:
        TypeError: ``seconds`` is neither an int nor a float.
        ValueError: ``seconds`` is negative or no number.
    """

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        if not isinstance(seconds, (int, float)):
            raise TypeError(f"a deadline takes seconds as an int or a float, got {type(seconds).__name__}")
        if not seconds >= 0:
            raise ValueError(f"a deadline of {seconds!r} seconds, 0 or more expected")
        self._seconds = seconds
        self._token: Token[Job | BatchJob | Within | None] | None = None

    def __enter__(self) -> None:
        within = CURRENT.get()
        due = time.monotonic() + self._seconds
        if type(within) is Within:
            self._token = CURRENT.set(Within(min(due, within.due), within.job))
        else:
            self._token = CURRENT.set(Within(due, within))  # type: ignore[arg-type]  # the other two that it may be

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            CURRENT.reset(self._token)
            self._token = None
