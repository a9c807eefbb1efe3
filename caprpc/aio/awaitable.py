"""What a call over an asyncio connection returns."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from caprpc.interface import Member
from caprpc.objects.promises import Promised
from caprpc.session import Import, Question

if TYPE_CHECKING:
    from caprpc.aio.caller import Caller


class CallAwaitable(asyncio.Future[Any]):
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

    def __aiter__(self) -> AsyncIterator[Any]:
        """Walk the iterator that the call returns: ``async for row in ledger.history("A"):``."""
        return _items_of(self)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel; the peer learns of it."""
        cancelled = super().cancel(msg)
        if cancelled and self.question is not None:
            self.abandoned(self.question)
        return cancelled


async def _items_of(future: "asyncio.Future[Any]") -> AsyncIterator[Any]:
    async for item in await future:
        yield item
