"""Steps of pipelines over a blocking connection."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from caprpc.blocking.futures import CallFuture
from caprpc.interface import Member
from caprpc.objects.context import CURRENT
from caprpc.objects.loops import loop_of_caller
from caprpc.objects.outgoing import Outgoing
from caprpc.objects.promises import Promised, look_at, promise_of, result_shape
from caprpc.objects.stubs import Flavor
from caprpc.session import Import, Origin, Question


class Stepping(ABC):
    """The part of a caller that makes pipelines; owns that a step which gives a promise waits for nothing but room."""

    __slots__ = ()

    @abstractmethod
    def outgoing(self) -> Outgoing:
        """Return what makes the questions of the connection."""

    @abstractmethod
    def future_of(self, question: Question, member: Member, flavor: Flavor) -> CallFuture:
        """Return the future of a question."""

    @abstractmethod
    def start_as(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object], flavor: Flavor
    ) -> CallFuture:
        """Make a call and return its future."""

    @abstractmethod
    def awaitable(self, future: CallFuture, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[Any]":
        """Return what a loop awaits for a future of ours."""

    @abstractmethod
    def ask(
        self,
        ask: Callable[[Origin | None], Question],
        hang: Callable[[Question], None] | None = None,
        *,
        sends: bool = True,
    ) -> Question:
        """Ask once there is room for it."""

    @abstractmethod
    def end_with_job(self, question: Question, future: CallFuture) -> None:
        """Have a future end with the method that it is made in."""

    def step(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a step of a pipeline: return a promise of a reference, or the future of any other result.

        A step that gives a promise is sent with the next thing that is.
        """
        shape = result_shape(member)
        if shape is None:
            return self.start_as(target, member, args, kwargs, Flavor.BLOCKING)
        promised = self._promise(Promised(shape, target, member), target, args, kwargs, Flavor.BLOCKING)
        return promise_of(promised, shape, self.step)

    def step_async(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a step of a pipeline from a running event loop."""
        loop = loop_of_caller(member.name)
        shape = result_shape(member)
        if shape is None:
            return self.awaitable(self.start_as(target, member, args, kwargs, Flavor.ASYNC), loop)
        promised = self._promise(Promised(shape, target, member), target, args, kwargs, Flavor.ASYNC)
        promised.future = self.awaitable(promised.future, loop)
        promised.future.add_done_callback(look_at)
        return promise_of(promised, shape, self.step_async)

    def _promise(
        self,
        promised: Promised,
        target: Import,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        flavor: Flavor,
    ) -> Promised:
        outgoing, member = self.outgoing(), promised.member

        def hang(question: Question) -> None:
            promised.asked(question)
            promised.future = question.waiter = self.future_of(question, member, flavor)

        question = self.ask(lambda origin: outgoing.ask_kept(target, member, args, kwargs, origin), hang, sends=False)
        if CURRENT.get() is not None:
            self.end_with_job(question, promised.future)
        return promised
