"""Serving a context manager to a peer: entered once, left once, never handed an exception that is not declared."""

import threading
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from enum import Enum
from types import TracebackType
from typing import Any

from caprpc.errors import CapRPCError, printable, rebuilt

Errors = tuple[type[Exception], ...]
ExitArguments = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class ContextState(Enum):
    """Where a served context is."""

    FRESH = "fresh"
    ENTERING = "entering"
    INSIDE = "inside"
    LEFT = "left"


class PeerBlockFailed(CapRPCError):
    """The peer's ``with`` block ended with an exception; which one stays with the peer."""


class ContextMisused(RuntimeError):
    """A context was entered twice, or left without having been entered."""


class ServedContext:
    """The order of a context: whoever came in goes out, once, also if the peer vanishes while it enters or inside."""

    __slots__ = ("_after", "_errors", "_gone", "_lock", "state")

    def __init__(self, *, again: bool = False, errors: Errors = ()) -> None:
        """Take whether the context may be entered again once it was left, and which errors of the peer it may see."""
        self._errors = errors
        self.state = ContextState.FRESH
        self._after = ContextState.FRESH if again else ContextState.LEFT
        self._gone: BaseException | None = None
        self._lock = threading.Lock()

    def _enter(self) -> None:
        with self._lock:
            if self.state is not ContextState.FRESH or self._gone is not None:
                raise ContextMisused("this context was entered before")
            self.state = ContextState.ENTERING

    def _failed(self) -> None:
        """Entering has failed: there is nothing to leave."""
        self.state = self._after

    def _entered(self) -> BaseException | None:
        """Entering is done; return with what it must be left at once, because the peer has vanished meanwhile."""
        with self._lock:
            self.state = ContextState.INSIDE if self._gone is None else ContextState.LEFT
            return self._gone

    def _leave(self) -> None:
        with self._lock:
            if self.state is not ContextState.INSIDE:
                raise ContextMisused("this context is not entered")
            self.state = self._after

    def _abandon(self, error: BaseException) -> bool:
        """Take note that the peer has vanished; whether the context must be left now."""
        with self._lock:
            self._gone = error
            inside = self.state is ContextState.INSIDE
            if self.state is not ContextState.ENTERING:
                self.state = ContextState.LEFT
            return inside


class ContextServer(ServedContext):
    """Serves a local context manager."""

    __slots__ = ("_context",)

    def __init__(self, context: AbstractContextManager[Any], *, again: bool = False, errors: Errors = ()) -> None:
        """Take a context manager that nobody has entered."""
        super().__init__(again=again, errors=errors)
        self._context = context

    def enter(self) -> Any:
        """Enter it and return what it gives."""
        self._enter()
        try:
            value = self._context.__enter__()
        except BaseException:
            self._failed()
            raise
        gone = self._entered()
        if gone is not None:
            self._context.__exit__(type(gone), gone, None)
        return value

    def exit(self, failed: bool, error: str = "", text: str = "") -> bool:
        """Leave it, with what the peer's block failed with if that is declared; return whether that is settled."""
        self._leave()
        return bool(self._context.__exit__(*exit_arguments(failed, error, text, self._errors)))

    def abandon(self, error: BaseException) -> None:
        """Leave it with ``error`` if the peer vanished inside; otherwise do nothing."""
        if self._abandon(error):
            self._context.__exit__(type(error), error, None)


class AsyncContextServer(ServedContext):
    """Serves a local asynchronous context manager."""

    __slots__ = ("_context",)

    def __init__(self, context: AbstractAsyncContextManager[Any], *, again: bool = False, errors: Errors = ()) -> None:
        """Take a context manager that nobody has entered."""
        super().__init__(again=again, errors=errors)
        self._context = context

    async def enter(self) -> Any:
        """Enter it and return what it gives."""
        self._enter()
        try:
            value = await self._context.__aenter__()
        except BaseException:
            self._failed()
            raise
        gone = self._entered()
        if gone is not None:
            await self._context.__aexit__(type(gone), gone, None)
        return value

    async def exit(self, failed: bool, error: str = "", text: str = "") -> bool:
        """Leave it, with what the peer's block failed with if that is declared; return whether that is settled."""
        self._leave()
        return bool(await self._context.__aexit__(*exit_arguments(failed, error, text, self._errors)))

    def abandon(self, error: BaseException) -> Awaitable[object] | None:
        """Return what leaves it with ``error``, to be awaited, if the peer vanished inside."""
        return self._context.__aexit__(type(error), error, None) if self._abandon(error) else None


def exit_arguments(failed: bool, error: str = "", text: str = "", errors: Errors = ()) -> ExitArguments:
    """Return what ``__exit__`` is called with: a declared error of our own class, or one that stands for all others.

    Args:
        failed: Whether the peer's block ended with an exception.
        error: Name of its class if it is declared, else empty.
        text: Its text.
        errors: What is declared.
    """
    if not failed:
        return None, None, None
    for declared in errors:
        if declared.__name__ == error:
            return declared, rebuilt(declared, printable(text)), None
    return PeerBlockFailed, PeerBlockFailed("the peer's block ended with an exception"), None
