"""Calls that we make over an asyncio connection; the stubs end here. On the loop's thread unless it says otherwise."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future as ThreadFuture
from typing import TYPE_CHECKING, Any

from caprpc.errors import ConnectionLost, DeadlineExceeded, printable
from caprpc.forks import FORKS
from caprpc.interface import Member, Shape
from caprpc.objects.context import CURRENT
from caprpc.objects.stubs import Flavor, Stub
from caprpc.session import Answer, BatchAnswer, Import, Question, State

if TYPE_CHECKING:
    from caprpc.aio.connection import Connection


class CallAwaitable(asyncio.Future[Any]):
    """What a call returns: awaiting it gives the result; cancelling it tells the peer that nobody waits any more."""

    question: Question | None = None
    deadline: float
    conclude: Callable[[Question], Any]
    abandoned: Callable[[Question], None]

    def __aiter__(self) -> AsyncIterator[Any]:
        """Walk the iterator that the call returns: ``async for row in ledger.history("A"):``."""
        return _items_of(self)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel; the peer learns of it."""
        cancelled = super().cancel(msg)
        if cancelled and self.question is not None:
            self.abandoned(self.question)
        return cancelled


class Caller:
    """Makes the questions of one connection; owns that none is asked for which the peer has no room."""

    def __init__(self, connection: "Connection", loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._room: deque[Callable[[], None]] = deque()
        """Calls that wait until the peer has room for them."""
        self._forks = FORKS.count
        self._thread = threading.get_ident()

    def call_async(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "asyncio.Future[Any]":
        """Make a call and return its awaitable."""
        outgoing = self._connection.link.outgoing
        behalf = self._on_behalf_of()
        return self._ask(
            lambda: outgoing.ask(target, member, args, kwargs, behalf),
            lambda question: outgoing.conclude(question, member, Flavor.ASYNC),
            behalf,
        )

    def call_root(self, name: str, shape: Shape, flavor: Flavor) -> "asyncio.Future[Any]":
        """Ask for a root."""
        outgoing = self._connection.link.outgoing
        return self._ask(
            lambda: outgoing.ask_root(name),
            lambda question: outgoing.conclude_root(question, name, shape, flavor),
            None,
        )

    def call_roots(self) -> "asyncio.Future[dict[str, str]]":
        """Ask which roots there are."""
        outgoing = self._connection.link.outgoing
        return self._ask(lambda: outgoing.ask_root(""), outgoing.conclude_roots, None)

    def call_batch(
        self, calls: list[tuple[Import, Member, tuple[object, ...], dict[str, object]]]
    ) -> "asyncio.Future[list[Any]]":
        """Make many calls in one frame."""
        outgoing = self._connection.link.outgoing
        members = [member for _, member, _, _ in calls]
        return self._ask(
            lambda: outgoing.ask_batch(calls),
            lambda question: outgoing.conclude_batch(question, members),
            None,
        )

    def start(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "ThreadFuture[Any]":
        """Make a call from a thread beside the loop (a ``def`` method in the pool) and return its future."""
        outgoing = self._connection.link.outgoing
        behalf = self._on_behalf_of()
        result: ThreadFuture[Any] = ThreadFuture()

        def begin() -> None:
            try:
                inner = self._ask(
                    lambda: outgoing.ask(target, member, args, kwargs, behalf),
                    lambda question: outgoing.conclude(question, member, Flavor.BLOCKING),
                    behalf,
                )
            except Exception as exc:  # refused here: the waiting thread must learn of it
                result.set_exception(exc)
            else:
                inner.add_done_callback(lambda done: _pass_on(done, result))

        self._loop.call_soon_threadsafe(begin)
        return result

    def call(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a call from a thread beside the loop and wait for it."""
        if threading.get_ident() == self._thread:
            raise RuntimeError(
                f"{member.name or 'this call'} would block the event loop: make the calling method `async def` and "
                "await it, or declare it with @method(blocking=True) so that it runs on a thread"
            )
        return self.start(target, member, args, kwargs).result()

    def broken(self, detail: str) -> None:
        """End the connection: the peer broke the protocol in something that was understood late. From any thread."""
        self._loop.call_soon_threadsafe(self._connection.link.session.broken, detail)

    def release(self, stub: Stub) -> None:
        """Give a reference back now."""
        self._connection.link.session.imports.release_now(stub._caprpc_import)
        self._connection.flush_soon()

    def answered(self, question: Question) -> None:
        """Give the end of a question to whoever awaits it."""
        future = question.waiter
        if type(future) is CallAwaitable and not future.done():
            # The two refer to each other: a reference in the result must not stay until the garbage is collected.
            question.waiter = None
            try:
                future.set_result(future.conclude(question))
            except Exception as exc:  # whatever the call ended with belongs to whoever awaits it
                future.set_exception(exc)

    def fill_room(self) -> None:
        """Make calls that have waited, as far as the peer has room; all of them, in vain, when the session is over."""
        session = self._connection.link.session
        while self._room and (session.state is State.CLOSED or session.may_ask(None)):
            self._room.popleft()()

    def check_deadlines(self, now: float) -> None:
        """Give up calls whose time has passed."""
        session = self._connection.link.session
        limit = session.limits.call_timeout_s
        for question in list(session.asked.open.values()):
            future = question.waiter
            if type(future) is CallAwaitable and now >= future.deadline and not future.done():
                self._abandon(question)
                peer = printable(session.peer.principal)
                text = f"{peer} has not answered within {limit:g} s (limits.call_timeout_s)"
                future.set_exception(DeadlineExceeded(text, code="deadline", peer=peer))

    def _on_behalf_of(self) -> Answer | BatchAnswer | None:
        if FORKS.count != self._forks:
            raise ConnectionLost("a connection cannot be used after fork(): the child must make its own")
        job = CURRENT.get()
        return job.answer if job is not None and job.endpoint.connection is self else None

    def _ask(
        self,
        ask: Callable[[], Question],
        conclude: Callable[[Question], Any],
        behalf: Answer | BatchAnswer | None,
    ) -> CallAwaitable:
        session = self._connection.link.session
        future = CallAwaitable(loop=self._loop)
        future.conclude = conclude
        future.abandoned = self._abandon
        future.deadline = time.monotonic() + session.limits.call_timeout_s
        if session.may_ask(behalf) and (behalf is not None or not self._room):
            self._ask_now(ask, future)
        else:
            self._room.append(lambda: self._ask_later(ask, future))
        return future

    def _ask_now(self, ask: Callable[[], Question], future: CallAwaitable) -> None:
        question = future.question = ask()
        question.waiter = future
        self._connection.flush_soon()

    def _ask_later(self, ask: Callable[[], Question], future: CallAwaitable) -> None:
        if future.done():
            return
        try:
            self._ask_now(ask, future)
        except Exception as exc:  # the caller is not on the stack any more: it awaits the future
            future.set_exception(exc)

    def _abandon(self, question: Question) -> None:
        if question.outcome is None and not self._connection.closed:
            self._connection.link.session.cancel(question)
            self._connection.flush_soon()


async def _items_of(future: "asyncio.Future[Any]") -> AsyncIterator[Any]:
    async for item in await future:
        yield item


def _pass_on(done: "asyncio.Future[Any]", result: "ThreadFuture[Any]") -> None:
    """Give a loop's result to a thread's future."""
    if done.cancelled():
        result.cancel()
        return
    error = done.exception()
    if error is not None:
        result.set_exception(error)
    else:
        result.set_result(done.result())
