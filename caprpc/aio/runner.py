"""Where a ``def`` method runs on an asyncio host: on the loop once it has proved fast, else on a thread of a pool."""

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final

from caprpc.ids import IMPLICIT_OPERATIONS, OP_ROOT
from caprpc.interface import Member
from caprpc.limits import DEFAULT_SERVER_LIMITS
from caprpc.objects.batches import BatchJob
from caprpc.objects.closing import close_now, close_rest
from caprpc.objects.dispatch import NoWorker
from caprpc.objects.shares import Shares
from caprpc.objects.work import AnyJob
from caprpc.objects.workers import Workers
from caprpc.session import Closer

if TYPE_CHECKING:
    from caprpc.aio.connection import Connection

FAST_S: Final = 0.0005
"""A method that ran no longer than this on a thread has proved fast once."""

PROOFS: Final = 3
"""Proofs after which a method runs on the loop; a blocking one never stops the loop even once."""

SLOW_S: Final = 0.002
"""A run on the loop longer than this sends the method back to the pool."""

_DISTRUST: Final = 256
"""Proofs that a method needs after it has stopped the loop."""


_AT_ONCE: Final = 32
"""Connections that are turned away between two looks of the loop at its sockets."""

_NOT_LEARNED: Final = frozenset({OP_ROOT}) | IMPLICIT_OPERATIONS
"""Operations whose members are made for each connection or call: what is known of one says nothing about the next."""


class MethodRunner:
    """Remembers which members have proved fast; its pool runs all others."""

    def __init__(self, threads: int, name: str, wait_s: float = DEFAULT_SERVER_LIMITS.worker_wait_s) -> None:
        """Take the number of threads, and how long a call waits while other principals hold all of them."""
        # Threads that no interpreter waits for when it ends, as it does for those of an executor: a method that never
        # returns must not keep a server that has stopped.
        self._workers = Workers(threads, name)
        self._shares: Shares[Connection] = Shares(threads, wait_s)
        self._late = NoWorker(wait_s)
        self._next_look = inf
        """When it is looked at who waits because others hold all threads."""
        self._proofs_left: dict[Member, float] = {}

    def needs_thread(self, job: AnyJob) -> bool:
        """Whether a call must not run on the loop. Members that take references may wait for them, so they never do."""
        if job.is_async:
            return False
        if isinstance(job, BatchJob):
            return job.waits or any(self._unproved(member) for member in job.members)
        return self._unproved(job.plan.member)

    def take_place(self, connection: "Connection") -> bool:
        """Take a thread for a call of this connection's principal.

        If it returns False, ``place_free`` or ``turned_away`` is called on the connection later.
        """
        taken = self._shares.take(connection.principal, connection, connection.pending)
        if not taken:
            self._look_later(connection.loop)
        return taken

    def give_place_back(self, connection: "Connection") -> None:
        """Give a thread back; another connection may have waited for it."""
        following = self._shares.give_back(connection.principal)
        if following is not None:
            _tell(following.loop, following.guarded, following.place_free)

    def forget(self, connection: "Connection") -> None:
        """A connection has ended: nothing of it waits any more."""
        self._shares.withdraw(connection.principal, connection)

    def submit(self, job: AnyJob, connection: "Connection") -> None:
        """Run a call on a thread of the pool, whose place was taken, and reply from the loop."""
        self._workers.submit(lambda: self._run(job, connection))

    def ran_here(self, job: AnyJob, seconds: float) -> None:
        """Learn from a run on the loop."""
        if seconds > SLOW_S:
            for member in _learned(job):
                self._proofs_left[member] = max(_DISTRUST, self._proofs_left.get(member, 0))
        if job.asked:
            self._has_waited(job)

    async def aside(self, function: Callable[[], Any]) -> Any:
        """Run something that is no call, whatever the threads do, and return what it returns; raise what it raises."""
        return await run_on(self._workers, function, urgent=True)

    async def let_go(self, closers: list[Closer]) -> None:
        """Close all of them: on a thread what might block, in this task what is awaited."""
        await close_rest(await self.aside(lambda: close_now(closers)))

    def close(self) -> None:
        """End the pool's threads once what they run has ended, and wait for none of them."""
        self._workers.close(0.0)

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at who waits when the first of them has waited long enough, if somebody does; on the loop."""
        due = self._shares.due
        if due < self._next_look:
            self._next_look = due
            loop.call_later(max(0.0, due - time.monotonic()), self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        if due != self._next_look:
            # Somebody was due before, and the look at that has arranged for the next.
            return
        for connection in self._shares.overdue(_AT_ONCE):
            connection.guarded(connection.turned_away, self._late)
        self._next_look = inf
        self._look_later(loop)

    def _unproved(self, member: Member) -> bool:
        if member.operation in _NOT_LEARNED:
            return member.blocking
        return member.blocking or member.takes_references or self._proofs_left.get(member, PROOFS) > 0

    def _has_waited(self, job: AnyJob) -> None:
        """Have a method that waits for peers never run on the loop again, however fast it was when it did not.

        Which method of a batch it was is unknown: a peer must not be able to slow others down by what it puts together.
        """
        if len(job.members) == 1:
            self._proofs_left.update(dict.fromkeys(_learned(job), inf))

    def _run(self, job: AnyJob, connection: "Connection") -> None:
        try:
            self._run_in_place(job, connection)
        except Exception as exc:  # not of the method: what came of that could not be told to the loop
            _tell(connection.loop, connection.defect, exc)
        finally:
            self.give_place_back(connection)

    def _run_in_place(self, job: AnyJob, connection: "Connection") -> None:
        def soon(function: Callable[..., None], *args: object) -> None:
            _tell(connection.loop, connection.guarded, function, *args)

        soon(connection.started)
        if job.answer.cancelled:
            soon(connection.reply_cancelled, job)
            return
        started = time.perf_counter()
        try:
            value = job.run()
        except BaseException as exc:  # application code: whatever it raises becomes the answer of its call
            # That it fails fast proves nothing: a peer could have it fail before it does what takes its time.
            soon(connection.reply_error, job, exc)
        else:
            self._learn(job, time.perf_counter() - started)
            soon(connection.reply, job, value)
        if job.asked:
            self._has_waited(job)

    def _learn(self, job: AnyJob, seconds: float) -> None:
        if seconds <= FAST_S:
            for member in _learned(job):
                self._proofs_left[member] = self._proofs_left.get(member, PROOFS) - 1


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> None:
    """Have a loop call a function; nobody is told if the loop has ended before the method did."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


async def run_on(workers: Workers, function: Callable[[], Any], *, urgent: bool = False) -> Any:
    """Return what a function returns that runs on a thread, beyond the limit if it is urgent; raise what it raises."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def settle(value: object, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((value, error))

    def work() -> None:
        try:
            value = function()
        except BaseException as exc:  # application code: whatever it raises is of whoever waits for it
            _tell(loop, settle, None, exc)
        else:
            _tell(loop, settle, value, None)

    workers.submit(work, urgent=urgent)
    value, error = await done
    if error is not None:
        try:
            raise error
        finally:
            # Its trace leads here, and would keep it for the garbage collector.
            del error
    return value


def _learned(job: AnyJob) -> list[Member]:
    """Return those members of a call that will be met again."""
    return [member for member in job.members if member.operation not in _NOT_LEARNED]
