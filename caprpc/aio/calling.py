"""Ways to call a member of a reference besides awaiting it: ahead, one way, many at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ParamSpec, TypeVar, overload

from caprpc.aio.awaitable import CallAwaitable
from caprpc.ids import OP_SET
from caprpc.objects.promises import PromiseStub, future_of, promise_of
from caprpc.objects.targets import plan_batch, stub_of, target_of

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


@overload
def submit(method: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[R]": ...
@overload
def submit(method: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[R]": ...
def submit(method: Any, /, *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
    """Call a method of a reference without awaiting it: the awaitable that ``ref.method(...)`` returns anyway."""
    stub, target, member = target_of(method)
    future: asyncio.Future[Any] = stub._caprpc_call.__self__.call_async(target, member, args, kwargs)
    return future


@overload
def pipe(reference: Awaitable[T]) -> T: ...
@overload
def pipe(reference: T) -> T: ...
@overload
def pipe(reference: T, path: Callable[[T], R]) -> "asyncio.Future[R]": ...
def pipe(reference: Any, path: Callable[[Any], Any] | None = None) -> Any:
    """Call methods on what other calls return, without waiting in between: all steps go in one round trip.

    ``await pipe(ledger.history("A")).latest().amount()``, or ``await pipe(ledger).history("A").latest().amount()``:
    a step that returns a reference gives a promise of it, which can be awaited and has the members of its interface.
    To a type checker each step is what it will be; ``await pipe(ledger, lambda ledger: ledger.history("A").size())``
    has the type of its result.

    The peer decides each step when it runs, by its policy for the very object. If a step fails, those that stand on
    it do not run, and raise its error. At most ``limits.pipeline_depth`` steps wait one for the other.

    Raises:
        CallRefused, Denied, ReferenceDead, TypeError: As for a call: of a step.
        ValueError: The call was made earlier than in the expression with ``pipe``, and has been sent.
    """
    if isinstance(reference, CallAwaitable):
        if reference.owner is None:
            raise TypeError("this call cannot be called before its result is here: write pipe(ref).method(...)")
        base = reference.owner.keep(reference)
    else:
        base = stub_of(reference)
        if not isinstance(base, PromiseStub):
            base = promise_of(base._caprpc_import, base._caprpc_shape, base._caprpc_call.__self__.step_async, base)
    return base if path is None else future_of(path(base))


async def oneway(method: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """Call a method of a reference and wait for no answer.

    ``await oneway(log.write, line)`` returns once the call is on its way, which waits while the peer has no room for it
    (its ``limits.in_flight``). One that fails is logged as a warning and counted in ``Peer.one_way_failures``.

    Raises:
        CallRefused, Denied, ReferenceDead, TypeError: As for a call; nothing was sent.
    """
    stub, target, member = target_of(method)
    await stub._caprpc_call.__self__.oneway_async(target, member, args, kwargs)


async def batch(calls: Iterable[tuple[Any, tuple[Any, ...]]]) -> list[Any]:
    """Put many calls into one frame, and return all results.

    ``await batch((ledger.balance, (name,)) for name in names)``. Arguments and results are values. The calls run one
    after the other, in order; each is guarded and audited.

    Returns:
        The results in order; where a call failed, the exception that it would have raised.
    """
    owner, planned = plan_batch(calls)
    if owner is None:
        return []
    results: list[Any] = await owner.call_batch_async(planned)
    return results


async def set_attribute(reference: object, name: str, value: object) -> None:
    """Set an attribute of a remote object; an assignment cannot be awaited.

    Raises:
        AttributeError: The interface declares no writable attribute of that name.
    """
    stub = stub_of(reference)
    member = stub._caprpc_shape.members.get((OP_SET, name))
    if member is None:
        raise AttributeError(f"{stub._caprpc_shape.name} declares no writable attribute {name!r}")
    await stub._caprpc_call(stub._caprpc_import, member, (value,), {})
