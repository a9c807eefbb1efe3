"""What can be said of a reference without asking anybody: nothing here sends a byte."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from caprpc.ids import OP_GET, OP_SET, OPERATION_NAMES
from caprpc.interface import AnnouncedSignature, Member, Shape, interface_info, shape_of
from caprpc.objects.handles import Narrowed
from caprpc.objects.stubs import Stub
from caprpc.objects.targets import stub_of


@dataclass(frozen=True, slots=True)
class MemberDescription:
    """One thing that a reference lets us do."""

    operation: str
    """``call``, ``get``, ``iterate`` and so on: the operations of the wire protocol, section 6."""
    name: str
    """Empty for operations without a name."""
    signature: str
    """As declared: ``(account: str, limit: int = ...) -> list[int]``; the type alone for an attribute."""
    effect: str
    """``read`` or ``write``, as our copy of the interface declares it; ``unknown`` in tools that have no copy."""
    doc: str

    def __str__(self) -> str:
        return f"{self.name or self.operation}{self.signature if self.signature[:1] == '(' else ': ' + self.signature}"


@dataclass(frozen=True, slots=True)
class Description:
    """What a reference is, and what its owner lets us do with it."""

    interface: str
    holder: str
    """The principal that owns the object."""
    alive: bool
    members: tuple[MemberDescription, ...]
    """What the owner has announced for this reference and our copy of the interface declares, by name."""


def describe(reference: object, /) -> Description:
    """Return what a reference lets us use: what its owner announced when it handed the reference over.

    Our own policy may let us do less (``[accept.*]``), and the owner's may have been narrowed since.

    Raises:
        TypeError: It is no reference to a remote object.
    """
    stub = stub_of(reference)
    imported = stub._caprpc_import
    shape: Shape = stub._caprpc_shape
    offered = sorted(imported.announced.operations & shape.members.keys(), key=lambda key: (key[1] or "~", key[0]))
    members = tuple(_describe(shape.members[key]) for key in offered)
    return Description(shape.name, imported.holder, imported.alive, members)


def holder(reference: object, /) -> str:
    """Return the principal that owns the object behind a reference.

    Raises:
        TypeError: It is no reference to a remote object.
    """
    return stub_of(reference)._caprpc_import.holder


def implements(reference: object, interface: Callable[..., Any], /) -> bool:
    """Say whether a reference is of an interface, or an object of ours implements it, without asking anybody.

    A reference is of the one interface that is declared where it came from; that its object implements others gives us
    nothing.
    """
    shape = shape_of(interface)
    if isinstance(reference, Stub):
        return bool(reference._caprpc_shape.name == shape.name)
    obj = reference._caprpc_source if type(reference) is Narrowed else reference
    return any(base is interface for base in type(obj).__mro__ if interface_info(base) is not None)


def same(one: object, other: object, /) -> bool:
    """Say whether two references are the same right to the same object; objects of ours are the same if they are one.

    Two references to one object that came by different rights are not the same, for one may outlive the other. That
    they lead to one object is for its owner to know.
    """
    if isinstance(one, Stub) and isinstance(other, Stub):
        return one._caprpc_import.origin is other._caprpc_import.origin
    if type(one) is Narrowed and type(other) is Narrowed:
        return one._caprpc_source is other._caprpc_source and one._caprpc_right is other._caprpc_right
    return one is other


def _describe(member: Member) -> MemberDescription:
    signature = member.signature
    if isinstance(signature, AnnouncedSignature):
        text = "..." if member.operation in (OP_GET, OP_SET) else "(...)"
    elif member.operation == OP_GET:
        text = signature.result.text
    elif member.operation == OP_SET:
        text = signature.parameters[0].form.text
    else:
        taken = (f"{p.name}: {p.form.text}" + ("" if p.required else f" = {p.default!r}") for p in signature.parameters)
        text = f"({', '.join(taken)}) -> {signature.result.text}"
    operation = OPERATION_NAMES[member.operation]
    return MemberDescription(operation, member.name, text, member.effect, member.doc)
