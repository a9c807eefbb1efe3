"""Pipelines that begin while there is no connection: their steps are made in order once there is one."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from caprpc.interface import Member
from caprpc.objects.promises import Promised, PromiseStub, future_of, look_at, promise_of, result_shape
from caprpc.session import Import

Step = Callable[[Import, Member, tuple[object, ...], dict[str, object]], Any]
"""Makes a step on a target."""

NewFuture = Callable[[], "asyncio.Future[Any]"]
"""Makes the driver's awaitable, not done yet, on the running loop."""


def begin_later(target: Import, member: Member, make: Callable[[], Coroutine[Any, Any, Any]], new: NewFuture) -> Any:
    """Return at once what a step gives, a promise or an awaitable; ``make`` makes it when that can be done."""
    result = new()
    loop = result.get_loop()
    made = loop.create_task(make())
    loop.create_task(_pass_on(made, result))
    shape = result_shape(member)
    if shape is None:
        return result
    result.add_done_callback(look_at)
    promised = Promised(shape, target, member)
    promised.future = result
    return promise_of(promised, shape, _steps_after(made, new))


def _steps_after(made: "asyncio.Task[Any]", new: NewFuture) -> Step:
    """Return what makes steps on a promise that is not made yet: in order, and without waiting for its answer."""

    def step(target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        async def make() -> Any:
            promise: PromiseStub = await made
            return promise._caprpc_call(promise._caprpc_import, member, args, kwargs)

        return begin_later(target, member, make, new)

    return step


async def _pass_on(made: "asyncio.Task[Any]", result: "asyncio.Future[Any]") -> None:
    """Have ``result`` end as what was made does; cancelling it cancels that."""
    try:
        future = future_of(await made)
        result.add_done_callback(lambda done: future.cancel() if done.cancelled() else None)
        value = await future
    except asyncio.CancelledError:
        result.cancel()
    except Exception as exc:  # whatever the step ended with belongs to whoever awaits it
        if not result.done():
            result.set_exception(exc)
    else:
        if not result.done():
            result.set_result(value)
