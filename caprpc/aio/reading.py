"""What a connection on a loop reads, and when it reads no more."""

import asyncio
import time
from abc import abstractmethod
from typing import Protocol

from caprpc.aio.defects import Guarded
from caprpc.aio.rounds import Rounds
from caprpc.objects.link import Link
from caprpc.objects.turns import MESSAGES
from caprpc.objects.work import Work, sort_out
from caprpc.session import UNBOUNDED


class Shared(Protocol):
    """What the connections of one host share when they read."""

    rounds: Rounds
    """Whose turn it is."""
    buffer: memoryview
    """Where all connections of a host read to: a plain ``Protocol`` allocates 256 KiB a read."""


class Reading(Guarded, asyncio.BufferedProtocol):
    """The part of a connection that reads; owns what has arrived and is not handled yet.

    Invariant: bytes are handled in the order in which they came. While messages wait for the connection's turn, what
    comes next is kept, and only then no more is read: a peer that waits for its answers sends nothing meanwhile, and to
    stop reading and go on with it would be two system calls.
    """

    host: Shared
    link: Link
    loop: asyncio.AbstractEventLoop
    closed: bool
    _transport: asyncio.Transport | None
    _blocked_since: float | None
    _kept = b""
    """Ciphertext that has come behind messages which wait."""
    _at_end = False
    """Whether the end of the stream has come behind messages which wait."""

    @property
    @abstractmethod
    def principal(self) -> str:
        """Who the peer is; empty before that is proved."""

    @abstractmethod
    def route(self, work: Work) -> None:
        """Give every event to whoever waits for it, start what may start, and send what is ready."""

    @abstractmethod
    def flush(self) -> None:
        """Encrypt and send what is ready."""

    @abstractmethod
    def _authenticated(self) -> None:
        """The peer has proved who it is."""

    @abstractmethod
    def _start_pending(self) -> None:
        """Start calls in the order of their arrival."""

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return where the next bytes go; they are taken from there before anything else is read."""
        return self.host.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take received bytes."""
        link, data = self.link, self.host.buffer[:nbytes]
        known = link.admitted is not None
        if not known:
            self.route(sort_out(link, link.receive(data, time.monotonic(), UNBOUNDED)))
            if link.admitted is not None:
                self._authenticated()
        elif self._waits_for_turn:
            self._kept = bytes(data)
            if self._transport is not None:
                self._transport.pause_reading()
        else:
            rounds, now = self.host.rounds, time.monotonic()
            self.route(sort_out(link, link.receive(data, now, rounds.room(self))))
            rounds.spend(self, now)
            self._leave_rest()

    def take_turn(self) -> None:
        """Handle more of the messages that have come, or once all are handled start more of the calls."""
        link = self.link
        if not self.closed:
            if link.behind:
                self.route(sort_out(link, link.go_on(time.monotonic(), MESSAGES)))
            elif self._kept:
                data, self._kept = self._kept, b""
                self.route(sort_out(link, link.receive(data, time.monotonic(), MESSAGES)))
        if self._leave_rest():
            return
        if self._at_end and not self.closed:
            self._end_of_stream()
            return
        self._read_on()
        self._start_pending()
        self.flush()

    @property
    def _waits_for_turn(self) -> bool:
        """Whether messages have come that are not handled yet."""
        return self.link.behind or bool(self._kept)

    def _leave_rest(self) -> bool:
        """Leave messages that are not handled yet for the next turn; whether there are any."""
        if self.closed or not self._waits_for_turn:
            return False
        self.host.rounds.wait(self)
        return True

    def _read_on(self) -> None:
        """Read what comes, unless the peer takes no answers or we have not handled what came before."""
        takes = self._blocked_since is None or self._awaits_answers
        if self._transport is not None and self.link.ended is None and takes and not self._waits_for_turn:
            self._transport.resume_reading()

    @property
    def _awaits_answers(self) -> bool:
        return self.link.admitted is not None and bool(self.link.session.asked.open)

    def eof_received(self) -> bool:
        """Take note that the peer sends no more; the socket stays open while messages of the peer wait."""
        if self._waits_for_turn and not self.closed:
            self._at_end = True
            return True
        self.route(sort_out(self.link, self.link.receive_eof(time.monotonic())))
        return False

    def _end_of_stream(self) -> None:
        self.route(sort_out(self.link, self.link.receive_eof(time.monotonic())))
        if self._transport is not None:
            self._transport.close()
