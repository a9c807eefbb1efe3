"""Where connections come in: listening sockets, and connections that have not sent a byte."""

import socket
import threading
import time
from collections.abc import Callable

from caprpc.address import Address
from caprpc.blocking.reactor import Reactor
from caprpc.limits import ServerLimits
from caprpc.objects.accepting import AcceptBudget, Place
from caprpc.sockets import Arrival, accept, arrival_of, bound_address, close_listener, is_gone, listen


class Door:
    """Owns who has come and is silent, and what each connection takes of the budget until it has gone."""

    def __init__(self, reactor: Reactor, limits: ServerLimits, on_bytes: Callable[[Arrival, Place], None]) -> None:
        """Take what serves a connection whose first bytes are there."""
        self._reactor = reactor
        self._on_bytes = on_bytes
        self._silence_s = limits.handshake_timeout_s
        self._budget = AcceptBudget(limits, time.monotonic())
        self._lock = threading.Lock()
        self._listeners: list[socket.socket] = []
        self._silent: dict[Arrival, Place] = {}

    @property
    def addresses(self) -> list[str]:
        """Where it listens."""
        return [bound_address(sock) for sock in self._listeners]

    @property
    def taken(self) -> int:
        """Connections, silent ones among them."""
        return self._budget.open

    def listen(self, address: str) -> str:
        """Listen; return the address that the socket was given.

        Raises:
            ConfigurationError: The address is in use, or not ours.
        """
        sock = listen(Address.parse(address))
        self._listeners.append(sock)
        return bound_address(sock)

    def adopt(self, sock: socket.socket) -> None:
        """Take a connected socket as if it had been accepted.

        Raises:
            ConfigurationError: It is not a connected stream socket.
        """
        self._come(arrival_of(sock, time.monotonic()))

    def open(self) -> None:
        """Let connections in."""
        for sock in self._listeners:
            self._reactor.watch(sock.fileno(), lambda sock=sock: self._accept(sock))  # type: ignore[misc]

    def close(self) -> None:
        """Let nobody in any more, and send away who has not said a byte."""
        for sock in self._listeners:
            self._reactor.forget(sock.fileno())
            close_listener(sock)
        for arrival in list(self._silent):
            self._drop(arrival)

    def tick(self, now: float) -> None:
        """Send away who has been silent for too long."""
        for arrival in list(self._silent):
            if now - arrival.since >= self._silence_s:
                self._drop(arrival)

    def prove(self, place: Place) -> None:
        """Take note that a peer has shown who it is."""
        with self._lock:
            self._budget.prove(place)

    def leave(self, place: Place) -> None:
        """Take note that a connection has ended; may be called twice."""
        with self._lock:
            self._budget.leave(place)

    def _accept(self, sock: socket.socket) -> None:
        def pause(until: float) -> None:
            self._reactor.pause(sock.fileno(), until)

        for arrival in accept(sock, self._budget.wait, pause):
            self._come(arrival)

    def _come(self, arrival: Arrival) -> None:
        with self._lock:
            place = self._budget.come(arrival.host)
            crowded = self._budget.crowded(place, arrival.since)
        self._silent[arrival] = place
        self._reactor.watch(arrival.sock.fileno(), lambda: self._first_bytes(arrival))
        if crowded:
            self._drop_silent(place.source)

    def _first_bytes(self, arrival: Arrival) -> None:
        if arrival in self._silent and is_gone(arrival.sock):
            self._drop(arrival)
            return
        place = self._silent.pop(arrival, None)
        if place is not None:
            self._on_bytes(arrival, place)

    def _drop(self, arrival: Arrival) -> None:
        place = self._silent.pop(arrival, None)
        if place is not None:
            self._reactor.forget(arrival.sock.fileno())
            arrival.sock.close()
            self.leave(place)

    def _drop_silent(self, source: str) -> None:
        """Drop the longest silent connection of a source: the newest if all others have begun to speak."""
        for arrival, place in list(self._silent.items()):
            if place.source == source:
                self._drop(arrival)
                return
