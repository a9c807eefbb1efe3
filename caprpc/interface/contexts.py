"""Serving a context manager to a peer: entered once, left once, never handed an exception of the peer."""

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from enum import Enum
from types import TracebackType
from typing import Any

from caprpc.errors import CapRPCError

ExitArguments = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class ContextState(Enum):
    """Where a served context is."""

    FRESH = "fresh"
    INSIDE = "inside"
    LEFT = "left"


class PeerBlockFailed(CapRPCError):
    """The peer's ``with`` block ended with an exception; which one stays with the peer."""


class ContextMisused(RuntimeError):
    """A context was entered twice, or left without having been entered."""


class ServedContext:
    """The order of a context: fresh, inside, left; no way back."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = ContextState.FRESH

    def _enter(self) -> None:
        if self.state is not ContextState.FRESH:
            raise ContextMisused("this context was entered before")
        self.state = ContextState.INSIDE

    def _leave(self) -> None:
        if self.state is not ContextState.INSIDE:
            raise ContextMisused("this context is not entered")
        self.state = ContextState.LEFT


class ContextServer(ServedContext):
    """Serves a local context manager."""

    __slots__ = ("_context",)

    def __init__(self, context: AbstractContextManager[Any]) -> None:
        """Take a context manager that nobody has entered."""
        super().__init__()
        self._context = context

    def enter(self) -> Any:
        """Enter it and return what it gives."""
        self._enter()
        try:
            return self._context.__enter__()
        except BaseException:
            self.state = ContextState.LEFT
            raise

    def exit(self, failed: bool) -> None:
        """Leave it; with ``PeerBlockFailed`` if the peer's block failed."""
        self._leave()
        self._context.__exit__(*exit_arguments(failed))

    def abandon(self, error: BaseException) -> None:
        """Leave it with ``error`` if the peer vanished inside; otherwise do nothing."""
        if self.state is ContextState.INSIDE:
            self.state = ContextState.LEFT
            self._context.__exit__(type(error), error, None)


class AsyncContextServer(ServedContext):
    """Serves a local asynchronous context manager."""

    __slots__ = ("_context",)

    def __init__(self, context: AbstractAsyncContextManager[Any]) -> None:
        """Take a context manager that nobody has entered."""
        super().__init__()
        self._context = context

    async def enter(self) -> Any:
        """Enter it and return what it gives."""
        self._enter()
        try:
            return await self._context.__aenter__()
        except BaseException:
            self.state = ContextState.LEFT
            raise

    async def exit(self, failed: bool) -> None:
        """Leave it; with ``PeerBlockFailed`` if the peer's block failed."""
        self._leave()
        await self._context.__aexit__(*exit_arguments(failed))

    def abandon(self, error: BaseException) -> Awaitable[bool | None] | None:
        """Return what leaves it with ``error``, to be awaited, if the peer vanished inside."""
        if self.state is not ContextState.INSIDE:
            return None
        self.state = ContextState.LEFT
        return self._context.__aexit__(type(error), error, None)


def exit_arguments(failed: bool) -> ExitArguments:
    """Return what ``__exit__`` is called with: an exception of ours stands for whatever happened at the peer."""
    if not failed:
        return None, None, None
    return PeerBlockFailed, PeerBlockFailed("the peer's block ended with an exception"), None
