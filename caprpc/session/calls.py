"""Questions we asked, answers we owe, and the other events a session reports."""

from collections import deque
from typing import Any, Protocol

from caprpc.policy import Permit, Refused
from caprpc.session.imports import Import
from caprpc.session.references import FOREVER, Export, Home, Scope
from caprpc.wire.messages import BatchReturn, Checkpoint, Cosigned, Meta, Raise, Return, Run


class Budget(Protocol):
    """How many calls may still be made within one call of a peer, of this connection or another."""

    def spend(self, calls: int, /) -> None:
        """Count calls that are about to be sent; raise ``LimitExceeded`` if there are more than may be."""


class Origin:
    """What a call of ours is made within: a call of the peer that it is on behalf of, and until when it is of use.

    ``now`` is the time at which it is asked, on the clock of ``due``. The budget is that of the method which makes it,
    whose call may have come over another connection.
    """

    __slots__ = ("answer", "budget", "due", "now")

    def __init__(
        self,
        answer: "Answer | BatchAnswer | None",
        due: float = FOREVER,
        now: float = 0.0,
        budget: Budget | None = None,
    ) -> None:
        self.answer = answer
        self.due = due
        self.now = now
        self.budget = budget


class Question:
    """A call we made. It ends exactly once: ``outcome`` is set when the peer's answer or the end has come."""

    __slots__ = (
        "abandoned",
        "depth",
        "due",
        "handed_over",
        "homes",
        "jobs",
        "local_failure",
        "outcome",
        "question_id",
        "scope",
        "target",
        "waiter",
    )

    def __init__(self, question_id: int, target: Import | None, depth: int, handed_over: list[Export]) -> None:
        self.question_id = question_id
        self.target = target
        self.depth = depth
        self.due = FOREVER
        """When nobody waits any more because the time for it is over."""
        self.handed_over = handed_over
        """One item for each occurrence of a reference in our arguments; taken back if they were not taken."""
        self.scope: Scope | None = None
        self.outcome: Return | Raise | BatchReturn | BaseException | None = None
        self.waiter: object = None
        """What the driver hangs on it to learn of the end."""
        self.jobs: deque[Any] | None = None
        """Callbacks that the call has caused and that its waiting thread is to run, if the driver has such."""
        self.homes: dict[int, Home] | None = None
        """None: the answer holds values only. Else our own objects in it, looked up when it came: it is read later."""
        self.local_failure = ""
        """How an object of ours failed last that the peer has used on behalf of this call, for our own caller."""
        self.abandoned = False
        """Nobody waits any more; the references in a late answer are given back at once."""

    @property
    def has_ended(self) -> bool:
        """Whether there is an outcome."""
        return self.outcome is not None

    @property
    def is_batch(self) -> bool:
        """Whether it stands for many calls."""
        return self.target is None


class Answer:
    """A call of the peer that the guard has permitted and that awaits its arguments' check and its result."""

    __slots__ = (
        "answer_id",
        "cancelled",
        "cause",
        "counted",
        "depth",
        "export",
        "meta",
        "obj",
        "payload",
        "permit",
        "scope",
        "taken",
    )

    def __init__(
        self, answer_id: int, export: Export, permit: Permit, payload: bytes, meta: Meta | None, cause: Question | None
    ) -> None:
        self.answer_id = answer_id
        self.export = export
        self.obj = export.obj
        self.permit = permit
        self.payload = payload
        self.meta = meta
        self.cause = cause
        self.depth = 0 if cause is None else cause.depth + 1
        self.scope: Scope | None = None
        self.taken = False
        self.cancelled = False
        self.counted = True
        """Whether it is among the calls that run, where the policy limits those."""

    def let_go(self) -> None:
        """Count no more among the calls that run: it has ended, or will never start. Only the first time does it."""
        if self.counted:
            self.counted = False
            self.permit.give_back()


class BatchAnswer:
    """A batch of the peer: runs of calls, each with a permit for each of its calls, or the refusal of all of them."""

    __slots__ = ("answer_id", "cancelled", "cause", "depth", "exports", "meta", "permit", "runs", "scope")

    def __init__(
        self,
        answer_id: int,
        runs: list[tuple[Run, Export | None, list[Permit] | Refused]],
        meta: Meta | None,
        cause: Question | None,
    ) -> None:
        self.answer_id = answer_id
        self.runs = runs
        self.exports: list[Export | None] = []
        """What the runs are on."""
        self.permit: Permit | None = None
        """Of the first call of it that was permitted."""
        self.meta = meta
        self.cause = cause
        self.depth = 0 if cause is None else cause.depth + 1
        self.scope: Scope | None = None
        self.cancelled = False

    def let_go(self) -> None:
        """Have none of its calls count among those that run: nobody has planned them, and nobody will."""
        for _, _, permits in self.runs:
            for permit in permits if isinstance(permits, list) else ():
                permit.give_back()
        self.runs = []


class Refusal:
    """A call that was refused, most often before its arguments were looked at; the RAISE is on its way."""

    __slots__ = ("code", "question", "reference", "refused")

    def __init__(self, question: int, code: str, refused: Refused, reference: str) -> None:
        self.question = question
        self.code = code
        self.refused = refused
        self.reference = reference


class CancelRequest:
    """The peer no longer needs this answer; it must still be given, exactly once."""

    __slots__ = ("answer",)

    def __init__(self, answer: "Answer | BatchAnswer") -> None:
        self.answer = answer


class Overdue:
    """The time for a call is over; it was answered ``deadline``, and its method may still run.

    ``reason`` is ``timeout_s`` if the policy gave it that time, ``deadline`` if its caller did.
    """

    __slots__ = ("answer", "permit", "reason", "reference")

    def __init__(self, answer: "Answer | BatchAnswer", permit: Permit, reason: str, reference: str) -> None:
        self.answer = answer
        self.permit = permit
        self.reason = reason
        self.reference = reference


class Opened:
    """WELCOME and HELLO have been exchanged; calls may be made."""

    __slots__ = ()


class Ended:
    """The session is over.

    ``code`` is one of ``CLOSE_CODES`` or ``lost``; ``detail`` is for the operator; ``by_peer`` tells who ended it.
    """

    __slots__ = ("by_peer", "code", "detail", "reference")

    def __init__(self, code: str, detail: str, *, by_peer: bool, reference: str = "") -> None:
        self.code = code
        self.detail = detail
        self.by_peer = by_peer
        self.reference = reference


Event = Answer | BatchAnswer | Question | Refusal | CancelRequest | Overdue | Opened | Ended | Checkpoint | Cosigned
