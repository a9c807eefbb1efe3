"""Interfaces from which ``caprpc stubs`` writes the types that test_async_typing.py checks."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from caprpc import Interface, attribute, method
from caprpc.interfaces import ByteSource, TextLines


class Order(Enum):
    NEWEST = 1
    OLDEST = 2


@dataclass
class Entry:
    amount: int


class Account(Interface):
    """One account."""

    @method(effect="read")
    def balance(self) -> int: ...

    @method(effect="read")
    def parent(self) -> "Account | None": ...


class Ledger(Interface):
    """Balances, "as they are" \\ now.

    In two paragraphs.
    """

    currency: str = attribute()
    label: str = attribute(writable=True)

    @method(effect="read")
    def account(self, name: str, /, *, create: bool = False) -> Account: ...

    @method(effect="read")
    def accounts(self, order: Order | None = None, way: Literal["up", "down"] = "up") -> list[Account]: ...

    @method(effect="read")
    def history(self, account: str) -> Iterator[Entry]:
        """Give the newest first."""
        ...

    @method(effect="read")
    def each(self, lines: TextLines, function: Callable[[Entry], bool]) -> tuple[int, ...]: ...

    @method(effect="write")
    def merge(self, one: Account, entries: Iterator[Entry], lock: AbstractContextManager[None]) -> None: ...

    @method(effect="write")
    def transaction(self) -> AbstractContextManager[Account]: ...

    @method(effect="read")
    def watcher(self) -> Callable[[int], Account]: ...

    @method(effect="read")
    def export(self) -> ByteSource: ...

    @method(effect="read")
    async def slow(self) -> int: ...

    @method(effect="read")
    def __iter__(self) -> Iterator[str]: ...

    @method(effect="read")
    def __getitem__(self, index: int) -> Account: ...

    @method(effect="read")
    def __len__(self) -> int: ...
