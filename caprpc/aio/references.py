"""What one does to a reference, with asyncio: narrow, lend, revoke, release."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar, cast, overload

from caprpc.errors import ConnectionLost, ReferenceDead
from caprpc.objects.attenuation import AttenuateMember, EndMember, Terms, check_interface, cuts, narrow
from caprpc.objects.handles import Narrowed
from caprpc.objects.revocation import end, end_object
from caprpc.objects.stubs import Stub
from caprpc.objects.targets import caller_of, derived_import, stub_of
from caprpc.policy import Only

T = TypeVar("T")


async def attenuate(
    reference: T,
    /,
    *,
    only: Only | None = None,
    args: Mapping[str, Any] | None = None,
    uses: int | None = None,
    for_s: float | None = None,
    rate: float | None = None,
) -> T:
    """Return a lesser reference, as ``caprpc.attenuate`` does; of a reference to a remote object it is a call."""
    terms = Terms.of(only=only, args=args, uses=uses, for_s=for_s, rate=rate)
    return cast("T", await _derive(reference, terms, None))


async def revoke(reference: object, /, *, to: str | None = None, in_flight: str = "cancel") -> None:
    """End a reference and everything that was derived from it, as ``caprpc.revoke`` does."""
    cut = cuts(in_flight)
    if isinstance(reference, Stub):
        imported = derived_import(reference)
        if imported.alive:
            with suppress(ReferenceDead, ConnectionLost):  # it is dead either way
                await caller_of(reference).call_async(imported, EndMember(), (cut,), {})
    elif type(reference) is Narrowed:
        end(reference._caprpc_right, cut=cut)
    else:
        end_object(reference, to=to, cut=cut)


@overload
def lend(
    obj: object,
    interface: Callable[..., T],
    /,
    *,
    only: Only | None = ...,
    args: Mapping[str, Any] | None = ...,
    uses: int | None = ...,
    for_s: float | None = ...,
    rate: float | None = ...,
    in_flight: str = ...,
) -> AbstractAsyncContextManager[T]: ...
@overload
def lend(
    obj: T,
    interface: None = None,
    /,
    *,
    only: Only | None = ...,
    args: Mapping[str, Any] | None = ...,
    uses: int | None = ...,
    for_s: float | None = ...,
    rate: float | None = ...,
    in_flight: str = ...,
) -> AbstractAsyncContextManager[T]: ...
@asynccontextmanager
async def lend(
    obj: Any,
    interface: Callable[..., Any] | None = None,
    /,
    *,
    only: Only | None = None,
    args: Mapping[str, Any] | None = None,
    uses: int | None = None,
    for_s: float | None = None,
    rate: float | None = None,
    in_flight: str = "cancel",
) -> AsyncIterator[Any]:
    """Narrow an object for a block, as ``caprpc.lend`` does: ``async with caprpc.aio.lend(report) as ref:``."""
    cuts(in_flight)
    terms = Terms.of(only=only, args=args, uses=uses, for_s=for_s, rate=rate)
    if isinstance(obj, Stub):
        check_interface(obj, interface)
    lent = await _derive(obj, terms, interface)
    try:
        yield lent
    finally:
        await revoke(lent, in_flight=in_flight)


@contextmanager
def release_after(reference: T, /) -> Iterator[T]:
    """Give a reference back at the end of a block, as ``caprpc.release_after`` does; nothing is awaited."""
    try:
        yield reference
    finally:
        release(reference)


def release(reference: object) -> None:
    """Give a reference back now instead of when it is collected; using it afterwards raises ``ReferenceDead``."""
    stub = stub_of(reference)
    caller_of(stub).release(stub)


async def _derive(reference: object, terms: Terms, interface: Callable[..., Any] | None) -> object:
    if isinstance(reference, Stub):
        member = AttenuateMember(reference, terms)
        derived: object = await caller_of(reference).call_async(reference._caprpc_import, member, (reference,), {})
        return derived
    return narrow(reference, terms, time.monotonic(), interface)
