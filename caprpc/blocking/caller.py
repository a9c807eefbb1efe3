"""Calls that we make over a blocking connection; the stubs and ``submit`` end here. Any thread may call."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from caprpc.blocking.futures import CallFuture
from caprpc.errors import ConnectionLost, DeadlineExceeded, LimitExceeded, printable
from caprpc.forks import FORKS
from caprpc.interface import Member, Shape
from caprpc.objects.context import CURRENT
from caprpc.objects.stubs import Flavor, Stub
from caprpc.session import Answer, BatchAnswer, Import, Question, State

if TYPE_CHECKING:
    from caprpc.blocking.connection import Connection

_ROOM_POLL_S: Final = 0.002
"""A caller that finds the peer's ``in_flight`` used up looks again after this, reading answers meanwhile."""

THREAD: Final = object()
"""Hung on a question by a thread that made the call and waits for it: it runs the callbacks that the call causes."""


class Caller:
    """Makes the questions of one connection; owns that none is asked for which the peer has no room."""

    __slots__ = ("_connection", "_corks", "_forks", "_lock")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._lock = connection.lock
        self._forks = FORKS.count
        self._corks = 0

    def call(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a call and wait for its answer."""
        connection = self._connection
        link = connection.link
        behalf = self._on_behalf_of()
        while True:
            with self._lock:
                if link.session.may_ask(behalf):
                    question = link.outgoing.ask(target, member, args, kwargs, behalf)
                    question.waiter = THREAD
                    connection.flush()
                    if connection.reader is None:
                        connection.become_reader(question)
                    break
            self._await_room(behalf)
        self._wait_or_cancel(question)
        return self.conclude(question, member)

    def call_root(self, name: str, shape: Shape, flavor: Flavor) -> Any:
        """Ask for a root and wait for it."""
        outgoing = self._connection.link.outgoing
        question = self._ask(lambda _behalf: outgoing.ask_root(name), THREAD)
        self._wait_or_cancel(question)
        with self._lock:
            return outgoing.conclude_root(question, name, shape, flavor)

    def call_roots(self) -> dict[str, str]:
        """Ask which roots there are."""
        outgoing = self._connection.link.outgoing
        question = self._ask(lambda _behalf: outgoing.ask_root(""), THREAD)
        self._wait_or_cancel(question)
        return outgoing.conclude_roots(question)

    def call_batch(self, calls: list[tuple[Import, Member, tuple[object, ...], dict[str, object]]]) -> list[Any]:
        """Make many calls in one frame; return results in order, with the exception in the place of a failed one."""
        outgoing = self._connection.link.outgoing
        question = self._ask(lambda _behalf: outgoing.ask_batch(calls), THREAD)
        self._wait_or_cancel(question)
        with self._lock:
            return outgoing.conclude_batch(question, [member for _, member, _, _ in calls])

    def start(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> CallFuture:
        """Make a call and return its future."""
        return self._start(target, member, args, kwargs, Flavor.BLOCKING)

    def _start(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object], flavor: Flavor
    ) -> CallFuture:
        connection = self._connection
        link = connection.link
        behalf = self._on_behalf_of()
        while True:
            with self._lock:
                if link.session.may_ask(behalf):
                    question = link.outgoing.ask(target, member, args, kwargs, behalf)
                    future = question.waiter = CallFuture(self, question, member, flavor)
                    if not self._corks:
                        connection.flush()
                    return future
            self._await_room(behalf)

    def call_async(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "asyncio.Future[Any]":
        """Make a call from a running event loop; the answer is read by another thread."""
        connection = self._connection
        loop = asyncio.get_running_loop()
        future = self._start(target, member, args, kwargs, Flavor.ASYNC)
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
        with self._lock:
            if connection.reader is None and not connection.armed:
                connection.host.watched(connection)
        return awaitable

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
        if self._connection.link.wants_to_send:
            with self._lock:
                self._connection.flush()
        self._connection.wait(question, deadline, object())

    def abandon(self, question: Question) -> None:
        """Tell the peer that nobody waits for this answer any more."""
        link = self._connection.link
        with self._lock:
            link.session.cancel(question)
            while question.jobs:
                # Callbacks that this thread was to run: each is still owed an answer.
                link.endpoint.finish_cancelled(question.jobs.popleft())
            self._connection.flush()

    def _ask(self, ask: Callable[[Answer | BatchAnswer | None], Question], waiter: object) -> Question:
        session = self._connection.link.session
        behalf = self._on_behalf_of()
        while True:
            with self._lock:
                if session.may_ask(behalf):
                    question = ask(behalf)
                    question.waiter = waiter
                    self._connection.flush()
                    return question
            self._await_room(behalf)

    def _wait_or_cancel(self, question: Question) -> None:
        """Wait for a call's own answer; if the time runs out or the thread is interrupted, the call is cancelled."""
        connection = self._connection
        limit = connection.link.session.limits.call_timeout_s
        deadline = time.monotonic() + limit
        try:
            if connection.reader is question:
                connection.lead(question, deadline, question)
            if question.outcome is None or question.jobs:
                connection.wait(question, deadline, question)
        except BaseException:
            connection.pass_on()
            self.abandon(question)
            raise
        if question.outcome is None:
            self.abandon(question)
            peer = printable(connection.link.session.peer.principal)
            raise DeadlineExceeded(
                f"{peer} has not answered within {limit:g} s (limits.call_timeout_s)", code="deadline", peer=peer
            )

    def _on_behalf_of(self) -> Answer | BatchAnswer | None:
        """Return the call of this connection that this thread is answering, if any."""
        if FORKS.count != self._forks:
            raise ConnectionLost("a connection cannot be used after fork(): the child must make its own", code="lost")
        job = CURRENT.get()
        return job.answer if job is not None and job.endpoint.connection is self else None

    def _await_room(self, behalf: Answer | BatchAnswer | None) -> None:
        """Wait until the peer's announced ``in_flight`` leaves room for one more call."""
        session = self._connection.link.session
        deadline = time.monotonic() + session.limits.call_timeout_s
        while not session.may_ask(behalf):
            if session.state is State.CLOSED:
                return
            if time.monotonic() >= deadline:
                raise LimitExceeded(
                    f"the peer takes {session.opening.peer_limits.max_in_flight} calls at a time and has answered none "
                    f"for {session.limits.call_timeout_s:g} s (its limits.in_flight)"
                )
            oldest = next(iter(list(session.asked.open.values())), None)
            if oldest is not None:
                self.wait_for(oldest, min(deadline, time.monotonic() + _ROOM_POLL_S))
