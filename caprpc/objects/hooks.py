"""Hooks of connections: told once that a peer has come, and once that it has gone."""

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from caprpc.errors import ConfigurationError, ConnectionLost
from caprpc.objects.tracing import log_failure
from caprpc.peer import PeerIdentity
from caprpc.session import Ended

_LOG: Final = logging.getLogger("caprpc")

OnConnect = Callable[[PeerIdentity], Awaitable[None] | None]
"""Takes who has come: the same object that factories of roots and ``caprpc.current().peer`` give on this connection."""

OnDisconnect = Callable[[PeerIdentity, ConnectionLost], Awaitable[None] | None]
"""Takes who has gone, and why: ``code`` is one of ``CLOSE_CODES`` or ``lost``."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What an application wants to be told of its connections; either may be ``def`` or ``async def``."""

    on_connect: OnConnect | None
    on_disconnect: OnDisconnect | None

    @classmethod
    def given(cls, on_connect: OnConnect | None, on_disconnect: OnDisconnect | None) -> "Hooks | None":
        """Return the hooks, None if there is neither.

        Raises:
            ConfigurationError: One cannot be called.
        """
        hooks: dict[str, object] = {"on_connect": on_connect, "on_disconnect": on_disconnect}
        for name, hook in hooks.items():
            if hook is not None and not callable(hook):
                given = type(hook).__name__
                raise ConfigurationError(f"{name} is a {given}; a function that takes the peer expected", where=name)
        return None if on_connect is None and on_disconnect is None else cls(on_connect, on_disconnect)


class _Stage(Enum):
    COMING = "coming"
    HERE = "here"
    GONE = "gone"


class Visit:
    """The hooks of one connection that was opened.

    Invariant: ``on_connect`` is called at most once, and ``on_disconnect`` exactly once if it returned, after it has.
    A hook that raised counts as a peer that was not let in, as an ``__enter__`` that raised is not left. The driver
    holds the connection's lock around ``opened``, ``let_in``, ``turned_away`` and ``ended``; hooks run without it.
    """

    __slots__ = ("_ended", "_hooks", "_stage", "peer")

    def __init__(self, hooks: Hooks, peer: PeerIdentity) -> None:
        self._hooks = hooks
        self.peer = peer
        self._stage = _Stage.COMING if hooks.on_connect is not None else _Stage.HERE
        self._ended: Ended | None = None

    @property
    def is_coming(self) -> bool:
        """Whether ``on_connect`` is to be called, or runs: the calls of the peer wait until it has returned."""
        return self._stage is _Stage.COMING

    def let_in(self) -> bool:
        """``on_connect`` has returned; whether the connection has ended meanwhile, so that the other hook is due."""
        self._stage = _Stage.HERE
        return self._ended is not None and self._leave()

    def turned_away(self, exc: BaseException) -> str:
        """``on_connect`` has raised; return the reason for the operator: the peer learns a reference number only."""
        self._stage = _Stage.GONE
        log_failure(_LOG, exc, "on_connect failed for %s; its connection is ended", self.peer.principal)
        return f"on_connect raised {type(exc).__name__}"

    def ended(self, event: Ended) -> bool:
        """The connection has ended; whether ``on_disconnect`` is due now."""
        self._ended = event
        return self._stage is _Stage.HERE and self._leave()

    def connect(self) -> Awaitable[None] | None:
        """Call ``on_connect``; what it returns is to be awaited."""
        hook = self._hooks.on_connect
        return hook(self.peer) if hook is not None else None

    def disconnect(self) -> Awaitable[None] | None:
        """Call ``on_disconnect``; what it returns is to be awaited."""
        hook, event = self._hooks.on_disconnect, self._ended
        if hook is None or event is None:
            return None
        return hook(self.peer, ConnectionLost(event.detail, code=event.code, reference=event.reference))

    def failed_to_leave(self, exc: BaseException) -> None:
        """Log what ``on_disconnect`` raised: it concerns nobody but the operator."""
        log_failure(_LOG, exc, "on_disconnect failed for %s", self.peer.principal)

    @property
    def connects_on_loop(self) -> bool:
        """Whether ``on_connect`` is an ``async def``."""
        return is_coroutine_function(self._hooks.on_connect)

    @property
    def disconnects_on_loop(self) -> bool:
        """Whether ``on_disconnect`` is an ``async def``."""
        return is_coroutine_function(self._hooks.on_disconnect)

    def _leave(self) -> bool:
        self._stage = _Stage.GONE
        return self._hooks.on_disconnect is not None


def is_coroutine_function(hook: Any) -> bool:
    """Whether calling it runs no code yet: an ``async def``, also as a bound method, partial or callable object."""
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(getattr(hook, "__call__", None))  # noqa: B004
