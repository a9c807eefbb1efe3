"""A connection driven by blocking threads: the thread that waits for an answer reads the socket.

There is one lock for each connection. It is held for bookkeeping and for sends that do not block, never while
waiting and never while code of the application runs.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from caprpc.blocking.answering import Answering
from caprpc.blocking.caller import THREAD, Caller
from caprpc.blocking.futures import CallFuture
from caprpc.blocking.host import Host
from caprpc.blocking.notices import NOBODY, Notice, RunOut, Stopping
from caprpc.blocking.wire import Wire
from caprpc.limits import DEFAULT_LIMITS
from caprpc.objects.admission import Admission
from caprpc.objects.link import Link
from caprpc.objects.oneway import OneWay
from caprpc.objects.work import AnyJob, Work, admit, sort_out
from caprpc.session import FOREVER, UNBOUNDED, Answer, Ended, Question

_LONGEST_SLEEP_S: Final = 3600.0
"""A bound that ``Lock.acquire`` takes for no bound."""


class Connection(Answering):
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
        caller: "Callable[[Connection], Caller]" = Caller,
    ) -> None:
        self.wire = Wire(sock)
        self.host = host
        self.lock = threading.Lock()
        self.caller = caller(self)
        self.link = Link(
            admission,
            self.caller,
            acceptor=acceptor,
            hostname=hostname,
            address=address,
            expected=expected,
            now=time.monotonic(),
        )
        self.reader: object = None
        """What stands for the thread that reads the socket now: the question it waits for, or a token; or None."""
        self.pending: list[AnyJob] = []
        """Calls that have arrived and not started, in order."""
        self.armed = False
        """Whether the host's selector watches the socket for input."""
        self.in_pool = False
        """Whether a worker is about to start the first of ``pending``."""
        self._followers: dict[threading.Lock, Question] = {}
        """Threads that sleep until their question has ended, or until it is their turn to read."""
        self.attended: set[object] = set()
        """Futures that somebody waits for without reading, or that have callbacks."""
        self.high_water_bytes = DEFAULT_LIMITS.write_high_water_bytes
        self.due_at = FOREVER
        """When the host looks at the time for a call of the peer, beside each second."""

    @property
    def principal(self) -> str:
        """Who the peer is; empty before that is proved."""
        return self.link.session.peer.principal if self.link.admitted is not None else ""

    @property
    def congested(self) -> bool:
        """Whether so much waits to be sent that no further call of the peer is started."""
        return self.wire.unsent_bytes > self.high_water_bytes

    @property
    def reads_on(self) -> bool:
        """Whether to read what comes: not from a peer that takes no answers, unless we wait for one of its own.

        Both sides may have sent more than the other takes: one of them must go on reading.
        """
        return not self.congested or bool(self.link.session.asked.open)

    def become_reader(self, token: object) -> None:
        """Let the present thread read; the lock is held and nobody reads."""
        self.reader = token
        if self.armed:
            self.host.claimed(self)

    def wait(self, question: Question, deadline: float, token: object) -> None:
        """Return when the question has ended or the time has passed; run what the call causes here meanwhile.

        ``token`` stands for the present thread; it is the question itself for the thread that made the call, which
        alone runs the callbacks.
        """
        owns = token is question
        while True:
            while owns and question.jobs:
                if self.congested and not self._await_room(deadline) and question.outcome is None:
                    break
                self.run(question.jobs.popleft())
            if question.outcome is not None:
                if owns and question.jobs:
                    # They came together with the answer, behind the look above.
                    continue
                return
            if time.monotonic() >= deadline:
                self.pass_on(token)
                return
            sleep: threading.Lock | None = None
            leads = False
            with self.lock:
                if question.outcome is None and not (owns and question.jobs):
                    if self.reader is None:
                        self.become_reader(token)
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
                self.lead(question, deadline, token)

    def pass_on(self, token: object) -> None:
        """Let another thread read, if none but this one does: it may have been woken to read, and gives up."""
        with self.lock:
            if self.reader is None or self.reader is token:
                self._step_down()

    def lead(self, question: Question, deadline: float, token: object) -> None:
        """Read until the question has ended, callbacks for its thread have come, or the time has passed."""
        wire, lock, host, frames = self.wire, self.lock, self.host, self.link.session.frames
        notices = NOBODY
        try:
            while True:
                # What the polling thread has left may be what this one waits for.
                behind = frames.rest is not None
                data = None if behind else wire.read(deadline)
                with lock:
                    if behind:
                        notices = self.go_on(host.most())
                    elif data is not None:
                        notices = self.take(data, host.most())
                    if wire.unsent:
                        self.send_more()
                    # Whoever reads next must find nothing left: ``feed`` comes behind what was fed before.
                    if frames.rest is None or wire.closed:
                        if question.outcome is not None or question.jobs or wire.closed:
                            self._step_down()
                            return
                        if data is None and not behind and time.monotonic() >= deadline:
                            self._step_down()
                            return
                if notices:
                    for notice in notices:
                        notice.notify()
                    notices = NOBODY
                    if question.has_ended and frames.rest is None:
                        # One of them has ended the very call that this thread waits for.
                        with lock:
                            self._step_down()
                        return
                if frames.rest is not None:
                    host.give_way()
        except BaseException:
            with lock:
                if self.reader is token:
                    self._step_down()
            raise
        finally:
            if notices:
                for notice in notices:
                    notice.notify()

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

    def attend(self, future: CallFuture) -> None:
        """Have the host read for a future that no thread of the application reads for; the lock is held."""
        self.attended.add(future)
        if self.reader is None and not self.armed:
            self.host.watched(self)

    def wake(self, question: Question) -> None:
        """Let threads look again that sleep until this question has ended; the lock is held."""
        for sleep, awaited in self._followers.items():
            if awaited is question:
                _wake(sleep)

    def take(self, data: bytes | memoryview, most: int = UNBOUNDED) -> list[Notice]:
        """Take received ciphertext, b"" for the end of the stream; return who is to be told of what.

        Once the messages have cost ``most``, the rest is left for ``go_on``, before which nobody may read.
        """
        link = self.link
        now = time.monotonic()
        events = link.receive(data, now, most) if len(data) else link.receive_eof(now)
        if len(events) == 1:
            event = events[0]
            if type(event) is Question:
                if event is self.reader and not link.wants_to_send:
                    # The one answer that the reading thread waits for: it finds it by itself.
                    return NOBODY
            elif type(event) is Answer and event.meta is None and event.permit.timeout_s is None:
                job = admit(link, event)
                if isinstance(job, Work):
                    return self.route(job)
                self.pending.append(job)
                if self.reader is not None:
                    self.host.dispatch(self)
                return NOBODY
        return self.route(sort_out(link, events))

    def go_on(self, most: int = UNBOUNDED) -> list[Notice]:
        """Take more of what ``take`` has left (``link.behind``); the lock is held."""
        return self.route(sort_out(self.link, self.link.go_on(time.monotonic(), most)))

    def route(self, work: Work) -> list[Notice]:
        """Give everything to whoever waits for it; what nobody waits for goes to ``pending``."""
        notices: list[Notice] = []
        for question in work.questions:
            if self._followers and question is not self.reader:
                self.wake(question)
            waiter = question.waiter
            if type(waiter) is CallFuture:
                if question.homes is not None:
                    # References are read now: if nobody asks for the result, they go with the future.
                    waiter.settle(self.link.outgoing)
                question.waiter = None
                if waiter.is_attended:
                    self.attended.discard(waiter)
                    notices.append(waiter)
            elif type(waiter) is OneWay and waiter.ended(self.link.session):
                notices.append(waiter)
        for job in work.jobs:
            cause = job.answer.cause
            if cause is None or cause.waiter is not THREAD:
                self.pending.append(job)
                continue
            if cause.jobs is None:
                cause.jobs = deque()
            cause.jobs.append(job)
            if cause is not self.reader:
                self.wake(cause)
        for answer in work.cancelled:
            self.host.cancelled(answer)
            notices.extend(map(Stopping, self.link.endpoint.nested.take(answer)))
        if work.jobs:
            self._note_due()
        if work.opened:
            self.wire.opened()
            self.high_water_bytes = self.link.write_high_water_bytes
            self.host.opened(self)
        if not work.jobs:
            self.flush()
        if work.ended is not None:
            self._end(work.ended)
        elif self.pending and self.reader is not None:
            self.host.dispatch(self)
        return notices

    def flush(self) -> None:
        """Encrypt and send what is ready, as far as the socket takes it."""
        wire = self.wire
        for cipher in self.link.data_to_send():
            wire.send(cipher)
        if wire.unsent:
            self.host.wants_write(self)

    def start_resolved(self) -> list[Notice]:
        """Start the calls that waited for an answer which has just been given; the lock is held."""
        link = self.link
        notices = self.route(sort_out(link, link.session.run_resolved(time.monotonic())))
        if self.pending and self.reader is None:
            self.host.resumed(self)
        return notices

    def start_async(self, job: AnyJob) -> bool:
        """Start an ``async def`` method on the loop that the host keeps for such methods."""
        return self.host.start_async(self, job)

    def send_more(self) -> None:
        """Send what has waited; once all of it is sent, start the calls that waited for that. The lock is held."""
        if self.wire.send_more():
            self.flush()
            if self.pending:
                self.host.dispatch(self)

    def _await_room(self, deadline: float) -> bool:
        """Wait until the peer has taken enough that a callback may run; False if it has not by then."""
        while self.congested and not self.wire.closed and time.monotonic() < deadline:
            self.wire.wait_writable(deadline)
            with self.lock:
                if self.wire.unsent:
                    self.send_more()
        return not self.congested

    def tick(self, now: float) -> list[Notice]:
        """Do what is due at this time; called about once a second."""
        link = self.link
        if link.admitted is not None:
            link.session.now = now
            self._let_go()
            self.due_at = FOREVER
            blocked, limit = self.wire.blocked_since, link.session.limits.write_timeout_s
            if blocked is not None and now - blocked > limit:
                return self.end(f"the peer has taken nothing for {limit:g} s (limits.write_timeout_s)", code="limit")
        if now >= link.deadline():
            notices = self.route(sort_out(link, link.tick(now)))
            if link.admitted is not None:
                overdue = link.session.asked.overdue(now)
                threadless = [question for question in overdue if question.waiter is not THREAD]
                notices.extend(RunOut(self.caller.run_out, question) for question in threadless)
                self._note_due()
            return notices
        if link.wants_to_send:
            # References that were dropped meanwhile are given back now.
            self.flush()
        if link.admitted is not None:
            self._note_due()
        return []

    def _note_due(self) -> None:
        """Have the host look at the time when the next call of the peer is due; the lock is held."""
        soonest = self.link.session.answers.soonest
        if soonest < self.due_at:
            self.due_at = soonest
            self.host.due(self, soonest)

    def check_validity(self) -> list[Notice]:
        """End the connection if its peer's certificate or policy is no longer good."""
        events = self.link.check_validity()
        self.high_water_bytes = self.link.write_high_water_bytes
        return self.route(sort_out(self.link, events))

    def end(self, detail: str, *, code: str = "closed") -> list[Notice]:
        """End the connection from our side."""
        return self.route(sort_out(self.link, self.link.abort(code, detail)))

    def _end(self, event: Ended) -> None:
        if self.wire.closed:
            return
        self.flush()
        while self.pending:
            self.pending.pop().drop()
        for sleep in self._followers:
            _wake(sleep)
        self._let_go()
        # Before the descriptor is closed: its number may be given to the next connection at once.
        self.host.ended(self, event)
        self.wire.close()

    def _let_go(self) -> None:
        closers = self.link.closing()
        if closers:
            self.host.let_go(closers)


def _wake(sleep: threading.Lock) -> None:
    """Wake the thread that sleeps on a lock; the connection's lock is held, so that it is released once."""
    if sleep.locked():
        sleep.release()
