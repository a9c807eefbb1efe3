"""The capability layer of one connection above its session: calls in, calls out, the same gate for both sides.

Sans I/O like the session. The driver calls it under the lock of the connection.
"""

from functools import partial
from types import NoneType
from typing import Any, Final, NoReturn

from caprpc.errors import (
    AuditError,
    CallRefused,
    IteratorBusy,
    LimitExceeded,
    ReferenceDead,
    declared_text,
)
from caprpc.ids import IMPLICIT_OPERATIONS, OP_ATTENUATE, OP_NEXT, OP_RESTORE, OP_ROOT, new_reference
from caprpc.interface import Abandoned, ArgumentError, Member, NoReferences, Signature
from caprpc.objects.allowance import Exceeded, check_chunk, check_result, pull_caps
from caprpc.objects.attenuation import implicit_plan
from caprpc.objects.batches import BatchJob
from caprpc.objects.budget import REASON, Spent
from caprpc.objects.chunks import encode_chunk, keep_for_later
from caprpc.objects.closing import bind
from caprpc.objects.dispatch import Job, NotStarted, Overtaken, Plan
from caprpc.objects.forwarding import REFUSALS, Forwarder, NotForwarded, waiting
from caprpc.objects.holding import weigh_arguments
from caprpc.objects.nested import Nested
from caprpc.objects.records import Recorder, route_of
from caprpc.objects.restoring import RESTORE_MEMBER, NotRestored, Restoring
from caprpc.objects.revocation import Chosen
from caprpc.objects.roots import RootListing, RootMember, RootNames
from caprpc.objects.stubs import Flavor
from caprpc.objects.transfer import Reader, ResultWriter, StubMaker
from caprpc.policy import LIGHT_BYTES, REVOKED, Permit, Refused, sources
from caprpc.session import Answer, Event, Overdue, Refusal, Scope, Session, refusal_of
from caprpc.wire import codec
from caprpc.wire.scan import TooManyReferences
from caprpc.wire.values import RemoteReference

_VALUES_ONLY: Final = NoReferences()

NO_ARGUMENTS: Final = codec.pack([[], {}])
NOTHING: Final = codec.pack(None)


class Endpoint:
    """Turns permitted answers into jobs and their ends into replies; owns that each answer is replied to once.

    The decision is in the audit log before ``prepare`` has its job run: the driver calls ``commit`` in between.
    """

    __slots__ = ("_root_names", "connection", "nested", "recorder", "restoring", "session", "stubs")

    def __init__(
        self,
        session: Session,
        recorder: Recorder,
        stubs: StubMaker,
        root_names: RootNames,
        restoring: Restoring,
        connection: object,
    ) -> None:
        self.session = session
        self.recorder = recorder
        self.stubs = stubs
        self.connection = connection
        """The driver's connection, by which a call made inside a method knows what it is made on behalf of."""
        self.nested = Nested()
        self.restoring = restoring
        self._root_names = root_names

    def refused(self, refusal: Refusal) -> None:
        """Record what the session has refused."""
        self.recorder.denied(refusal.question, refusal.refused, refusal.reference)

    def overdue(self, event: Overdue) -> None:
        """Record that the time which the policy or the caller gives a call was over."""
        rule = event.permit.rule if event.reason == "timeout_s" else ""
        self.recorder.limited(event.answer, event.permit, event.reason, rule, event.reference)

    def revoke(self, chosen: Chosen, *, cut: bool) -> list[Event]:
        """End references of ours that the peer holds, and record it; return what happens to running calls."""
        events: list[Event] = []
        ended = self.session.revoke(chosen(self.session.exports), events, cut=cut)
        if ended:
            self.recorder.revoked(ended)
        return events

    def prepare(self, answer: Answer) -> Job | None:
        """Check the arguments of a permitted call and record the decision; None if it is refused after all.

        Raises:
            RemoteProtocolError: The payload breaks the encoding.
        """
        export = answer.export
        plan = export.plans.get(answer.permit)
        if plan is None:
            plan = self._plan(answer)
            if plan is None:
                return None
        if plan.takes_nothing and answer.payload == NO_ARGUMENTS:
            args: list[Any] = []
            kwargs: dict[str, Any] = {}
        else:
            arguments = self._arguments(answer, plan)
            if arguments is None:
                return None
            args, kwargs = arguments
        answer.taken = True
        if self.recorder.wants_decisions:
            route = "" if export.right is None else route_of(export, answer.obj)
            self.recorder.permitted(answer, plan.permit, plan.member, args, kwargs, route)
        return Job(answer, plan, args, kwargs, self)

    def _plan(self, answer: Answer) -> Plan | None:
        """Look up how a permitted member runs; None if the object does not implement what its interface declares."""
        permit, export = answer.permit, answer.export
        if permit.operation == OP_ROOT:
            return self._plan_root(permit)
        if permit.operation == OP_RESTORE:
            return Plan(permit, RESTORE_MEMBER, partial(self.restoring.restore, permit), is_async=False)  # type: ignore[arg-type]
        if permit.operation in IMPLICIT_OPERATIONS:
            return implicit_plan(answer, session=self.session)
        member: Member = export.shape.members[permit.operation, permit.member]
        try:
            function, is_async = bind(member, export, answer.obj)
        except TypeError as exc:
            reference = new_reference()
            self.recorder.failed(answer, permit, reference, exc)
            answer.let_go()
            self.session.raise_(answer, "internal", reference=reference)
            return None
        if isinstance(answer.obj, Forwarder):
            if answer.obj.holder not in sources(export.facet):
                # A reload has taken it away since it was passed on.
                self._refuse(answer, refusal_of(permit, "not-granted", permit.rule))
                return None
            member = waiting(member, export)
        plan = Plan(permit, member, function, is_async=is_async)
        if export.obj is not None:
            export.plans[permit] = plan
        return plan

    def _plan_root(self, permit: Permit) -> Plan:
        names, guard = self._root_names, self.session.guard
        if not permit.member:
            return Plan(permit, RootListing(), guard.granted_roots, is_async=False)  # type: ignore[arg-type]
        root = RootMember(guard.facet(permit.facet), made=names.is_made(permit.member))
        return Plan(permit, root, partial(names.get, permit.member), is_async=False)  # type: ignore[arg-type]

    def _arguments(self, answer: Answer, plan: Plan) -> tuple[list[Any], dict[str, Any]] | None:
        """Decode and check arguments; None if they are refused."""
        session, permit = self.session, plan.permit
        signature = plan.member.signature
        reader: Reader | NoReferences = _VALUES_ONLY
        if plan.member.takes_references:
            answer.scope = Scope()
            flavor = Flavor.ASYNC if plan.is_async else Flavor.BLOCKING
            reader = Reader(session, self.stubs, flavor, answer.scope, right=answer.export.right)
        try:
            raw, plain = codec.unpack_tree(answer.payload, session.limits, session.limits.message_references)
            if session.answers.arguments.weights:
                weigh_arguments(answer, raw, session, plain=plain)
            args, kwargs = signature.decode_args(raw, reader, plain=plain)
            if permit.arguments:
                permit.check_arguments(signature.named(args, kwargs))
            if permit.operation == OP_NEXT:
                args = pull_caps(answer.export, permit, args)
            if permit.operation == OP_ATTENUATE and args[0].chain:
                self.recorder.passed_on(permit, args[0].chain, answer)
        except (ArgumentError, Refused, LimitExceeded) as exc:
            if isinstance(reader, Reader):
                session.imports.give_back(reader.received)
            self._refuse(answer, exc)
            return None
        if len(answer.payload) > LIGHT_BYTES:
            # What was read is counted; its encoding need not be kept, too.
            answer.payload = b""
        return args, kwargs

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
        answer, session, plan = job.answer, self.session, job.plan
        permit, signature = plan.permit, plan.member.signature
        if value is None and signature.scalar_result is NoneType:
            if permit.limiter is not None or self.recorder.wants_outcomes:
                self._end(job, "ok", "")
            session.return_(answer, NOTHING)
            return
        if answer.answer_id not in session.answers:
            # The connection, or the call's time, has ended meanwhile: nobody is told, and nothing may be handed over.
            self._end(job, "cancelled", "")
            session.finish_answer(answer)
            if permit.operation == OP_NEXT:
                keep_for_later(answer.obj, value)
            return
        if not plan.bounded and type(value) in signature.result_trees:
            payload = self._plain_result(value, signature)
            if payload is not None:
                self._end(job, "ok", "")
                session.return_(answer, payload)
                return
        writer = ResultWriter(session, permit, answer.export, self.connection)
        try:
            raw, payload = self._encoded(job, value, writer)
        except (IteratorBusy, Exceeded) as exc:
            session.exports.take_back(writer.handed_over)
            self._keep_back(job, exc)
            return
        except LimitExceeded as exc:
            session.exports.take_back(writer.handed_over)
            self._raise(job, "limit", exc)
            return
        except (TypeError, ValueError, CallRefused, ReferenceDead) as exc:
            session.exports.take_back(writer.handed_over)
            self._raise(job, "invalid-result" if answer.export.right is not REVOKED else "revoked", exc)
            return
        self._end(job, "ok", "")
        handed_over = writer.handed_over
        if handed_over and answer.answer_id not in session.answers:
            session.exports.take_back(handed_over)
        session.return_(answer, payload, handed_over[0] if handed_over and type(raw) is RemoteReference else None)

    def _encoded(self, job: Job, value: object, writer: ResultWriter) -> tuple[Any, Any]:
        """Return the raw result and its payload, within what the peer takes and what the policy lets out."""
        answer, session, plan = job.answer, self.session, job.plan
        permit, signature = plan.permit, plan.member.signature
        if type(value) is signature.scalar_result:
            raw = value
            payload = codec.pack_scalars(value, session.opening.sends)
        elif permit.operation == OP_NEXT and not isinstance(answer.obj, Forwarder):
            raw, payload = encode_chunk(
                lambda chunk: codec.pack_payload(signature.encode_result(chunk, writer), session.opening.sends),
                session,
                answer.obj,
                value,  # type: ignore[arg-type]  # it is what ``ServedIterator.pull`` gives
                writer,
            )
        else:
            raw = signature.encode_result(value, writer)
            payload = codec.pack_payload(raw, session.opening.sends)
            raw = value if permit.operation == OP_NEXT else raw
        if len(payload) > session.largest_payload:
            self._too_large(payload)
        if plan.bounded:
            if permit.operation == OP_NEXT:
                check_chunk(answer.export, raw, len(payload))
            else:
                check_result(permit, raw, len(payload))
        return raw, payload

    def _plain_result(self, value: object, signature: Signature) -> Any:
        """Encode a result of whose type no more is declared; None if it must be looked at, or is too large."""
        session = self.session
        try:
            if type(value) is signature.scalar_result:
                payload = codec.pack_scalars(value, session.opening.sends)
            else:
                payload = codec.pack_plain(value, session.opening.sends)
        except ValueError:
            return None
        return payload if payload is not None and len(payload) <= session.largest_payload else None

    def fail(self, job: Job | BatchJob, exc: BaseException) -> None:
        """Reply with an error: declared errors cross with their text, everything else is ``internal``."""
        if isinstance(job, BatchJob):
            job.fail_all(exc)
            self.finish_batch(job)
            return
        if type(exc) is NotRestored:
            self._not_restored(job, exc)
            return
        exc = Overtaken() if isinstance(exc, Abandoned) else exc
        if isinstance(exc, NotStarted):
            self._end(job, exc.code, "")
            permit = job.plan.permit
            self._refuse_planned(job, refusal_of(permit, exc.reason, exc.rule or permit.rule), exc.code, exc.text)
            return
        if isinstance(exc, Spent):
            self._end(job, "limit", REASON)
            self.session.raise_(job.answer, "limit", reference=exc.reference)
            return
        name = type(exc).__name__
        for declared in job.plan.member.errors:
            if type(exc) is declared:
                reference = new_reference()
                self._end(job, "declared", name, reference)
                self.session.raise_(job.answer, "declared", reference=reference, type_=name, text=declared_text(exc))
                return
        if isinstance(exc, NotForwarded):
            self._raise(job, exc.code, exc)
            if exc.code in REFUSALS:
                self.session.glitch_late(job.answer.export)
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

    def finish_batch(self, job: BatchJob) -> None:
        """Reply to a batch."""
        failures, payload = job.outcome(self.session.opening.sends, self.session.largest_payload)
        self.session.return_batch(job.answer, failures, payload)

    def _refuse(self, answer: Answer, exc: Exception) -> None:
        reference = new_reference()
        permit = answer.permit
        if isinstance(exc, ArgumentError):
            code, refused, text = "invalid-arguments", refusal_of(permit, "argument", permit.rule, str(exc)), str(exc)
        elif isinstance(exc, Refused):
            code, refused, text = exc.code, exc, ""
        else:
            reason = "message_references" if isinstance(exc, TooManyReferences) else "imports"
            code, refused, text = "limit", refusal_of(permit, reason, f"limits.{reason}", str(exc)), ""
        self.recorder.denied(answer.answer_id, refused, reference)
        answer.let_go()
        self.session.raise_(answer, code, reference=reference, text=text)
        self.session.glitch(self.session.now, answer.export)

    def _not_restored(self, job: Job, exc: NotRestored) -> None:
        """Reply to a sturdy reference that gives nothing as to an operation that is not granted: the same bytes."""
        permit, session = job.plan.permit, self.session
        job.answer.taken = False
        job.answer.let_go()
        if not self._refuse_planned(job, refusal_of(permit, exc.reason, permit.rule, exc.detail), "denied"):
            return
        session.glitch_late(job.answer.export)

    def _refuse_planned(self, job: Job, refused: Refused, code: str, text: str = "") -> bool:
        """Refuse a call whose decision was written before; False if this one cannot be: then it is not told."""
        reference = new_reference()
        try:
            self.recorder.denied(job.answer.answer_id, refused, reference)
            self.recorder.commit()
        except AuditError as unrecorded:
            self.recorder.unrecorded("a refusal", unrecorded, reference)
            self.session.raise_(job.answer, "internal", reference=reference)
            return False
        self.session.raise_(job.answer, code, reference=reference, text=text)
        return True

    def _raise(self, job: Job, code: str, exc: BaseException) -> None:
        reference = new_reference()
        self.recorder.failed(job.answer, job.plan.permit, reference, exc)
        self._end(job, code, type(exc).__name__, reference)
        self.session.raise_(job.answer, code, reference=reference)

    def _keep_back(self, job: Job, exc: Exceeded | IteratorBusy) -> None:
        """Reply that a result is more than the policy lets out, or cannot be given back to where it came from."""
        if isinstance(exc, IteratorBusy):
            self.fail(job, exc)
            return
        reference = new_reference()
        self.recorder.limited(job.answer, job.plan.permit, exc.reason, exc.rule, reference)
        self._end(job, "limit", exc.reason, reference)
        self.session.raise_(job.answer, "limit", reference=reference)

    def _end(self, job: Job, outcome: str, error: str, reference: str = "") -> None:
        job.answer.let_go()
        if self.recorder.wants_outcomes:
            try:
                self.recorder.outcome(job.answer, job.plan.permit, outcome, error)
            except AuditError as exc:
                # What cannot be recorded is not told: this takes the place of the reply.
                reference = reference or new_reference()
                self.recorder.unrecorded("how a call has ended", exc, reference)
                self.session.raise_(job.answer, "internal", reference=reference)

    def _too_large(self, payload: bytes) -> NoReturn:
        most = self.session.largest_payload
        raise LimitExceeded(f"a result of {len(payload)} bytes, the peer takes {most} (its limits.max_frame_bytes)")
