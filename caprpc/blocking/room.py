"""Waiting for the peer to have room for one more call."""

import time
from collections.abc import Callable
from typing import Final

from caprpc.errors import LimitExceeded
from caprpc.session import Origin, Question, Session, State, check_time

_POLL_S: Final = 0.002
"""A caller that finds the peer's ``in_flight`` used up looks again after this, reading answers meanwhile."""


def await_room(session: Session, origin: Origin | None, wait_for: Callable[[Question, float], None]) -> None:
    """Wait until the peer's announced ``in_flight`` leaves room for one more call, or the session is over.

    Raises:
        LimitExceeded: The peer has answered none for as long as a call may take.
        DeadlineExceeded: The time that ``origin`` gives the call is over.
    """
    deadline = time.monotonic() + session.limits.call_timeout_s
    while not session.may_ask(origin):
        if origin is not None:
            origin.now = time.monotonic()
            check_time(session, origin)
        if session.state is State.CLOSED:
            return
        if time.monotonic() >= deadline:
            raise LimitExceeded(
                f"the peer takes {session.opening.peer_limits.max_in_flight} calls at a time and has answered none "
                f"for {session.limits.call_timeout_s:g} s (its limits.in_flight)"
            )
        oldest = next(iter(list(session.asked.open.values())), None)
        if oldest is not None:
            wait_for(oldest, min(deadline, time.monotonic() + _POLL_S))
