"""Where a server listens, and who has come there: what the doors of both drivers own."""

import socket
import time
from abc import ABC, abstractmethod

from caprpc.address import Address
from caprpc.limits import ServerLimits
from caprpc.objects.accepting import AcceptBudget
from caprpc.sockets import Arrival, arrival_of, bound_address, listen


class Listening(ABC):
    """Owns the listening sockets, and what each connection takes of the budget until it has gone."""

    def __init__(self, limits: ServerLimits) -> None:
        self._silence_s = limits.handshake_timeout_s
        self._budget: AcceptBudget[Arrival] = AcceptBudget(limits, time.monotonic())
        self._listeners: list[socket.socket] = []

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

    def tick(self, now: float) -> None:
        """Send away who has been silent, or has waited, for too long."""
        for arrival in self._not_begun():
            if now - arrival.since >= self._silence_s:
                self._drop(arrival)

    @abstractmethod
    def _come(self, arrival: Arrival) -> None:
        """Take a connection that says nothing yet."""

    @abstractmethod
    def _not_begun(self) -> list[Arrival]:
        """Return who is silent, or waits for its turn."""

    @abstractmethod
    def _drop(self, arrival: Arrival) -> None:
        """Close a connection that has not begun, if it is one."""
