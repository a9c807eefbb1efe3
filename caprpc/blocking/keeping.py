"""A peer that is connected to again after a loss: who dials, who waits, and what a call does meanwhile."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from caprpc.blocking.caller import Caller
from caprpc.blocking.connection import Connection
from caprpc.blocking.dialed import Dialed
from caprpc.blocking.kept import KeptCaller
from caprpc.errors import CapRPCError, ConnectionLost
from caprpc.objects.oneway import OneWayCalls
from caprpc.objects.reconnect import Backoff, Held, Holdings, Reconnect, ended_for_good
from caprpc.objects.stubs import Stub
from caprpc.session import Ended

_TOO_LATE: Final = "not connected again in time (limits.call_timeout_s, or the deadline of the call)"

Dial = Callable[[Callable[[Connection], Caller], Callable[[Dialed, Ended], None]], Dialed]
"""Makes one connection, with what makes its calls and what is told of its end."""


class Keeper:
    """Owns which connection a peer has now: one that is open, none while it is dialed, or none for good.

    One thread dials, and only while there is nothing to use; any thread may wait for what it brings. Its lock is taken
    under a connection's lock and never the other way round.
    """

    def __init__(self, dial: Dial, plan: Reconnect) -> None:
        """Make the first connection; what that raises is raised, and nothing is tried again."""
        self.plan = plan
        self.holdings = Holdings()
        self.one_way = OneWayCalls()
        self._dial = dial
        self._backoff = Backoff(plan)
        self._changed = threading.Condition()
        self._awaiting: list[asyncio.Future[None]] = []
        """Whoever waits on an event loop for ``_changed``."""
        self._over: ConnectionLost | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self.current = self._make()
        if self.current.end is not None:
            self._lost(self.current, self.current.end)

    def close(self) -> None:
        """Dial no more, and end the connection."""
        with self._changed:
            self._closed = True
            if self._over is None:
                self._over = ConnectionLost("the peer was closed", code="closed", may_have_run=False)
            thread = self._thread
            self._tell()
        try:
            if thread is not None and thread is not threading.current_thread():
                thread.join()
        finally:
            self.current.close()

    def after(self, before: Connection, deadline: float) -> KeptCaller:
        """Wait for the connection that comes after one which takes no more calls; return what makes calls on it.

        Raises:
            ConnectionLost: There is none in time, or none any more.
        """
        with self._changed:
            while (caller := self._after_now(before)) is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ConnectionLost(_TOO_LATE, may_have_run=False)
                self._changed.wait(left)
            return caller

    async def after_awaited(self, before: Connection, deadline: float) -> KeptCaller:
        """Wait for it on an event loop."""
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                caller = self._after_now(before)
                if caller is not None:
                    return caller
                told: asyncio.Future[None] = loop.create_future()
                self._awaiting.append(told)
            try:
                await asyncio.wait_for(told, max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise ConnectionLost(_TOO_LATE, may_have_run=False) from None

    def _after_now(self, before: Connection) -> KeptCaller | None:
        """Return what makes calls on the connection after ``before``; None if it is to be waited for."""
        if self.current.connection is not before and self.current.end is None:
            return self._caller_of(self.current)
        if self._over is not None:
            raise ConnectionLost(
                str(self._over), code=self._over.code, reference=self._over.reference, may_have_run=False
            ) from self._over
        return None

    def _tell(self) -> None:
        """Have everybody who waits look again; the lock is held."""
        self._changed.notify_all()
        awaiting, self._awaiting = self._awaiting, []
        for told in awaiting:
            with suppress(RuntimeError):  # its loop is closed: nobody awaits it any more
                told.get_loop().call_soon_threadsafe(_wake, told)

    def _make(self) -> Dialed:
        return self._dial(lambda connection: KeptCaller(connection, self), self._lost)

    @staticmethod
    def _caller_of(dialed: Dialed) -> KeptCaller:
        caller = dialed.connection.caller
        if not isinstance(caller, KeptCaller):
            raise TypeError("a connection that is kept makes its calls with a KeptCaller")
        return caller

    def _lost(self, dialed: Dialed, event: Ended) -> None:
        """Begin to dial, if it is the connection in use that was lost; its lock is held."""
        with self._changed:
            if self._closed or getattr(self, "current", None) is not dialed:
                return
            if ended_for_good(event.code):
                self._give_up(ConnectionLost(event.detail, code=event.code, reference=event.reference))
            elif self._thread is None:
                self._backoff.lived(time.monotonic() - dialed.opened_at)
                self._thread = threading.Thread(target=self._run, name="caprpc-reconnect", daemon=True)
                self._thread.start()

    def _give_up(self, error: ConnectionLost) -> None:
        self._over = error
        self._tell()

    def _run(self) -> None:
        last: Exception | None = None
        self.current.close()
        while True:
            delay = self._backoff.next_s()
            with self._changed:
                if delay is None:
                    text = f"not connected again after {self.plan.attempts} attempts (Reconnect.attempts): {last}"
                    self._give_up(ConnectionLost(text))
                elif not self._closed:
                    self._changed.wait_for(lambda: self._closed, delay)
                if self._closed or self._over is not None:
                    return
            try:
                if self._connect():
                    return
            except ConnectionLost as exc:
                last = exc
                if ended_for_good(exc.code):
                    with self._changed:
                        self._give_up(exc)
                    return
            except Exception as exc:  # on_connect, or a configuration that a reload has made wrong: no loss
                with self._changed:
                    self._give_up(ConnectionLost(f"not connected again: {type(exc).__name__}: {exc}"))
                return

    def _connect(self) -> bool:
        """Make one attempt; whether there is a connection now, with everything on it that is held."""
        fresh = self._make()
        renewed: list[tuple[Held, Stub]] = []
        try:
            for held in self.holdings.due():
                try:
                    renewed.append((held, self._caller_of(fresh).acquire(held)))
                except ConnectionLost:
                    raise
                except CapRPCError as exc:
                    self.holdings.refused(held, exc)
        except BaseException:
            fresh.close()
            raise
        with fresh.connection.lock, self._changed:
            end = fresh.end
            if end is None and not self._closed:
                for held, stub in renewed:
                    self.holdings.renew(held, stub)
                self.current, self._thread = fresh, None
                self._tell()
                return True
        fresh.close()
        if end is not None:
            raise ConnectionLost(end.detail, code=end.code, reference=end.reference)
        return False


def _wake(told: "asyncio.Future[None]") -> None:
    if not told.done():
        told.set_result(None)
