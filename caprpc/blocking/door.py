"""Where connections come in: listening sockets, and connections that have not sent a byte."""

import socket
import threading
import time
from collections.abc import Callable

from caprpc.blocking.reactor import Reactor
from caprpc.limits import ServerLimits
from caprpc.objects.accepting import Place
from caprpc.objects.listening import Listening
from caprpc.sockets import Arrival, accept, close_listener, is_gone


class Door(Listening):
    """Owns who has come and has not begun."""

    def __init__(self, reactor: Reactor, limits: ServerLimits, on_bytes: Callable[[Arrival, Place], None]) -> None:
        """Take what serves a connection whose first bytes are there, once it is its turn."""
        super().__init__(limits)
        self._reactor = reactor
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._silent: dict[Arrival, Place] = {}
        self._called = False
        """Whether those that wait for a token will be looked at when there is one."""

    def open(self) -> None:
        """Let connections in."""
        for sock in self._listeners:
            self._reactor.watch(sock.fileno(), lambda sock=sock: self._accept(sock))  # type: ignore[misc]

    def close(self) -> None:
        """Let nobody in any more, and send away who has not said a byte."""
        for sock in self._listeners:
            self._reactor.forget(sock.fileno())
            close_listener(sock)
        for arrival in self._not_begun():
            self._drop(arrival)

    def prove(self, place: Place) -> None:
        """Take note that a peer has shown who it is."""
        with self._lock:
            self._budget.prove(place)

    def leave(self, place: Place) -> None:
        """Take note that a connection has ended; may be called twice."""
        with self._lock:
            self._budget.leave(place, time.monotonic())

    def _accept(self, sock: socket.socket) -> None:
        def pause(until: float) -> None:
            self._reactor.pause(sock.fileno(), until)

        for arrival in accept(sock, self._budget.wait, pause):
            self._come(arrival)

    def _come(self, arrival: Arrival) -> None:
        with self._lock:
            if self._budget.refuses(arrival.host, arrival.since):
                arrival.sock.close()
                return
            place = self._budget.come(arrival.host)
            crowded = self._budget.crowded(place, arrival.since)
            self._silent[arrival] = place
        self._reactor.watch(arrival.sock.fileno(), lambda: self._first_bytes(arrival))
        if crowded is not None:
            self._make_room(crowded, arrival)

    def _first_bytes(self, arrival: Arrival) -> None:
        if is_gone(arrival.sock):
            self._drop(arrival)
            return
        with self._lock:
            place = self._silent.pop(arrival, None)
            if place is None:
                return
            self._budget.speaks(arrival, place)
            # Until its turn nothing but its end is of interest.
            self._reactor.mute(arrival.sock.fileno())
        self._begin()

    def _begin(self) -> None:
        """Let those begin whose turn it is; have somebody look again when there is a token for the next."""
        while True:
            now = time.monotonic()
            with self._lock:
                chosen = self._budget.next(now)
                if chosen is None:
                    due = self._budget.due()
                    if due is not None and not self._called:
                        self._called = True
                        self._reactor.later(now + due, self._token)
                    return
                arrival, place = chosen
                gone = is_gone(arrival.sock)
                if gone:
                    self._close(arrival, place, now)
                else:
                    self._budget.begin(place, now)
            if not gone:
                self._on_bytes(arrival, place)

    def _token(self) -> None:
        with self._lock:
            self._called = False
        self._begin()

    def _not_begun(self) -> list[Arrival]:
        with self._lock:
            return [*self._silent, *(arrival for arrival, _ in self._budget.waiting())]

    def _drop(self, arrival: Arrival) -> None:
        with self._lock:
            place = self._silent.pop(arrival, None) or self._budget.forget(arrival)
            if place is not None:
                self._close(arrival, place, time.monotonic())

    def _make_room(self, source: str, newest: Arrival) -> None:
        """Drop a connection of a source: the longest silent, or who waits and came last, or the newest if it is one."""
        with self._lock:
            silent = next(
                (one for one in self._silent.items() if one[1].source == source and one[0] is not newest), None
            )
            if silent is not None:
                del self._silent[silent[0]]
                dropped = silent
            else:
                waiting = self._budget.give_up(source)
                if waiting is None and self._silent[newest].source != source:
                    return
                dropped = waiting or (newest, self._silent.pop(newest))
            self._close(*dropped, time.monotonic())

    def _close(self, arrival: Arrival, place: Place, now: float) -> None:
        """Close a connection that has not begun; the lock is held."""
        self._reactor.forget(arrival.sock.fileno())
        arrival.sock.close()
        self._budget.leave(place, now)
