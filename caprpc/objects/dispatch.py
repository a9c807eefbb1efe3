"""Running a permitted call: nothing runs here without a ``Permit`` of the guard."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from caprpc.errors import LocalProtocolError
from caprpc.ids import OP_REVOKE
from caprpc.interface import Member
from caprpc.objects.allowance import is_bounded
from caprpc.objects.budget import Budget
from caprpc.objects.context import CURRENT
from caprpc.policy import Permit
from caprpc.session import Answer

if TYPE_CHECKING:
    from caprpc.objects.endpoint import Endpoint


def ended(permit: Permit) -> None:
    """Give back what a permit counts while its call runs."""
    if permit.limiter is not None:
        permit.limiter.give_back()


class NotStarted(Exception):
    """A permitted call does not run after all, and is answered with a refusal.

    Attributes:
        code: What the peer sees, of ``errors.ERROR_CODES``.
        reason: What the audit log says, of ``policy.REASONS``.
        rule: What decided; empty for the rule that had permitted it.
        text: What the peer may read.
    """

    def __init__(self, code: str, reason: str, rule: str = "", text: str = "") -> None:
        self.code = code
        self.reason = reason
        self.rule = rule
        self.text = text
        super().__init__(text or reason)


class Overtaken(NotStarted):
    """The reference was revoked before a permitted call on it began."""

    def __init__(self) -> None:
        super().__init__("revoked", "revoked")


class NoWorker(NotStarted):
    """Others held all workers for as long as a call may wait for one. The peer has done nothing wrong."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(
            "limit",
            "workers",
            "limits.workers",
            f"others held all threads for such calls for {wait_s:g} s (limits.workers, limits.worker_wait_s); it has "
            "not run. Try again later; the operator raises workers or serves from more processes",
        )


class Plan:
    """How one permitted member runs on one exported object: looked up at the first call, and kept with the export.

    The guard is asked anew for each call; a plan is only found under the very permit that it returned.
    """

    __slots__ = ("bounded", "function", "is_async", "member", "permit", "takes_nothing")

    def __init__(self, permit: Permit, member: Member, function: Callable[..., Any], *, is_async: bool) -> None:
        if type(permit) is not Permit:
            raise LocalProtocolError("dispatch needs the permit of the guard")
        self.permit = permit
        self.member = member
        self.function = function
        self.is_async = is_async
        self.bounded = is_bounded(permit)
        self.takes_nothing = not member.signature.parameters and not permit.arguments


class Job:
    """One permitted call with its checked arguments, ready to run on whatever thread or task the driver chooses."""

    __slots__ = ("_budget", "answer", "args", "asked", "endpoint", "kwargs", "plan")

    def __init__(
        self, answer: Answer, plan: Plan, args: list[object], kwargs: dict[str, object], endpoint: "Endpoint"
    ) -> None:
        self.answer = answer
        self.plan = plan
        self.args = args
        self.kwargs = kwargs
        self.endpoint = endpoint
        self._budget: Budget | None = None
        self.asked = False
        """Whether it has made a call that its thread waits for."""

    def budget(self) -> Budget:
        """Return how many calls its method may still make."""
        budget = self._budget
        if budget is None:
            budget = self._budget = Budget(self, self.plan.permit)
        return budget

    @property
    def members(self) -> set[Member]:
        """The member that it runs."""
        return {self.plan.member}

    @property
    def is_async(self) -> bool:
        """Whether it is run with ``run_async``."""
        return self.plan.is_async

    def run(self) -> Any:
        """Run the method on this thread and return its result, or raise what it raises.

        Raises:
            Overtaken: The reference was revoked meanwhile.
        """
        if self.answer.export.right is not None:
            self._check_alive()
        token = CURRENT.set(self)
        try:
            return self.plan.function(*self.args, **self.kwargs)
        finally:
            CURRENT.reset(token)

    async def run_async(self) -> Any:
        """Run an ``async def`` method in this task.

        Raises:
            Overtaken: The reference was revoked meanwhile.
        """
        if self.answer.export.right is not None:
            self._check_alive()
        token = CURRENT.set(self)
        try:
            return await self.plan.function(*self.args, **self.kwargs)
        finally:
            CURRENT.reset(token)

    def _check_alive(self) -> None:
        if self.answer.export.was_revoked and self.plan.permit.operation != OP_REVOKE:
            raise Overtaken

    def forget(self) -> None:
        """Let go of the arguments, so that stubs in them die now and not with the last frame."""
        self.args = []
        self.kwargs = {}

    def drop(self) -> None:
        """Take note that it will never run, and that nobody is left to be told."""
        self.forget()
        self.answer.let_go()
        self.endpoint.session.answers.arguments.let_go(self.answer.answer_id)
