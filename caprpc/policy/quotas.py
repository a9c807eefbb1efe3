"""Quotas of a principal: token buckets and running counts that all its connections share.

Time is an argument, in seconds of a clock that does not go backwards; if it does all the same, nothing is refilled.
A bucket is kept as what was spent and not yet earned back, so that a reload with another limit goes on counting.
"""

import threading
import weakref
from typing import Final

from caprpc.policy.model import MemberLimit

_HOUR_S: Final = 3600.0
_DAY_S: Final = 86400.0


class Bucket:
    """One token bucket: at most ``capacity`` at once and ``per_s`` in the long run.

    Invariant: ``0 <= spent <= capacity`` (after a narrowing reload, ``spent`` may begin above it).
    """

    __slots__ = ("capacity", "kind", "per_s", "spent", "stamp")

    def __init__(self, kind: str, capacity: float, per_s: float) -> None:
        self.kind = kind
        self.capacity = capacity
        self.per_s = per_s
        self.spent = 0.0
        self.stamp: float | None = None

    def has_room(self, now: float) -> bool:
        """Earn back what time has given, and say whether one more fits."""
        if self.stamp is None:
            self.stamp = now
        # Written so that a clock that goes backwards, or NaN, earns nothing.
        elif now > self.stamp:
            self.spent = max(0.0, self.spent - (now - self.stamp) * self.per_s)
            self.stamp = now
        return self.spent + 1.0 <= self.capacity


class Usage:
    """What one principal has used of one member, whatever limits are in force; thread-safe.

    Invariant: while more than one set of limits is live (old connections keep the tighter of old and new), every call
    is counted in all of them, so that connections under different versions do not add up.
    """

    __slots__ = ("_latest", "_limiters", "lock", "running", "several")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0
        self.several = False
        self._limiters: weakref.WeakValueDictionary[MemberLimit, Limiter] = weakref.WeakValueDictionary()
        # The newest is kept when no connection is left, so that reconnecting refills nothing.
        self._latest: Limiter | None = None

    def limiter(self, limit: MemberLimit) -> "Limiter":
        """Return the limiter for these limits; a new one starts with what the others have counted."""
        with self.lock:
            limiter = self._limiters.get(limit)
            if limiter is None:
                limiter = Limiter(self, limit)
                counted = [bucket for other in self._limiters.values() for bucket in other.buckets]
                for bucket in limiter.buckets:
                    same = [other for other in counted if other.kind == bucket.kind]
                    if same:
                        heaviest = max(same, key=lambda other: other.spent)
                        bucket.spent, bucket.stamp = heaviest.spent, heaviest.stamp
                self._limiters[limit] = limiter
                self.several = len(self._limiters) > 1
            self._latest = limiter
            return limiter

    def count(self, counted: "Limiter", now: float) -> None:
        """Count one call in every other set of limits that is live; the lock is held."""
        others = [limiter for limiter in self._limiters.values() if limiter is not counted]
        self.several = bool(others)
        for bucket in (bucket for other in others for bucket in other.buckets):
            bucket.has_room(now)
            bucket.spent += 1.0


class Limiter:
    """Counts the calls to one member by one principal against one set of limits."""

    __slots__ = ("__weakref__", "_in_flight", "_usage", "buckets")

    def __init__(self, usage: Usage, limit: MemberLimit) -> None:
        self._usage = usage
        self._in_flight = limit.in_flight
        self.buckets = _buckets(limit)

    def take(self, now: float) -> str:
        """Count one call that starts now; return the limit that forbids it, or an empty text.

        A call that was let through must be given back with ``give_back`` when it has ended.
        """
        usage = self._usage
        with usage.lock:
            if self._in_flight is not None and usage.running >= self._in_flight:
                return "in_flight"
            for bucket in self.buckets:
                if not bucket.has_room(now):
                    return bucket.kind
            for bucket in self.buckets:
                bucket.spent += 1.0
            if usage.several:
                usage.count(self, now)
            usage.running += 1
            return ""

    def give_back(self) -> None:
        """Note that a call has ended."""
        usage = self._usage
        with usage.lock:
            if usage.running > 0:
                usage.running -= 1


class PrincipalQuotas:
    """What one principal uses over all its connections; keep one for each principal, for as long as the process runs.

    Dropping it when the last connection closes would let a peer refill its buckets by reconnecting.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usages: dict[tuple[str, str], Usage] = {}
        self._connections = 0

    def limiter(self, facet: str, limit_key: str, limit: MemberLimit) -> Limiter | None:
        """Return what counts calls to a member through a facet, or None if nothing needs counting."""
        if not limit.is_counted:
            return None
        with self._lock:
            usage = self._usages.setdefault((facet, limit_key), Usage())
        return usage.limiter(limit)

    def open_connection(self, limit: int) -> bool:
        """Count one more connection; False, and not counted, if there are ``limit`` already."""
        with self._lock:
            if self._connections >= limit:
                return False
            self._connections += 1
            return True

    def close_connection(self) -> None:
        """Note that a connection which was counted has ended."""
        with self._lock:
            if self._connections > 0:
                self._connections -= 1


def _buckets(limit: MemberLimit) -> tuple[Bucket, ...]:
    buckets: list[Bucket] = []
    if limit.per_second is not None:
        capacity = float(limit.burst) if limit.burst is not None else max(1.0, limit.per_second)
        buckets.append(Bucket("per_second", capacity, limit.per_second))
    if limit.per_hour is not None:
        buckets.append(Bucket("per_hour", max(1.0, limit.per_hour), limit.per_hour / _HOUR_S))
    if limit.per_day is not None:
        buckets.append(Bucket("per_day", max(1.0, limit.per_day), limit.per_day / _DAY_S))
    return tuple(buckets)
