"""What of a batch may run: each call is guarded, checked and recorded on its own, before the first of them runs."""

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from caprpc.errors import RemoteProtocolError
from caprpc.ids import IMPLICIT_OPERATIONS, OP_ENTER, OP_EXIT, OP_NEXT, OP_RESTORE, OP_ROOT, new_reference
from caprpc.interface import ArgumentError, Member, NoReferences
from caprpc.objects.batches import BatchJob
from caprpc.objects.dispatch import ended
from caprpc.objects.forwarding import Forwarder
from caprpc.objects.holding import weigh_run
from caprpc.objects.records import route_of
from caprpc.policy import Permit, Refused
from caprpc.session import BatchAnswer, Export, refusal_of
from caprpc.wire.messages import Run
from caprpc.wire.pieces import Pieces

if TYPE_CHECKING:
    from caprpc.objects.endpoint import Endpoint

_VALUES_ONLY: Final = NoReferences()

_ONE_BY_ONE: Final = frozenset({OP_ROOT, OP_NEXT, OP_ENTER, OP_EXIT, OP_RESTORE}) | IMPLICIT_OPERATIONS
"""Operations that no batch may hold: what they do depends on what those before did, or they return references."""


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
