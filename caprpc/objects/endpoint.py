"""The capability layer of one connection above its session: calls in, calls out, the same gate for both sides.

Sans I/O like the session. The driver calls it under the lock of the connection.
"""

from typing import Any, Final

from caprpc.errors import AuditError, CallRefused, LimitExceeded, RemoteProtocolError, declared_text
from caprpc.ids import OP_ROOT, new_reference
from caprpc.interface import ArgumentError, Member, NoReferences
from caprpc.objects.batches import BatchJob, prepare_batch
from caprpc.objects.context import CallContext
from caprpc.objects.dispatch import Job, ended, refusal_of
from caprpc.objects.records import Recorder
from caprpc.objects.roots import RootMember, RootNames
from caprpc.objects.stubs import Flavor
from caprpc.objects.transfer import Reader, ResultWriter, StubMaker
from caprpc.policy import Refused
from caprpc.session import ENVELOPE_BYTES, Answer, BatchAnswer, Refusal, Scope, Session
from caprpc.wire import codec

_VALUES_ONLY: Final = NoReferences()

_SIZED: Final = frozenset({str, bytes})
"""Scalars that may be too large for a frame."""

NO_ARGUMENTS: Final[list[Any]] = [[], {}]


class Endpoint:
    """Turns permitted answers into jobs and their ends into replies; owns that each answer is replied to once.

    The decision is in the audit log before ``prepare`` has its job run: the driver calls ``commit`` in between.
    """

    __slots__ = ("_connection", "_root_names", "recorder", "session", "stubs")

    def __init__(
        self, session: Session, recorder: Recorder, stubs: StubMaker, root_names: RootNames, connection: object
    ) -> None:
        self.session = session
        self.recorder = recorder
        self.stubs = stubs
        self._root_names = root_names
        self._connection = connection

    def refused(self, refusal: Refusal) -> None:
        """Record what the session has refused."""
        self.recorder.denied(refusal.message.question, refusal.refused, refusal.reference)

    def prepare(self, answer: Answer) -> Job | None:
        """Check the arguments of a permitted call and record the decision; None if it is refused after all.

        Raises:
            RemoteProtocolError: The payload breaks the encoding.
        """
        permit = answer.permit
        if permit.operation == OP_ROOT:
            return self._prepare_root(answer)
        member: Member = answer.export.shape.members[permit.operation, permit.member]
        session = self.session
        function, is_async = member.bind(answer.obj)
        reader: Reader | NoReferences = _VALUES_ONLY
        if member.takes_references:
            answer.scope = Scope()
            reader = Reader(session, self.stubs, Flavor.ASYNC if is_async else Flavor.BLOCKING, answer.scope)
        try:
            args, kwargs = member.signature.decode_args(codec.unpack(answer.payload, session.limits), reader)
            if permit.arguments:
                permit.check_arguments(member.signature.named(args, kwargs))
        except (ArgumentError, Refused, LimitExceeded) as exc:
            if isinstance(reader, Reader):
                session.imports.give_back(reader.received)
            self._refuse(answer, exc)
            return None
        answer.taken = True
        self.recorder.permitted(answer, permit, member, args, kwargs)
        context = CallContext(session.peer, answer, self._connection, self.recorder)
        return Job(answer, permit, member, function, args, kwargs, context, is_async)

    def commit(self, jobs: list[Job | BatchJob]) -> list[Job | BatchJob]:
        """Write the decisions; return the jobs that may run: none of them if the audit log does not take it."""
        try:
            self.recorder.commit()
        except AuditError as exc:
            for job in jobs:
                self.fail(job, exc)
            return []
        return jobs

    def finish(self, job: Job | BatchJob, value: object) -> None:
        """Reply with a result."""
        if isinstance(job, BatchJob):
            self.finish_batch(job)
            return
        answer, session = job.answer, self.session
        signature = job.member.signature
        if type(value) is signature.scalar_result and (type(value) not in _SIZED or len(value) < session.largest):  # type: ignore[arg-type]
            self._end(job, "ok", "")
            session.return_(answer, codec.pack_scalars(value, session.limits))
            return
        writer = ResultWriter(session, session.guard, job.permit, answer.export)
        try:
            payload = codec.pack(signature.encode_result(value, writer), session.limits)
            self._check_size(payload)
        except (TypeError, ValueError, CallRefused, LimitExceeded) as exc:
            session.exports.take_back(writer.handed_over)
            self._raise(job, "invalid-result", exc)
            return
        self._end(job, "ok", "")
        session.return_(answer, payload)

    def fail(self, job: Job | BatchJob, exc: BaseException) -> None:
        """Reply with an error: declared errors cross with their text, everything else is ``internal``."""
        if isinstance(job, BatchJob):
            job.fail_rest("internal")
            self.finish_batch(job)
            return
        name = type(exc).__name__
        for declared in job.member.errors:
            if type(exc) is declared:
                self._end(job, "declared", name)
                reference = new_reference()
                self.session.raise_(job.answer, "declared", reference=reference, type_=name, text=declared_text(exc))
                return
        self._raise(job, "internal", exc)

    def finish_cancelled(self, job: Job | BatchJob) -> None:
        """Reply that a call was cancelled before it ran."""
        if isinstance(job, BatchJob):
            job.fail_rest("cancelled")
            self.finish_batch(job)
            return
        self._end(job, "cancelled", "")
        self.session.raise_(job.answer, "cancelled", reference=new_reference())

    def prepare_batch(self, answer: BatchAnswer) -> BatchJob:
        """Check every call of a batch and record each decision.

        Raises:
            RemoteProtocolError: A payload breaks the encoding.
        """
        context = CallContext(self.session.peer, answer, self._connection, self.recorder)
        return prepare_batch(answer, self.session, self.recorder, context)

    def finish_batch(self, job: BatchJob) -> None:
        """Reply to a batch."""
        failures, payload = job.outcome(self.session.limits)
        self.session.return_batch(job.answer, failures, payload)

    def _prepare_root(self, answer: Answer) -> Job | None:
        raw = codec.unpack(answer.payload, self.session.limits)
        if raw != NO_ARGUMENTS:
            raise RemoteProtocolError("a root takes no arguments")
        answer.taken = True
        permit = answer.permit
        self.recorder.permitted(answer, permit, None, [], {})
        context = CallContext(self.session.peer, answer, self._connection, self.recorder)
        made = self._root_names.is_made(permit.member)
        member = RootMember(self.session.guard.facet(permit.facet), made=made)
        return Job(answer, permit, member, self._root_names.get, [permit.member], {}, context, False)  # type: ignore[arg-type]

    def _refuse(self, answer: Answer, exc: Exception) -> None:
        reference = new_reference()
        permit = answer.permit
        if isinstance(exc, ArgumentError):
            code, refused, text = "invalid-arguments", refusal_of(permit, "argument", permit.rule), str(exc)
        elif isinstance(exc, Refused):
            code, refused, text = exc.code, exc, ""
        else:
            code, refused, text = "limit", refusal_of(permit, "imports", "limits.imports"), ""
        self.recorder.denied(answer.answer_id, refused, reference)
        ended(permit)
        self.session.raise_(answer, code, reference=reference, text=text)

    def _raise(self, job: Job, code: str, exc: BaseException) -> None:
        reference = new_reference()
        self.recorder.failed(job.answer, job.permit, reference, exc)
        self._end(job, code, type(exc).__name__)
        self.session.raise_(job.answer, code, reference=reference)

    def _end(self, job: Job, outcome: str, error: str) -> None:
        if job.permit.limiter is not None:
            job.permit.limiter.give_back()
        if self.recorder.wants_outcomes:
            self.recorder.outcome(job.answer, job.permit, outcome, error)

    def _check_size(self, payload: bytes) -> None:
        most = self.session.opening.peer_limits.max_frame_bytes - ENVELOPE_BYTES
        if len(payload) > most:
            raise LimitExceeded(f"a result of {len(payload)} bytes, the peer takes {most} (its limits.max_frame_bytes)")
