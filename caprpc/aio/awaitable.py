"""What a call over an asyncio connection returns."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from caprpc.interface import Member
from caprpc.objects.promises import Promised
from caprpc.session import Import, Question

if TYPE_CHECKING:
    from caprpc.aio.caller import Caller


class Awaited:
    """Base of what has to be awaited: what only its result can do fails with an error that says so."""

    __slots__ = ()

    # Type checkers shall not know these: they find the mistake by themselves.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"{self._what()} has no {name!r} before it is awaited: write (await ...).{name}")

        def __enter__(self) -> NoReturn:
            raise TypeError(f"{self._what()} is entered with `async with`, not with `with`")

        def __exit__(self, *_error: object) -> None:
            """Be no reason for another error than that of ``__enter__``."""

        def __bool__(self) -> NoReturn:
            raise TypeError(f"{self._what()} is neither true nor false before it is awaited: write `await` before it")

        def __iter__(self) -> NoReturn:
            raise TypeError(f"{self._what()} is walked with `async for` or awaited, not with `for`")

    def _what(self) -> str:
        return "a call over an asyncio connection"


class CallAwaitable(Awaited, asyncio.Future[Any]):
    """What a call returns: awaiting it gives the result; cancelling it tells the peer that nobody waits any more."""

    question: Question | None = None
    owner: "Caller | None" = None
    target: Import | None = None
    member: Member | None = None
    promised: Promised | None = None
    """What has been made of it by ``pipe`` before there was room to send it."""
    first: "CallAwaitable | None" = None
    """The call itself, where this one stands for all attempts at it."""
    deadline: float
    conclude: Callable[[Question], Any]
    abandoned: Callable[[Question], None]
    _entered: Any = None

    def __aiter__(self) -> AsyncIterator[Any]:
        """Walk the iterator that the call returns: ``async for row in ledger.history("A"):``."""
        return _items_of(self)

    async def __aenter__(self) -> Any:
        """Enter the context that the call returns: ``async with ledger.transaction():``."""
        self._entered = await self
        return await self._entered.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Leave that context."""
        settled: bool | None = await self._entered.__aexit__(kind, value, trace)
        return settled

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel; the peer learns of it."""
        cancelled = super().cancel(msg)
        if cancelled and self.question is not None:
            self.abandoned(self.question)
        return cancelled


async def _items_of(future: "asyncio.Future[Any]") -> AsyncIterator[Any]:
    async for item in await future:
        yield item
