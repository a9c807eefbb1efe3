"""A peer with a modified library: it sends calls that our library refuses to send.

A stub knows what it may do and sends nothing else, so an honest server cannot even try. This one claims that
whatever it wants was announced to it and is granted by its own policy; the bytes leave, and the other side decides.
"""

from typing import Any

from caprpc.interface import Member, Parameter, Signature
from caprpc.interface.dynamic import ANY_FORM
from caprpc.objects.targets import stub_of
from caprpc.session import Announced, Import


def forge(reference: object, operation: int, name: str, args: tuple[object, ...]) -> Any:
    """Send one operation on a reference, alive or dead, past every check of our own side.

    Returns:
        What the driver of the reference's connection returns for a call: a result, or an awaitable of it.
    """
    stub: Any = stub_of(reference)
    real: Import = stub._caprpc_import
    key = (operation, name)
    claimed = Announced(real.announced.facet_id, real.announced.interface, frozenset({key}), real.announced.lifetime)
    claimed.rights[key] = "forged"
    target = Import(real.export_id, claimed, real.holder, [])
    parameters = tuple(
        Parameter(f"argument_{number}", ANY_FORM, positional=True, keyword=False) for number in range(len(args))
    )
    member = Member(operation, name, Signature(name, parameters, ANY_FORM), interface=object, python_names=(name,))
    return stub._caprpc_call(target, member, args, {})
