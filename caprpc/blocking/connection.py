"""A connection driven by blocking threads: the thread that waits for an answer reads the socket.

There is one lock for each connection. It is held for bookkeeping and for sends that do not block, never while
waiting and never while code of the application runs.
"""

import asyncio
import socket
import threading
import time
from collections import deque
from typing import Any, Final, Protocol

from caprpc.blocking.futures import CallFuture
from caprpc.blocking.wire import Wire
from caprpc.errors import ConnectionLost, DeadlineExceeded, LimitExceeded, printable
from caprpc.forks import FORKS
from caprpc.interface import Member, Shape
from caprpc.limits import DEFAULT_LIMITS
from caprpc.objects.admission import Admission
from caprpc.objects.context import CURRENT
from caprpc.objects.dispatch import Job
from caprpc.objects.link import Link
from caprpc.objects.stubs import Flavor, Stub
from caprpc.objects.work import AnyJob, Work, admit, sort_out
from caprpc.session import Answer, BatchAnswer, Ended, Import, Question, State

_LONGEST_SLEEP_S: Final = 3600.0

_ROOM_POLL_S: Final = 0.002
"""A caller that finds the peer's ``in_flight`` used up looks again after this, reading answers meanwhile."""


_NO_FUTURES: Final[list[CallFuture]] = []
"""Returned when no future's callbacks are due; shared and never changed."""


class Host(Protocol):
    """What a connection needs of the place it lives in: a server's reactor or a client."""

    def dispatch(self, connection: "Connection") -> None:
        """Run what is in ``connection.pending``, in order, on some other thread."""

    def released(self, connection: "Connection") -> None:
        """No thread reads the connection now: watch it."""

    def watched(self, connection: "Connection") -> None:
        """No thread reads the connection now and an answer is awaited on an event loop: watch it at once."""

    def claimed(self, connection: "Connection") -> None:
        """A waiting thread reads the connection now: stop watching it."""

    def wants_write(self, connection: "Connection") -> None:
        """Ciphertext waits until the socket takes more."""

    def start_async(self, connection: "Connection", job: AnyJob) -> bool:
        """Start an ``async def`` method on the loop kept for such methods; it replies by itself."""

    def opened(self, connection: "Connection") -> None:
        """WELCOME and HELLO have been exchanged."""

    def ended(self, connection: "Connection", event: Ended) -> None:
        """The connection is over; called once, without the lock."""


THREAD: Final = object()
"""Hung on a question by a thread that made the call and waits for it: it runs the callbacks that the call causes."""


class Connection:
    """One connection and its lock; owns who reads the socket: nobody, or exactly one waiting thread."""

    def __init__(
        self,
        sock: socket.socket,
        admission: Admission,
        host: Host,
        *,
        acceptor: bool,
        hostname: str | None,
        address: str,
        expected: str | None = None,
    ) -> None:
        self.wire = Wire(sock)
        self.host = host
        self.lock = threading.Lock()
        self.link = Link(
            admission,
            self,
            acceptor=acceptor,
            hostname=hostname,
            address=address,
            expected=expected,
            now=time.monotonic(),
        )
        self.reader: object = None
        """What stands for the thread that reads the socket now: the question it waits for, or a token; or None."""
        self.pending: deque[AnyJob] = deque()
        """Calls that have arrived and not started, in order."""
        self.armed = False
        """Whether the host's selector watches the socket for input."""
        self.in_pool = False
        """Whether a worker is about to start the first of ``pending``."""
        self._followers: dict[threading.Lock, Question] = {}
        """Threads that sleep until their question has ended, or until it is their turn to read."""
        self._forks = FORKS.count
        self._corks = 0
        self.high_water_bytes = DEFAULT_LIMITS.write_high_water_bytes
        self.counted = False
        """Whether the server counts it as authenticated, or as gone."""

    # -- calls out: any thread --------------------------------------------------------------------------------------

    def call(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a call and wait for its answer."""
        link = self.link
        outgoing = link.outgoing
        behalf = self._on_behalf_of()
        with self.lock:
            if not link.session.may_ask(behalf):
                self._await_room(behalf)
            question = outgoing.ask(target, member, args, kwargs, behalf)
            question.waiter = THREAD
            self.flush()
            if self.reader is None:
                self._become_reader(question)
        self._wait_or_cancel(question)
        if not member.signature.returns_references:
            # Values touch no table: no lock.
            return outgoing.conclude(question, member, Flavor.BLOCKING)
        with self.lock:
            return outgoing.conclude(question, member, Flavor.BLOCKING)

    def call_root(self, name: str, shape: Shape, flavor: Flavor) -> Any:
        """Ask for a root and wait for it."""
        behalf = self._on_behalf_of()
        with self.lock:
            if not self.link.session.may_ask(behalf):
                self._await_room(behalf)
            question = self.link.outgoing.ask_root(name)
            question.waiter = THREAD
            self.flush()
        self._wait_or_cancel(question)
        with self.lock:
            return self.link.outgoing.conclude_root(question, name, shape, flavor)

    def start(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> CallFuture:
        """Make a call and return its future."""
        behalf = self._on_behalf_of()
        with self.lock:
            if not self.link.session.may_ask(behalf):
                self._await_room(behalf)
            question = self.link.outgoing.ask(target, member, args, kwargs, behalf)
            future = question.waiter = CallFuture(self, question, member)
            if not self._corks:
                self.flush()
        return future

    def call_async(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "asyncio.Future[Any]":
        """Make a call from a running event loop; the answer is read by another thread."""
        loop = asyncio.get_running_loop()
        future = self.start(target, member, args, kwargs)
        awaitable: asyncio.Future[Any] = loop.create_future()

        def resolve() -> None:
            if awaitable.done():
                return
            try:
                with self.lock:
                    result = self.link.outgoing.conclude(future.question, member, Flavor.ASYNC)
                awaitable.set_result(result)
            except Exception as exc:  # whatever the call ended with belongs to whoever awaits it
                awaitable.set_exception(exc)

        future.add_done_callback(lambda _future: loop.call_soon_threadsafe(resolve))
        awaitable.add_done_callback(lambda done: future.cancel() if done.cancelled() else None)
        with self.lock:
            if self.reader is None and not self.armed:
                self.host.watched(self)
        return awaitable

    def release(self, stub: Stub) -> None:
        """Give a reference back now."""
        with self.lock:
            self.link.session.imports.release_now(stub._caprpc_import)
            self.flush()

    def call_batch(self, calls: list[tuple[Import, Member, tuple[object, ...], dict[str, object]]]) -> list[Any]:
        """Make many calls in one frame; return results in order, with the exception in the place of a failed one."""
        behalf = self._on_behalf_of()
        with self.lock:
            if not self.link.session.may_ask(behalf):
                self._await_room(behalf)
            question = self.link.outgoing.ask_batch(calls)
            question.waiter = THREAD
            self.flush()
        self._wait_or_cancel(question)
        with self.lock:
            return self.link.outgoing.conclude_batch(question, [member for _, member, _, _ in calls])

    def cork(self) -> None:
        """Collect what ``start`` sends until ``uncork``."""
        with self.lock:
            self._corks += 1

    def uncork(self) -> None:
        """Send what was collected, in one go."""
        with self.lock:
            self._corks -= 1
            self.flush()

    def conclude(self, question: Question, member: Member) -> Any:
        """Return the result of a future's question, or raise what it ended with."""
        if not member.signature.returns_references:
            return self.link.outgoing.conclude(question, member, Flavor.BLOCKING)
        with self.lock:
            return self.link.outgoing.conclude(question, member, Flavor.BLOCKING)

    def abandon(self, question: Question) -> None:
        """Tell the peer that nobody waits for this answer any more."""
        with self.lock:
            self.link.session.cancel(question)
            self.flush()

    def wait_for(self, question: Question, deadline: float) -> None:
        """Wait until a question has ended or the time has come, reading the socket if nobody else does."""
        if self.link.wants_to_send:
            with self.lock:
                self.flush()
        self._wait(question, deadline, object())

    def _wait_or_cancel(self, question: Question) -> None:
        """Wait for a call's own answer; if the time runs out or the thread is interrupted, the call is cancelled."""
        limit = self.link.session.limits.call_timeout_s
        try:
            if self.reader is question:
                self._lead(question, None, question)
            if question.outcome is None or question.jobs:
                self._wait(question, time.monotonic() + limit, question)
        except BaseException:
            if question.outcome is None:
                self.abandon(question)
            raise
        if question.outcome is None:
            self.abandon(question)
            peer = printable(self.link.session.peer.principal)
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
        """Wait until the peer's announced ``in_flight`` leaves room for one more call; the lock is given up meanwhile."""
        session = self.link.session
        deadline = time.monotonic() + session.limits.call_timeout_s
        while not session.may_ask(behalf):
            if session.state is State.CLOSED or time.monotonic() >= deadline:
                raise LimitExceeded(
                    f"the peer takes {session.opening.peer_limits.max_in_flight} calls at a time and has not answered one "
                    f"for {session.limits.call_timeout_s:g} s (its limits.in_flight)"
                )
            oldest = next(iter(session.asked.open.values()), None)
            if oldest is not None:
                self.lock.release()
                try:
                    self.wait_for(oldest, min(deadline, time.monotonic() + _ROOM_POLL_S))
                finally:
                    self.lock.acquire()

    # -- waiting: one leader reads, the others sleep ----------------------------------------------------------------

    def _become_reader(self, token: object) -> None:
        """Let the present thread read; the lock is held and nobody reads."""
        self.reader = token
        if self.armed:
            self.host.claimed(self)

    def _wait(self, question: Question, deadline: float, token: object) -> None:
        """Return when the question has ended or the time has passed; run what the call causes here meanwhile.

        ``token`` stands for the present thread; it is the question itself for the thread that made the call, which
        alone runs the callbacks.
        """
        owns = token is question
        while True:
            while owns and question.jobs:
                self.run(question.jobs.popleft())
            if question.outcome is not None or time.monotonic() >= deadline:
                return
            sleep: threading.Lock | None = None
            leads = False
            with self.lock:
                if question.outcome is None and not (owns and question.jobs):
                    if self.reader is None:
                        self._become_reader(token)
                        leads = True
                    else:
                        sleep = threading.Lock()
                        sleep.acquire()
                        self._followers[sleep] = question
            if sleep is not None:
                sleep.acquire(timeout=max(0.0, min(deadline - time.monotonic(), _LONGEST_SLEEP_S)))
                with self.lock:
                    self._followers.pop(sleep, None)
            elif leads:
                self._lead(question, deadline, token)

    def _lead(self, question: Question, deadline: float | None, token: object) -> None:
        """Read until the question has ended, callbacks for its thread have come, or the time has passed.

        Without a deadline it returns after the first half second of silence.
        """
        wire, lock = self.wire, self.lock
        futures = _NO_FUTURES
        try:
            while True:
                data = wire.read(deadline)
                with lock:
                    if data is not None:
                        futures = self.take(data)
                    elif wire.unsent:
                        wire.send_more()
                    if question.outcome is not None or question.jobs or wire.closed:
                        self._step_down()
                        return
                    if data is None and (deadline is None or time.monotonic() >= deadline):
                        self._step_down()
                        return
                if futures:
                    for future in futures:
                        future.notify()
        except BaseException:
            with lock:
                if self.reader is token:
                    self._step_down()
            raise
        finally:
            if futures:
                for future in futures:
                    future.notify()

    def _step_down(self) -> None:
        """Stop reading; let a sleeping thread read, or the host watch. The lock is held."""
        self.reader = None
        if self._followers:
            for sleep, question in self._followers.items():
                if question.outcome is None and not question.jobs:
                    _wake(sleep)
                    return
        if not self.armed:
            self.host.released(self)

    def _wake_sleepers(self, question: Question) -> None:
        """Let threads look again that sleep until this question has ended; the lock is held."""
        for sleep, awaited in self._followers.items():
            if awaited is question:
                _wake(sleep)

    # -- bytes in and out: the lock is held -------------------------------------------------------------------------

    def take(self, data: bytes | memoryview) -> list[CallFuture]:
        """Take received ciphertext, b"" for the end of the stream; return futures whose callbacks are to be run."""
        link = self.link
        now = time.monotonic()
        events = link.receive(data, now) if len(data) else link.receive_eof(now)
        if len(events) == 1:
            event = events[0]
            if type(event) is Question:
                if event is self.reader and not link.wants_to_send:
                    # The one answer that the reading thread waits for: it finds it by itself.
                    return _NO_FUTURES
            elif type(event) is Answer and event.cause is None:
                job = admit(link, event)
                if isinstance(job, Job):
                    self.pending.append(job)
                    if self.reader is not None:
                        self.host.dispatch(self)
                    return _NO_FUTURES
                return self.route(job)
        return self.route(sort_out(link, events))

    def route(self, work: Work) -> list[CallFuture]:
        """Give everything to whoever waits for it; what nobody waits for goes to ``pending``."""
        futures: list[CallFuture] = []
        for question in work.questions:
            if self._followers and question is not self.reader:
                self._wake_sleepers(question)
            waiter = question.waiter
            if type(waiter) is CallFuture and waiter.has_callbacks:
                futures.append(waiter)
        for job in work.jobs:
            cause = job.answer.cause
            if cause is None or cause.waiter is not THREAD:
                self.pending.append(job)
                continue
            if cause.jobs is None:
                cause.jobs = deque()
            cause.jobs.append(job)
            if cause is not self.reader:
                self._wake_sleepers(cause)
        if work.opened:
            self.high_water_bytes = self.link.session.limits.write_high_water_bytes
            self.host.opened(self)
        if not work.jobs:
            self.flush()
        if work.ended is not None:
            self._end(work.ended)
        elif self.pending and self.reader is not None:
            self.host.dispatch(self)
        return futures

    def flush(self) -> None:
        """Encrypt and send what is ready, as far as the socket takes it."""
        wire = self.wire
        for cipher in self.link.data_to_send():
            wire.send(cipher)
        if wire.unsent:
            self.host.wants_write(self)

    def tick(self, now: float) -> list[CallFuture]:
        """Do what is due at this time."""
        blocked = self.wire.blocked_since
        if blocked is not None and self.link.admitted is not None:
            limit = self.link.session.limits.write_timeout_s
            if now - blocked > limit:
                return self.end(f"the peer has taken nothing for {limit:g} s (limits.write_timeout_s)", code="limit")
        if now >= self.link.deadline():
            return self.route(sort_out(self.link, self.link.tick(now)))
        return []

    def check_validity(self) -> list[CallFuture]:
        """End the connection if its peer's certificate or policy is no longer good."""
        return self.route(sort_out(self.link, self.link.check_validity()))

    def end(self, detail: str, *, code: str = "closed") -> list[CallFuture]:
        """End the connection from our side."""
        return self.route(sort_out(self.link, self.link.abort(code, detail)))

    def _end(self, event: Ended) -> None:
        if self.wire.closed:
            return
        self.flush()
        self.pending.clear()
        self.wire.close()
        for sleep in self._followers:
            _wake(sleep)
        self.host.ended(self, event)

    # -- calls in: without the lock ---------------------------------------------------------------------------------

    def run(self, job: AnyJob) -> None:
        """Run one call of the peer on this thread and reply."""
        if job.answer.cancelled:
            with self.lock:
                self.link.endpoint.finish_cancelled(job)
                self.flush()
            return
        if job.is_async and self.host.start_async(self, job):
            return
        try:
            value = job.run()
        except BaseException as exc:  # application code: whatever it raises becomes the answer of its call
            self.reply_error(job, exc)
            if not isinstance(exc, Exception) and threading.current_thread() is threading.main_thread():
                raise
            return
        self.reply(job, value)

    def reply(self, job: AnyJob, value: object) -> None:
        """Send the result of a call of the peer."""
        job.forget()
        with self.lock:
            self.link.endpoint.finish(job, value)
            self.flush()

    def reply_error(self, job: AnyJob, exc: BaseException) -> None:
        """Send what a call of the peer failed with."""
        job.forget()
        with self.lock:
            self.link.endpoint.fail(job, exc)
            self.flush()


def _wake(sleep: threading.Lock) -> None:
    """Wake the thread that sleeps on a lock; the connection's lock is held, so that it is released once."""
    if sleep.locked():
        sleep.release()
