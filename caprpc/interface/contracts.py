"""Contracts of interfaces: what code declares, as the plain data that reviewers and policies see."""

from collections.abc import Callable, Iterable, Iterator
from types import MappingProxyType
from typing import Any

from caprpc.contract import InterfaceContract, MemberContract, ParameterContract
from caprpc.interface.base import shape_of
from caprpc.interface.declaration import interface_info
from caprpc.interface.dynamic import ANY_FORM
from caprpc.interface.forms import Form
from caprpc.interface.kinds import CALLABLE, CONTEXT_MANAGER, ITERATOR, callable_shape, context_shape, iterator_shape
from caprpc.interface.member import Member
from caprpc.interface.shape import Shape

_KIND_DOCS = MappingProxyType(
    {
        CALLABLE: "A function: it can be invoked, with the parameters that the member that takes it declares.",
        ITERATOR: "An iterator: chunks are pulled from it, and it can be closed.",
        CONTEXT_MANAGER: "A context manager: it is entered once and left once.",
    }
)


def contract_of(interface: Callable[..., Any]) -> InterfaceContract:
    """Return the contract of an interface class.

    Raises:
        TypeError: Not an interface, or one of its annotations cannot cross.
    """
    info = interface_info(interface)
    if info is None:
        raise TypeError(f"{getattr(interface, '__name__', type(interface).__name__)} is not an interface")
    members = {key: _member_contract(member) for key, member in shape_of(info.interface).members.items()}
    return InterfaceContract(info.name, MappingProxyType(members), info.doc)


def interface_closure(interfaces: Iterable[Callable[..., Any]]) -> dict[str, InterfaceContract]:
    """Return the contracts of interfaces and of everything that can be reached through their members.

    The built-in kinds ``Callable``, ``Iterator`` and ``ContextManager`` are always among them.

    Raises:
        TypeError: Two different interfaces have the same name; a policy could not tell them apart.
    """
    kinds = (
        callable_shape(CALLABLE, (), ANY_FORM),
        iterator_shape(ITERATOR, ANY_FORM),
        context_shape(CONTEXT_MANAGER, ANY_FORM),
    )
    contracts = {kind.name: _kind_contract(kind) for kind in kinds}
    shapes: dict[str, Shape] = {}
    waiting = [shape_of(interface) for interface in interfaces]
    while waiting:
        shape = waiting.pop()
        if shape.interface is None:
            waiting += _reached(shape)
            continue
        known = shapes.get(shape.name)
        if known is not None:
            if known.interface is not shape.interface:
                raise TypeError(f"two interfaces are named {shape.name}; a policy could not tell them apart")
            continue
        shapes[shape.name] = shape
        contracts[shape.name] = contract_of(shape.interface)
        waiting += _reached(shape)
    return dict(sorted(contracts.items()))


def _reached(shape: Shape) -> Iterator[Shape]:
    """Yield the shapes that the members of a shape take or give."""
    for member in shape.members.values():
        for parameter in member.signature.parameters:
            yield from parameter.form.shapes
        yield from member.signature.result.shapes


def _member_contract(member: Member) -> MemberContract:
    signature = member.signature
    return MemberContract(
        operation=member.operation,
        name=member.name,
        parameters=_parameter_contracts(member),
        returns=signature.result.text,
        returns_reference=_reference(signature.result),
        effect=member.effect,
        idempotent=member.idempotent,
    )


def _parameter_contracts(member: Member) -> tuple[ParameterContract, ...]:
    return tuple(
        ParameterContract(p.name, p.form.text, _reference(p.form), p.required, p.name in member.sensitive)
        for p in member.signature.parameters
    )


def _reference(form: Form) -> str | None:
    """Return the name of the reference that may stand in a form; a form holds at most one kind."""
    return form.shapes[0].name if form.shapes else None


def _kind_contract(shape: Shape) -> InterfaceContract:
    """Return the contract of a built-in kind; what it carries is declared where it is used."""
    members = {key: _member_contract(member) for key, member in shape.members.items()}
    return InterfaceContract(shape.name, MappingProxyType(members), _KIND_DOCS[shape.name])
