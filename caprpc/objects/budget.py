"""How many calls of ours one call of a peer may cause: what a small message can set in motion is bounded."""

from threading import Lock
from typing import TYPE_CHECKING, Final

from caprpc.errors import LimitExceeded, printable
from caprpc.ids import OPERATION_NAMES, new_reference
from caprpc.policy import Permit

if TYPE_CHECKING:
    from caprpc.objects.batches import BatchJob
    from caprpc.objects.dispatch import Job

REASON: Final = "callbacks"


class Spent(LimitExceeded):
    """A method has made as many calls as one call of its peer may cause; uncaught it becomes the answer ``limit``.

    Attributes:
        reference: The number of the record about it.
    """

    def __init__(self, text: str, reference: str) -> None:
        self.reference = reference
        super().__init__(text)


class Budget:
    """Counts the calls that one method makes on behalf of its call, over whatever connections.

    Invariant: no more than ``most`` were let through; the first that was not is on record. Thread-safe.
    """

    __slots__ = ("_answer", "_endpoint", "_left", "_lock", "_most", "_permit", "_reference", "_rule")

    def __init__(self, job: "Job | BatchJob", permit: Permit) -> None:
        own, general = permit.limit.callbacks, job.endpoint.session.limits.callbacks
        # Not the job, which holds this: the two would wait for the garbage collector.
        self._answer, self._endpoint = job.answer, job.endpoint
        self._permit = permit
        self._most, self._rule = (general, "limits.callbacks") if own is None or general < own else (own, permit.rule)
        self._left = self._most
        self._lock = Lock()
        self._reference = ""

    def spend(self, calls: int) -> None:
        """Count calls that are about to be sent.

        Raises:
            Spent: There would be more than the call may cause; none of them is counted.
        """
        with self._lock:
            if calls <= self._left:
                self._left -= calls
                return
            first = not self._reference
            if first:
                self._reference = new_reference()
        permit, endpoint = self._permit, self._endpoint
        if first:
            endpoint.recorder.limited(self._answer, permit, REASON, self._rule, self._reference)
        called = permit.member or OPERATION_NAMES[permit.operation]
        knob = "limits.callbacks" if self._rule == "limits.callbacks" else f"callbacks of the limit at {self._rule}"
        raise Spent(
            f"{permit.facet}.{called} of {printable(endpoint.session.peer.principal)} has caused as many calls of ours "
            f"as one call may, {self._most} ({knob})",
            self._reference,
        )
