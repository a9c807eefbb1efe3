"""Time in the session: signs of life, frame progress, and the budget for things that are legal and useless.

Time is an argument everywhere (seconds of a monotonic clock).
"""

from typing import Final

from caprpc.limits import Limits
from caprpc.policy import SharedGlitches

NEVER: Final = float("-inf")

MOST_OTHERS: Final = 64
"""Third parties that are told apart on one connection; those behind them share what one may do."""

UNTIL_DEATH: Final = 2.0
"""Silence of this many ``limits.idle_s`` ends the connection; after one we ask."""


class Liveness:
    """Decides from the times it is told when to ask for a sign of life and when to give up."""

    __slots__ = (
        "_asked_at",
        "_checked",
        "_limits",
        "_opened",
        "_since",
        "broken",
        "frame_since",
        "glitches",
        "heard_at",
        "others",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._since = now
        self._checked = now
        self._asked_at = NEVER
        self._opened = False
        self.glitches = GlitchBudget(limits, now)
        self.others: dict[str, GlitchBudget] = {}
        """What the peer asks for each third party to which it passes on what is ours: that is not the peer's fault."""
        self.broken = ""
        """What the peer broke the protocol with, if that was found late: the session ends at its next tick."""
        self.heard_at = now
        """When the peer last sent something."""
        self.frame_since: float | None = None
        """When the frame began that is not complete yet, None between frames."""

    def tighten(self, limits: Limits) -> None:
        """Keep to other limits from now on."""
        self._limits = limits
        for budget in (self.glitches, *self.others.values()):
            budget.tighten(limits)

    def budget_of(self, chain: tuple[str, ...], now: float) -> "GlitchBudget":
        """Return what counts useless things that come through a reference passed on to these principals."""
        if not chain:
            return self.glitches
        who = chain[0] if chain[0] in self.others or len(self.others) < MOST_OTHERS else ""
        budget = self.others.get(who)
        if budget is None:
            budget = self.others[who] = GlitchBudget(self._limits, now)
        return budget

    def opened(self) -> None:
        """The peer's first message has come."""
        self._opened = True

    def deadline(self) -> float:
        """Return when ``check`` must be called next."""
        limits = self._limits
        if not self._opened:
            return self._since + limits.hello_timeout_s
        asked = self._asked_at >= self.heard_at
        idle = self.heard_at + limits.idle_s * (UNTIL_DEATH if asked else 1.0)
        if self.frame_since is not None:
            return min(idle, max(self.frame_since + limits.frame_grace_s, self._checked + 1.0))
        return idle

    def check(self, now: float, frame_bytes: int) -> str | None:
        """Return ``ping`` if a sign of life is due, the reason if the connection must end, else None.

        Args:
            now: Seconds of the monotonic clock.
            frame_bytes: How much of the incomplete frame has come.
        """
        limits = self._limits
        self._checked = now
        if not self._opened:
            overdue = now >= self._since + limits.hello_timeout_s
            return f"no first message within {limits.hello_timeout_s:g} s (limits.hello_timeout_s)" if overdue else None
        if self.frame_since is not None:
            spent = now - self.frame_since - limits.frame_grace_s
            if spent >= 0 and frame_bytes < spent * limits.frame_bytes_per_s:
                return f"a frame comes slower than {limits.frame_bytes_per_s} bytes/s (limits.frame_bytes_per_s)"
        silence = now - self.heard_at
        if silence >= limits.idle_s * UNTIL_DEATH:
            return f"no sign of life for {silence:.0f} s (limits.idle_s)"
        if silence >= limits.idle_s and self._asked_at < self.heard_at:
            self._asked_at = now
            return "ping"
        return None


class GlitchBudget:
    """Token bucket for refused calls, late cancels, pings: more than it holds ends the connection."""

    __slots__ = ("_burst", "_rate", "_tokens", "_when", "shared")

    def __init__(self, limits: Limits, now: float) -> None:
        self.shared: SharedGlitches | None = None
        """What all connections of the principal may do together."""
        self._burst = float(limits.glitch_burst)
        self._rate = limits.glitch_per_s
        self._tokens = self._burst
        self._when = now

    def tighten(self, limits: Limits) -> None:
        """Hold and refill no more than other limits say from now on."""
        self._burst = float(limits.glitch_burst)
        self._rate = limits.glitch_per_s
        self._tokens = min(self._tokens, self._burst)

    def spent(self, now: float) -> bool:
        """Whether there is no token."""
        return self._tokens + max(0.0, now - self._when) * self._rate < 1.0

    def spend(self, now: float) -> bool:
        """Take one token; False when there is none."""
        elapsed = max(0.0, now - self._when)
        self._when = now
        # No debt: who has spent it and goes on is let in again as soon as it refills.
        self._tokens = max(min(self._burst, self._tokens + elapsed * self._rate) - 1.0, -1.0)
        return self._tokens >= 0.0 and (self.shared is None or self.shared.spend(now))
