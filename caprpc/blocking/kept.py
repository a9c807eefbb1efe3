"""Calls of a peer that is connected to again after a loss: what each does when its connection is lost."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from caprpc.blocking.caller import Caller
from caprpc.blocking.connection import Connection
from caprpc.blocking.futures import CallFuture
from caprpc.errors import ConnectionLost, ReferenceDead, RemoteError
from caprpc.interface import Member, Shape
from caprpc.objects.deferred import begin_later
from caprpc.objects.outgoing import AnyCall
from caprpc.objects.promises import Promised, look_at
from caprpc.objects.reconnect import NO_ATTEMPTS, Attempts, Held, HeldRoot, HeldSturdy
from caprpc.objects.stubs import Flavor, Stub
from caprpc.session import Import, State

if TYPE_CHECKING:
    from caprpc.blocking.keeping import Keeper

_LOST: Final = (ConnectionLost, ReferenceDead, RemoteError)
"""What a call may fail with that another connection can mend."""


class KeptCaller(Caller):
    """Makes the calls of one connection, and those that it does not live to answer on the next one."""

    __slots__ = ("_keeper",)

    def __init__(self, connection: Connection, keeper: "Keeper") -> None:
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

    def call_async(
        self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> "asyncio.Future[Any]":
        """Make a call from a running event loop, over as many connections as it may take."""
        attempts = Attempts(self._keeper.plan, member)

        def make(caller: Caller, now: Import) -> "asyncio.Future[Any]":
            return Caller.call_async(caller, now, member, args, kwargs)

        try:
            first = super().call_async(target, member, args, kwargs)
        except _LOST as exc:
            return asyncio.ensure_future(self._persist(exc, None, attempts, target, make))
        if attempts.ended:
            return first
        first.add_done_callback(look_at)
        outer = asyncio.ensure_future(self._persist(None, first, attempts, target, make))
        # A task that is cancelled before it has begun awaits nothing that could be cancelled with it.
        outer.add_done_callback(lambda done: first.cancel() if done.cancelled() else None)
        return outer

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

    def step_async(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Make a step from a running event loop; the first one waits for a connection."""
        try:
            return super().step_async(target, member, args, kwargs)
        except _LOST as exc:
            if isinstance(target, Promised):
                raise
            lost = exc

        async def make() -> Any:
            NO_ATTEMPTS.failed(lost, over=self.is_over)
            caller, now = await self._later(lost, target, self._until())
            return Caller.step_async(caller, now, member, args, kwargs)

        return begin_later(target, member, make, asyncio.get_running_loop().create_future)

    def release(self, stub: Stub) -> None:
        """Give a reference back now, and for good."""
        self._keeper.holdings.forget(stub)
        super().release(stub)

    def acquire(self, held: Held) -> Stub:
        """Ask for something that is held, and return a fresh stub of it."""
        outgoing = self._connection.link.outgoing
        question = self.ended(lambda _origin: held.ask(outgoing))
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

    async def _persist(
        self,
        exc: Exception | None,
        first: "asyncio.Future[Any] | None",
        attempts: Attempts,
        target: Import,
        make: Callable[[Caller, Import], "asyncio.Future[Any]"],
    ) -> Any:
        """Await a call, and make it again, as often as it may be, when it has failed."""
        caller, deadline = self, self._until()
        while True:
            if first is not None:
                try:
                    return await first
                except _LOST as lost:
                    exc, first, deadline = lost, None, self._until()
            if exc is not None:
                attempts.failed(exc, over=caller.is_over)
                caller, now = await caller._later(exc, target, deadline)
            try:
                first = make(caller, now)
            except _LOST as lost:
                exc = lost

    async def _later(self, exc: Exception, target: Import, deadline: float) -> "tuple[KeptCaller, Import]":
        """Wait for the next connection; return what makes calls on it, and what stands there for the target."""
        self._keeper.holdings.check([target], exc)
        caller = await self._keeper.after_awaited(self._connection, deadline)
        if target.alive:
            return caller, target
        return caller, await asyncio.to_thread(caller._now, target)

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
