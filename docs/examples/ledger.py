"""A ledger that partners of different trust use: the service behind the example policies in ``policies/``."""

import threading
from collections.abc import Callable, Iterator
from decimal import Decimal

from caprpc import Interface, attribute, method
from caprpc.interfaces import TextLines


class UnknownAccount(LookupError):
    """There is no such account."""


class BalanceSink(Interface):
    """What a partner gives us, to be told of changes."""

    @method(effect="write")
    def update(self, account: str, balance: Decimal) -> None: ...


class Subscription(Interface):
    """The right to end a subscription."""

    @method(effect="write")
    def cancel(self) -> None: ...


class Ledger(Interface):
    """Balances and postings of accounts."""

    currency: str = attribute()

    @method(effect="read", errors=(UnknownAccount,), idempotent=True)
    def balance(self, account: str) -> Decimal: ...

    @method(effect="read", errors=(UnknownAccount,))
    def history(self, account: str) -> Iterator[str]: ...

    @method(effect="write", errors=(UnknownAccount,))
    def post(self, account: str, amount: Decimal, reference: str) -> Decimal: ...

    @method(effect="write")
    def subscribe(self, sink: BalanceSink) -> Subscription: ...

    @method(effect="write", errors=(UnknownAccount,))
    def load(self, postings: TextLines, progress: Callable[[int], None]) -> int: ...


class LedgerAdmin(Interface):
    """What only our own operators may do."""

    @method(effect="admin")
    def open_account(self, account: str) -> None: ...

    @method(effect="admin", errors=(UnknownAccount,), sensitive=("approval_code",))
    def close_account(self, account: str, approval_code: str) -> None: ...


class Books(Ledger, LedgerAdmin):
    """One object for both interfaces: a policy decides which of them a peer gets."""

    currency = "EUR"

    def __init__(self) -> None:
        self._postings: dict[str, list[tuple[Decimal, str]]] = {"alpha": [], "beta": []}
        self._sinks: dict[int, BalanceSink] = {}
        self._lock = threading.Lock()

    def balance(self, account: str) -> Decimal:
        """Return the sum of an account's postings."""
        return sum((amount for amount, _ in self._of(account)), Decimal(0))

    def history(self, account: str) -> Iterator[str]:
        """Yield the postings of an account, oldest first."""
        for amount, reference in list(self._of(account)):
            yield f"{amount} {reference}"

    def post(self, account: str, amount: Decimal, reference: str) -> Decimal:
        """Add a posting, tell the subscribers, and return the new balance."""
        self._of(account).append((amount, reference))
        balance = self.balance(account)
        for sink in list(self._sinks.values()):
            sink.update(account, balance)
        return balance

    def subscribe(self, sink: BalanceSink) -> Subscription:
        """Tell ``sink`` of every posting until the subscription is cancelled."""
        with self._lock:
            number = len(self._sinks)
            self._sinks[number] = sink
        return _Subscription(self._sinks, number)

    def load(self, postings: TextLines, progress: Callable[[int], None]) -> int:
        """Add the postings of a file that stays with the caller, ``account amount reference`` on each line."""
        count = 0
        for count, line in enumerate(postings.readlines(), 1):
            account, amount, reference = line.split()
            self._of(account).append((Decimal(amount), reference))
            progress(count)
        return count

    def open_account(self, account: str) -> None:
        """Open an account."""
        self._postings.setdefault(account, [])

    def close_account(self, account: str, approval_code: str) -> None:
        """Close an account; a real one would check the code."""
        self._of(account)
        del self._postings[account]

    def _of(self, account: str) -> list[tuple[Decimal, str]]:
        try:
            return self._postings[account]
        except KeyError:
            raise UnknownAccount(f"no account {account!r}") from None


class _Subscription(Subscription):
    def __init__(self, sinks: dict[int, BalanceSink], number: int) -> None:
        self._sinks = sinks
        self._number = number

    def cancel(self) -> None:
        self._sinks.pop(self._number, None)


def roots() -> dict[str, object]:
    """Return the roots: the same books under two names."""
    books = Books()
    return {"ledger": books, "admin": books}
