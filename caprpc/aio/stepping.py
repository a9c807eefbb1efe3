"""Steps of pipelines over an asyncio connection."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from typing import Any, TypeVar

from caprpc.aio.awaitable import CallAwaitable
from caprpc.interface import Member
from caprpc.objects.link import Link
from caprpc.objects.promises import Promised, held_by, look_at, promise_of, result_shape
from caprpc.objects.stubs import Flavor
from caprpc.session import Import, Origin, Question

T = TypeVar("T")


class Stepping(ABC):
    """The part of a caller that makes pipelines; owns that what a step is on is held until the step is sent."""

    @abstractmethod
    def link(self) -> Link:
        """Return the connection without its socket."""

    @abstractmethod
    def origin(self) -> Origin | None:
        """Return what this task or thread is in that matters to a call."""

    @abstractmethod
    def ask(
        self, ask: Callable[[], Question], conclude: Callable[[Question], Any], origin: Origin | None
    ) -> CallAwaitable:
        """Ask once there is room for it."""

    @abstractmethod
    def from_thread(self, ask: Callable[[], "asyncio.Future[Any]"]) -> "ThreadFuture[Any]":
        """Have the loop ask; return a future for the calling thread."""

    @abstractmethod
    def refuse_on_loop(self, what: str) -> None:
        """Raise if this is the loop's thread."""

    def step_async(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a step of a pipeline: return a promise of a reference, or the awaitable of any other result."""
        shape = result_shape(member)
        if shape is None:
            return self._ask_last(target, member, args, kwargs, Flavor.ASYNC)
        promised = Promised(shape, target, member)
        promised.future = self._ask_promised(promised, target, args, kwargs, Flavor.ASYNC)
        return promise_of(promised, shape, self.step_async)

    def step(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a step of a pipeline from a thread beside the loop."""
        self.refuse_on_loop("waiting for a pipeline")
        # Held by what the loop is to do: this thread may drop it before the loop gets there.
        held = held_by(target)
        shape = result_shape(member)
        if shape is None:
            return self.from_thread(lambda: _with(held, self._ask_last(target, member, args, kwargs, Flavor.BLOCKING)))
        promised = Promised(shape, target, member)
        promised.future = self.from_thread(
            lambda: _with(held, self._ask_promised(promised, target, args, kwargs, Flavor.BLOCKING))
        )
        return promise_of(promised, shape, self.step)

    def keep(self, future: CallAwaitable) -> Any:
        """Return the promise of what a call returns that has just been made.

        Raises:
            TypeError: It returns no reference, or it is no such call.
            ValueError: It has been sent already.
        """
        target, member = future.target, future.member
        shape = None if member is None else result_shape(member)
        if member is None or target is None or shape is None:
            raise TypeError("only the result of a call that returns one reference can be called before it is here")
        promised = Promised(shape, target, member)
        promised.future = future
        future.add_done_callback(look_at)
        if future.question is None:
            future.promised = promised
        elif self.link().session.keep(future.question):
            promised.asked(future.question)
        else:
            raise ValueError("this call was sent before pipe() got it: write pipe(ref.method(...)) in one go")
        return promise_of(promised, shape, self.step_async)

    def _ask_last(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object], flavor: Flavor
    ) -> CallAwaitable:
        """Ask for a step that gives no promise."""
        # What is to be called must not be forgotten before the call is sent, which may have to wait for room.
        held, outgoing, origin = held_by(target), self.link().outgoing, self.origin()
        return self.ask(
            lambda: _with(held, outgoing.ask(target, member, args, kwargs, origin)),
            lambda question: outgoing.conclude(question, member, flavor),
            origin,
        )

    def _ask_promised(
        self,
        promised: Promised,
        target: Import,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        flavor: Flavor,
    ) -> CallAwaitable:
        outgoing, member = self.link().outgoing, promised.member
        held, origin = held_by(target), self.origin()

        def ask() -> Question:
            question = outgoing.ask_kept(target, member, args, kwargs, origin)
            promised.asked(question)
            return _with(held, question)

        future = self.ask(ask, lambda question: outgoing.conclude(question, member, flavor), origin)
        future.add_done_callback(look_at)
        return future


def _with(_held: object, made: T) -> T:
    """Return what was made; what is held for it is held until here."""
    return made
