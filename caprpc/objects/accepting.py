"""How many strangers a server talks to at a time: the budget of accepts and of unauthenticated connections."""

from caprpc.limits import ServerLimits


class AcceptBudget:
    """Token bucket of accepts, and counts of connections by how far they have come. One thread uses it at a time."""

    __slots__ = ("_limits", "_stamp", "_tokens", "open", "unauthenticated")

    def __init__(self, limits: ServerLimits, now: float) -> None:
        self._limits = limits
        self._tokens = float(limits.accept_burst)
        self._stamp = now
        self.unauthenticated = 0
        self.open = 0

    def take(self, now: float) -> float:
        """Take one accept; return 0.0, or how many seconds to wait before the next may be taken."""
        limits = self._limits
        self._tokens = min(float(limits.accept_burst), self._tokens + max(0.0, now - self._stamp) * limits.accept_per_s)
        self._stamp = now
        if self.unauthenticated >= limits.max_unauthenticated or self.open >= limits.max_connections:
            return 0.05
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / limits.accept_per_s
        self._tokens -= 1.0
        return 0.0
