"""Calls that we make over an asyncio connection; the stubs end here. On the loop's thread unless it says otherwise."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from caprpc.aio.awaitable import CallAwaitable
from caprpc.aio.crossing import LoopFuture, done_on, refuse_to_block
from caprpc.aio.stepping import Stepping
from caprpc.errors import CallCancelled, ConnectionLost, DeadlineExceeded, printable
from caprpc.forks import AFTER_FORK, FORKS
from caprpc.interface import Member, Shape
from caprpc.objects.context import CURRENT, origin_of, running_job
from caprpc.objects.link import Link
from caprpc.objects.loops import loop_of_caller
from caprpc.objects.oneway import OneWay, OneWayCalls
from caprpc.objects.outgoing import AnyCall
from caprpc.objects.revocation import Chosen
from caprpc.objects.stubs import Flavor, Stub
from caprpc.objects.work import sort_out
from caprpc.session import Import, Origin, Question, State

if TYPE_CHECKING:
    from caprpc.aio.connection import Connection


class Caller(Stepping):
    """Makes the questions of one connection; owns that none is asked for which the peer has no room."""

    def __init__(self, connection: "Connection", loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._room: deque[Callable[[], None]] = deque()
        """Calls that wait until the peer has room for them."""
        self._forks = FORKS.count
        self._thread = threading.get_ident()
        self.one_way = OneWayCalls()

    def link(self) -> Link:
        """Return the connection without its socket."""
        return self._connection.link

    def call_async(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "asyncio.Future[Any]":
        """Make a call and return its awaitable; also on the loop of another thread."""
        if threading.get_ident() == self._thread:
            return self.call_as(target, member, args, kwargs, Flavor.ASYNC)
        loop = loop_of_caller(member.name)
        return asyncio.wrap_future(
            self.from_thread(lambda: self.call_as(target, member, args, kwargs, Flavor.ASYNC)), loop=loop
        )

    def call_as(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object], flavor: Flavor
    ) -> CallAwaitable:
        """Make a call, on the loop of the connection; ``flavor`` is that of stubs in the result."""
        outgoing = self._connection.link.outgoing
        origin = self.origin()
        future = self.ask(
            lambda: outgoing.ask(target, member, args, kwargs, origin),
            lambda question: outgoing.conclude(question, member, flavor),
            origin,
        )
        future.target, future.member, future.owner = target, member, self
        return future

    def call_root(self, name: str, shape: Shape, flavor: Flavor) -> "asyncio.Future[Any]":
        """Ask for a root."""
        outgoing = self._connection.link.outgoing
        origin = self.origin()
        return self.ask(
            lambda: outgoing.ask_root(name, origin),
            lambda question: outgoing.conclude_root(question, name, shape, flavor),
            origin,
        )

    def call_restore(self, name: str, secret: str, shape: Shape, flavor: Flavor) -> "asyncio.Future[Any]":
        """Ask for what a sturdy reference stands for."""
        outgoing = self._connection.link.outgoing
        origin = self.origin()
        return self.ask(
            lambda: outgoing.ask_restore(name, secret, origin),
            lambda question: outgoing.conclude_root(question, name, shape, flavor, "sturdy reference"),
            origin,
        )

    def call_roots(self) -> "asyncio.Future[dict[str, str]]":
        """Ask which roots there are."""
        outgoing = self._connection.link.outgoing
        origin = self.origin()
        return self.ask(lambda: outgoing.ask_root("", origin), outgoing.conclude_roots, origin)

    def call_batch_async(self, calls: list[AnyCall]) -> "asyncio.Future[list[Any]]":
        """Make many calls in one frame."""
        outgoing = self._connection.link.outgoing
        members = [member for _, member, _, _ in calls]
        origin = self.origin()
        return self.ask(
            lambda: outgoing.ask_batch(calls, origin),
            lambda question: outgoing.conclude_batch(question, members),
            origin,
        )

    def start(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "ThreadFuture[Any]":
        """Make a call from a thread beside the loop (a ``def`` method in the pool) and return its future."""
        return self.from_thread(lambda: self.call_as(target, member, args, kwargs, Flavor.BLOCKING))

    async def oneway_async(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """Make a call whose answer nobody waits for; return once the peer has room for it."""
        self.refuse_elsewhere()
        link = self._connection.link
        origin = self.origin()

        def ask() -> None:
            question = link.outgoing.ask(target, member, args, kwargs, origin)
            self.one_way.sent(question, member, link.outgoing)
            self._connection.flush_soon()

        if link.session.may_ask(origin) and not self._room:
            ask()
            return
        asked: asyncio.Future[None] = self._loop.create_future()

        def ask_later() -> None:
            if asked.done():
                return
            if origin is not None:
                origin.now = time.monotonic()
            try:
                ask()
            except Exception as exc:  # the caller is not on the stack any more: it awaits the future
                asked.set_exception(exc)
            else:
                asked.set_result(None)

        self._room.append(ask_later)
        await asked

    def oneway(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Make such a call from a thread beside the loop."""
        self.refuse_on_loop("a one-way call that waits for room")
        coroutine = self.oneway_async(target, member, args, kwargs)
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def from_thread(self, ask: Callable[[], "asyncio.Future[Any]"]) -> "ThreadFuture[Any]":
        """Have the loop ask; return a future for the calling thread."""
        self._refuse_after_fork()
        result = LoopFuture(self._thread)

        def begin() -> None:
            try:
                inner = ask()
            except Exception as exc:  # refused here: the waiting thread must learn of it
                result.set_exception(exc)
                return
            inner.add_done_callback(lambda done: _pass_on(done, result))
            soon = self._loop.call_soon_threadsafe
            result.add_done_callback(lambda done: soon(inner.cancel) if done.cancelled() else None)

        # In the context of the calling thread: there the method is known that the call is made in.
        self._loop.call_soon_threadsafe(begin, context=copy_context())
        return result

    def call_here(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "asyncio.Future[Any]":
        """Make a call from whatever event loop runs in this thread."""
        if threading.get_ident() == self._thread:
            return self.call_async(target, member, args, kwargs)
        return asyncio.wrap_future(self.start(target, member, args, kwargs))

    def call(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a call from a thread beside the loop and wait for it."""
        self.refuse_on_loop(member.name or "this call")
        return self.start(target, member, args, kwargs).result()

    def call_batch(self, calls: list[AnyCall]) -> list[Any]:
        """Make many calls in one frame from a thread beside the loop, and wait for their results."""
        self.refuse_on_loop("a batch")
        results: list[Any] = self.from_thread(lambda: self.call_batch_async(calls)).result()
        return results

    def refuse_on_loop(self, what: str) -> None:
        """Raise if this is the loop's thread. Whatever method it is in, it belongs on a thread from now on."""
        job = running_job()
        if job is not None:
            job.asked = True
        if threading.get_ident() == self._thread:
            raise refuse_to_block(what)

    def broken(self, detail: str) -> None:
        """End the connection: the peer broke the protocol in something that was understood late. From any thread."""
        self._loop.call_soon_threadsafe(self._connection.link.session.broken, detail)

    @property
    def principal(self) -> str:
        """Who the peer is; empty before that is proved."""
        return self._connection.principal

    def revoke(self, chosen: Chosen, *, cut: bool, aside: bool) -> None:
        """End the references of ours that are chosen; ``cut`` answers running calls on them, too. From any thread.

        ``aside`` does it in a later turn of the loop, for the present one may be in the midst of anything.
        """
        if aside:
            with suppress(RuntimeError):  # the loop is closed, and its connections are
                self._loop.call_soon_threadsafe(partial(self._revoke, chosen, cut=cut))
        elif threading.get_ident() != self._thread:
            done_on(self._loop, lambda: self._revoke(chosen, cut=cut))
        else:
            self._revoke(chosen, cut=cut)

    def _revoke(self, chosen: Chosen, *, cut: bool) -> int:
        connection = self._connection
        if connection.link.admitted is not None:
            connection.route(sort_out(connection.link, connection.link.endpoint.revoke(chosen, cut=cut)))
            closers = connection.link.closing()
            if closers:
                connection.host.let_go(closers)
        return 0

    def release(self, stub: Stub) -> None:
        """Give a reference back now. From any thread."""
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self.release, stub)
            return
        self._connection.link.session.imports.release_now(stub._caprpc_import)
        self._connection.flush_soon()

    def answered(self, question: Question) -> None:
        """Give the end of a question to whoever awaits it."""
        future = question.waiter
        if type(future) is CallAwaitable and not future.done():
            _part(question)
            try:
                future.set_result(future.conclude(question))
            except Exception as exc:  # whatever the call ended with belongs to whoever awaits it
                future.set_exception(exc)
            finally:
                # The error's traceback holds this frame: the two would wait for the garbage collector.
                del future
        elif type(future) is OneWay and future.ended(self._connection.link.session):
            future.notify()

    def fill_room(self) -> None:
        """Make calls that have waited, as far as the peer has room; all of them, in vain, when the session is over."""
        session = self._connection.link.session
        while self._room and (session.state is State.CLOSED or session.may_ask(None)):
            self._room.popleft()()

    def check_deadlines(self, now: float) -> None:
        """Give up calls whose time has passed."""
        session = self._connection.link.session
        for question in list(session.asked.open.values()):
            future = question.waiter
            if type(future) is CallAwaitable and now >= future.deadline and not future.done():
                self._run_out(question, future, now)
        session.asked.overdue(now)

    def _run_out(self, question: Question, future: CallAwaitable, now: float) -> None:
        session = self._connection.link.session
        _part(question)
        session.cancel(question, now)
        self._connection.flush_soon()
        peer = printable(session.peer.principal)
        limit = f"{session.limits.call_timeout_s:g} s (limits.call_timeout_s)"
        within = "the time that the call was given (caprpc.deadline)" if question.due <= now else limit
        future.set_exception(DeadlineExceeded(f"{peer} has not answered within {within}", code="deadline", peer=peer))

    def origin(self) -> Origin | None:
        """Return what this task or thread is in that matters to a call: a call of this connection, or a deadline."""
        self._refuse_after_fork()
        within = CURRENT.get()
        return None if within is None else origin_of(within, self, time.monotonic())

    def _refuse_after_fork(self) -> None:
        if self.forked:
            raise ConnectionLost(AFTER_FORK, may_have_run=False)

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that made the connection."""
        return FORKS.count != self._forks

    def ask(
        self, ask: Callable[[], Question], conclude: Callable[[Question], Any], origin: Origin | None
    ) -> CallAwaitable:
        """Ask now, or once there is room for it; return the awaitable of what ``conclude`` gives."""
        self.refuse_elsewhere()
        session = self._connection.link.session
        future = CallAwaitable(loop=self._loop)
        future.conclude = conclude
        future.abandoned = self._abandon
        future.deadline = time.monotonic() + session.limits.call_timeout_s
        if session.may_ask(origin) and ((origin is not None and origin.answer is not None) or not self._room):
            self._ask_now(ask, future)
        else:
            self._room.append(lambda: self._ask_later(ask, future, origin))
        if origin is not None:
            self._bind(future, origin)
        return future

    def refuse_elsewhere(self) -> None:
        """Raise if this is not the loop's thread."""
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                "this belongs to the event loop of its connection, which is in another thread: use the functions of "
                "caprpc (submit, pipe, oneway, batch) here, or asyncio.run_coroutine_threadsafe"
            )

    def _bind(self, future: CallAwaitable, origin: Origin) -> None:
        """Have a call end with the time that it is given, and with the method that it is made in."""
        if origin.due < future.deadline:
            future.deadline = origin.due
            self._connection.wake_at(origin.due)
        job = running_job()
        if job is not None and not future.done():
            nested, answer = job.endpoint.nested, job.answer
            nested.add(answer, future, self._stop_of(future))
            future.add_done_callback(lambda done: nested.remove(answer, done))

    def _stop_of(self, future: CallAwaitable) -> Callable[[], None]:
        def stop() -> None:
            self._loop.call_soon_threadsafe(future.cancel)

        return stop

    def _ask_now(self, ask: Callable[[], Question], future: CallAwaitable) -> None:
        question = future.question = ask()
        question.waiter = future
        if future.promised is not None and self._connection.link.session.keep(question):
            future.promised.asked(question)
        self._connection.flush_soon()

    def _ask_later(self, ask: Callable[[], Question], future: CallAwaitable, origin: Origin | None) -> None:
        if future.done():
            return
        if origin is not None:
            origin.now = time.monotonic()
        try:
            self._ask_now(ask, future)
        except Exception as exc:  # the caller is not on the stack any more: it awaits the future
            future.set_exception(exc)

    def _abandon(self, question: Question) -> None:
        _part(question)
        if question.outcome is None and not self._connection.closed:
            self._connection.link.session.cancel(question)
            self._connection.flush_soon()


def _part(question: Question) -> None:
    """Part a question from its awaitable, which has ended.

    The two refer to each other: a reference in the result would stay until the garbage is collected.
    """
    question.waiter = None


def _pass_on(done: "asyncio.Future[Any]", result: "ThreadFuture[Any]") -> None:
    """Give a loop's result to a thread's future."""
    if result.done():
        # It was cancelled by whoever has it, and the call with it.
        return
    if done.cancelled():
        text = "the call that this one was made for is over: its caller no longer waits"
        result.set_exception(CallCancelled(text, code="cancelled"))
        return
    error = done.exception()
    if error is not None:
        result.set_exception(error)
    else:
        result.set_result(done.result())
