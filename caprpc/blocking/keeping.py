"""A peer that is connected to again after a loss: who dials, who waits, and what a call does meanwhile."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from caprpc.blocking.caller import Caller
from caprpc.blocking.connection import Connection
from caprpc.blocking.dialed import Dialed
from caprpc.blocking.futures import CallFuture
from caprpc.errors import CapRPCError, ConnectionLost, ReferenceDead, RemoteError
from caprpc.interface import Member, Shape
from caprpc.objects.oneway import OneWayCalls
from caprpc.objects.outgoing import AnyCall
from caprpc.objects.promises import Promised
from caprpc.objects.reconnect import (
    NO_ATTEMPTS,
    Attempts,
    Backoff,
    Held,
    HeldRoot,
    HeldSturdy,
    Holdings,
    Reconnect,
    ended_for_good,
)
from caprpc.objects.stubs import Flavor, Stub
from caprpc.session import Ended, Import, State

_LOST: Final = (ConnectionLost, ReferenceDead, RemoteError)
"""What a call may fail with that another connection can mend."""

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
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self.current.close()

    def after(self, before: Connection, deadline: float) -> "KeptCaller":
        """Wait for the connection that comes after one which takes no more calls; return what makes calls on it.

        Raises:
            ConnectionLost: There is none in time, or none any more.
        """
        with self._changed:
            while self.current.connection is before or self.current.end is not None:
                if self._over is not None:
                    raise ConnectionLost(
                        str(self._over), code=self._over.code, reference=self._over.reference, may_have_run=False
                    ) from self._over
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ConnectionLost(_TOO_LATE, may_have_run=False)
                self._changed.wait(left)
            return self._caller_of(self.current)

    def _make(self) -> Dialed:
        return self._dial(lambda connection: KeptCaller(connection, self), self._lost)

    @staticmethod
    def _caller_of(dialed: Dialed) -> "KeptCaller":
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
        self._changed.notify_all()

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
                self._changed.notify_all()
                return True
        fresh.close()
        if end is not None:
            raise ConnectionLost(end.detail, code=end.code, reference=end.reference)
        return False


class KeptCaller(Caller):
    """Makes the calls of one connection, and those that it does not live to answer on the next one."""

    __slots__ = ("_keeper",)

    def __init__(self, connection: Connection, keeper: Keeper) -> None:
        super().__init__(connection)
        self._keeper = keeper
        # Their failures are counted for the peer, whatever connection they were made on.
        self.one_way = keeper.one_way

    def call(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a call and wait for its answer, over as many connections as it may take."""
        try:
            return super().call(target, member, args, kwargs)
        except _LOST as exc:
            attempts = Attempts(self._keeper.plan, member)
            return self._again(
                exc, attempts, [target], lambda caller, now: Caller.call(caller, now[0], member, args, kwargs)
            )

    def call_root(self, name: str, shape: Shape, flavor: Flavor) -> Any:
        """Ask for a root and wait for it; it is asked for again after every loss."""
        try:
            stub = super().call_root(name, shape, flavor)
        except _LOST as exc:
            attempts = Attempts(self._keeper.plan, None)
            stub = self._again(exc, attempts, [], lambda caller, _: Caller.call_root(caller, name, shape, flavor))
        self._keeper.holdings.hold(HeldRoot(name, shape, flavor, stub))
        return stub

    def call_restore(self, name: str, secret: str, shape: Shape, flavor: Flavor) -> Any:
        """Ask for what a sturdy reference stands for; it is asked for again after every loss."""
        try:
            stub = super().call_restore(name, secret, shape, flavor)
        except _LOST as exc:
            attempts = Attempts(self._keeper.plan, None)
            stub = self._again(
                exc, attempts, [], lambda caller, _: Caller.call_restore(caller, name, secret, shape, flavor)
            )
        self._keeper.holdings.hold(HeldSturdy(name, secret, shape, flavor, stub))
        return stub

    def call_roots(self) -> dict[str, str]:
        """Ask which roots there are."""
        try:
            return super().call_roots()
        except _LOST as exc:
            listed: dict[str, str] = self._again(
                exc, Attempts(self._keeper.plan, None), [], lambda caller, _: Caller.call_roots(caller)
            )
            return listed

    def call_batch(self, calls: list[AnyCall]) -> list[Any]:
        """Make many calls in one frame; they wait for a connection, and are not made again."""
        try:
            return super().call_batch(calls)
        except _LOST as exc:
            results: list[Any] = self._again(
                exc,
                NO_ATTEMPTS,
                [target for target, *_ in calls],
                lambda caller, now: Caller.call_batch(
                    caller, [(target, *call[1:]) for target, call in zip(now, calls, strict=True)]
                ),
            )
            return results

    def start(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> CallFuture:
        """Make a call and return its future; it waits for a connection, and is not made again."""
        try:
            return super().start(target, member, args, kwargs)
        except _LOST as exc:
            future: CallFuture = self._again(
                exc, NO_ATTEMPTS, [target], lambda caller, now: Caller.start(caller, now[0], member, args, kwargs)
            )
            return future

    def oneway(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Make a call whose answer nobody waits for; it waits for a connection, and is not made again."""
        try:
            super().oneway(target, member, args, kwargs)
        except _LOST as exc:
            self._again(
                exc, NO_ATTEMPTS, [target], lambda caller, now: Caller.oneway(caller, now[0], member, args, kwargs)
            )

    def step(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a step of a pipeline; the first one waits for a connection, and a promise dies with its own."""
        try:
            return super().step(target, member, args, kwargs)
        except _LOST as exc:
            if isinstance(target, Promised):
                raise
            return self._again(
                exc, NO_ATTEMPTS, [target], lambda caller, now: Caller.step(caller, now[0], member, args, kwargs)
            )

    def release(self, stub: Stub) -> None:
        """Give a reference back now, and for good."""
        self._keeper.holdings.forget(stub)
        super().release(stub)

    def acquire(self, held: Held) -> Stub:
        """Ask for something that is held, and return a fresh stub of it."""
        outgoing = self._connection.link.outgoing
        question = self.ask(lambda _origin: held.ask(outgoing))
        self._wait_within(question)
        with self._lock:
            return held.conclude(outgoing, question)

    @property
    def is_over(self) -> bool:
        """Whether the connection takes no more calls."""
        return self._connection.link.session.state is not State.OPEN

    def _again(
        self,
        exc: Exception,
        attempts: Attempts,
        targets: list[Import],
        make: Callable[[Caller, list[Import]], Any],
    ) -> Any:
        """Make a call again that has failed, on the next connection, as often as it may be."""
        caller, holdings = self, self._keeper.holdings
        deadline = self._until()
        while True:
            attempts.failed(exc, over=caller.is_over)
            holdings.check(targets, exc)
            caller = self._keeper.after(caller._connection, deadline)
            try:
                return make(caller, [caller._now(target) for target in targets])
            except _LOST as again:
                exc = again

    def _until(self) -> float:
        """Return until when a call may wait for the next connection."""
        latest = time.monotonic() + self._connection.link.session.limits.call_timeout_s
        origin = self._origin()
        return latest if origin is None else min(latest, origin.due)

    def _now(self, target: Import) -> Import:
        """Return the import that stands for one which has died with its connection."""
        if target.alive:
            return target
        holdings = self._keeper.holdings
        held, stub = holdings.held(target)
        if not stub._caprpc_import.alive:
            # It was obtained while the connection was being lost, and was not known when the others were renewed.
            holdings.renew(held, self.acquire(held))
        return stub._caprpc_import
