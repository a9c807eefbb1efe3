"""What a call of an asyncio stub returns, for type checkers; the modules that ``caprpc stubs`` writes use it."""

from collections.abc import AsyncIterator, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class AwaitableIterator(Protocol[T_co]):
    """A call that returns an iterator: awaited it gives the iterator, and ``async for`` walks it at once."""

    def __await__(self) -> Generator[Any, None, AsyncIterator[T_co]]:
        """Give the iterator."""
        ...

    def __aiter__(self) -> AsyncIterator[T_co]:
        """Walk the iterator."""
        ...


class AwaitableContext(Protocol[T_co]):
    """A call that returns a context manager: awaited it gives that, and ``async with`` enters it at once."""

    def __await__(self) -> Generator[Any, None, AbstractAsyncContextManager[T_co]]:
        """Give the context manager."""
        ...

    async def __aenter__(self) -> T_co:
        """Enter it."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Leave it."""
        ...
