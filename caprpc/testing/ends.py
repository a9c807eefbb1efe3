"""One end of a connection in memory: what a driver does, in one thread, on a clock that a test moves."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from caprpc.errors import CallCancelled
from caprpc.interface import Member, shape_of
from caprpc.objects.admission import Admission
from caprpc.objects.closing import close_now, close_rest
from caprpc.objects.context import CURRENT, origin_of, running_job
from caprpc.objects.link import Link
from caprpc.objects.promises import Promised, promise_of, result_shape
from caprpc.objects.revocation import Chosen
from caprpc.objects.stubs import Flavor, Stub
from caprpc.objects.work import AnyJob, sort_out
from caprpc.session import Ended, Event, Import, Origin, Question, Session

if TYPE_CHECKING:
    from caprpc.testing.network import Network

T = TypeVar("T")


class Stalled(RuntimeError):
    """A call in memory waits for an answer that nothing under way can bring."""


class End:
    """One end. Calls of the other end run as they arrive, or wait in ``jobs`` while ``holds`` is set."""

    def __init__(self, network: "Network", admission: Admission, *, acceptor: bool, address: str) -> None:
        self._network = network
        self.admission = admission
        self.link = Link(
            admission, self, acceptor=acceptor, hostname=None, address=address, expected=None, now=network.now
        )
        self.jobs: deque[AnyJob] = deque()
        self.holds = False
        self.ended: Ended | None = None

    @property
    def session(self) -> Session:
        """The session of this end; there is one once the handshake is over."""
        return self.link.session

    def root(self, name: str, interface: Callable[..., T]) -> T:
        """Return the other end's root of that name."""
        question = self.link.outgoing.ask_root(name)
        self._network.run_until(question)
        stub: T = self.link.outgoing.conclude_root(question, name, shape_of(interface), Flavor.BLOCKING)
        return stub

    def ask(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Question:
        """Ask, and do not wait: nothing moves before the next ``run``."""
        return self.link.outgoing.ask(target, member, args, kwargs, self._origin())

    def call(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Call, and move bytes until the answer is here; a call that cannot have one is given up."""
        question = self.ask(target, member, args, kwargs)
        job = running_job()
        if job is not None:
            # It ends with the call that it is made for, over whatever connection that came.
            job.endpoint.nested.add(job.answer, question, lambda: self._stop(question))
        try:
            self._network.run_until(question)
        except Stalled:
            self.session.cancel(question)
            raise
        finally:
            if job is not None:
                job.endpoint.nested.remove(job.answer, question)
        return self.link.outgoing.conclude(question, member, Flavor.BLOCKING)

    def start(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> "Pending":
        """Call without waiting."""
        return Pending(self, self.ask(target, member, args, kwargs), member)

    def step(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a step of ``caprpc.pipe``: return a promise of a reference, or what any other result can be had from."""
        shape = result_shape(member)
        if shape is None:
            return self.start(target, member, args, kwargs)
        promised = Promised(shape, target, member)
        question = self.link.outgoing.ask_kept(target, member, args, kwargs, self._origin())
        promised.asked(question)
        promised.future = question.waiter = Pending(self, question, member)
        return promise_of(promised, shape, self.step)

    def call_here(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "asyncio.Future[Any]":
        """Refuse: there is no event loop."""
        return self.call_async(target, member, args, kwargs)

    def call_async(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "asyncio.Future[Any]":
        """Refuse: there is no event loop."""
        raise TypeError("a connection in memory runs no coroutines")

    def broken(self, detail: str) -> None:
        """End the connection: the peer broke the protocol in something that was understood late."""
        self.link.session.broken(detail)

    def batch(self, calls: list[tuple[Import, Member, tuple[object, ...], dict[str, object]]]) -> list[Any]:
        """Make many calls in one frame."""
        question = self.link.outgoing.ask_batch(calls, self._origin())
        self._network.run_until(question)
        return self.link.outgoing.conclude_batch(question, [member for _, member, _, _ in calls])

    call_batch = batch

    @property
    def principal(self) -> str:
        """Who the other end is."""
        return self.session.peer.principal

    def revoke(self, chosen: Chosen, *, cut: bool, aside: bool) -> None:
        """End the references of ours that are chosen, here and now: there is no lock in memory, and one thread."""
        self.take(self.link.endpoint.revoke(chosen, cut=cut))

    def release(self, stub: Stub) -> None:
        """Give a reference back now."""
        self.session.imports.release_now(stub._caprpc_import)

    def receive(self, data: bytes) -> None:
        """Take ciphertext of the other end."""
        self.take(self.link.receive(data, self._network.now))

    def take(self, events: list[Event]) -> None:
        """Sort events; permitted calls become jobs, and what the other end has let go of is closed."""
        work = sort_out(self.link, events)
        self.jobs.extend(work.jobs)
        for question in work.questions:
            if isinstance(question.waiter, Pending):
                # A promise: if nobody asks for its result, what it refers to goes with it.
                question.waiter.read()
                question.waiter = None
        for answer in work.cancelled:
            for stop in self.link.endpoint.nested.take(answer):
                stop()
        if work.ended is not None:
            self.ended = work.ended
        self._close()

    def run_job(self, job: AnyJob) -> None:
        """Run one call of the other end and reply."""
        endpoint = self.link.endpoint
        if job.answer.cancelled:
            job.forget()
            endpoint.finish_cancelled(job)
        else:
            try:
                value = _to_its_end(job.run_async()) if job.is_async else job.run()
            except Exception as exc:  # application code: whatever it raises becomes the answer of its call
                job.forget()
                endpoint.fail(job, exc)
            else:
                job.forget()
                endpoint.finish(job, value)
        if self.session.kept.resolved:
            self.take(self.session.run_resolved(self._network.now))

    def _stop(self, question: Question) -> None:
        if question.outcome is None:
            self.session.cancel(question)
            text = "the call that this one was made for is over: its caller no longer waits"
            question.outcome = CallCancelled(text, code="cancelled")

    def _close(self) -> None:
        """Close what the other end has let go of."""
        rest = close_rest(close_now(self.link.closing()))
        try:
            rest.send(None)
        except StopIteration:
            return
        # It waits for a loop, and there is none.
        rest.close()

    def _origin(self) -> Origin | None:
        within = CURRENT.get()
        return None if within is None else origin_of(within, self, self._network.now)


class Pending:
    """A call in memory that is under way."""

    __slots__ = ("_end", "_member", "_read", "question")

    def __init__(self, end: End, question: Question, member: Member) -> None:
        self._end = end
        self.question = question
        self._member = member
        self._read: tuple[Any, Exception | None] | None = None

    def result(self) -> Any:
        """Move bytes until the answer is here, and return it."""
        self._end._network.run_until(self.question)
        if self._read is None:
            return self._end.link.outgoing.conclude(self.question, self._member, Flavor.BLOCKING)
        value, error = self._read
        if error is not None:
            raise error
        return value

    def read(self) -> None:
        """Read the answer, which is here; ``result`` returns it."""
        try:
            self._read = (self._end.link.outgoing.conclude(self.question, self._member, Flavor.BLOCKING), None)
        except Exception as exc:  # whatever the call ended with belongs to whoever asks for the result
            self._read = (None, exc)


def _to_its_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing, and return its result: there is no loop here that anything could end."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("an `async def` method waits, and a connection in memory has no loop: use aio_connected")
