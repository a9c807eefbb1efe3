"""Where connections come in on a loop: listening sockets, and connections that have not begun."""

import asyncio
import socket
import time
from collections.abc import Callable

from caprpc.limits import ServerLimits
from caprpc.objects.accepting import Place
from caprpc.objects.listening import Listening
from caprpc.sockets import Arrival, accept, close_listener, is_gone


class Door(Listening):
    """Owns who has come and has not begun."""

    def __init__(self, limits: ServerLimits, on_bytes: Callable[[Arrival, Place], None]) -> None:
        """Take what serves a connection whose first bytes are there, once it is its turn."""
        super().__init__(limits)
        self._on_bytes = on_bytes
        self._silent: dict[Arrival, Place] = {}
        self._closed = False
        self._token: asyncio.TimerHandle | None = None
        """Looks at those that wait for a token."""

    def open(self) -> None:
        """Let connections in."""
        loop = asyncio.get_running_loop()
        for sock in self._listeners:
            loop.add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Let nobody in any more, and send away who has not begun."""
        self._closed = True
        loop = asyncio.get_running_loop()
        for sock in self._listeners:
            loop.remove_reader(sock)
            close_listener(sock)
        for arrival in self._not_begun():
            self._drop(arrival)
        if self._token is not None:
            self._token.cancel()

    def prove(self, place: Place) -> None:
        """Take note that a peer has shown who it is."""
        self._budget.prove(place)

    def leave(self, place: Place) -> None:
        """Take note that a connection has ended; may be called twice."""
        self._budget.leave(place, time.monotonic())

    def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        def pause(until: float) -> None:
            loop.remove_reader(sock)
            loop.call_later(max(0.0, until - time.monotonic()), self._resume, sock)

        for arrival in accept(sock, self._budget.wait, pause):
            self._come(arrival)

    def _resume(self, sock: socket.socket) -> None:
        if not self._closed:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def _come(self, arrival: Arrival) -> None:
        if self._budget.refuses(arrival.host, arrival.since):
            arrival.sock.close()
            return
        place = self._silent[arrival] = self._budget.come(arrival.host)
        arrival.sock.setblocking(False)
        asyncio.get_running_loop().add_reader(arrival.sock, self._first_bytes, arrival)
        crowded = self._budget.crowded(place, arrival.since)
        if crowded is not None:
            self._make_room(crowded, arrival)

    def _make_room(self, source: str, newest: Arrival) -> None:
        """Drop a connection of a source: the longest silent, or who waits and came last, or the newest if it is one."""
        for arrival, place in self._silent.items():
            if place.source == source and arrival is not newest:
                self._drop(arrival)
                return
        waiting = self._budget.give_up(source)
        if waiting is not None:
            self._close(*waiting)
        elif self._silent[newest].source == source:
            self._drop(newest)

    def _first_bytes(self, arrival: Arrival) -> None:
        if is_gone(arrival.sock):
            self._drop(arrival)
            return
        asyncio.get_running_loop().remove_reader(arrival.sock)
        self._budget.speaks(arrival, self._silent.pop(arrival))
        self._begin()

    def _begin(self) -> None:
        """Let those begin whose turn it is; look again when there is a token for the next."""
        while True:
            now = time.monotonic()
            chosen = self._budget.next(now)
            if chosen is None:
                due = self._budget.due()
                if due is not None and self._token is None:
                    self._token = asyncio.get_running_loop().call_later(due, self._has_token)
                return
            arrival, place = chosen
            if is_gone(arrival.sock):
                self._close(arrival, place)
                continue
            self._budget.begin(place, now)
            self._on_bytes(arrival, place)

    def _has_token(self) -> None:
        self._token = None
        self._begin()

    def _drop(self, arrival: Arrival) -> None:
        place = self._silent.pop(arrival, None)
        if place is not None:
            asyncio.get_running_loop().remove_reader(arrival.sock)
        else:
            place = self._budget.forget(arrival)
        if place is not None:
            self._close(arrival, place)

    def _close(self, arrival: Arrival, place: Place) -> None:
        arrival.sock.close()
        self._budget.leave(place, time.monotonic())

    def _not_begun(self) -> list[Arrival]:
        return [*self._silent, *(arrival for arrival, _ in self._budget.waiting())]
