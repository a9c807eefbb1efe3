"""Which message may arrive in which state: one table in front of all handlers.

A pair that is missing here is a protocol error. The table does not know who dialed; only the first state does.

Wire protocol, section 4.
"""

from enum import Enum
from typing import Final

from caprpc.wire import messages as m


class State(Enum):
    """Where a session stands, from our point of view."""

    AWAIT_WELCOME = "await-welcome"
    AWAIT_HELLO = "await-hello"
    OPEN = "open"
    DRAINING = "draining"
    """We have announced that we end; calls that the peer sent before it knew are answered ``unavailable``."""
    PEER_DRAINING = "peer-draining"
    """The peer has announced that it ends; we ask nothing new and finish what runs."""
    CLOSED = "closed"


_ESTABLISHED: Final[dict[type[m.Message], str]] = {
    m.Facet: "on_facet",
    m.Call: "on_call",
    m.Return: "on_return",
    m.Raise: "on_raise",
    m.Cancel: "on_cancel",
    m.Release: "on_release",
    m.Finish: "on_finish",
    m.Revoked: "on_revoked",
    m.Ping: "on_ping",
    m.Pong: "on_pong",
    m.GoAway: "on_goaway",
    m.Batch: "on_batch",
    m.BatchReturn: "on_batch_return",
}

TRANSITIONS: Final[dict[State, dict[type[m.Message], str]]] = {
    State.AWAIT_WELCOME: {m.Welcome: "on_welcome", m.GoAway: "on_goaway"},
    State.AWAIT_HELLO: {m.Hello: "on_hello", m.GoAway: "on_goaway"},
    State.OPEN: _ESTABLISHED,
    State.DRAINING: _ESTABLISHED,
    State.PEER_DRAINING: _ESTABLISHED,
    State.CLOSED: {},
}
"""State -> message -> name of the handler in ``Session``."""
