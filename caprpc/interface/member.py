"""Members: how a permitted operation finds the code that implements it.

A member is looked up in the class of the exported object, never in the instance, by the name that the
interface declares, and only where the class implements that interface by inheritance. Each call makes
exactly one look-up, and what was looked up is what is called.
"""

import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, Final

from caprpc.ids import OP_GET, OP_SET, OPERATION_NAMES
from caprpc.interface.contexts import exit_arguments
from caprpc.interface.declaration import MethodDeclaration
from caprpc.interface.mismatch import type_name
from caprpc.interface.signature import Signature

MAX_CACHED_CLASSES: Final = 64
"""Classes whose implementation a member remembers; more than this many classes implement no interface."""

EXIT_METHODS: Final = frozenset({"__exit__", "__aexit__"})
"""Methods that Python calls with an exception; the others take what the signature says."""

_MISSING: Final = object()

Resolved = tuple[Callable[..., Any], bool]
"""A function that takes the object first, and whether it is a coroutine function."""


class Member:
    """One declared operation: what goes in and out, and how to reach its implementation."""

    __slots__ = (
        "_cache",
        "blocking",
        "doc",
        "effect",
        "errors",
        "idempotent",
        "interface",
        "name",
        "operation",
        "python_names",
        "sensitive",
        "signature",
        "takes_references",
    )

    def __init__(
        self,
        operation: int,
        name: str,
        signature: Signature,
        *,
        interface: type,
        python_names: tuple[str, ...],
        effect: str = "write",
        blocking: bool = False,
        idempotent: bool = False,
        errors: tuple[type[Exception], ...] = (),
        sensitive: tuple[str, ...] = (),
        doc: str = "",
    ) -> None:
        """Take a compiled declaration.

        Args:
            operation: A code of ``caprpc.ids``.
            name: The name on the wire, empty for operations without one.
            signature: Checked on both sides.
            interface: The class that an implementation's class must inherit from.
            python_names: Names under which an implementation is looked up; the first one found counts.
            effect: ``read``, ``write`` or ``admin``, as declared.
            blocking: Declared to wait.
            idempotent: Declared to do no more when it is called again.
            errors: Exceptions that may cross with their text.
            sensitive: Parameters whose values the audit log may never keep in clear.
            doc: The declaration's docstring.
        """
        self.operation = operation
        self.name = name
        self.signature = signature
        self.interface = interface
        self.python_names = python_names
        self.effect = effect
        self.blocking = blocking
        self.idempotent = idempotent
        self.errors = errors
        self.sensitive = sensitive
        self.doc = doc
        self.takes_references = signature.takes_references
        self._cache: dict[type, Resolved] = {}

    def __repr__(self) -> str:
        return f"<Member {OPERATION_NAMES[self.operation]} {self.name or '-'} of {self.interface.__name__}>"

    def resolve(self, obj: object) -> Callable[..., Any]:
        """Return what runs this member on ``obj``, to be called with decoded arguments.

        Raises:
            TypeError: The object's class does not implement the interface, or not this member.
        """
        return MethodType(self._resolved(type(obj))[0], obj)

    def bind(self, obj: object) -> Resolved:
        """Return ``resolve(obj)`` and ``is_async(obj)`` from one look-up."""
        function, is_async = self._resolved(type(obj))
        return MethodType(function, obj), is_async

    def is_async(self, obj: object) -> bool:
        """Whether the implementation is a coroutine function, so that calling it gives something to await."""
        return self._resolved(type(obj))[1]

    def check(self, implementation: type) -> None:
        """Make sure that a class implements this member.

        Raises:
            TypeError: It does not; says what is missing.
        """
        self._resolved(implementation)

    def _resolved(self, cls: type) -> Resolved:
        resolved = self._cache.get(cls)
        if resolved is None:
            resolved = self._look_up(cls)
            if len(self._cache) >= MAX_CACHED_CLASSES:
                self._cache.clear()
            self._cache[cls] = resolved
        return resolved

    def _look_up(self, cls: type) -> Resolved:
        mro = type.__dict__["__mro__"].__get__(cls)
        if self.interface not in mro:
            raise TypeError(f"{cls.__name__} does not inherit from {self.interface.__name__}")
        for python_name in self.python_names:
            found = _class_attribute(mro, python_name)
            if found is not _MISSING and type(found) is not MethodDeclaration:
                return self._as_function(cls, python_name, found)
        raise TypeError(
            f"{cls.__name__} does not implement {self.python_names[0]} of {self.interface.__name__} (a base class "
            f"that implements it must stand before {self.interface.__name__} in the list of bases)"
        )

    def _as_function(self, cls: type, python_name: str, found: object) -> Resolved:
        """Return a function that takes the object first, from what stands in the class."""
        function: Callable[..., Any]
        if type(found) is FunctionType:
            function = found
        elif type(found) is staticmethod and type(found.__func__) is FunctionType:
            plain = found.__func__

            def function(_obj: object, *args: object, **kwargs: object) -> object:
                return plain(*args, **kwargs)

            return function, inspect.iscoroutinefunction(plain)
        else:
            raise TypeError(
                f"{cls.__name__}.{python_name} is a {type_name(found)}; a member is implemented by a function"
            )
        is_async = inspect.iscoroutinefunction(function)
        if python_name in EXIT_METHODS:
            return _leaving(function, is_async, self.errors), is_async
        return function, is_async


class AttributeMember(Member):
    """Reading or setting a declared attribute: a property of the class, or else the object's own state."""

    __slots__ = ()

    def _look_up(self, cls: type) -> Resolved:
        mro = type.__dict__["__mro__"].__get__(cls)
        if self.interface not in mro:
            raise TypeError(f"{cls.__name__} does not inherit from {self.interface.__name__}")
        name = self.python_names[0]
        if self.operation == OP_SET:
            return _setter(name), False
        if self.operation != OP_GET:
            raise TypeError(f"{OPERATION_NAMES[self.operation]} is no operation on an attribute")
        return _getter(name), False

    def check(self, implementation: type) -> None:
        """Attributes are usually set by ``__init__``, so a class alone cannot be found wanting."""
        self._resolved(implementation)


class CallableMember(Member):
    """Invoking an exported function: the exported object is what runs."""

    __slots__ = ()

    def resolve(self, obj: object) -> Callable[..., Any]:
        """Return the function itself; ``Shape.adapt`` let only functions in."""
        return obj  # type: ignore[return-value]

    def bind(self, obj: object) -> Resolved:
        """Return the function itself, and whether it is a coroutine function."""
        return obj, self.is_async(obj)  # type: ignore[return-value]

    def is_async(self, obj: object) -> bool:
        """Whether the function is a coroutine function, also behind ``functools.partial``."""
        if type(obj) is FunctionType and not obj.__dict__:
            return bool(obj.__code__.co_flags & inspect.CO_COROUTINE)
        return inspect.iscoroutinefunction(obj)

    def check(self, implementation: type) -> None:
        """Functions are checked one by one, by ``Shape.adapt``."""


def _class_attribute(mro: tuple[type, ...], name: str) -> object:
    """Return what a class holds under a name, without running descriptors or ``__getattr__``."""
    for cls in mro:
        if name in cls.__dict__:
            return cls.__dict__[name]
    return _MISSING


def _leaving(function: Callable[..., Any], is_async: bool, errors: tuple[type[Exception], ...]) -> Callable[..., Any]:
    """Leave a context knowing how the peer's block failed only if that is declared; say whether it is settled."""

    def leave(obj: object, failed: bool, error: str = "", text: str = "") -> bool:
        return bool(function(obj, *exit_arguments(failed, error, text, errors)))

    async def leave_async(obj: object, failed: bool, error: str = "", text: str = "") -> bool:
        return bool(await function(obj, *exit_arguments(failed, error, text, errors)))

    return leave_async if is_async else leave


def _getter(name: str) -> Callable[[object], Any]:
    def get(obj: object) -> Any:
        # One look-up, past any __getattr__ or __getattribute__ of the class.
        return object.__getattribute__(obj, name)

    return get


def _setter(name: str) -> Callable[[object, Any], None]:
    def assign(obj: object, value: Any) -> None:
        setattr(obj, name, value)

    return assign
