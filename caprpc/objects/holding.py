"""The memory that the arguments of a call take once they are read: a small message can make a large heap."""

from caprpc.policy import Permit, Refused
from caprpc.session import Answer, BatchAnswer, Session, refusal_of
from caprpc.wire.messages import Run
from caprpc.wire.weight import memory_of


def weigh_arguments(answer: Answer, raw: object, session: Session, *, plain: bool) -> None:
    """Count a call that is counted as what its arguments take now.

    Raises:
        Refused: There is no room for so much.
    """
    if answer.answer_id in session.answers.arguments.weights:
        _weigh(answer, answer.permit, session, memory_of(raw, len(answer.payload), plain=plain))


def weigh_run(answer: BatchAnswer, run: Run, permit: Permit, calls: object, session: Session) -> Refused | None:
    """Count the calls of one run of a batch likewise; return the refusal of all of them if there is no room.

    What a batch holds besides stays as it was: runs that nobody has read, and those that were.
    """
    before = session.answers.arguments.weights.get(answer.answer_id)
    if before is None:
        return None
    size = len(run.payload)
    try:
        _weigh(answer, permit, session, before - size + memory_of(calls, size, plain=False))
    except Refused as refused:
        return refused
    return None


def _weigh(answer: Answer | BatchAnswer, permit: Permit, session: Session, size: int) -> None:
    rule = session.answers.arguments.weigh(answer.answer_id, size)
    if rule:
        raise refusal_of(permit, rule.partition(".")[2], rule)
