"""The base class of interfaces, and how an annotation becomes a shape.

For type checkers ``Interface`` is ``typing.Protocol``: bodies of ``...`` are fine, an implementation that
lacks a member is found, and an open file is a ``TextLines``. At run time it is a plain class: being exported
takes inheritance or a registered adapter, never a matching structure.
"""

import collections.abc
import contextlib
import inspect
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, ForwardRef, get_args, get_origin

from caprpc.ids import OP_CALL, OP_COMPARE, OP_EXIT, OP_GET, OP_SET
from caprpc.interface import forms
from caprpc.interface.annotations import strip, text_of
from caprpc.interface.compile import Compiler
from caprpc.interface.declaration import (
    INFO_ATTRIBUTE,
    SPECIAL_OPERATIONS,
    AttributeDeclaration,
    InterfaceInfo,
    MethodDeclaration,
    collect,
    interface_info,
    refuse_declarations,
)
from caprpc.interface.forms import Form
from caprpc.interface.kinds import EXIT_PARAMETERS, callable_shape, context_shape, iterator_shape
from caprpc.interface.member import AttributeMember, Member
from caprpc.interface.mismatch import Mismatch, type_name
from caprpc.interface.references import ReferenceReader, ReferenceWriter
from caprpc.interface.shape import Members, Shape
from caprpc.interface.signature import Parameter, Signature, parameters_of
from caprpc.wire.values import OwnReference, RemoteReference

__all__ = ["Interface", "InterfaceBase", "reference_form", "register_adapter", "shape_of"]

_ITERATIONS: Final = frozenset(
    {
        collections.abc.Iterator,
        collections.abc.Iterable,
        collections.abc.Generator,
        collections.abc.AsyncIterator,
        collections.abc.AsyncIterable,
        collections.abc.AsyncGenerator,
    }
)
_CONTEXTS: Final = frozenset({contextlib.AbstractContextManager, contextlib.AbstractAsyncContextManager})
Errors = tuple[type[Exception], ...]
"""What a method declares that it raises."""
_REFERENCES: Final = frozenset({RemoteReference, OwnReference})


class InterfaceBase:
    """Base of every interface.

    A class that lists ``Interface`` as a direct base is an interface, and the ``@method`` functions and
    ``attribute()`` declarations of its body, with those of its base interfaces, are its members. Every other
    subclass is an implementation and adds no member, whatever it defines or inherits.
    """

    __slots__ = ()
    __caprpc_interface__ = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if InterfaceBase not in cls.__bases__:
            refuse_declarations(cls)
            return
        info = collect(cls)
        setattr(cls, INFO_ATTRIBUTE, info)
        if not _has_text_annotations(info):
            shape_of(cls).members  # noqa: B018 - compiled now, so that mistakes show where they are made


if TYPE_CHECKING:
    from typing import Protocol as Interface
else:
    Interface = InterfaceBase


def shape_of(annotation: Any) -> Shape:
    """Return the shape of an annotation that stands for a reference.

    Raises:
        TypeError: The annotation stands for a value, or for nothing that can cross.
    """
    shape = _shape_or_none(annotation, text_of(annotation))
    if shape is None:
        raise TypeError(f"{text_of(annotation)} is no reference: an Interface, Callable, Iterator or ContextManager")
    return shape


def register_adapter(foreign_type: type, interface: Callable[..., Any], adapter: Callable[[Any], object]) -> None:
    """Let objects of exactly ``foreign_type`` stand where ``interface`` is declared.

    Args:
        foreign_type: The exact type; subclasses need a registration of their own.
        interface: The interface class.
        adapter: Called with the object, returns an object whose class implements the interface.

    Raises:
        TypeError: Not an interface, or the type implements it already, or is registered already.
    """
    info = interface_info(interface)
    if info is None:
        raise TypeError(f"{interface!r} is not an interface")
    if not isinstance(foreign_type, type) or issubclass(foreign_type, type):
        raise TypeError("an adapter is registered for the exact type of the objects that it adapts")
    if foreign_type in info.adapters or info.interface in foreign_type.__mro__:
        raise TypeError(f"{foreign_type.__name__} stands for {info.name} already")
    info.adapters[foreign_type] = adapter


def _shape_or_none(annotation: Any, where: str, errors: Errors = ()) -> Shape | None:
    annotation = strip(annotation)
    info = interface_info(annotation)
    if info is not None:
        if not isinstance(info.shape, Shape):
            info.shape = _interface_shape(info)
        return info.shape
    if isinstance(annotation, type) and issubclass(annotation, InterfaceBase):
        raise TypeError(f"{where}: {annotation.__name__} is an implementation; declare the interface it implements")
    origin, arguments = get_origin(annotation), get_args(annotation)
    compiler = Compiler(where, _reference_form(where, errors))
    if origin is collections.abc.Callable:
        if arguments[0] is Ellipsis or not isinstance(arguments[0], list):
            raise TypeError(f"{where}: {text_of(annotation)} must list its parameter types")
        parameters = tuple(compiler.form(argument) for argument in arguments[0])
        return callable_shape(text_of(annotation), parameters, compiler.form(arguments[1]), errors)
    if origin in _ITERATIONS:
        return iterator_shape(text_of(annotation), compiler.form(arguments[0]), errors)
    if origin in _CONTEXTS:
        return context_shape(text_of(annotation), compiler.form(arguments[0]), errors)
    return None


def _reference_form(where: str, errors: Errors = ()) -> Callable[[object], Form | None]:
    """Return what a compiler asks for the form of a reference annotation.

    ``errors`` are those that a method declares: they hold for functions, iterators and contexts in its signature, too.
    """

    def form(annotation: object) -> Form | None:
        shape = _shape_or_none(annotation, where, errors)
        return None if shape is None else reference_form(shape)

    return form


def reference_form(shape: Shape) -> Form:
    """Return the form of a parameter or result that is a reference of ``shape``."""

    def encode(value: Any, refs: ReferenceWriter, parameter: str) -> Any:
        return refs.write(value, shape, parameter)

    def decode(raw: Any, refs: ReferenceReader) -> Any:
        if type(raw) not in _REFERENCES:
            raise Mismatch(shape.text, type_name(raw))
        return refs.read(raw, shape)

    return Form(shape.text, encode, decode, None, _REFERENCES, shapes=(shape,), reference=shape)


def _interface_shape(info: InterfaceInfo) -> Shape:
    def adapt(obj: Any) -> object:
        kind = type(obj)
        if info.interface in kind.__mro__:
            for member in shape.members.values():
                member.check(kind)
            return obj
        adapter = info.adapters.get(kind)
        if adapter is None:
            names = ", ".join(sorted(foreign.__name__ for foreign in info.adapters))
            hint = f"its class must inherit from {info.name}" + (f", or be one of {names}" if names else "")
            raise Mismatch(info.name, type_name(obj), hint)
        return adapter(obj)

    shape = Shape(info.name, info.name, lambda: _interface_members(info), adapt, interface=info.interface, doc=info.doc)
    return shape


def _interface_members(info: InterfaceInfo) -> Members:
    members: dict[tuple[int, str], Member] = {}
    for python_name, (declaration, owner) in info.declarations.items():
        if isinstance(declaration, MethodDeclaration):
            made = [_method_member(info, declaration, owner)]
        else:
            made = _attribute_members(info, python_name, declaration, owner)
        for member in made:
            members[member.operation, member.name] = member
    return MappingProxyType(members)


def _method_member(info: InterfaceInfo, declaration: MethodDeclaration, owner: type) -> Member:
    where = f"{info.name}.{declaration.python_name}"
    if declaration.operation == OP_EXIT:
        signature = Signature(where, EXIT_PARAMETERS, forms.BOOL_FORM)
    else:
        hints = _hints(where, declaration.function)
        compiler = Compiler(where, _reference_form(where, declaration.errors))
        parameters = parameters_of(declaration.function, lambda name: compiler.form(hints[name]))
        signature = Signature(where, parameters, compiler.form(hints["return"]))
    unknown = set(declaration.sensitive) - {parameter.name for parameter in signature.parameters}
    if unknown:
        raise TypeError(f"{where}: sensitive names {', '.join(sorted(unknown))}, which is no parameter of it")
    names = [declaration.python_name]
    if declaration.operation not in (OP_CALL, OP_COMPARE):
        names += [n for n, op in SPECIAL_OPERATIONS.items() if op == declaration.operation and n not in names]
    return Member(
        declaration.operation,
        declaration.name,
        signature,
        interface=info.interface,
        python_names=tuple(names),
        effect=declaration.effect,
        blocking=declaration.blocking,
        idempotent=declaration.idempotent,
        errors=declaration.errors,
        sensitive=declaration.sensitive,
        doc=inspect.getdoc(declaration.function) or "",
    )


def _attribute_members(info: InterfaceInfo, name: str, declaration: AttributeDeclaration, owner: type) -> list[Member]:
    where = f"{info.name}.{name}"
    form = Compiler(where, _reference_form(where)).form(_attribute_hint(where, name, owner))
    get = Signature(where, (), form)
    names = (name,)
    members = [AttributeMember(OP_GET, name, get, interface=info.interface, python_names=names, effect="read")]
    if declaration.writable:
        value = Parameter("value", form, positional=True, keyword=False)
        assign = Signature(where, (value,), forms.NONE_FORM)
        members.append(AttributeMember(OP_SET, name, assign, interface=info.interface, python_names=names))
    return list[Member](members)


def _hints(where: str, function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return a declared function's annotations, texts evaluated in its module: our own code, never a peer's."""
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        raise _unknown_name(where, error) from None


def _attribute_hint(where: str, name: str, owner: type) -> Any:
    try:
        return inspect.get_annotations(owner, eval_str=True)[name]
    except NameError as error:
        raise _unknown_name(where, error) from None


def _unknown_name(where: str, error: NameError) -> TypeError:
    return TypeError(
        f"{where}: {error} when its annotations are read; names in them must exist in the module at run time, so "
        f"import them outside `if TYPE_CHECKING` and do not define them inside a function"
    )


def _has_text_annotations(info: InterfaceInfo) -> bool:
    """Say whether an annotation may name what does not exist yet."""
    for name, (declaration, owner) in info.declarations.items():
        if isinstance(declaration, MethodDeclaration):
            annotations = list(declaration.function.__annotations__.values())
        else:
            annotations = [inspect.get_annotations(owner)[name]]
        if any(_holds_text(annotation) for annotation in annotations):
            return True
    return False


def _holds_text(annotation: object) -> bool:
    if isinstance(annotation, str | ForwardRef):
        return True
    parts = annotation if isinstance(annotation, list) else get_args(annotation)
    return get_origin(annotation) is not typing.Literal and any(_holds_text(part) for part in parts)
