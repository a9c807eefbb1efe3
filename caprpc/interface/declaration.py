"""What an interface class declares: methods and attributes, collected once when the class is made.

Only ``@method`` functions and ``attribute()`` declarations in the body of a class that lists ``Interface``
as a direct base are members. Implementing an interface, inheriting from anything, or adding public methods
never adds one.
"""

import inspect
import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Final, Literal, NoReturn, TypeVar, cast

from caprpc.errors import (
    AuditError,
    CallRefused,
    ConfigurationError,
    ConnectionLost,
    IdentityRefused,
    LimitExceeded,
    ProtocolError,
    ReferenceDead,
    RemoteError,
)
from caprpc.ids import (
    OP_CALL,
    OP_COMPARE,
    OP_CONTAINS,
    OP_ENTER,
    OP_EXIT,
    OP_INDEX_GET,
    OP_INDEX_SET,
    OP_INVOKE,
    OP_ITERATE,
    OP_LENGTH,
)

Effect = Literal["read", "write", "admin"]
F = TypeVar("F", bound=Callable[..., Any])

INFO_ATTRIBUTE: Final = "__caprpc_interface__"
"""Where an interface class keeps its ``InterfaceInfo``; looked up in the class's own dictionary only."""

MAX_PARAMETERS: Final = 64
"""Parameters of one member: more is a record, and a bound keeps refusals cheap."""

SPECIAL_OPERATIONS: Final[Mapping[str, int]] = {
    "__call__": OP_INVOKE,
    "__iter__": OP_ITERATE,
    "__aiter__": OP_ITERATE,
    "__len__": OP_LENGTH,
    "__contains__": OP_CONTAINS,
    "__getitem__": OP_INDEX_GET,
    "__setitem__": OP_INDEX_SET,
    "__enter__": OP_ENTER,
    "__aenter__": OP_ENTER,
    "__exit__": OP_EXIT,
    "__aexit__": OP_EXIT,
}
"""Python's protocol methods that an interface may declare, and the operation each becomes."""

COMPARISONS: Final[Mapping[str, str]] = {
    "__eq__": "eq",
    "__ne__": "ne",
    "__lt__": "lt",
    "__le__": "le",
    "__gt__": "gt",
    "__ge__": "ge",
}
"""Python's comparisons that an interface may declare, and the member of the operation ``compare`` that each becomes."""

_NOT_DECLARABLE: Final = (
    StopIteration,
    StopAsyncIteration,
    BaseExceptionGroup,
    AuditError,
    CallRefused,
    ConfigurationError,
    ConnectionLost,
    IdentityRefused,
    LimitExceeded,
    ProtocolError,
    ReferenceDead,
    RemoteError,
)
"""Errors that mean something here when they are raised: a peer must not be able to say so in our place."""

_CLASS_MACHINERY: Final = frozenset(
    {
        "__module__",
        "__qualname__",
        "__doc__",
        "__annotations__",
        "__annotations_cache__",
        "__annotate__",
        "__annotate_func__",
        "__slots__",
        "__classcell__",
        "__firstlineno__",
        "__static_attributes__",
        "__conditional_annotations__",
        "__dict__",
        "__weakref__",
        "__type_params__",
        "__orig_bases__",
        INFO_ATTRIBUTE,
    }
)
"""What Python itself puts into a class body."""

_RESERVED_NAMES: Final = frozenset({"Callable", "Iterator", "ContextManager", "Interface"})
"""Names of the built-in reference kinds: a policy could not tell an interface of that name from them."""


class MethodDeclaration:
    """A declared method: its function is read for its signature and never runs."""

    __slots__ = (
        "blocking",
        "effect",
        "errors",
        "function",
        "idempotent",
        "name",
        "operation",
        "python_name",
        "sensitive",
    )

    def __init__(
        self,
        function: FunctionType,
        effect: Effect,
        *,
        blocking: bool,
        idempotent: bool,
        errors: tuple[type[Exception], ...],
        sensitive: tuple[str, ...],
    ) -> None:
        self.function = function
        self.effect = effect
        self.blocking = blocking
        self.idempotent = idempotent
        self.errors = errors
        self.sensitive = sensitive
        self.python_name = function.__name__
        if self.python_name in COMPARISONS:
            self.operation, self.name = OP_COMPARE, COMPARISONS[self.python_name]
        else:
            self.operation = SPECIAL_OPERATIONS.get(self.python_name, OP_CALL)
            self.name = self.python_name if self.operation == OP_CALL else ""

    def __get__(self, instance: object, owner: type | None = None) -> object:
        """Return the declaration from the class; from an instance, a function that says what is missing."""
        if instance is None:
            return self
        return self._not_implemented

    def _not_implemented(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise NotImplementedError(f"{self.python_name} is declared by the interface and has no implementation here")


class AttributeDeclaration:
    """A declared attribute; its annotation in the class body is its type."""

    __slots__ = ("python_name", "writable")

    def __init__(self, writable: bool) -> None:
        self.writable = writable
        self.python_name = ""

    def __get__(self, instance: object, owner: type | None = None) -> object:
        """Return the declaration from the class; an instance that sets nothing has no such attribute."""
        if instance is None:
            return self
        raise AttributeError(f"{self.python_name} is declared by the interface and is not set here")


Declaration = MethodDeclaration | AttributeDeclaration


@dataclass(slots=True, eq=False)
class InterfaceInfo:
    """Everything an interface class declares; kept by the class itself."""

    name: str
    interface: type
    doc: str
    declarations: Mapping[str, tuple[Declaration, type]]
    """Python name to declaration and the interface class whose body holds it (annotations resolve there)."""
    adapters: dict[type, Callable[[Any], object]] = field(default_factory=dict)
    """Foreign types, by exact type, that ``register_adapter`` lets stand for this interface."""
    shape: object | None = None
    """The compiled shape, once somebody asked for it."""


def method(
    *,
    effect: Effect,
    blocking: bool = False,
    idempotent: bool = False,
    errors: tuple[type[Exception], ...] = (),
    sensitive: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Declare a method of an interface.

    Args:
        effect: ``"read"`` if calling it changes nothing that matters, ``"admin"`` if it changes what others may do or
            cannot be taken back, else ``"write"``; shown to reviewers, and never proposed by ``policy learn`` if admin.
        blocking: The implementation is known to wait: servers run it on a worker thread from the first call.
        idempotent: Calling it twice has the effect of calling it once: a client that reconnects may repeat a call of
            which it does not know whether it ran.
        errors: Exceptions of the implementation that may cross, with their text.
        sensitive: Parameters whose values no policy may have the audit log keep in clear, such as a password.

    Raises:
        TypeError: An option is not of these kinds, or the decorated object is not a plain function.
    """
    if effect not in ("read", "write", "admin"):
        raise TypeError(f'@method(effect=...) is "read", "write" or "admin", not {effect!r}')
    if type(sensitive) is not tuple or not all(type(name) is str for name in sensitive):
        raise TypeError('@method(sensitive=...) is a tuple of parameter names, such as sensitive=("password",)')
    if type(errors) is not tuple or not all(
        isinstance(error, type) and issubclass(error, Exception) for error in errors
    ):
        raise TypeError("@method(errors=...) is a tuple of Exception classes, such as errors=(LookupError,)")
    for error in errors:
        if issubclass(error, _NOT_DECLARABLE):
            raise TypeError(
                f"@method(errors=...) cannot name {error.__name__}: a peer must not raise what means something here; "
                "declare an exception of your own"
            )
    if len({error.__name__ for error in errors}) != len(errors):
        raise TypeError("@method(errors=...) names two exceptions alike; a caller could not tell them apart")

    def declare(function: F) -> F:
        if type(function) is not FunctionType:
            raise TypeError("@method decorates a plain function in the body of an Interface")
        declared = cast("FunctionType", function)
        return cast(
            "F",
            MethodDeclaration(
                declared, effect, blocking=blocking, idempotent=idempotent, errors=errors, sensitive=sensitive
            ),
        )

    return declare


def attribute(*, writable: bool = False) -> Any:
    """Declare an attribute; its annotation in the interface body is its type.

    Args:
        writable: Peers may set it, where policy also grants ``set``.
    """
    return AttributeDeclaration(writable)


def interface_info(candidate: object) -> InterfaceInfo | None:
    """Return what an interface class declares, or None for everything else, implementations included."""
    if isinstance(candidate, type):
        info = candidate.__dict__.get(INFO_ATTRIBUTE)
        if type(info) is InterfaceInfo:
            return info
    return None


def collect(cls: type) -> InterfaceInfo:
    """Read the body of a new interface class.

    Raises:
        TypeError: The body holds something that is not a member, or a member that cannot cross.
    """
    _check_name(cls, cls.__name__, "interface")
    if cls.__name__ in _RESERVED_NAMES:
        raise TypeError(f"{cls.__name__} is a built-in kind of reference; give the interface another name")
    declarations = _inherited(cls)
    annotations = inspect.get_annotations(cls)
    for name, value in cls.__dict__.items():
        if name in _CLASS_MACHINERY or (name == "__hash__" and value is None):
            # Python takes ``__hash__`` away from a class that declares ``__eq__``.
            continue
        if type(value) is MethodDeclaration:
            _check_method(cls, name, value)
        elif type(value) is AttributeDeclaration:
            _check_attribute(cls, name, value, annotations)
        else:
            _refuse_body(cls, name, value)
        declarations[name] = (value, cls)
    for name in annotations:
        if name not in cls.__dict__:
            raise TypeError(f"{cls.__name__}.{name} has only an annotation; write `{name}: ... = attribute()`")
    _check_wire_names(cls, declarations)
    return InterfaceInfo(cls.__name__, cls, inspect.cleandoc(cls.__doc__ or ""), declarations)


def refuse_declarations(cls: type) -> None:
    """Refuse members in the body of an implementation.

    Raises:
        TypeError: A class that does not list ``Interface`` as a direct base declares a member.
    """
    for name, value in cls.__dict__.items():
        if isinstance(value, MethodDeclaration | AttributeDeclaration):
            raise TypeError(
                f"{cls.__name__}.{name} is declared in an implementation; only a class that lists Interface as a "
                f"direct base declares members: class {cls.__name__}(..., Interface)"
            )


def _inherited(cls: type) -> dict[str, tuple[Declaration, type]]:
    """Members of the base interfaces; two bases that declare one name differently must be told apart by hand."""
    inherited: dict[str, tuple[Declaration, type]] = {}
    for base in cls.__bases__:
        info = interface_info(base)
        if info is None:
            if INFO_ATTRIBUTE not in base.__dict__:
                raise TypeError(f"{cls.__name__} is an interface, so its bases are interfaces; {base.__name__} is not")
            continue
        for name, entry in info.declarations.items():
            if inherited.setdefault(name, entry)[0] is not entry[0] and name not in cls.__dict__:
                raise TypeError(f"{cls.__name__} inherits two different declarations of {name}; declare it here")
    return inherited


def _check_wire_names(cls: type, declarations: Mapping[str, tuple[Declaration, type]]) -> None:
    """Refuse two members that a call could not tell apart."""
    seen: dict[tuple[int, str], str] = {}
    for python_name, (declaration, _) in declarations.items():
        if type(declaration) is MethodDeclaration:
            key = (declaration.operation, declaration.name)
            if key in seen:
                raise TypeError(f"{cls.__name__}: {python_name} and {seen[key]} are the same member on the wire")
            seen[key] = python_name


def _check_name(cls: type, name: str, what: str) -> None:
    """Names are ASCII identifiers without a leading underscore, on both sides and in policies."""
    if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name):
        raise TypeError(f"{cls.__name__}: {what} name {name!r} is not an ASCII identifier")
    if name.startswith("_"):
        raise TypeError(f"{cls.__name__}: {what} name {name!r} begins with an underscore; such names never cross")


def _check_attribute(
    cls: type, name: str, declaration: AttributeDeclaration, annotations: Mapping[str, object]
) -> None:
    _check_name(cls, name, "attribute")
    if name not in annotations:
        raise TypeError(f"{cls.__name__}.{name} has no annotation; write `{name}: str = attribute()`")
    if declaration.python_name not in ("", name):
        raise TypeError(f"{cls.__name__}.{name} and {declaration.python_name} share one attribute()")
    declaration.python_name = name


def _check_method(cls: type, name: str, declaration: MethodDeclaration) -> None:
    """Refuse a method whose name or parameters cannot be called from afar."""
    if declaration.python_name != name:
        raise TypeError(f"{cls.__name__}.{name} is a second name of {declaration.python_name}; declare it on its own")
    if declaration.operation == OP_CALL:
        _check_name(cls, name, "method")
    if declaration.operation == OP_EXIT:
        return
    signature = inspect.signature(declaration.function)
    parameters = list(signature.parameters.values())
    where = f"{cls.__name__}.{name}"
    if not parameters or parameters[0].kind not in (parameters[0].POSITIONAL_ONLY, parameters[0].POSITIONAL_OR_KEYWORD):
        raise TypeError(f"{where} has no `self`; static and class methods cannot be members")
    if len(parameters) - 1 > MAX_PARAMETERS:
        raise TypeError(f"{where} has {len(parameters) - 1} parameters, at most {MAX_PARAMETERS} are allowed")
    for parameter in parameters[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(
                f"{where} takes *{parameter.name}; declare each parameter, or one list[...] or dict[str, ...]"
            )
        _check_name(cls, parameter.name, f"parameter (of {name})")
        if parameter.annotation is parameter.empty:
            raise TypeError(f"{where} has no annotation for {parameter.name}; arguments are checked against it")
    if declaration.operation == OP_COMPARE and (
        len(parameters) != 2 or signature.return_annotation not in (bool, "bool")
    ):
        raise TypeError(f"{where} is a comparison: write `def {name}(self, other: ...) -> bool`")
    if signature.return_annotation is signature.empty:
        raise TypeError(f"{where} has no return annotation; write `-> None` if it returns nothing")


def _refuse_body(cls: type, name: str, value: object) -> NoReturn:
    """Say what to do with something in an interface body that is not a declaration."""
    if (
        name in SPECIAL_OPERATIONS
        or name in COMPARISONS
        or (isinstance(value, FunctionType) and not name.startswith("_"))
    ):
        raise TypeError(
            f'{cls.__name__}.{name} is not declared; decorate it with @method(effect="read") or "write", or move it '
            f"to the implementation: class My{cls.__name__}({cls.__name__})"
        )
    raise TypeError(f"{cls.__name__}.{name} is neither a @method nor an attribute(); an interface holds nothing else")
