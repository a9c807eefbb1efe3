"""A connection driven by an asyncio loop; everything in here runs on the loop's thread unless it says otherwise."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from caprpc.aio.answering import Answering
from caprpc.aio.caller import Caller
from caprpc.aio.reading import Reading, Shared
from caprpc.aio.runner import MethodRunner
from caprpc.objects.admission import Admission
from caprpc.objects.dispatch import NotStarted
from caprpc.objects.link import Link
from caprpc.objects.turns import CALLS, TURN_S
from caprpc.objects.work import AnyJob, Work, sort_out
from caprpc.session import FOREVER, Closer, Ended

TICK_S: Final = 0.05
"""How often deadlines are looked at while something is under way."""

IDLE_TICK_S: Final = 1.0

_TOGETHER_BYTES: Final = 64 * 1024
"""Replies of more than this do not wait for those behind them."""

LINGER_S: Final = 1.0
"""How long a peer may take what was sent before the end of the connection."""


class Host(Shared, Protocol):
    """What a connection needs of the server or client it belongs to."""

    runner: MethodRunner

    def opened(self, connection: "Connection") -> None:
        """WELCOME and HELLO have been exchanged."""

    def authenticated(self, connection: "Connection") -> None:
        """The peer has proved who it is."""

    def let_go(self, closers: list[Closer]) -> None:
        """Close what the peer can name no more, off the loop what does not await."""

    def ended(self, connection: "Connection", event: Ended) -> None:
        """The connection is over; called once."""


class Connection(Answering, Reading):
    """One connection on one loop; owns what it still has to send and the order in which calls start."""

    def __init__(
        self,
        admission: Admission,
        host: Host,
        *,
        acceptor: bool,
        hostname: str | None,
        address: str,
        expected: str | None = None,
        started: float | None = None,
        caller: "Callable[[Connection, asyncio.AbstractEventLoop], Caller]" = Caller,
    ) -> None:
        self.host: Host = host
        self.loop = asyncio.get_running_loop()
        self.caller = caller(self, self.loop)
        self.link = Link(
            admission,
            self.caller,
            acceptor=acceptor,
            hostname=hostname,
            address=address,
            expected=expected,
            now=started if started is not None else time.monotonic(),
        )
        self.pending: deque[AnyJob] = deque()
        """Calls that have arrived and not started, in order."""
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._flush_due = False
        self._blocked_since: float | None = None
        self._waiting_bytes = 0
        self._waits = False
        """Whether the first of ``pending`` waits: until there is a thread for it, or its principal has been let in."""
        self._unstarted = 0
        """Calls that a pool thread has been given and has not started."""
        self.tasks = {}
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the dialer speaks TLS first."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport expected")
        self._transport = transport
        self.take_limits()
        self._timer = self.loop.call_later(TICK_S, self.guarded, self._tick)
        self.flush()

    def _authenticated(self) -> None:
        self.host.authenticated(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the transport is gone."""
        if not self.closed:
            detail = f"the connection broke: {exc}" if exc is not None else "the connection was closed"
            self.route(sort_out(self.link, self.link.lost(detail)))
        self._transport = None

    def pause_writing(self) -> None:
        """The peer takes no answers: start no calls until it does, and read none unless we wait for an answer.

        Both sides may have sent more than the other takes: one of them must go on reading.
        """
        self._blocked_since = time.monotonic()
        if self._transport is not None and self.link.ended is None and not self._awaits_answers:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer takes answers again."""
        self._blocked_since = None
        self._read_on()
        if self._transport is not None and self.link.ended is None and self.pending:
            self._start_pending()
            self.flush_soon()

    def route(self, work: Work) -> None:
        """Give every event to whoever waits for it, start what may start, and send what is ready."""
        if work.questions:
            for question in work.questions:
                self.caller.answered(question)
            self.caller.fill_room()
        for answer in work.cancelled:
            task = self.tasks.get(answer)
            if task is not None:
                task.cancel()
            for stop in self.link.endpoint.nested.take(answer):
                stop()
        if work.opened:
            self.take_limits()
            self.host.opened(self)
        if work.jobs:
            soonest = self.link.session.answers.soonest
            if soonest != FOREVER:
                self.wake_at(soonest)
            self.pending.extend(work.jobs)
            self._start_pending()
        self.flush()
        if work.ended is not None:
            self._end(work.ended)

    def _start_pending(self) -> None:
        """Start calls in the order of their arrival; one that runs here waits until those before have started."""
        pending, runner, session = self.pending, self.host.runner, self.link.session
        if self.link.behind or self.host.rounds.has(self):
            # They start in its next turn.
            return
        started, until = 0, 0.0
        while pending and not self.closed and not self._waits:
            if started:
                now = time.perf_counter()
                until = until or now + TURN_S
                if started >= CALLS or now >= until:
                    self.host.rounds.wait(self)
                    return
            started += 1
            if session.queued_bytes > _TOGETHER_BYTES:
                # Also finds out whether the peer takes them.
                self.flush()
            if self._blocked_since is not None:
                return
            job = pending[0]
            if runner.needs_thread(job):
                if not runner.take_place(self):
                    self._waits = True
                    return
                pending.popleft()
                self._unstarted += 1
                runner.submit(job, self)
            elif self._unstarted:
                return
            else:
                pending.popleft()
                if job.is_async:
                    self.start_task(job)
                else:
                    self._run_here(job)

    def hold(self) -> None:
        """Start no calls before ``go_on``."""
        self._waits = True

    def go_on(self) -> None:
        """Start the calls that have come since ``hold``."""
        self._waits = False
        self._start_pending()
        self.flush_soon()

    def place_free(self) -> None:
        """A place in the pool has become free, and is taken for this connection."""
        self._waits = False
        job = self.pending[0] if self.pending and not self.closed else None
        if job is not None and self.host.runner.needs_thread(job):
            self.pending.popleft()
            self._unstarted += 1
            self.host.runner.submit(job, self)
        else:
            self.host.runner.give_place_back(self)
        if not self.closed:
            self._start_pending()
            self.flush_soon()

    def turned_away(self, exc: NotStarted) -> None:
        """Others have held all threads for as long as a call may wait: none that needs one runs."""
        self._waits = False
        needs_thread = self.host.runner.needs_thread
        late: list[AnyJob] = []
        rest: list[AnyJob] = []
        for job in self.pending:
            (late if needs_thread(job) else rest).append(job)
        self.pending.clear()
        self.pending.extend(rest)
        self.refuse(late, exc)
        self._start_pending()

    @property
    def principal(self) -> str:
        """Who the peer is; empty before that is proved."""
        return self.link.session.peer.principal if self.link.admitted is not None else ""

    def started(self) -> None:
        """A pool thread has started the call it was given."""
        self._unstarted -= 1
        if self.pending and not self._unstarted:
            self._start_pending()
            self.flush_soon()

    def _run_here(self, job: AnyJob) -> None:
        started = time.perf_counter()
        if job.answer.cancelled:
            self.link.endpoint.finish_cancelled(job)
        else:
            try:
                value = job.run()
            except BaseException as exc:  # application code: whatever it raises becomes the answer of its call
                job.forget()
                self.link.endpoint.fail(job, exc)
                if isinstance(exc, KeyboardInterrupt):
                    raise
            else:
                job.forget()
                self.link.endpoint.finish(job, value)
            self.host.runner.ran_here(job, time.perf_counter() - started)
        if self.link.session.kept.resolved:
            # Whoever called this starts what is pending.
            self.pending.extend(self.resolved().jobs)

    def take_limits(self) -> None:
        """Take over the limits in force that the transport keeps."""
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=self.link.write_high_water_bytes)

    def flush_soon(self) -> None:
        """Send at the end of this turn of the loop: what several tasks have ready goes in one piece."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self.guarded, self.flush)

    def flush(self) -> None:
        """Encrypt and send what is ready."""
        self._flush_due = False
        transport = self._transport
        if transport is not None:
            for cipher in self.link.data_to_send():
                transport.write(cipher)

    def end(self, detail: str, *, code: str = "closed") -> None:
        """End the connection from our side."""
        self.route(sort_out(self.link, self.link.abort(code, detail)))

    def check_validity(self) -> None:
        """End the connection if its peer's certificate or policy is no longer good."""
        events = self.link.check_validity()
        self.take_limits()
        self.route(sort_out(self.link, events))

    def cut_off(self) -> None:
        """Close the socket now, whatever the peer has not taken."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits to be sent."""
        sent = self._transport is None or not self._transport.get_write_buffer_size()
        return self.closed or self.link.admitted is None or (self.link.session.drained and sent)

    def _tick(self) -> None:
        if self.closed:
            return
        now = time.monotonic()
        busy = self.link.admitted is None
        if self.link.admitted is not None:
            self.link.session.now = now
            busy = bool(self.link.session.asked.open)
            self.caller.check_deadlines(now)
            limit = self.link.session.limits.write_timeout_s
            self._note_progress(now)
            if self._blocked_since is not None and now - self._blocked_since > limit:
                self.end(f"the peer has taken nothing for {limit:g} s (limits.write_timeout_s)", code="limit")
                self.cut_off()
                return
        if now >= self.link.deadline():
            self.route(sort_out(self.link, self.link.tick(now)))
        if not self.closed:
            self._let_go()
            if self.link.wants_to_send:
                self.flush()
            wait = min(TICK_S if busy else IDLE_TICK_S, max(0.001, self.link.deadline() - now))
            self._timer = self.loop.call_later(wait, self.guarded, self._tick)

    def wake_at(self, when: float) -> None:
        """Look at the time then at the latest; in between it is looked at seldom."""
        timer = self._timer
        wait = max(0.0, when - time.monotonic())
        if timer is not None and not self.closed and self.loop.time() + wait < timer.when():
            timer.cancel()
            self._timer = self.loop.call_later(wait, self.guarded, self._tick)

    def _note_progress(self, now: float) -> None:
        """A peer that takes something is slow, not gone."""
        waiting = self._transport.get_write_buffer_size() if self._transport is not None else 0
        if self._blocked_since is not None and waiting < self._waiting_bytes:
            self._blocked_since = now
        self._waiting_bytes = waiting

    def _let_go(self) -> None:
        closers = self.link.closing()
        if closers:
            self.host.let_go(closers)

    def _end(self, event: Ended) -> None:
        if self.closed:
            return
        self.closed = True
        self.host.rounds.forget(self)
        self.host.runner.forget(self)
        self.flush()
        while self.pending:
            self.pending.pop().drop()
        if self._timer is not None:
            self._timer.cancel()
        if self.link.admitted is not None:
            self.caller.fill_room()
        for task in list(self.tasks.values()):
            task.cancel()
        transport = self._transport
        if transport is not None:
            transport.close()
            if transport.get_write_buffer_size():
                # asyncio waits for ever until the peer has taken the rest.
                self.loop.call_later(LINGER_S, self.cut_off)
        self._let_go()
        self.host.ended(self, event)
