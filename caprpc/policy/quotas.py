"""Counting calls: token buckets and running counts that all connections of a principal share.

Time is an argument, in seconds of a clock that does not go backwards; if it does all the same, nothing is refilled.
A bucket is kept as what was spent and not yet earned back, so that a reload with another limit goes on counting.
"""

import threading
import weakref
from math import inf
from typing import Final

from caprpc.policy.model import MemberLimit

_HOUR_S: Final = 3600.0
_DAY_S: Final = 86400.0


class Bucket:
    """One token bucket: at most ``capacity`` at once and ``per_s`` in the long run.

    Invariant: ``spent`` is what was taken and not yet earned back, never below 0. After a narrowing reload it may begin
    above ``capacity``.
    """

    __slots__ = ("capacity", "kind", "per_s", "spent", "stamp")

    def __init__(self, kind: str, capacity: float, per_s: float) -> None:
        self.kind = kind
        self.per_s = per_s
        self.capacity = capacity
        self.spent = 0.0
        self.stamp = -inf

    def earn(self, now: float) -> None:
        """Earn back what time has given; a clock that goes backwards, or NaN, gives nothing."""
        if now > self.stamp:
            left = self.spent - (now - self.stamp) * self.per_s
            self.spent = left if left > 0.0 else 0.0
            self.stamp = now


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

    def count(self, counted: "Limiter", now: float, calls: int) -> None:
        """Count calls in every other set of limits that is live; the lock is held."""
        others = [limiter for limiter in self._limiters.values() if limiter is not counted]
        self.several = bool(others)
        for bucket in (bucket for other in others for bucket in other.buckets):
            bucket.earn(now)
            bucket.spent += calls


class Limiter:
    """Counts the calls to one member by one principal against one set of limits."""

    __slots__ = ("__weakref__", "_lock", "_usage", "buckets", "in_flight")

    def __init__(self, usage: Usage, limit: MemberLimit) -> None:
        self._usage = usage
        self._lock = usage.lock
        self.in_flight = limit.in_flight
        self.buckets = _buckets(limit)

    def take(self, now: float, calls: int = 1) -> str:
        """Count calls that start now, all or none; return the limit that forbids them, or an empty text.

        If ``in_flight`` is set, what was let through must be given back when it has ended.
        """
        with self._lock:
            usage = self._usage
            if self.in_flight is not None and usage.running + calls > self.in_flight:
                return "in_flight"
            for bucket in self.buckets:
                # As Bucket.earn, written out: this runs for every call.
                spent, stamp = bucket.spent, bucket.stamp
                if now > stamp:
                    left = spent - (now - stamp) * bucket.per_s
                    bucket.spent = spent = left if left > 0.0 else 0.0
                    bucket.stamp = now
                if spent + calls > bucket.capacity:
                    return bucket.kind
            for bucket in self.buckets:
                bucket.spent += calls
            if usage.several:
                usage.count(self, now, calls)
            if self.in_flight is not None:
                usage.running += calls
            return ""

    def give_back(self, calls: int = 1) -> None:
        """Note that calls have ended; does nothing if running calls are not counted."""
        if self.in_flight is None:
            return
        with self._lock:
            self._usage.running = max(0, self._usage.running - calls)


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
