"""What one does to a reference, in blocking code: narrow, lend, revoke, release."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar, cast, overload

from caprpc.errors import ConnectionLost, ReferenceDead
from caprpc.objects.attenuation import AttenuateMember, EndMember, Terms, check_interface, cuts, narrow
from caprpc.objects.handles import Narrowed
from caprpc.objects.interrupted import amid_ours, done_aside
from caprpc.objects.revocation import end, end_object
from caprpc.objects.stubs import Stub
from caprpc.objects.targets import caller_of, derived_import, stub_of
from caprpc.policy import Only
from caprpc.session import Import

T = TypeVar("T")


def attenuate(
    reference: T,
    /,
    *,
    only: Only | None = None,
    args: Mapping[str, Any] | None = None,
    uses: int | None = None,
    for_s: float | None = None,
    rate: float | None = None,
) -> T:
    """Return a lesser reference, of an object of ours or of one of theirs; it never allows more than what it came from.

    Of an object of ours it is a handle, to be passed or returned in place of the object; we enforce it. Of a reference
    to a remote object it is another reference, which its owner enforces; asking for it is a call. Whatever is obtained
    through it ends with it, and counts as its use.

    Args:
        reference: The object, a handle, or a reference.
        only: Members that are kept: ``["balance", "history"]``; or as in an offer, ``{"call": ["post"], "get":
            ["label"], "set": ["label"], "iterate": True}``. A plain name keeps calling and reading; for assigning
            write ``set``.
        args: Rules for arguments, as in an offer: ``{"post": {"amount": {"max": 100}}}``.
        uses: How many operations; ``close`` and leaving a context are not counted.
        for_s: How many seconds from now.
        rate: How many operations a second, and as many at once (at least 1).

    Raises:
        TypeError, ValueError: The terms are not of that form, or name a member that there is not.
        Denied: The peer does not offer what is to be kept.
        ReferenceDead: There is nothing left to derive from.
        LimitExceeded, RemoteError: It is derived too many times, or the peer holds too much.
    """
    terms = Terms.of(only=only, args=args, uses=uses, for_s=for_s, rate=rate)
    if isinstance(reference, Stub):
        stub: Stub = reference
        derived = caller_of(stub).call(stub._caprpc_import, AttenuateMember(stub, terms), (stub,), {})
        return cast("T", derived)
    return cast("T", narrow(reference, terms, time.monotonic()))


def revoke(reference: object, /, *, to: str | None = None, in_flight: str = "cancel") -> None:
    """End a reference, everything that was derived from it, and everything that was obtained through what was derived.

    What is asked of it afterwards is refused at once; its holders learn of it, and get ``ReferenceDead``.

    Args:
        reference: A handle of ``attenuate`` or ``lend``; an object of ours, for every reference to it that is out; or a
            reference that we have derived with ``attenuate``. What others lent us is theirs to revoke: ``release`` it.
        to: For an object of ours: only what this principal holds.
        in_flight: ``"cancel"``: running calls on it are answered now, their methods learn of it, and what they return
            stays here. ``"finish"``: they may end.

    Raises:
        TypeError, ValueError: There is nothing of this kind to revoke.
    """
    cut = cuts(in_flight)
    if isinstance(reference, Stub):
        imported = derived_import(reference)
        if amid_ours():
            done_aside(partial(_end_theirs, reference, imported, cut))
        else:
            _end_theirs(reference, imported, cut)
    elif type(reference) is Narrowed:
        end(reference._caprpc_right, cut=cut)
    else:
        end_object(reference, to=to, cut=cut)


def _end_theirs(stub: Stub, imported: Import, cut: bool) -> None:
    if imported.alive:
        with suppress(ReferenceDead, ConnectionLost):  # it is dead either way
            caller_of(stub).call(imported, EndMember(), (cut,), {})


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
) -> AbstractContextManager[T]: ...
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
) -> AbstractContextManager[T]: ...
@contextmanager
def lend(
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
) -> Iterator[Any]:
    """Narrow an object for a block: at its end everything that went out through the handle is revoked.

    ``with caprpc.lend(report, Report, only=["read"]) as ref: archive.index(ref)``

    The arguments are those of ``attenuate`` and ``revoke``. With an interface the object goes out as that and as
    nothing else.

    Raises:
        TypeError: It does not implement the interface; and as ``attenuate``.
    """
    cuts(in_flight)
    terms = Terms.of(only=only, args=args, uses=uses, for_s=for_s, rate=rate)
    lent: Any
    if isinstance(obj, Stub):
        check_interface(obj, interface)
        lent = caller_of(obj).call(obj._caprpc_import, AttenuateMember(obj, terms), (obj,), {})
    else:
        lent = narrow(obj, terms, time.monotonic(), interface)
    try:
        yield lent
    finally:
        revoke(lent, in_flight=in_flight)


@contextmanager
def release_after(reference: T, /) -> Iterator[T]:
    """Give a reference back at the end of a block: ``with caprpc.release_after(ledger.history("A")) as rows:``.

    A function and not ``with reference:``, for that is the remote object's own context, if its interface declares one.
    """
    try:
        yield reference
    finally:
        release(reference)


def release(reference: object) -> None:
    """Give a reference back now instead of when it is collected; using it afterwards raises ``ReferenceDead``."""
    stub = stub_of(reference)
    caller_of(stub).release(stub)
