"""Counting calls: token buckets and running counts that all connections of a principal share.

Time is an argument, in seconds of a clock that does not go backwards; if it does all the same, nothing is refilled.
A bucket is kept as what was spent and not yet earned back, so that a reload with another limit goes on counting.
"""

import threading
import weakref
from math import inf
from typing import Final

from caprpc.policy.model import ENDINGS, NO_LIMIT, Grant, MemberLimit

FACET_KIND: Final = "facet_"
"""Begins the names of the limits of a facet where a reason names them."""
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
    """What one principal has used of one member or facet, whatever limits are in force; thread-safe.

    Invariant: while more than one set of limits is live (old connections keep the tighter of old and new), every call
    is counted in all of them, so that connections under different versions do not add up.
    """

    __slots__ = ("_latest", "_limiters", "kind", "lock", "running", "several")

    def __init__(self, kind: str = "") -> None:
        """Take what the names of its limits begin with."""
        self.kind = kind
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
    """Counts the calls to one member, or to one facet, by one principal against one set of limits."""

    __slots__ = ("__weakref__", "_full", "_usage", "buckets", "in_flight", "lock")

    def __init__(self, usage: Usage, limit: MemberLimit) -> None:
        self._usage = usage
        self._full = f"{usage.kind}in_flight"
        self.lock = usage.lock
        self.in_flight = limit.in_flight
        self.buckets = _buckets(limit, usage.kind)

    def take(self, now: float, calls: int = 1) -> str:
        """Count calls that start now, all or none; return the limit that forbids them, or an empty text.

        If ``in_flight`` is set, what was let through must be given back when it has ended.
        """
        with self.lock:
            usage = self._usage
            if self.in_flight is not None and usage.running + calls > self.in_flight:
                return self._full
            for bucket in self.buckets:
                # As Bucket.earn, written out: this runs for every call.
                spent, stamp = bucket.spent, bucket.stamp
                if now > stamp:
                    left = spent - (now - stamp) * bucket.per_s
                    bucket.spent = spent = left if left > 0.0 else 0.0
                    bucket.stamp = now
                if spent + calls > bucket.capacity:
                    return bucket.kind
            # As ``count``, written out likewise.
            for bucket in self.buckets:
                bucket.spent += calls
            if usage.several:
                usage.count(self, now, calls)
            if self.in_flight is not None:
                usage.running += calls
            return ""

    def exhausted(self, now: float, calls: int) -> str:
        """Return the limit that forbids calls that start now, without counting them; the lock is held."""
        if self.in_flight is not None and self._usage.running + calls > self.in_flight:
            return self._full
        for bucket in self.buckets:
            bucket.earn(now)
            if bucket.spent + calls > bucket.capacity:
                return bucket.kind
        return ""

    def count(self, now: float, calls: int) -> None:
        """Count calls that were found to be within the limits; the lock is held."""
        usage = self._usage
        for bucket in self.buckets:
            bucket.spent += calls
        if usage.several:
            usage.count(self, now, calls)
        if self.in_flight is not None:
            usage.running += calls

    def give_back(self, calls: int = 1) -> None:
        """Note that calls have ended; does nothing if running calls are not counted."""
        if self.in_flight is None:
            return
        with self.lock:
            self._usage.running = max(0, self._usage.running - calls)


class BothLimiters:
    """Counts calls that a member and its facet limit: in both, or, where one of them forbids it, in none."""

    __slots__ = ("_facet", "_member")

    def __init__(self, facet: Limiter, member: Limiter) -> None:
        self._facet = facet
        self._member = member

    def take(self, now: float, calls: int = 1) -> str:
        """As ``Limiter.take``."""
        # The facet's lock is always the outer one.
        with self._facet.lock:
            exhausted = self._facet.exhausted(now, calls) or self._member.take(now, calls)
            if not exhausted:
                self._facet.count(now, calls)
            return exhausted

    def give_back(self, calls: int = 1) -> None:
        """As ``Limiter.give_back``."""
        self._facet.give_back(calls)
        self._member.give_back(calls)


class Usages:
    """What one principal has used of every member and facet that is counted; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usages: dict[tuple[str, str], Usage] = {}

    def limiter(self, facet: str, grant: Grant, together: MemberLimit = NO_LIMIT) -> Limiter | BothLimiters | None:
        """Return what counts calls to a member through a facet, or None if nothing needs counting.

        Args:
            facet: Its name; iterators that come from a facet count as that.
            grant: The member.
            together: The limit of all members of the facet.
        """
        member = whole = None
        if grant.limit.is_counted:
            member = self._usage((facet, grant.member or f"#{grant.operation}"), "").limiter(grant.limit)
        if together.is_counted and grant.operation not in ENDINGS:
            whole = self._usage((facet.partition("/")[0], ""), FACET_KIND).limiter(together)
        if member is None or whole is None:
            return member or whole
        return BothLimiters(whole, member)

    def _usage(self, key: tuple[str, str], kind: str) -> Usage:
        with self._lock:
            return self._usages.setdefault(key, Usage(kind))


def _buckets(limit: MemberLimit, kind: str) -> tuple[Bucket, ...]:
    buckets: list[Bucket] = []
    if limit.per_second is not None:
        capacity = float(limit.burst) if limit.burst is not None else max(1.0, limit.per_second)
        buckets.append(Bucket(f"{kind}per_second", capacity, limit.per_second))
    if limit.per_hour is not None:
        buckets.append(Bucket(f"{kind}per_hour", max(1.0, limit.per_hour), limit.per_hour / _HOUR_S))
    if limit.per_day is not None:
        buckets.append(Bucket(f"{kind}per_day", max(1.0, limit.per_day), limit.per_day / _DAY_S))
    return tuple(buckets)
