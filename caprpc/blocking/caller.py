"""Calls that we make over a blocking connection; the stubs and ``submit`` end here. Any thread may call."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from caprpc.blocking.futures import CallFuture
from caprpc.blocking.room import await_room
from caprpc.blocking.stepping import Stepping
from caprpc.errors import CallCancelled, ConnectionLost, DeadlineExceeded, printable
from caprpc.forks import AFTER_FORK, FORKS
from caprpc.interface import Member, Shape
from caprpc.objects.context import CURRENT, origin_of, running_job
from caprpc.objects.interrupted import done_aside
from caprpc.objects.loops import loop_of_caller
from caprpc.objects.oneway import OneWayCalls
from caprpc.objects.outgoing import AnyCall, Outgoing
from caprpc.objects.revocation import Chosen
from caprpc.objects.stubs import Flavor, Stub
from caprpc.objects.work import sort_out
from caprpc.session import Import, Origin, Question

if TYPE_CHECKING:
    from caprpc.blocking.connection import Connection

THREAD: Final = object()
"""Hung on a question by a thread that made the call and waits for it: it runs the callbacks that the call causes."""


class Caller(Stepping):
    """Makes the questions of one connection; owns that none is asked for which the peer has no room."""

    __slots__ = ("__weakref__", "_connection", "_corks", "_forks", "_lock", "one_way")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._lock = connection.lock
        self._forks = FORKS.count
        self._corks = 0
        self.one_way = OneWayCalls()

    def outgoing(self) -> Outgoing:
        """Return what makes the questions of the connection."""
        return self._connection.link.outgoing

    def call(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a call and wait for its answer."""
        connection = self._connection
        link = connection.link
        origin, question = self._origin(), None
        try:
            while True:
                with self._lock:
                    if link.session.may_ask(origin):
                        question = link.outgoing.ask(target, member, args, kwargs, origin)
                        question.waiter = THREAD
                        connection.flush()
                        if connection.reader is None:
                            connection.become_reader(question)
                        break
                await_room(link.session, origin, self.wait_for)
            if origin is None:
                self._wait_or_cancel(question)
            else:
                self._wait_within(question)
        except BaseException:
            # Also between the two: whoever reads must never go without letting another thread read.
            if question is not None:
                self._leave(question)
            raise
        return self.conclude(question, member)

    def call_root(self, name: str, shape: Shape, flavor: Flavor) -> Any:
        """Ask for a root and wait for it."""
        outgoing = self._connection.link.outgoing
        question = self.ended(lambda origin: outgoing.ask_root(name, origin))
        with self._lock:
            return outgoing.conclude_root(question, name, shape, flavor)

    def call_restore(self, name: str, secret: str, shape: Shape, flavor: Flavor) -> Any:
        """Ask for what a sturdy reference stands for and wait for it."""
        outgoing = self._connection.link.outgoing
        question = self.ended(lambda origin: outgoing.ask_restore(name, secret, origin))
        with self._lock:
            return outgoing.conclude_root(question, name, shape, flavor, "sturdy reference")

    def call_roots(self) -> dict[str, str]:
        """Ask which roots there are."""
        outgoing = self._connection.link.outgoing
        return outgoing.conclude_roots(self.ended(lambda origin: outgoing.ask_root("", origin)))

    def call_batch(self, calls: list[AnyCall]) -> list[Any]:
        """Make many calls in one frame; return results in order, with the exception in the place of a failed one."""
        outgoing = self._connection.link.outgoing
        question = self.ended(lambda origin: outgoing.ask_batch(calls, origin))
        with self._lock:
            return outgoing.conclude_batch(question, [member for _, member, _, _ in calls])

    def call_batch_async(self, calls: list[AnyCall]) -> "asyncio.Future[list[Any]]":
        """Make many calls in one frame from a running event loop."""
        return asyncio.ensure_future(asyncio.to_thread(self.call_batch, calls))

    def start(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> CallFuture:
        """Make a call and return its future."""
        return self.start_as(target, member, args, kwargs, Flavor.BLOCKING)

    def future_of(self, question: Question, member: Member, flavor: Flavor) -> CallFuture:
        """Return the future of a question; a thread that waits for it reads the connection itself."""
        return CallFuture(self, question, member, flavor)

    def start_as(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object], flavor: Flavor
    ) -> CallFuture:
        """Make a call and return its future; ``flavor`` is that of stubs in the result."""
        connection = self._connection
        link = connection.link
        origin = self._origin()
        while True:
            with self._lock:
                if link.session.may_ask(origin):
                    question = link.outgoing.ask(target, member, args, kwargs, origin)
                    future = question.waiter = CallFuture(self, question, member, flavor)
                    if not self._corks:
                        connection.flush()
                    break
            await_room(link.session, origin, self.wait_for)
        if origin is not None:
            self.end_with_job(question, future)
        return future

    def oneway(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Make a call whose answer nobody waits for; return once it is sent."""
        outgoing = self._connection.link.outgoing
        self.ask(
            lambda origin: outgoing.ask(target, member, args, kwargs, origin),
            lambda question: self.one_way.sent(question, member, outgoing),
        )

    async def oneway_async(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """Make such a call from a running event loop."""
        await asyncio.to_thread(self.oneway, target, member, args, kwargs)

    def call_async(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "asyncio.Future[Any]":
        """Make a call from a running event loop; the answer is read by another thread."""
        loop = loop_of_caller(member.name)
        return self.awaitable(self.start_as(target, member, args, kwargs, Flavor.ASYNC), loop)

    def awaitable(self, future: CallFuture, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[Any]":
        """Return what a loop awaits for a future of ours."""
        awaitable: asyncio.Future[Any] = loop.create_future()

        def resolve() -> None:
            if awaitable.done():
                return
            try:
                awaitable.set_result(future.result())
            except Exception as exc:  # whatever the call ended with belongs to whoever awaits it
                awaitable.set_exception(exc)

        future.add_done_callback(lambda _future: loop.call_soon_threadsafe(resolve))
        awaitable.add_done_callback(lambda done: future.cancel() if done.cancelled() else None)
        return awaitable

    def call_here(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "asyncio.Future[Any]":
        """Make a call from whatever event loop runs in this thread."""
        return self.call_async(target, member, args, kwargs)

    def cork(self) -> None:
        """Collect what ``start`` sends until ``uncork``."""
        with self._lock:
            self._corks += 1

    def uncork(self) -> None:
        """Send what was collected, in one go."""
        with self._lock:
            self._corks -= 1
            self._connection.flush()

    def broken(self, detail: str) -> None:
        """End the connection: the peer broke the protocol in something that was understood late."""
        with self._lock:
            self._connection.link.session.broken(detail)

    @property
    def principal(self) -> str:
        """Who the peer is; empty before that is proved."""
        return self._connection.principal

    def revoke(self, chosen: Chosen, *, cut: bool, aside: bool) -> None:
        """End the references of ours that are chosen; ``cut`` answers running calls on them, too.

        ``aside`` does it on a thread of its own, for the present one may hold any lock of ours.
        """
        if aside:
            done_aside(partial(self.revoke, chosen, cut=cut, aside=False))
            return
        connection = self._connection
        with self._lock:
            events = connection.link.endpoint.revoke(chosen, cut=cut)
            futures = connection.route(sort_out(connection.link, events))
            closers = connection.link.closing()
            if closers:
                connection.host.let_go(closers)
        for future in futures:
            future.notify()

    def release(self, stub: Stub) -> None:
        """Give a reference back now."""
        with self._lock:
            self._connection.link.session.imports.release_now(stub._caprpc_import)
            self._connection.flush()

    def conclude(self, question: Question, member: Member) -> Any:
        """Return the result of an ended question, or raise what it ended with."""
        outgoing = self._connection.link.outgoing
        if not member.signature.returns_references:
            # Values touch no table: no lock.
            return outgoing.conclude(question, member, Flavor.BLOCKING)
        with self._lock:
            return outgoing.conclude(question, member, Flavor.BLOCKING)

    def settle(self, future: CallFuture) -> None:
        """Have an ended future read its answer."""
        outgoing = self._connection.link.outgoing
        if not future.member.signature.returns_references:
            # Values touch no table: no lock.
            future.settle(outgoing)
            return
        with self._lock:
            future.settle(outgoing)

    def wait_for(self, question: Question, deadline: float) -> None:
        """Wait until a question has ended or the time has come, reading the socket if nobody else does."""
        self._refuse_after_fork()
        if self._connection.link.wants_to_send:
            with self._lock:
                self._connection.flush()
        self._connection.wait(question, deadline, object())

    def attend(self, future: CallFuture) -> bool:
        """Have somebody read until a call has ended for which no thread of the application reads; False if it has."""
        self._refuse_after_fork()
        with self._lock:
            if future.done():
                return False
            future.is_awaited = True
            self._connection.attend(future)
            return True

    def abandon(self, question: Question) -> None:
        """Tell the peer that nobody waits for this answer any more."""
        with self._lock:
            self._abandon(question, 0.0)

    def stop(self, question: Question, error: Exception, now: float = 0.0) -> None:
        """End a question here and now with ``error``, whatever the peer says later; without the connection's lock."""
        with self._lock:
            if question.outcome is not None:
                return
            self._abandon(question, now)
            question.outcome = error
            self._connection.wake(question)
        future = question.waiter
        if type(future) is CallFuture:
            future.notify()

    def run_out(self, question: Question) -> None:
        """End a question whose time is over with ``DeadlineExceeded``."""
        session = self._connection.link.session
        peer = printable(session.peer.principal)
        now = time.monotonic()
        limit = f"{session.limits.call_timeout_s:g} s (limits.call_timeout_s)"
        within = "the time that the call was given (caprpc.deadline)" if question.due <= now else limit
        error = DeadlineExceeded(f"{peer} has not answered within {within}", code="deadline", peer=peer)
        self.stop(question, error, now)

    def _abandon(self, question: Question, now: float) -> None:
        link = self._connection.link
        link.session.cancel(question, now)
        self._connection.attended.discard(question.waiter)
        while question.jobs:
            # Callbacks that the waiting thread was to run: each is still owed an answer.
            link.endpoint.finish_cancelled(question.jobs.popleft())
        self._connection.flush()

    def ask(
        self,
        ask: Callable[[Origin | None], Question],
        hang: Callable[[Question], None] | None = None,
        *,
        sends: bool = True,
    ) -> Question:
        """Ask once there is room for it; ``hang`` takes the question while the lock is held."""
        session = self._connection.link.session
        origin = self._origin()
        while True:
            with self._lock:
                if session.may_ask(origin):
                    question = ask(origin)
                    question.waiter = THREAD
                    if hang is not None:
                        hang(question)
                    if sends and (not self._corks or question.waiter is THREAD):
                        self._connection.flush()
                    return question
            await_room(session, origin, self.wait_for)

    def ended(self, ask: Callable[[Origin | None], Question]) -> Question:
        """Ask once there is room for it, and return the question when it has ended.

        A thread that is interrupted anywhere in between waits no more: what it has asked is cancelled.
        """
        asked: list[Question] = []
        try:
            self._wait_within(self.ask(ask, asked.append))
        except BaseException:
            for question in asked:
                self._leave(question)
            raise
        return asked[0]

    def _wait_within(self, question: Question) -> None:
        """Wait for a call that is made inside a method or a block with a deadline: it ends with those."""
        job = running_job()
        if job is None:
            self._wait_or_cancel(question)
            return
        nested, answer = job.endpoint.nested, job.answer
        nested.add(answer, question, self._stop_of(question))
        try:
            self._wait_or_cancel(question)
        finally:
            nested.remove(answer, question)

    def end_with_job(self, question: Question, future: CallFuture) -> None:
        """Have a future end with the method that it is made in."""
        job = running_job()
        if job is not None:
            nested, answer = job.endpoint.nested, job.answer
            nested.add(answer, question, self._stop_of(question))
            future.when_done(lambda: nested.remove(answer, question))

    def _stop_of(self, question: Question) -> Callable[[], None]:
        def stop() -> None:
            text = "the call that this one was made for is over: its caller no longer waits"
            self.stop(question, CallCancelled(text, code="cancelled"))

        return stop

    def _wait_or_cancel(self, question: Question) -> None:
        """Wait for a call's own answer; if the time runs out or the thread is interrupted, the call is cancelled."""
        connection = self._connection
        limit = connection.link.session.limits.call_timeout_s
        deadline = time.monotonic() + limit
        deadline = question.due if question.due < deadline else deadline  # min() would cost as much as a clock
        try:
            if connection.reader is question:
                connection.lead(question, deadline, question)
            if question.outcome is None or question.jobs:
                connection.wait(question, deadline, question)
        except BaseException:
            self._leave(question)
            raise
        if question.outcome is None:
            # ``conclude`` raises what it has ended with.
            self.run_out(question)

    def _leave(self, question: Question) -> None:
        """The thread that has made a call waits no more: it does not read either, and the call is cancelled."""
        self._connection.pass_on(question)
        self.abandon(question)

    def _origin(self) -> Origin | None:
        """Return what this thread is in that matters to a call: a call of this connection, or a deadline."""
        if FORKS.count != self._forks:
            raise ConnectionLost(AFTER_FORK, may_have_run=False)
        within = CURRENT.get()
        return None if within is None else origin_of(within, self, time.monotonic())

    def _refuse_after_fork(self) -> None:
        """Raise in a child that waits for what its parent has asked."""
        if self.forked:
            raise ConnectionLost(AFTER_FORK)

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that made the connection."""
        return FORKS.count != self._forks
