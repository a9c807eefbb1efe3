"""A peer with a modified library: it sends calls that our library refuses to send.

A stub knows what it may do and sends nothing else, so an honest server cannot even try. This one claims that
whatever it wants was announced to it and is granted by its own policy; the bytes leave, and the other side decides.
"""

from typing import Any

from caprpc.interface import Member, Parameter, Signature
from caprpc.interface.dynamic import ANY_FORM
from caprpc.objects.targets import stub_of
from caprpc.policy import Guard
from caprpc.session import Announced, Import


class _Claims(dict[tuple[int, str], object]):
    """Says of every operation that our own policy has granted it."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self._guard = guard

    def __contains__(self, _key: object) -> bool:
        return True

    def get(self, _key: object, _default: object = None) -> Any:
        """Return what stands for a right that was looked up under the policy in force."""
        return self._guard.accepts


def forge(reference: object, operation: int, name: str, args: tuple[object, ...]) -> Any:
    """Send one operation on a reference, alive or dead, past every check of our own side.

    Returns:
        What the driver of the reference's connection returns for a call: a result, or an awaitable of it.
    """
    stub: Any = stub_of(reference)
    real: Import = stub._caprpc_import
    key = (operation, name)
    claimed = Announced(real.announced.facet_id, real.announced.interface, frozenset({key}), real.announced.lifetime)
    claimed.rights = _Claims(stub._caprpc_call.__self__._connection.link.session.guard)
    target = Import(real.export_id, claimed, real.holder, [])
    parameters = tuple(
        Parameter(f"argument_{number}", ANY_FORM, positional=True, keyword=False) for number in range(len(args))
    )
    member = Member(operation, name, Signature(name, parameters, ANY_FORM), interface=object, python_names=(name,))
    return stub._caprpc_call(target, member, args, {})
