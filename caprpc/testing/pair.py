"""An in-memory pair: both ends of a connection in one thread, with TLS, policies and audit, without sockets."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from caprpc.interface import Member, interface_closure, shape_of
from caprpc.limits import DEFAULT_SERVER_LIMITS
from caprpc.objects.admission import Admission
from caprpc.objects.context import CURRENT, origin_of
from caprpc.objects.link import Link
from caprpc.objects.promises import Promised, promise_of, result_shape
from caprpc.objects.roots import check_roots, contracts_of_roots
from caprpc.objects.stubs import Flavor, Stub
from caprpc.objects.work import AnyJob, sort_out
from caprpc.session import Ended, Event, Export, Import, Origin, Question, Session, State
from caprpc.testing.clock import FakeClock
from caprpc.testing.deployment import Side

T = TypeVar("T")


class Stalled(RuntimeError):
    """A call of an in-memory pair waits for an answer that nothing under way can bring."""


class End:
    """One end of a pair. Calls of the other end run as they arrive, or wait in ``jobs`` while ``holds`` is set."""

    def __init__(self, pair: "Pair", admission: Admission, *, acceptor: bool, address: str) -> None:
        self._pair = pair
        self.admission = admission
        self.link = Link(
            admission, self, acceptor=acceptor, hostname=None, address=address, expected=None, now=pair.now
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
        self._pair.run_until(question)
        stub: T = self.link.outgoing.conclude_root(question, name, shape_of(interface), Flavor.BLOCKING)
        return stub

    def ask(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Question:
        """Ask, and do not wait: nothing moves before the next ``Pair.run``."""
        return self.link.outgoing.ask(target, member, args, kwargs, self._origin())

    def call(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Call, and move bytes both ways until the answer is here."""
        question = self.ask(target, member, args, kwargs)
        self._pair.run_until(question)
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
        """Refuse: a pair has no event loop."""
        return self.call_async(target, member, args, kwargs)

    def call_async(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "asyncio.Future[Any]":
        """Refuse: a pair has no event loop."""
        raise TypeError("an in-memory pair runs no coroutines")

    def broken(self, detail: str) -> None:
        """End the connection: the peer broke the protocol in something that was understood late."""
        self.link.session.broken(detail)

    def batch(self, calls: list[tuple[Import, Member, tuple[object, ...], dict[str, object]]]) -> list[Any]:
        """Make many calls in one frame."""
        question = self.link.outgoing.ask_batch(calls, self._origin())
        self._pair.run_until(question)
        return self.link.outgoing.conclude_batch(question, [member for _, member, _, _ in calls])

    @property
    def principal(self) -> str:
        """Who the other end is."""
        return self.session.peer.principal

    def revoke(self, chosen: Callable[[Export], bool], *, cut: bool) -> None:
        """End the references of ours that are chosen; ``cut`` answers running calls on them, too."""
        self.take(self.link.endpoint.revoke(chosen, cut=cut))

    def release(self, stub: Stub) -> None:
        """Give a reference back now."""
        self.session.imports.release_now(stub._caprpc_import)

    def receive(self, data: bytes) -> None:
        """Take ciphertext of the other end."""
        self.take(self.link.receive(data, self._pair.now))

    def take(self, events: list[Event]) -> None:
        """Sort events; permitted calls become jobs."""
        work = sort_out(self.link, events)
        self.jobs.extend(work.jobs)
        for question in work.questions:
            if isinstance(question.waiter, Pending):
                # A promise: if nobody asks for its result, what it refers to goes with it.
                question.waiter.read()
                question.waiter = None
        if work.ended is not None:
            self.ended = work.ended

    def run_job(self, job: AnyJob) -> None:
        """Run one call of the other end and reply."""
        endpoint = self.link.endpoint
        if job.answer.cancelled:
            job.forget()
            endpoint.finish_cancelled(job)
        else:
            try:
                value = job.run()
            except Exception as exc:  # application code: whatever it raises becomes the answer of its call
                job.forget()
                endpoint.fail(job, exc)
            else:
                job.forget()
                endpoint.finish(job, value)
        if self.session.kept.resolved:
            self.take(self.session.run_resolved(self._pair.now))

    def _origin(self) -> Origin | None:
        within = CURRENT.get()
        return None if within is None else origin_of(within, self, self._pair.now)


class Pending:
    """A call of an in-memory pair that is under way."""

    __slots__ = ("_end", "_member", "_read", "question")

    def __init__(self, end: End, question: Question, member: Member) -> None:
        self._end = end
        self.question = question
        self._member = member
        self._read: tuple[Any, Exception | None] | None = None

    def result(self) -> Any:
        """Move bytes until the answer is here, and return it."""
        self._end._pair.run_until(self.question)
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


class Pair:
    """Two ends, open to each other, and the clock of both: ``now`` moves only when a test moves it.

    Args:
        server: Directories of the accepting side.
        client: Directories of the dialing side.
        roots: What the server serves.
        audit: A directory under which both audit logs go; by default each where its ``caprpc.toml`` says.
        interfaces: What factories among the roots return; the classes of other roots tell it themselves.
        clock: The clock of both ends, if a test has one already.
    """

    def __init__(
        self,
        server: Side,
        client: Side,
        roots: Mapping[str, object],
        *,
        audit: Path | None = None,
        interfaces: Iterable[type] = (),
        clock: FakeClock | None = None,
    ) -> None:
        self.clock = clock if clock is not None else FakeClock()
        checked = check_roots(roots)
        contracts = contracts_of_roots(checked) | interface_closure(interfaces)
        self._admissions: list[Admission] = []
        try:
            for side, name, served in ((server, "server", checked), (client, "client", {})):
                self._admissions.append(
                    Admission.load(
                        side.identity,
                        side.policies,
                        audit=audit / name if audit is not None else None,
                        name=name,
                        roots=served,
                        contracts=contracts if served else {},
                        server_limits=DEFAULT_SERVER_LIMITS,
                    )
                )
        except BaseException:
            self._close_logs()
            raise
        self.reconnect()

    server: End
    client: End

    @property
    def now(self) -> float:
        """What the clock says."""
        return self.clock.now

    @now.setter
    def now(self, now: float) -> None:
        """Set the clock."""
        self.clock.now = now

    def reconnect(self) -> None:
        """Make a fresh connection between the two sides."""
        self.server = End(self, self._admissions[0], acceptor=True, address="memory:client")
        self.client = End(self, self._admissions[1], acceptor=False, address="memory:server")
        self.run()

    def run(self) -> None:
        """Move bytes both ways and run calls until nothing is left to do."""
        while self.step():
            pass

    def run_until(self, question: Question) -> None:
        """Move bytes and run calls until a question has ended.

        Raises:
            Stalled: Nothing is under way that could end it.
        """
        while question.outcome is None:
            if not self.step():
                raise Stalled(f"nothing can bring the answer to question {question.question_id}")

    def step(self) -> bool:
        """Do one thing: move what one end has ready, or run one call; False if there is nothing to do."""
        for sender, receiver in ((self.client, self.server), (self.server, self.client)):
            moved = False
            for data in sender.link.data_to_send():
                if data and receiver.ended is None:
                    moved = True
                    receiver.receive(data)
            if moved:
                return True
        for end in (self.client, self.server):
            if end.jobs and not end.holds:
                end.run_job(end.jobs.popleft())
                return True
        return False

    def advance(self, seconds: float) -> None:
        """Let time pass for both ends, and do what is due."""
        self.clock.advance(seconds)
        for end in (self.client, self.server):
            end.take(end.link.tick(self.now))
        self.run()

    @property
    def empty(self) -> bool:
        """Whether the tables of both ends hold nothing: no export, import, question or answer."""
        sessions = [self.client.session, self.server.session]
        return not any(len(s.exports) or len(s.imports) or s.asked.open or s.answers for s in sessions)

    def close(self) -> None:
        """End the connection and both audit logs."""
        for end in (self.client, self.server):
            if end.link.admitted is None or end.session.state is not State.CLOSED:
                end.take(end.link.abort("closed", "the pair was closed"))
        self._close_logs()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_logs(self) -> None:
        for admission in self._admissions:
            admission.close()
