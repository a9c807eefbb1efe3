"""How many strangers a server talks to at a time: the budget of accepts and of unauthenticated connections."""

import ipaddress
import logging
from collections import deque
from functools import lru_cache
from math import inf
from typing import Final, Generic, TypeVar

from caprpc.limits import ServerLimits
from caprpc.objects.sources import Sources

FULL_POLL_S: Final = 0.05
"""How soon to look again for a place when all are taken."""

SAY_S: Final = 60.0
"""How often the operator is told that connections wait, for each limit."""

_IPV6_SITE_BITS: Final = 64
"""One subscriber has at least so many IPv6 addresses as the other 64 bits give: all of them are one source."""

A = TypeVar("A")
"""What a driver has of a connection that waits."""

_LOG: Final = logging.getLogger("caprpc")


class Place:
    """What one connection takes of the budget, from its accept to its end."""

    __slots__ = ("proved", "source", "spoke", "taken")

    def __init__(self, source: str) -> None:
        self.source = source
        self.spoke = False
        """Whether it has said something, and waits for its turn or has had it."""
        self.proved = False
        """Whether the peer has shown who it is."""
        self.taken = True


class AcceptBudget(Generic[A]):
    """Token bucket of handshakes, and counts of connections by how far they have come. One thread uses it at a time.

    Who has said something waits for a token; sources take turns, so that a flood from one costs the others little.
    Nobody pays for being accepted: only so is it found out who is waiting behind a flood.

    Invariant: ``open`` is the number of places that are taken, ``unauthenticated`` of those whose peer is unknown.
    """

    __slots__ = ("_limits", "_said", "_sources", "_stamp", "_tokens", "_waiting", "open", "unauthenticated")

    def __init__(self, limits: ServerLimits, now: float) -> None:
        self._limits = limits
        self._tokens = float(limits.accept_burst)
        self._stamp = now
        self._said: dict[str, float] = {}
        self._sources = Sources(limits.unauthenticated_per_address)
        self._waiting: dict[str, deque[tuple[A, Place]]] = {}
        self.unauthenticated = 0
        self.open = 0

    def wait(self, now: float) -> float:
        """Return how many seconds to wait before the next accept, 0.0 if it may be done now.

        It is waited for as long as those who are there already will make use of it: what comes behind is in order in
        the listening socket. Those of a source that wastes its turns are none of these.
        """
        limits = self._limits
        if self.open >= limits.max_connections:
            self._say("max_connections", limits.max_connections, now)
            return FULL_POLL_S
        over = self.unauthenticated - limits.max_unauthenticated
        # Handshakes that have begun are not cut off for who comes; there is room for as many as one source may have.
        if over >= limits.unauthenticated_per_address or (over >= 0 and self._sources.wasteful(now) is None):
            self._say("max_unauthenticated", limits.max_unauthenticated, now)
            return FULL_POLL_S
        if self._sources.has_full(now):
            return FULL_POLL_S
        return 0.0

    def refuses(self, address: str, now: float) -> bool:
        """Whether to close an accepted connection at once: its source wastes its turns, and has its share of places."""
        sources, source = self._sources, source_of(address)
        return sources.held(source) >= sources.wasteful_share and sources.is_wasteful(source, now)

    def come(self, address: str) -> Place:
        """Count a connection that was accepted; ``address`` is a host, empty for a Unix socket."""
        place = Place(source_of(address))
        self.open += 1
        self.unauthenticated += 1
        self._sources.come(place.source)
        return place

    def crowded(self, place: Place, now: float) -> str | None:
        """Return the source of which a connection must go, now that one has come: it has more than its share."""
        sources, limits = self._sources, self._limits
        if sources.held(place.source) > sources.share(place.source, now):
            self._say("unauthenticated_per_address", limits.unauthenticated_per_address, now)
            return place.source
        if self.unauthenticated > limits.max_unauthenticated:
            self._say("max_unauthenticated", limits.max_unauthenticated, now)
            return sources.wasteful(now) or place.source
        return None

    def speaks(self, item: A, place: Place) -> None:
        """Have a connection wait for its turn whose first bytes are there."""
        place.spoke = True
        self._sources.speaks(place.source)
        self._waiting.setdefault(place.source, deque()).append((item, place))

    def next(self, now: float) -> tuple[A, Place] | None:
        """Return the connection whose turn it is, if there is a token for it; ``begin`` takes that."""
        limits = self._limits
        self._tokens = min(float(limits.accept_burst), self._tokens + max(0.0, now - self._stamp) * limits.accept_per_s)
        self._stamp = now
        if self._tokens < 1.0 or not self._waiting:
            return None
        source = next(iter(self._waiting))
        queue = self._waiting.pop(source)
        item = queue.popleft()
        if queue:
            # Behind those of all others.
            self._waiting[source] = queue
        return item

    def begin(self, place: Place, now: float) -> None:
        """Take the token for a connection whose handshake begins."""
        self._tokens -= 1.0
        self._sources.owes(place.source, now)

    def due(self) -> float | None:
        """Return in how many seconds there is a token for somebody who waits, None if nobody does."""
        return max(0.0, 1.0 - self._tokens) / self._limits.accept_per_s if self._waiting else None

    def give_up(self, source: str) -> tuple[A, Place] | None:
        """Return one of those of a source that wait, the last one, which waits no more; None if there is none."""
        queue = self._waiting.get(source)
        if queue is None:
            return None
        last = queue.pop()
        if not queue:
            del self._waiting[source]
        return last

    def forget(self, item: A) -> Place | None:
        """Have a connection wait no more; return its place if it did."""
        for source, queue in self._waiting.items():
            for one in queue:
                if one[0] is item:
                    queue.remove(one)
                    if not queue:
                        del self._waiting[source]
                    return one[1]
        return None

    def waiting(self) -> list[tuple[A, Place]]:
        """Return all that wait for their turn."""
        return [one for queue in self._waiting.values() for one in queue]

    def prove(self, place: Place) -> None:
        """The peer has shown who it is."""
        if not place.proved:
            place.proved = True
            self.unauthenticated -= 1
            self._sources.leave(place.source)
            self._sources.justified(place.source)

    def leave(self, place: Place, now: float) -> None:
        """The connection has ended; may be called twice."""
        if place.taken:
            place.taken = False
            self.open -= 1
            if not place.proved:
                place.proved = True
                self.unauthenticated -= 1
                self._sources.leave(place.source)
                if not place.spoke:
                    # Who spoke and has gone before its turn may only have waited too long.
                    self._sources.owes(place.source, now)

    def _say(self, knob: str, most: int, now: float) -> None:
        if now - self._said.get(knob, -inf) >= SAY_S:
            self._said[knob] = now
            _LOG.warning("connections wait or are closed: %d reached (ServerLimits.%s)", most, knob)


@lru_cache(maxsize=1024)
def source_of(address: str) -> str:
    """Return what counts as one source of connections: an IPv4 address, a /64 of IPv6, or all Unix sockets."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip), _IPV6_SITE_BITS), strict=False).network_address)
