"""From a stub's member to what a connection calls: for ``submit``, ``batch`` and ``release``."""

from collections.abc import Iterable
from types import MethodType
from typing import Any

from caprpc.ids import OP_INVOKE
from caprpc.interface import Member
from caprpc.objects.promises import Promised
from caprpc.objects.stubs import Stub
from caprpc.session import Import


def stub_of(reference: object) -> Stub:
    """Return a reference as a stub.

    Raises:
        TypeError: It is no reference to a remote object.
    """
    if not isinstance(reference, Stub):
        raise TypeError(f"a reference to a remote object expected, got {type(reference).__name__}")
    return reference


def caller_of(stub: Stub) -> Any:
    """Return what makes the calls of a stub: the caller of its connection."""
    return stub._caprpc_call.__self__


def derived_import(stub: Stub) -> Import:
    """Return the import of a reference that we have derived, and may therefore end.

    Raises:
        TypeError: It is what others lent us.
    """
    imported = stub._caprpc_import.origin
    if not imported.derived:
        raise TypeError(
            f"{stub!r} is not ours to revoke: its owner can; caprpc.release() gives it back, and what "
            "caprpc.attenuate() derives from it can be revoked"
        )
    return imported


def target_of(method: object) -> tuple[Stub, Import, Member]:
    """Return stub, import and member behind ``ref.method``, or behind a reference to a callable.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(method, MethodType) and isinstance(method.__self__, Stub):
        stub: Any = method.__self__
        member = getattr(method.__func__, "__caprpc_member__", None)
        if member is not None:
            return stub, stub._caprpc_import, member
    if isinstance(method, Stub):
        stub = method
        member = stub._caprpc_shape.members.get((OP_INVOKE, ""))
        if member is not None:
            return stub, stub._caprpc_import, member
    given = type(method).__name__
    raise TypeError(f"a method of a reference expected, such as ref.method without parentheses, got {given}")


def plan_batch(
    calls: Iterable[tuple[Any, tuple[Any, ...]]],
) -> tuple[Any, list[tuple[Import, Member, tuple[object, ...], dict[str, object]]]]:
    """Return the connection's caller and what it is to call; None and nothing for an empty batch.

    Raises:
        TypeError: Something is no method of a reference, or the references are of several connections.
    """
    owner: Any = None
    planned: list[tuple[Import, Member, tuple[object, ...], dict[str, object]]] = []
    last: object = None
    for call in calls:
        try:
            method, args = call
        except (TypeError, ValueError):
            raise _no_pair() from None
        if not isinstance(args, (tuple, list)):
            # A text would be taken apart: ("A") is no tuple, and ("A",) is.
            raise _no_pair()
        if method is not last or last is None:
            stub, target, member = target_of(method)
            if isinstance(target, Promised):
                raise TypeError("a batch holds calls on references, and no steps on promises")
            caller = stub._caprpc_call.__self__
            if owner is not None and caller is not owner:
                raise TypeError("the calls of a batch go to one peer")
            owner, last = caller, method
        planned.append((target, member, args, {}))
    return owner, planned


def _no_pair() -> TypeError:
    return TypeError("a batch holds pairs of a method and a tuple of its arguments, such as (ledger.balance, (name,))")
