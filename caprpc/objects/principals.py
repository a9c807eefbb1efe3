"""What each principal has used and holds over all its connections, for as long as the process runs."""

import threading

from caprpc.policy import ArgumentBudget, Pools, PrincipalQuotas


class Principals(dict[str, tuple[PrincipalQuotas, Pools]]):
    """Quotas by principal, and what all of them together may hold. Thread-safe."""

    __slots__ = ("_lock", "arguments")

    def __init__(self, argument_bytes: int) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self.arguments = ArgumentBudget(argument_bytes)

    def of(self, principal: str) -> tuple[PrincipalQuotas, Pools]:
        """Return the quotas of a principal, made when it comes for the first time."""
        with self._lock:
            quotas = self.get(principal)
            if quotas is None:
                quotas = self[principal] = (PrincipalQuotas(), Pools(self.arguments))
            return quotas
