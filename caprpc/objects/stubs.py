"""Stubs: the local face of a remote object.

A stub has no public attribute besides the members of its interface. It is local for ``repr``, ``==``, ``hash``,
``dir``, ``isinstance`` and ``bool``, and refuses to be copied or pickled; none of these sends a byte.
"""

from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import Any, Final, NoReturn, Protocol
from weakref import ref

from caprpc.errors import ReferenceDead, cut_text, declared_text, printable
from caprpc.ids import (
    OP_CALL,
    OP_CLOSE,
    OP_COMPARE,
    OP_CONTAINS,
    OP_ENTER,
    OP_EXIT,
    OP_GET,
    OP_INDEX_GET,
    OP_INDEX_SET,
    OP_INVOKE,
    OP_ITERATE,
    OP_LENGTH,
    OP_NEXT,
    OP_SET,
)
from caprpc.interface import Announced, Member, Shape
from caprpc.limits import DEFAULT_LIMITS
from caprpc.objects.revocation import Chosen
from caprpc.session import Import


class Flavor(Enum):
    """Whether a stub's members return values or awaitables."""

    BLOCKING = "blocking"
    ASYNC = "async"


class Caller(Protocol):
    """What a stub needs of its connection; the drivers implement it."""

    def call(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Call and wait."""

    def call_async(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Call and return an awaitable."""

    def start(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Call and return a ``concurrent.futures.Future``."""

    def call_here(self, target: Import, member: Member, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Call and return what can be awaited on the loop that runs in this thread, whichever that is."""

    def broken(self, detail: str) -> None:
        """End the connection: the peer broke the protocol in something that was understood late."""

    @property
    def principal(self) -> str:
        """Who the peer is."""

    def revoke(self, chosen: Chosen, *, cut: bool, aside: bool) -> None:
        """End the references of ours that are chosen, as ``Revoker`` says."""


class Stub:
    """Base of all stubs; everything one does to a reference is a function of the module ``caprpc``."""

    __slots__ = ("__weakref__", "_caprpc_call", "_caprpc_import", "_caprpc_shape")

    _caprpc_call: Any
    """Makes a call: a bound method of the connection's caller."""
    _caprpc_import: Import
    _caprpc_shape: Shape

    def __init__(self, imported: Import, shape: Shape, call: Callable[..., Any]) -> None:
        _set_import(self, imported)
        _set_shape(self, shape)
        _set_call(self, call)

    def __del__(self) -> None:
        # Finalizers never send: they queue, and the session re-checks when it sends next.
        imported = getattr(self, "_caprpc_import", None)
        if imported is not None and imported.origin.count:
            imported.dropped.append(imported.origin)

    def __repr__(self) -> str:
        imported = self._caprpc_import
        state = "" if imported.alive else " (revoked)" if imported.revoked else " (dead)"
        return f"<reference to {self._caprpc_shape.name} {imported.export_id} of {printable(imported.holder)}{state}>"

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __dir__(self) -> list[str]:
        operations = self._caprpc_import.announced.operations
        return sorted({name for operation, name in operations if operation in (OP_CALL, OP_GET, OP_SET) and name})

    def __setattr__(self, name: str, value: object) -> None:
        declared = getattr(type(self), name, None)
        if isinstance(declared, property):
            declared.__set__(self, value)
            return
        raise AttributeError(f"{self._caprpc_shape.name} declares no writable attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"attributes of a reference cannot be deleted: {name!r}")

    def _caprpc_renew(self, fresh: "Stub") -> None:
        """Stand on the import of another stub from now on: the peer was reached again over a new connection."""
        object.__setattr__(self, "_caprpc_import", fresh._caprpc_import)
        object.__setattr__(self, "_caprpc_call", fresh._caprpc_call)
        fresh._caprpc_import.stubs.append(ref(self))

    def _caprpc_refuse(self, *_args: object) -> NoReturn:
        raise TypeError(
            f"a reference to {self._caprpc_shape.name} cannot be copied or pickled: it is a right on this connection"
        )

    __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = __getstate__ = _caprpc_refuse


_slots_of: Any = Stub
_set_import: Final = _slots_of._caprpc_import.__set__
_set_shape: Final = _slots_of._caprpc_shape.__set__
_set_call: Final = _slots_of._caprpc_call.__set__
"""They set what ``__setattr__`` refuses to; ``object.__setattr__`` would look the names up each time."""


def dead_reference(imported: Import) -> ReferenceDead:
    """Return the error for a reference that is dead, with what ended it."""
    if imported.revoked:
        why = f"{printable(imported.holder)}, which owns the object, has revoked it"
    elif imported.right is not None and imported.alive:
        why = "the right that it came in through has ended"
    else:
        why = "its call or its connection has ended, or it was released"
    return ReferenceDead(f"this reference to {imported.announced.interface} is dead: {why}")


def _named(member: Member, function: Callable[..., Any], name: str, owner: str) -> Callable[..., Any]:
    function.__name__ = name
    function.__doc__ = member.doc or None
    function.__caprpc_member__ = member  # type: ignore[attr-defined]
    function.__qualname__ = f"{owner}.{name}"
    return function


def _method(member: Member) -> Callable[..., Any]:
    def method(self: Stub, /, *args: object, **kwargs: object) -> Any:
        return self._caprpc_call(self._caprpc_import, member, args, kwargs)

    return method


def _async_iteration(member: Member) -> Callable[..., Any]:
    async def iterate(self: Stub) -> AsyncIterator[Any]:
        # ``async for`` takes an iterator at once, and the reference to one has to be awaited.
        async for item in await self._caprpc_call(self._caprpc_import, member, (), {}):
            yield item

    return iterate


def named_method(member: Member, name: str, owner: str) -> Callable[..., Any]:
    """Return a method of a stub that calls a member; ``owner`` is what it is said to belong to."""
    return _named(member, _method(member), name, owner)


def getter(member: Member) -> Callable[[Stub], Any]:
    """Return what reads an attribute of a stub."""

    def get(self: Stub) -> Any:
        return self._caprpc_call(self._caprpc_import, member, (), {})

    return get


def _setter(member: Member) -> Callable[[Stub, Any], None]:
    def put(self: Stub, value: Any) -> None:
        self._caprpc_call(self._caprpc_import, member, (value,), {})

    return put


def _refusing_setter(name: str) -> Callable[[Stub, Any], None]:
    def put(_self: Stub, _value: Any) -> None:
        raise AttributeError(f"assigning cannot be awaited: use await caprpc.aio.set_attribute(ref, {name!r}, value)")

    return put


def _refusing(instead: str) -> Callable[..., Any]:
    def refuse(_self: Stub, *_args: object) -> NoReturn:
        raise TypeError(f"this operator cannot be awaited: use await caprpc.aio.{instead}")

    return refuse


def _exit(member: Member) -> Callable[..., Any]:
    def leave(self: Stub, kind: type[BaseException] | None, value: object = None, _trace: object = None) -> bool:
        suppresses = self._caprpc_call(self._caprpc_import, member, _ending(member, kind, value), {})
        # A peer may settle the errors that it declares. Whatever else ends the block here, Ctrl-C included, goes on.
        return suppresses is True and kind in member.errors

    return leave


def _async_exit(member: Member) -> Callable[..., Any]:
    async def leave(self: Stub, kind: type[BaseException] | None, value: object = None, _trace: object = None) -> bool:
        suppresses = await self._caprpc_call(self._caprpc_import, member, _ending(member, kind, value), {})
        return suppresses is True and kind in member.errors

    return leave


def _ending(member: Member, kind: type[BaseException] | None, value: object) -> tuple[bool, str, str]:
    """Return what the peer learns of the end of a block: whether it failed, and how if it declares such an error."""
    if kind is None or kind not in member.errors or not isinstance(value, BaseException):
        return kind is not None, "", ""
    return True, kind.__name__, cut_text(declared_text(value), DEFAULT_LIMITS.max_error_text_bytes)


def _comparison(member: Member) -> Callable[..., Any]:
    (parameter,) = member.signature.parameters
    types, shapes = parameter.form.local_types, parameter.form.shapes

    def compare(self: Stub, other: object) -> Any:
        if types is None and shapes:
            fits = isinstance(other, Stub) or shapes[0].interface in type(other).__mro__
        else:
            fits = types is None or type(other) in types
        if not fits:
            # As with any object: Python asks the other one, and then goes by identity. Nothing is sent.
            return NotImplemented
        return self._caprpc_call(self._caprpc_import, member, (other,), {})

    return compare


_DUNDERS: Final[dict[int, tuple[str, str]]] = {
    OP_INVOKE: ("__call__", "__call__"),
    OP_ITERATE: ("__iter__", "__aiter__"),
    OP_LENGTH: ("__len__", ""),
    OP_CONTAINS: ("__contains__", ""),
    OP_INDEX_GET: ("__getitem__", "__getitem__"),
    OP_INDEX_SET: ("__setitem__", ""),
    OP_ENTER: ("__enter__", "__aenter__"),
    OP_EXIT: ("__exit__", "__aexit__"),
}
"""Operation -> Python's name for it, for blocking and for async stubs; empty where Python cannot await it."""

_AWAITED_BY: Final[dict[str, str]] = {
    "__len__": "length(ref)",
    "__contains__": "contains(ref, item)",
    "__setitem__": "set_item(ref, key, value)",
}
"""Python's name of an operation that it cannot await -> the function of ``caprpc.aio`` that can be."""

NOT_BY_INDEX: Final[dict[str, None]] = {"__iter__": None, "__reversed__": None}
"""Has Python not walk what can be indexed by trying index after index: that is another right, and where answers are
awaited, or promised, it would never end. ``in`` falls back on the same walk."""


def make_stub_class(shape: Shape, flavor: Flavor, base: type[Stub]) -> type[Stub]:
    """Build the stub class for a shape: one attribute for each declared member, and nothing else.

    ``base`` is ``Stub``, or the remote iterator of a driver for shapes with ``next``.
    """
    body: dict[str, Any] = {"__slots__": (), "__doc__": shape.doc or f"A reference to a remote {shape.text}."}
    # Names of a peer become no attributes: a tool that calls without a declaration looks its members up by itself.
    members = {} if isinstance(shape, Announced) else shape.members
    for (operation, name), member in members.items():
        if operation == OP_CALL:
            body[name] = named_method(member, name, shape.name)
        elif operation == OP_GET:
            writer = shape.members.get((OP_SET, name))
            put = None
            if writer is not None:
                put = _setter(writer) if flavor is Flavor.BLOCKING else _refusing_setter(name)
            body[name] = property(getter(member), put, None, member.doc or None)
        elif operation == OP_EXIT:
            dunder = _DUNDERS[operation][flavor is Flavor.ASYNC]
            leave = _exit(member) if flavor is Flavor.BLOCKING else _async_exit(member)
            body[dunder] = _named(member, leave, dunder, shape.name)
        elif operation == OP_COMPARE:
            if flavor is Flavor.BLOCKING:
                body[f"__{name}__"] = _named(member, _comparison(member), f"__{name}__", shape.name)
                if name == "eq":
                    # What is equal must hash alike, and what is equal is known to the peer alone.
                    body["__hash__"] = None
        elif operation == OP_ITERATE and flavor is Flavor.ASYNC:
            body["__aiter__"] = _named(member, _async_iteration(member), "__aiter__", shape.name)
        elif operation in _DUNDERS and operation not in (OP_NEXT, OP_CLOSE):
            local, awaited = _DUNDERS[operation]
            dunder = awaited if flavor is Flavor.ASYNC else local
            body[dunder or local] = (
                named_method(member, dunder, shape.name) if dunder else _refusing(_AWAITED_BY[local])
            )
    if "__getitem__" in body:
        body = {**NOT_BY_INDEX, **body}
    return type(f"{shape.name}Stub", (base,), body)
