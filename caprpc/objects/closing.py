"""Closing what a peer has let go of: it runs code of the application, so no lock is held, and nobody waits for it."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from caprpc.errors import ConnectionLost
from caprpc.ids import OP_ENTER, OP_EXIT
from caprpc.interface import AsyncContextServer, ContextServer, Member, ServedContext
from caprpc.objects.forwarding import Forwarder
from caprpc.objects.tracing import log_failure
from caprpc.session import Closer, Export

_CONTEXT: Final = frozenset({OP_ENTER, OP_EXIT})

_LOG: Final = logging.getLogger("caprpc")


def bind(member: Member, export: Export, obj: Any) -> tuple[Callable[..., Any], bool]:
    """Return what runs a member of an exported object, and whether it is a coroutine function.

    ``obj`` is the object as it was when the call came: the export may have died since.

    An interface that declares ``__enter__`` and ``__exit__`` may be entered again once it was left, and not before;
    what the peer has entered is left when it has let go of the export.

    Raises:
        TypeError: The object's class does not implement the interface, or not this member.
    """
    if isinstance(obj, Forwarder):
        return obj.bind(member, export)
    bound = member.bind(obj)
    if member.operation not in _CONTEXT or isinstance(obj, ServedContext):
        return bound
    if export.closer is None:
        leave = export.shape.members[OP_EXIT, ""]
        kind = AsyncContextServer if leave.is_async(obj) else ContextServer
        export.closer = kind(obj, again=True, errors=leave.errors)
    keeper: Any = export.closer
    return keeper.enter if member.operation == OP_ENTER else keeper.exit, isinstance(keeper, AsyncContextServer)


def close_now(closers: list[Closer]) -> list[Awaitable[object]]:
    """Close iterators and leave contexts on this thread; return what remains to be awaited.

    What they raise is logged: it concerns nobody but the operator.
    """
    rest: list[Awaitable[object]] = []
    for closer in closers:
        try:
            waits = closer.abandon(ConnectionLost("the peer has let go of this, or its connection has ended"))
        except Exception as exc:  # application code: one failure must not keep the others open
            log_failure(_LOG, exc, "an iterator or a context that a peer has let go of failed to close")
        else:
            if waits is not None:
                rest.append(waits)
    return rest


async def close_rest(rest: list[Awaitable[object]]) -> None:
    """Await what ``close_now`` returned."""
    for waits in rest:
        try:
            await waits
        except Exception as exc:  # application code: one failure must not keep the others open
            log_failure(_LOG, exc, "an iterator or a context that a peer has let go of failed to close")
