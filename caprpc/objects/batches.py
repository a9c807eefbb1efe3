"""Batches: many calls in one frame; each is guarded, checked and recorded on its own. They carry values only."""

from collections.abc import Callable
from inspect import iscoroutine
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from caprpc.errors import AuditError, LimitExceeded, RemoteProtocolError, cut_text, declared_text
from caprpc.ids import IMPLICIT_OPERATIONS, OP_ENTER, OP_EXIT, OP_NEXT, OP_RESTORE, OP_ROOT, new_reference
from caprpc.interface import ArgumentError, Member, NoReferences
from caprpc.limits import Limits
from caprpc.objects.allowance import Exceeded, check_result, is_bounded
from caprpc.objects.budget import REASON, Budget, Spent
from caprpc.objects.context import CURRENT
from caprpc.objects.dispatch import NotStarted, ended
from caprpc.objects.forwarding import Forwarder
from caprpc.objects.holding import weigh_run
from caprpc.objects.records import route_of
from caprpc.policy import Permit, Refused
from caprpc.session import BatchAnswer, Export, refusal_of
from caprpc.wire import codec
from caprpc.wire.messages import Failure, Run
from caprpc.wire.pieces import Pieces

if TYPE_CHECKING:
    from caprpc.objects.endpoint import Endpoint

_VALUES_ONLY: Final = NoReferences()

_ONE_BY_ONE: Final = frozenset({OP_ROOT, OP_NEXT, OP_ENTER, OP_EXIT, OP_RESTORE}) | IMPLICIT_OPERATIONS
"""Operations that no batch may hold: what they do depends on what those before did, or they return references."""

_FAILURE_BYTES: Final = 80
"""Most bytes of a failure in a batch's answer; the few with a text of their own have room in the envelope."""

Planned = tuple[int, Permit, Member, Callable[..., Any], list[Any], dict[str, Any], Export]
"""Position in the batch, permit, member, bound method, arguments, what it is on."""


class BatchJob:
    """The permitted calls of one batch, run in order; a failed call does not stop the others."""

    __slots__ = (
        "_budget",
        "answer",
        "asked",
        "endpoint",
        "failures",
        "is_async",
        "members",
        "planned",
        "results",
        "route",
        "running",
        "todo",
        "unrecorded",
        "waits",
    )

    def __init__(self, answer: BatchAnswer, endpoint: "Endpoint") -> None:
        self.answer = answer
        self.asked = False
        """Whether some method in it has made a call that its thread waits for."""
        self.endpoint = endpoint
        self.failures: list[Failure] = []
        self.results: list[Any] = []
        self.todo: list[Planned] = []
        self.is_async = False
        """Some method in it is a coroutine function: it is run with ``run_async``."""
        self.members: set[Member] = set()
        """What it runs."""
        self.unrecorded: AuditError | None = None
        """Why the audit log did not take an outcome: no result may leave."""
        self.running: Planned | None = None
        """The call whose method runs, or ran last."""
        self._budget: tuple[Planned, Budget] | None = None
        self.planned = 0
        """How many of its calls, from the first, are in ``todo`` or have been answered."""
        self.route = ""
        """For whom the run is that is being planned, for the audit log."""
        self.waits = False
        """Some method in it is known to block."""

    def run(self) -> None:
        """Run every call that was permitted."""
        token = CURRENT.set(self)
        results, answer = self.results, self.answer
        outcomes = self.endpoint.recorder.wants_outcomes
        todo = iter(self.todo)
        try:
            for self.running in todo:
                position, permit, member, function, args, kwargs, export = self.running
                if answer.cancelled or export.was_revoked:
                    self._overtaken(position, permit)
                    continue
                try:
                    value = function(*args, **kwargs)
                except Exception as exc:  # application code: everything it raises becomes the answer of its call
                    self._raised(position, permit, member, exc)
                except BaseException:  # the thread is asked to end; the driver answers what has not run
                    self._failed(position, permit, "internal")
                    raise
                else:
                    plain = type(value) is member.signature.scalar_result and permit.max_bytes is None
                    if plain and permit.limiter is None and not outcomes:
                        # What most calls return; ``_returned`` would come to the same by a longer way.
                        results[position] = value
                    else:
                        self._returned(position, permit, member, value)
        finally:
            self.todo = list(todo)
            CURRENT.reset(token)

    async def run_async(self) -> None:
        """Run every call that was permitted in this task, and await those that are coroutines, one after the other."""
        token = CURRENT.set(self)
        todo = iter(self.todo)
        try:
            for self.running in todo:
                position, permit, member, function, args, kwargs, export = self.running
                if self.answer.cancelled or export.was_revoked:
                    self._overtaken(position, permit)
                    continue
                try:
                    value = function(*args, **kwargs)
                    if iscoroutine(value):
                        value = await value
                except Exception as exc:  # application code: everything it raises becomes the answer of its call
                    self._raised(position, permit, member, exc)
                except BaseException:  # the task is cancelled; the driver answers what has not run
                    self._failed(position, permit, "cancelled" if self.answer.cancelled else "internal")
                    raise
                else:
                    self._returned(position, permit, member, value)
        finally:
            self.todo = list(todo)
            CURRENT.reset(token)

    def budget(self) -> Budget | None:
        """Return how many calls the method that runs may still make: each call of the batch has its own."""
        running = self.running
        if running is None:
            return None
        if self._budget is None or self._budget[0] is not running:
            self._budget = running, Budget(self, running[1])
        return self._budget[1]

    def forget(self) -> None:
        """Do nothing: arguments of a batch are values, and those of calls that did not run are still to be answered."""

    def drop(self) -> None:
        """Take note that what has not run never will, and that nobody is left to be told."""
        for _, permit, *_ in self.todo:
            ended(permit)
        self.todo = []
        self.endpoint.session.answers.arguments.let_go(self.answer.answer_id)

    def fail_all(self, exc: BaseException) -> None:
        """Answer every call that did not run: as the exception says if it is a refusal, else with ``internal``."""
        if not isinstance(exc, NotStarted):
            self.fail_rest("internal")
            return
        text = exc.text
        for position, permit, *_ in self.todo:
            self._refused(position, permit, exc.code, refusal_of(permit, exc.reason, exc.rule or permit.rule), text)
            # Once is enough: there may be more calls than texts have room.
            text = ""
        self.todo = []
        self._commit()

    def fail_rest(self, code: str) -> None:
        """Answer every call that did not run with an error."""
        for position, permit, *_ in self.todo:
            self._failed(position, permit, code)
        self.todo = []

    def outcome(self, limits: Limits, most: int) -> tuple[list[Failure], bytes]:
        """Return the failures and the packed results.

        If those cannot be packed, or are more than the ``most`` bytes that the peer takes, every call has failed.
        """
        if self.unrecorded is not None:
            self.failures = []
            return self._withhold("internal", self.unrecorded, limits)
        try:
            payload = codec.pack(self.results, limits)
        except (TypeError, ValueError) as exc:
            return self._withhold("invalid-result", exc, limits)
        size = len(payload) + len(self.failures) * _FAILURE_BYTES
        if size <= most:
            return self.failures, payload
        text = f"the results of {len(self.results)} calls take {size} bytes, the peer takes {most} (max_frame_bytes)"
        return self._withhold("limit", LimitExceeded(text), limits)

    def _withhold(self, code: str, exc: Exception, limits: Limits) -> tuple[list[Failure], bytes]:
        """Fail every call that has not failed already, under one number, by which the operator finds the reason."""
        count, reference = len(self.results), new_reference()
        known = {failure.position for failure in self.failures}
        for position in range(count):
            if position not in known:
                self.failures.append(Failure(position, True, code, "", "", reference))
        self.endpoint.recorder.failures.add("replying to a batch", exc, reference)
        return self.failures, codec.pack([None] * count, limits)

    def refuse(self, position: int, code: str, reference: str, text: str = "") -> None:
        """Answer a call that may not run."""
        self.failures.append(Failure(position, False, code, "", self._cut(text), reference))

    def _cut(self, text: str) -> str:
        return cut_text(text, self.endpoint.session.limits.max_error_text_bytes)

    def _overtaken(self, position: int, permit: Permit) -> None:
        """Answer a call that does not run: the batch was cancelled, or its reference revoked since it was permitted."""
        if self.answer.cancelled:
            self._failed(position, permit, "cancelled")
            return
        self._refused(position, permit, "revoked", refusal_of(permit, "revoked", permit.rule))
        self._commit()

    def _refused(self, position: int, permit: Permit, code: str, refused: Refused, text: str = "") -> None:
        """Answer a call that was permitted and does not run, and have ``_commit`` record that."""
        reference = self._failed(position, permit, code, text=text)
        self.endpoint.recorder.denied(self.answer.answer_id, refused, reference)

    def _commit(self) -> None:
        try:
            self.endpoint.recorder.commit()
        except AuditError as exc:
            self.unrecorded = exc

    def _raised(self, position: int, permit: Permit, member: Member, exc: Exception) -> None:
        name = type(exc).__name__
        if type(exc) in member.errors:
            self._ended(permit, "declared", name)
            text = self._cut(declared_text(exc))
            self.failures.append(Failure(position, True, "declared", name, text, new_reference()))
            return
        if isinstance(exc, Spent):
            self._failed(position, permit, "limit", REASON, exc.reference)
            return
        reference = self._failed(position, permit, "internal", name)
        self.endpoint.recorder.failed(self.answer, permit, reference, exc)

    def _returned(self, position: int, permit: Permit, member: Member, value: object) -> None:
        try:
            raw = member.signature.encode_result(value, _VALUES_ONLY)
            if is_bounded(permit):
                check_result(permit, raw, len(codec.pack(raw, self.endpoint.session.opening.sends)))
            self.results[position] = raw
        except Exceeded as exc:
            reference = self._failed(position, permit, "limit", exc.reason)
            self.endpoint.recorder.limited(self.answer, permit, exc.reason, exc.rule, reference)
        except (TypeError, ValueError) as exc:
            reference = self._failed(position, permit, "invalid-result", type(exc).__name__)
            self.endpoint.recorder.failed(self.answer, permit, reference, exc)
        else:
            self._ended(permit, "ok", "")

    def _failed(
        self, position: int, permit: Permit, code: str, error: str = "", reference: str = "", text: str = ""
    ) -> str:
        self._ended(permit, code, error)
        reference = reference or new_reference()
        self.failures.append(Failure(position, True, code, "", self._cut(text), reference))
        return reference

    def _ended(self, permit: Permit, outcome: str, error: str) -> None:
        ended(permit)
        if self.endpoint.recorder.wants_outcomes:
            try:
                self.endpoint.recorder.outcome(self.answer, permit, outcome, error)
            except AuditError as exc:
                self.unrecorded = exc


def prepare_batch(answer: BatchAnswer, endpoint: "Endpoint") -> BatchJob:
    """Check the arguments of every permitted call, and record each decision.

    Raises:
        RemoteProtocolError: A payload breaks the encoding, or does not hold as many calls as it says.
    """
    job = BatchJob(answer, endpoint)
    try:
        _plan_all(job, answer, endpoint)
    except BaseException:
        # Limits are counted for all connections of the principal: what will never run must not stay among them.
        held = [verdict if isinstance(verdict, list) else [None] * run.count for run, _, verdict in answer.runs]
        for permit in list(chain.from_iterable(held))[job.planned :]:
            if permit is not None:
                ended(permit)
        answer.runs = []
        job.drop()
        raise
    answer.runs = []
    return job


def _plan_all(job: BatchJob, answer: BatchAnswer, endpoint: "Endpoint") -> None:
    pieces = Pieces(endpoint.session.limits, [len(run.payload) for run, _, _ in answer.runs])
    for run, export, verdict in answer.runs:
        start = len(job.results)
        job.results.extend([None] * run.count)
        if isinstance(verdict, Refused) or export is None or export.obj is None or run.operation in _ONE_BY_ONE:
            # An export may have died since the batch came, by what stands behind it.
            dead = export is not None and export.obj is None
            refused = (
                verdict
                if isinstance(verdict, Refused)
                else refusal_of(verdict[0], "expired" if dead else "batch", verdict[0].rule if dead else "")
            )
            _refuse_run(job, (run, export), start, verdict if isinstance(verdict, list) else [], refused)
            continue
        member: Member = export.shape.members[run.operation, run.member]
        if isinstance(export.obj, Forwarder):
            function, is_async = export.obj.bind(member, export)
            job.waits = True
        else:
            function, is_async = member.bind(export.obj)
        job.is_async = job.is_async or is_async
        job.route = route_of(export, export.obj)
        _plan_run(job, (run, export, pieces), start, verdict, member, function)


def _refuse_run(
    job: BatchJob, what: tuple[Run, Export | None], start: int, permits: list[Permit], refused: Refused
) -> None:
    """Answer all calls of a run with one refusal; give back what its permits count, and charge the peer for each.

    A run without permits was refused and charged when it came.

    Raises:
        RemoteProtocolError: The budget for useless things is spent.
    """
    run, export = what
    for position in range(start, start + run.count):
        reference = new_reference()
        job.endpoint.recorder.denied(job.answer.answer_id, refused, reference)
        job.refuse(position, refused.code, reference)
    for permit in permits:
        ended(permit)
    job.planned = start + run.count
    for _ in permits:
        job.endpoint.session.glitch(job.endpoint.session.now, export)


def _plan_run(
    job: BatchJob,
    what: tuple[Run, Export, Pieces],
    start: int,
    permits: list[Permit],
    member: Member,
    function: Callable[..., Any],
) -> None:
    recorder, (run, export, pieces) = job.endpoint.recorder, what
    calls = pieces.unpack(run.payload)
    if type(calls) is not list or len(calls) != run.count:
        raise RemoteProtocolError(f"a run of {run.count} calls whose payload does not hold as many")
    decode_args = member.signature.decode_args
    job.waits = job.waits or member.blocking
    job.members.add(member)
    answer = job.answer
    if _plan_alike(job, (start, export), permits, member, function, calls):
        job.planned = start + run.count
        return
    too_heavy = weigh_run(answer, run, permits[0], calls, job.endpoint.session)
    if too_heavy is not None:
        _refuse_run(job, (run, export), start, permits, too_heavy)
        return
    for position, (permit, raw) in enumerate(zip(permits, calls, strict=True), start):
        try:
            args, kwargs = decode_args(raw, _VALUES_ONLY)
            if permit.arguments:
                permit.check_arguments(member.signature.named(args, kwargs))
        except (ArgumentError, Refused) as exc:
            reference = new_reference()
            refused = exc if isinstance(exc, Refused) else refusal_of(permit, "argument", permit.rule)
            recorder.denied(answer.answer_id, refused, reference)
            ended(permit)
            job.planned = position + 1
            job.endpoint.session.glitch(job.endpoint.session.now, export)
            if isinstance(exc, Refused):
                job.refuse(position, exc.code, reference)
            else:
                job.refuse(position, "invalid-arguments", reference, str(exc))
            continue
        if recorder.wants_decisions:
            recorder.permitted(answer, permit, member, args, kwargs, job.route)
        job.todo.append((position, permit, member, function, args, kwargs, export))
        job.planned = position + 1


def _plan_alike(
    job: BatchJob,
    where: tuple[int, Export],
    permits: list[Permit],
    member: Member,
    function: Callable[..., Any],
    calls: list[Any],
) -> bool:
    """Plan a run of calls without arguments under one permit; False if it is not one."""
    permit, count, (start, export) = permits[0], len(calls), where
    recorded = permit.record or (permit.origin is not None and permit.origin.record)
    if member.signature.parameters or permit.arguments or recorded or permits.count(permit) != count:
        return False
    if calls.count([[], {}]) != count:
        return False
    if job.endpoint.recorder.wants_decisions:
        job.endpoint.recorder.permitted_alike(job.answer, permit, count, job.route)
    job.todo.extend((position, permit, member, function, [], {}, export) for position in range(start, start + count))
    return True
