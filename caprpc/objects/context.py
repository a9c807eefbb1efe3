"""Whose call a method is running: ``caprpc.current()``."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from caprpc.peer import PeerIdentity
from caprpc.session import Answer, BatchAnswer

if TYPE_CHECKING:
    from caprpc.objects.batches import BatchJob
    from caprpc.objects.dispatch import Job


class CallContext:
    """The call that the running method answers.

    Attributes:
        peer: Who called, as proved by its certificate.
    """

    __slots__ = ("_answer", "peer")

    def __init__(self, peer: PeerIdentity, answer: Answer | BatchAnswer) -> None:
        self.peer = peer
        self._answer = answer

    @property
    def principal(self) -> str:
        """The caller's identity, such as ``spiffe://org-b.example/treasury/feed``."""
        return self.peer.principal

    @property
    def cancelled(self) -> bool:
        """Whether the caller no longer waits, or its connection has ended."""
        return self._answer.cancelled

    @property
    def depth(self) -> int:
        """How many calls, of both sides, this one is nested in."""
        return self._answer.depth


CURRENT: Final[ContextVar["Job | BatchJob | None"]] = ContextVar("caprpc_current", default=None)
"""The job that runs in this thread or task."""


def current() -> CallContext:
    """Return the call that the running method answers.

    Raises:
        LookupError: No method of ours is being called in this thread or task.
    """
    job = CURRENT.get()
    if job is None:
        raise LookupError("caprpc.current() is only known inside a method that a peer has called")
    return CallContext(job.endpoint.session.peer, job.answer)
