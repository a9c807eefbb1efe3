"""A peer that is connected to again after a loss: who dials, who waits, and what a call does meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from caprpc.aio.awaitable import CallAwaitable
from caprpc.aio.caller import Caller
from caprpc.aio.connection import Connection
from caprpc.aio.dialed import Dialed
from caprpc.errors import CapRPCError, ConnectionLost, ReferenceDead, RemoteError
from caprpc.interface import Member, Shape
from caprpc.objects.admission import Admission
from caprpc.objects.deferred import begin_later
from caprpc.objects.oneway import OneWayCalls
from caprpc.objects.outgoing import AnyCall
from caprpc.objects.promises import Promised, look_at
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
from caprpc.objects.sides import Wish
from caprpc.objects.stubs import Flavor, Stub
from caprpc.session import Ended, Import, State
from caprpc.sockets import Route

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

_LOST: Final = (ConnectionLost, ReferenceDead, RemoteError)
"""What a call may fail with that another connection can mend."""

_TOO_LATE: Final = "not connected again in time (limits.call_timeout_s, or the deadline of the call)"


class Keeper:
    """Owns which connection a peer has now: one that is open, none while it is dialed, or none for good.

    One task dials, and only while there is nothing to use; any task of the loop may wait for what it brings.
    """

    current: Dialed

    def __init__(self, admission: Admission, route: Route, wish: Wish, plan: Reconnect) -> None:
        self.plan = plan
        self.holdings = Holdings()
        self.one_way = OneWayCalls()
        self._admission = admission
        self._route = route
        self._wish = wish
        self._backoff = Backoff(plan)
        self._changed = asyncio.Event()
        """Set, and replaced, whenever somebody who waits must look again."""
        self._over: ConnectionLost | None = None
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make the first connection; what that raises is raised, and nothing is tried again."""
        self.current = await self._make()
        if self.current.end is not None:
            self._lost(self.current, self.current.end)

    async def close(self) -> None:
        """Dial no more, and end the connection."""
        self._closed = True
        self._give_up(self._over or ConnectionLost("the peer was closed", code="closed"))
        task = self._task
        try:
            if task is not None and task is not asyncio.current_task():
                task.cancel()
                await asyncio.wait([task])
        finally:
            await self.current.close()

    async def after(self, before: Connection, deadline: float) -> "KeptCaller":
        """Wait for the connection that comes after one which takes no more calls; return what makes calls on it.

        Raises:
            ConnectionLost: There is none in time, or none any more.
        """
        while self.current.connection is before or self.current.end is not None:
            over = self._over
            if over is not None:
                raise ConnectionLost(str(over), code=over.code, reference=over.reference, may_have_run=False) from over
            left = deadline - time.monotonic()
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, left))
            except TimeoutError:
                raise ConnectionLost(_TOO_LATE, may_have_run=False) from None
        return _caller_of(self.current)

    async def _make(self) -> Dialed:
        dialed = Dialed(self._admission, self._lost)
        await dialed.open(self._route, self._wish, lambda connection, loop: KeptCaller(connection, loop, self))
        return dialed

    def _lost(self, dialed: Dialed, event: Ended) -> None:
        """Begin to dial, if it is the connection in use that was lost."""
        if self._closed or getattr(self, "current", None) is not dialed:
            return
        if ended_for_good(event.code):
            self._give_up(ConnectionLost(event.detail, code=event.code, reference=event.reference))
        elif self._task is None:
            self._backoff.lived(time.monotonic() - dialed.opened_at)
            # In a context of its own: no method that happens to run has anything to do with it.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    def _give_up(self, error: ConnectionLost) -> None:
        self._over = error
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self) -> None:
        last: Exception | None = None
        await self.current.close()
        while True:
            delay = self._backoff.next_s()
            if delay is None:
                text = f"not connected again after {self.plan.attempts} attempts (Reconnect.attempts): {last}"
                self._give_up(ConnectionLost(text))
                return
            await asyncio.sleep(delay)
            try:
                await self._connect()
            except ConnectionLost as exc:
                last = exc
                if ended_for_good(exc.code):
                    self._give_up(exc)
                    return
            except Exception as exc:  # on_connect, or a configuration that a reload has made wrong: no loss
                self._give_up(ConnectionLost(f"not connected again: {type(exc).__name__}: {exc}"))
                return
            else:
                return

    async def _connect(self) -> None:
        """Make one attempt: a connection, and on it everything that is held."""
        fresh = await self._make()
        renewed: list[tuple[Held, Stub]] = []
        try:
            for held in self.holdings.due():
                try:
                    renewed.append((held, await _caller_of(fresh).acquire(held)))
                except ConnectionLost:
                    raise
                except CapRPCError as exc:
                    self.holdings.refused(held, exc)
        except BaseException:
            await fresh.close()
            raise
        end = fresh.end
        if end is not None:
            await fresh.close()
            raise ConnectionLost(end.detail, code=end.code, reference=end.reference)
        for held, stub in renewed:
            self.holdings.renew(held, stub)
        self.current, self._task = fresh, None
        self._tell()


class KeptCaller(Caller):
    """Makes the calls of one connection, and those that it does not live to answer on the next one."""

    def __init__(self, connection: Connection, loop: "AbstractEventLoop", keeper: Keeper) -> None:
        super().__init__(connection, loop)
        self._keeper = keeper
        # Their failures are counted for the peer, whatever connection they were made on.
        self.one_way = keeper.one_way

    def call_as(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object], flavor: Flavor
    ) -> CallAwaitable:
        """Make a call and return its awaitable, over as many connections as it may take."""
        attempts = Attempts(self._keeper.plan, member)

        def make(caller: Caller, now: list[Import]) -> "asyncio.Future[Any]":
            return Caller.call_as(caller, now[0], member, args, kwargs, flavor)

        try:
            first = super().call_as(target, member, args, kwargs, flavor)
        except _LOST as exc:
            return self._again(exc, None, attempts, [target], make)
        if attempts.ended:
            return first
        outer = self._again(None, first, attempts, [target], make)
        outer.owner, outer.first = self, first
        return outer

    def keep(self, future: CallAwaitable) -> Any:
        """Return the promise of what a call returns; a pipeline is not made again after a loss."""
        if future.first is None:
            return super().keep(future)
        promise = super().keep(future.first)
        # Whoever holds the promise learns how the call ended; nobody awaits all attempts at it any more.
        future.add_done_callback(look_at)
        return promise

    def step_async(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a step of a pipeline; the first one waits for a connection, and a promise dies with its own."""
        if isinstance(target, Promised) or not self.is_over:
            return super().step_async(target, member, args, kwargs)

        async def make() -> Any:
            caller, now = await self._later(target)
            return Caller.step_async(caller, now, member, args, kwargs)

        return begin_later(target, member, make, lambda: CallAwaitable(loop=self._loop))

    def step(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a step from a thread beside the loop; the first one waits for a connection."""
        if isinstance(target, Promised) or not self.is_over:
            return super().step(target, member, args, kwargs)
        self.refuse_on_loop("waiting for a connection")
        caller, now = asyncio.run_coroutine_threadsafe(self._later(target), self._loop).result()
        return Caller.step(caller, now, member, args, kwargs)

    async def oneway_async(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """Make a call whose answer nobody waits for; it waits for a connection, and is not made again."""

        def make(caller: Caller, now: list[Import]) -> "asyncio.Future[Any]":
            return self._loop.create_task(Caller.oneway_async(caller, now[0], member, args, kwargs))

        try:
            await super().oneway_async(target, member, args, kwargs)
        except _LOST as exc:
            await self._again(exc, None, NO_ATTEMPTS, [target], make)

    def call_root(self, name: str, shape: Shape, flavor: Flavor) -> "asyncio.Future[Any]":
        """Ask for a root; it is asked for again after every loss."""
        self.refuse_elsewhere()

        async def ask() -> Any:
            stub = await self._first_or_again(lambda caller, _: Caller.call_root(caller, name, shape, flavor))
            self._keeper.holdings.hold(HeldRoot(name, shape, flavor, stub))
            return stub

        return self._loop.create_task(ask())

    def call_restore(self, name: str, secret: str, shape: Shape, flavor: Flavor) -> "asyncio.Future[Any]":
        """Ask for what a sturdy reference stands for; it is asked for again after every loss."""
        self.refuse_elsewhere()

        async def ask() -> Any:
            stub = await self._first_or_again(
                lambda caller, _: Caller.call_restore(caller, name, secret, shape, flavor)
            )
            self._keeper.holdings.hold(HeldSturdy(name, secret, shape, flavor, stub))
            return stub

        return self._loop.create_task(ask())

    def call_roots(self) -> "asyncio.Future[dict[str, str]]":
        """Ask which roots there are."""
        return self._first_or_again(lambda caller, _: Caller.call_roots(caller))

    def call_batch_async(self, calls: list[AnyCall]) -> "asyncio.Future[list[Any]]":
        """Make many calls in one frame; they wait for a connection, and are not made again."""
        try:
            return super().call_batch_async(calls)
        except _LOST as exc:
            return self._again(
                exc,
                None,
                NO_ATTEMPTS,
                [target for target, *_ in calls],
                lambda caller, now: Caller.call_batch_async(
                    caller, [(target, *call[1:]) for target, call in zip(now, calls, strict=True)]
                ),
            )

    def release(self, stub: Stub) -> None:
        """Give a reference back now, and for good."""
        self._keeper.holdings.forget(stub)
        super().release(stub)

    def acquire(self, held: Held) -> "asyncio.Future[Stub]":
        """Ask for something that is held; gives a fresh stub of it."""
        outgoing = self._connection.link.outgoing
        return self.ask(lambda: held.ask(outgoing), lambda question: held.conclude(outgoing, question), None)

    @property
    def is_over(self) -> bool:
        """Whether the connection takes no more calls."""
        return self._connection.link.session.state is not State.OPEN

    async def _later(self, target: Import) -> "tuple[KeptCaller, Import]":
        """Wait for the next connection; return what makes calls on it, and what stands there for the target."""
        self._keeper.holdings.check([target], ConnectionLost("no connection", may_have_run=False))
        caller = await self._keeper.after(self._connection, self._until())
        return caller, await caller._now(target)

    def _first_or_again(self, make: Callable[[Caller, list[Import]], "asyncio.Future[Any]"]) -> CallAwaitable:
        """Ask for something that has no effect."""
        attempts = Attempts(self._keeper.plan, None)
        try:
            return self._again(None, make(self, []), attempts, [], make)
        except _LOST as exc:
            return self._again(exc, None, attempts, [], make)

    def _again(
        self,
        exc: Exception | None,
        first: "asyncio.Future[Any] | None",
        attempts: Attempts,
        targets: list[Import],
        make: Callable[[Caller, list[Import]], "asyncio.Future[Any]"],
    ) -> CallAwaitable:
        """Return the awaitable of a call that is made again, as often as it may be, when it has failed."""
        outer = CallAwaitable(loop=self._loop)
        task = self._loop.create_task(self._persist(exc, first, attempts, targets, make))

        def ended(done: "asyncio.Task[Any]") -> None:
            if outer.done():
                if not done.cancelled():
                    done.exception()
            elif done.cancelled():
                outer.cancel()
            elif (error := done.exception()) is not None:
                outer.set_exception(error)
            else:
                outer.set_result(done.result())

        task.add_done_callback(ended)
        outer.add_done_callback(lambda done: task.cancel() if done.cancelled() else None)
        return outer

    async def _persist(
        self,
        exc: Exception | None,
        first: Awaitable[Any] | None,
        attempts: Attempts,
        targets: list[Import],
        make: Callable[[Caller, list[Import]], "asyncio.Future[Any]"],
    ) -> Any:
        caller, holdings = self, self._keeper.holdings
        deadline = self._until()
        while True:
            if first is not None:
                try:
                    return await first
                except _LOST as lost:
                    exc, first = lost, None
                    deadline = self._until()
            if exc is not None:
                attempts.failed(exc, over=caller.is_over)
                holdings.check(targets, exc)
                caller = await self._keeper.after(caller._connection, deadline)
            try:
                return await make(caller, [await caller._now(target) for target in targets])
            except _LOST as lost:
                exc = lost

    def _until(self) -> float:
        """Return until when a call may wait for the next connection."""
        latest = time.monotonic() + self._connection.link.session.limits.call_timeout_s
        origin = self.origin()
        return latest if origin is None else min(latest, origin.due)

    async def _now(self, target: Import) -> Import:
        """Return the import that stands for one which has died with its connection."""
        if target.alive:
            return target
        holdings = self._keeper.holdings
        held, stub = holdings.held(target)
        if not stub._caprpc_import.alive:
            # It was obtained while the connection was being lost, and was not known when the others were renewed.
            holdings.renew(held, await self.acquire(held))
        return stub._caprpc_import


def _caller_of(dialed: Dialed) -> KeptCaller:
    caller = dialed.connection.caller
    if not isinstance(caller, KeptCaller):
        raise TypeError("a connection that is kept makes its calls with a KeptCaller")
    return caller
