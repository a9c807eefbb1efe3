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
    BROKEN = "broken"
    """The peer broke the protocol in something that we read late, such as a result; ``tick`` ends the session."""
    CLOSED = "closed"


_ESTABLISHED: Final[frozenset[type[m.Message]]] = frozenset(
    {
        m.Facet,
        m.Call,
        m.Return,
        m.Raise,
        m.Cancel,
        m.Release,
        m.Finish,
        m.Revoked,
        m.Ping,
        m.Pong,
        m.GoAway,
        m.Batch,
        m.BatchReturn,
        m.Checkpoint,
        m.Cosigned,
    }
)

TRANSITIONS: Final[dict[State, frozenset[type[m.Message]]]] = {
    State.AWAIT_WELCOME: frozenset({m.Welcome, m.GoAway}),
    State.AWAIT_HELLO: frozenset({m.Hello, m.GoAway}),
    State.OPEN: _ESTABLISHED,
    State.DRAINING: _ESTABLISHED,
    State.PEER_DRAINING: _ESTABLISHED,
    State.BROKEN: frozenset(),
    State.CLOSED: frozenset(),
}
"""State -> messages that may come in it."""
