"""How many strangers a server talks to at a time: the budget of accepts and of unauthenticated connections."""

import ipaddress
import logging
from math import inf
from typing import Final

from caprpc.limits import ServerLimits

FULL_POLL_S: Final = 0.05
"""How soon to look again for a place when all are taken."""

SAY_S: Final = 60.0
"""How often the operator is told that connections wait, for each limit."""

_IPV6_SITE_BITS: Final = 64
"""One subscriber has at least so many IPv6 addresses as the other 64 bits give: all of them are one source."""

_LOG: Final = logging.getLogger("caprpc")


class Place:
    """What one connection takes of the budget, from its accept to its end."""

    __slots__ = ("proved", "source", "taken")

    def __init__(self, source: str) -> None:
        self.source = source
        self.proved = False
        """Whether the peer has shown who it is."""
        self.taken = True


class AcceptBudget:
    """Token bucket of accepts, and counts of connections by how far they have come. One thread uses it at a time.

    Invariant: ``open`` is the number of places that are taken, ``unauthenticated`` of those whose peer is unknown.
    """

    __slots__ = ("_by_source", "_limits", "_said", "_stamp", "_tokens", "open", "unauthenticated")

    def __init__(self, limits: ServerLimits, now: float) -> None:
        self._limits = limits
        self._tokens = float(limits.accept_burst)
        self._stamp = now
        self._said: dict[str, float] = {}
        self._by_source: dict[str, int] = {}
        self.unauthenticated = 0
        self.open = 0

    def wait(self, now: float) -> float:
        """Return how many seconds to wait before the next accept, 0.0 if it may be done now."""
        limits = self._limits
        self._tokens = min(float(limits.accept_burst), self._tokens + max(0.0, now - self._stamp) * limits.accept_per_s)
        self._stamp = now
        if self.open >= limits.max_connections:
            self._say("max_connections", limits.max_connections, now)
            return FULL_POLL_S
        if self.unauthenticated >= limits.max_unauthenticated:
            self._say("max_unauthenticated", limits.max_unauthenticated, now)
            return FULL_POLL_S
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / limits.accept_per_s
        return 0.0

    def come(self, address: str) -> Place:
        """Count a connection that was accepted; ``address`` is a host, empty for a Unix socket."""
        place = Place(source_of(address))
        self._tokens -= 1.0
        self.open += 1
        self.unauthenticated += 1
        self._by_source[place.source] = self._by_source.get(place.source, 0) + 1
        return place

    def crowded(self, place: Place, now: float) -> bool:
        """Whether its source has more unauthenticated connections than its share: one of them must go."""
        most = self._limits.unauthenticated_per_address
        if self._by_source.get(place.source, 0) <= most:
            return False
        self._say("unauthenticated_per_address", most, now)
        return True

    def prove(self, place: Place) -> None:
        """The peer has shown who it is."""
        if not place.proved:
            place.proved = True
            self._known(place)

    def leave(self, place: Place) -> None:
        """The connection has ended; may be called twice."""
        if place.taken:
            place.taken = False
            self.open -= 1
            self.prove(place)

    def _known(self, place: Place) -> None:
        self.unauthenticated -= 1
        left = self._by_source[place.source] - 1
        if left:
            self._by_source[place.source] = left
        else:
            del self._by_source[place.source]

    def _say(self, knob: str, most: int, now: float) -> None:
        if now - self._said.get(knob, -inf) >= SAY_S:
            self._said[knob] = now
            _LOG.warning("connections wait or are closed: %d reached (ServerLimits.%s)", most, knob)


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
