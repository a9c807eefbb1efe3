"""What a call of an asyncio stub returns, for type checkers; the modules that ``caprpc stubs`` writes use it."""

from collections.abc import AsyncIterator, Generator
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
