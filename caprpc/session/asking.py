"""Whether a call of ours may be made now, and what travels beside it: its cause, and how long its answer is of use."""

from math import ceil
from typing import TYPE_CHECKING

from caprpc.errors import ConnectionLost, DeadlineExceeded, LimitExceeded, printable
from caprpc.session.calls import Origin
from caprpc.session.opening import FEATURE_DEADLINE
from caprpc.session.references import FOREVER
from caprpc.session.states import State
from caprpc.wire.messages import MAX_ID, Meta

if TYPE_CHECKING:
    from caprpc.session.session import Session


def permission_to_ask(session: "Session", origin: Origin | None, size: int) -> tuple[Meta | None, int]:
    """Return what travels beside a call with ``size`` bytes of arguments, and how deep it is nested.

    Raises:
        ConnectionLost: The session is over, or one side is draining.
        LimitExceeded: The arguments are more than the peer takes, or the call is nested too deep.
        DeadlineExceeded: The time for it is over.
    """
    answer = None if origin is None else origin.answer
    nested = answer is not None and answer.answer_id in session.answers
    if session.state is not State.OPEN and not (nested and session.state in (State.DRAINING, State.PEER_DRAINING)):
        raise ConnectionLost(f"no new calls: the session is {session.state.value}", code="drain", may_have_run=False)
    if size > session.largest_payload:
        raise LimitExceeded(
            f"arguments of {size} bytes, the peer takes {session.largest_payload} (its limits.max_frame_bytes)"
        )
    if origin is None:
        return None, 0
    deadline_ms = None
    if origin.due != FOREVER:
        check_time(session, origin)
        if FEATURE_DEADLINE in session.opening.features:
            # Rounded up: the asker gives up first, and a call of half a millisecond is not refused unseen.
            deadline_ms = min(ceil(min(origin.due - origin.now, MAX_ID) * 1000), MAX_ID)
    depth = 0 if answer is None else answer.depth + 1
    if depth > session.limits.callback_depth:
        raise LimitExceeded(f"calls nested deeper than {session.limits.callback_depth} (limits.callback_depth)")
    cause = answer.answer_id if answer is not None and nested else None
    return (None if cause is None and deadline_ms is None else Meta(cause, deadline_ms)), depth


def check_time(session: "Session", origin: Origin) -> None:
    """Do nothing while there is time for a call.

    Raises:
        DeadlineExceeded: There is none left.
    """
    if origin.due <= origin.now:
        raise DeadlineExceeded(
            "the time for this call was over before it was made (caprpc.deadline); nothing was sent",
            code="deadline",
            peer=printable(session.peer.principal),
        )
