"""Ways to call a member of a reference besides waiting for it: ahead, one way, many at once."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar, overload

from caprpc.objects.promises import PromiseStub, future_of, promise_of
from caprpc.objects.targets import plan_batch, stub_of, target_of

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


def submit(method: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
    """Call a method of a reference without waiting: ``submit(ledger.balance, "A").result()``."""
    stub, target, member = target_of(method)
    future: Future[R] = stub._caprpc_call.__self__.start(target, member, args, kwargs)
    return future


@overload
def pipe(reference: T) -> T: ...
@overload
def pipe(reference: T, path: Callable[[T], R]) -> "Future[R]": ...
def pipe(reference: Any, path: Callable[[Any], Any] | None = None) -> Any:
    """Call methods on what other calls return, without waiting in between: all steps go in one round trip.

    ``pipe(ledger).history("A").latest().amount().result()``: a step that returns a reference gives a promise of it,
    which has the members of its interface; any other gives a future. To a type checker each step is what it will be; so
    write ``pipe(ledger, lambda ledger: ledger.history("A").latest().amount()).result()`` where types are checked,
    and wherever the last step returns a reference.

    The peer decides each step when it runs, by its policy for the very object. If a step fails, those that stand on
    it do not run, and raise its error. At most ``limits.pipeline_depth`` steps wait one for the other.

    Raises:
        CallRefused, Denied, ReferenceDead, TypeError: As for a call: of a step.
    """
    base = stub_of(reference)
    if not isinstance(base, PromiseStub):
        base = promise_of(base._caprpc_import, base._caprpc_shape, base._caprpc_call.__self__.step, base)
    return base if path is None else future_of(path(base))


def oneway(method: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """Call a method of a reference and wait for no answer: ``oneway(log.write, line)``.

    It returns once the call is sent, which waits while the peer has no room for it (its ``limits.in_flight``): so many
    one-way calls are under way at most. One that fails is logged as a warning and counted in
    ``Peer.one_way_failures``; whether it has run is not known before a later call on the connection is answered.

    Raises:
        CallRefused, Denied, ReferenceDead, TypeError: As for a call; nothing was sent.
    """
    stub, target, member = target_of(method)
    stub._caprpc_call.__self__.oneway(target, member, args, kwargs)


def batch(calls: Iterable[tuple[Any, tuple[Any, ...]]]) -> list[Any]:
    """Put many calls into one frame, and return all results.

    ``batch((ledger.balance, (name,)) for name in names)``. Arguments and results are values. The calls run one after
    the other, in order; each is guarded and audited.

    Returns:
        The results in order; where a call failed, the exception that it would have raised.
    """
    owner, planned = plan_batch(calls)
    if owner is None:
        return []
    results: list[Any] = owner.call_batch(planned)
    return results
