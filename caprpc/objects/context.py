"""Whose call a method is running: ``caprpc.current()``."""

from contextvars import ContextVar
from typing import Final

from caprpc.peer import PeerIdentity
from caprpc.objects.records import Recorder
from caprpc.session import Answer, BatchAnswer


class CallContext:
    """The call that the running method answers.

    Attributes:
        peer: Who called, as proved by its certificate.
    """

    __slots__ = ("answer", "connection", "peer", "recorder")

    def __init__(
        self, peer: PeerIdentity, answer: Answer | BatchAnswer, connection: object, recorder: Recorder
    ) -> None:
        self.peer = peer
        self.answer = answer
        self.connection = connection
        self.recorder = recorder

    @property
    def principal(self) -> str:
        """The caller's identity, such as ``spiffe://org-b.example/treasury/feed``."""
        return self.peer.principal

    @property
    def cancelled(self) -> bool:
        """Whether the caller no longer waits, or its connection has ended."""
        return self.answer.cancelled

    @property
    def depth(self) -> int:
        """How many calls, of both sides, this one is nested in."""
        return self.answer.depth


CURRENT: Final[ContextVar[CallContext | None]] = ContextVar("caprpc_current", default=None)


def current() -> CallContext:
    """Return the call that the running method answers.

    Raises:
        LookupError: No method of ours is being called in this thread or task.
    """
    context = CURRENT.get()
    if context is None:
        raise LookupError("caprpc.current() is only known inside a method that a peer has called")
    return context
