"""Running a permitted call: nothing runs here without a ``Permit`` of the guard."""

from typing import Any

from caprpc.errors import LocalProtocolError
from caprpc.interface import Member
from caprpc.objects.context import CURRENT, CallContext
from caprpc.policy import Permit, Refused
from caprpc.session import Answer


def ended(permit: Permit) -> None:
    """Give back what a permit counts while its call runs."""
    if permit.limiter is not None:
        permit.limiter.give_back()


def refusal_of(permit: Permit, reason: str, rule: str) -> Refused:
    """Return the refusal of a call that the guard had permitted and its arguments or a limit forbid."""
    return Refused(
        reason,
        rule=rule,
        facet=permit.facet,
        operation=permit.operation,
        member=permit.member,
        policy=permit.policy,
    )


class Job:
    """One permitted call with its checked arguments, ready to run on whatever thread or task the driver chooses."""

    __slots__ = ("answer", "args", "context", "function", "is_async", "kwargs", "member", "permit")

    def __init__(
        self,
        answer: Answer,
        permit: Permit,
        member: Member,
        function: Any,
        args: list[object],
        kwargs: dict[str, object],
        context: CallContext,
        is_async: bool,  # noqa: FBT001 - made once for each call, by one caller
    ) -> None:
        if type(permit) is not Permit:
            raise LocalProtocolError("dispatch needs the permit of the guard")
        self.answer = answer
        self.permit = permit
        self.member = member
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.context = context
        self.is_async = is_async

    def run(self) -> Any:
        """Run the method on this thread and return its result, or raise what it raises."""
        token = CURRENT.set(self.context)
        try:
            return self.function(*self.args, **self.kwargs)
        finally:
            CURRENT.reset(token)

    async def run_async(self) -> Any:
        """Run an ``async def`` method in this task."""
        token = CURRENT.set(self.context)
        try:
            return await self.function(*self.args, **self.kwargs)
        finally:
            CURRENT.reset(token)

    def forget(self) -> None:
        """Let go of the arguments, so that stubs in them die now and not with the last frame."""
        self.args = []
        self.kwargs = {}
