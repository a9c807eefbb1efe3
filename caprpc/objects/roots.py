"""Roots: what a peer gets by name, an object for everybody or a factory that makes one for each connection."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

from caprpc.contract import InterfaceContract
from caprpc.errors import ConfigurationError
from caprpc.ids import OP_ROOT, ROOT_EXPORT
from caprpc.interface import ArgumentError, InterfaceBase, Mismatch, Shape, interface_closure, interface_info, shape_of
from caprpc.objects.factories import class_made
from caprpc.objects.transfer import ResultWriter
from caprpc.peer import PeerIdentity
from caprpc.policy import Facet, Guard
from caprpc.session import Export
from caprpc.wire.values import RemoteReference


def _nothing_stands_for_roots(obj: object) -> object:
    raise Mismatch("Root", type(obj).__name__)


ROOT_SHAPE: Final = Shape("Root", "Root", dict, _nothing_stands_for_roots)
"""Export 0 has no members; the guard permits ``root`` on it, by name."""


class RootNames:
    """The object behind export 0 of one connection: resolves a root's name to its object, once."""

    __slots__ = ("_declared", "_made", "_peer")

    def __init__(self, declared: Mapping[str, object], peer: PeerIdentity) -> None:
        self._declared = declared
        self._peer = peer
        self._made: dict[str, object] = {}

    def get(self, name: str) -> object:
        """Return the object of a root, making it if a factory was given."""
        if name not in self._made:
            declared = self._declared[name]
            made = declared if isinstance(declared, InterfaceBase) else declared(self._peer)  # type: ignore[operator]
            if not isinstance(made, InterfaceBase):
                raise ConfigurationError(
                    f"the factory of root {name!r} returned a {type(made).__name__}; an object whose class implements "
                    "an Interface expected"
                )
            self._made[name] = made
        return self._made[name]

    def is_made(self, name: str) -> bool:
        """Whether ``get`` runs no code of the application."""
        return name in self._made or isinstance(self._declared.get(name), InterfaceBase)

    def made(self) -> list[object]:
        """Return the objects that factories have made for this connection."""
        return [obj for name, obj in self._made.items() if obj is not self._declared[name]]


def check_roots(roots: Mapping[str, object]) -> dict[str, object]:
    """Return the roots of a server after a look at each.

    Raises:
        ConfigurationError: There is none, or one is neither an implementation of an interface nor a factory, or it
            lacks a member that its interface declares; or they are no mapping.
    """
    if not isinstance(roots, Mapping):
        raise ConfigurationError(
            f"roots are a mapping of names to objects, not {type(roots).__name__}", hint='pass roots={"name": object}'
        )
    if not roots:
        raise ConfigurationError("a server without roots offers nothing", hint='pass roots={"name": object}')
    for name, root in roots.items():
        if not name.isidentifier() or name.startswith("_") or not name.isascii():
            raise ConfigurationError(f"root name {name!r}: an ASCII identifier without a leading underscore expected")
        cls = root if isinstance(root, type) else type(root)
        if issubclass(cls, InterfaceBase):
            _check_implementation(name, cls)
        elif not callable(root):
            raise ConfigurationError(
                f"root {name!r} is a {type(root).__name__}; an object whose class implements an Interface, "
                "or a factory taking the peer, expected"
            )
        if callable(root) and not isinstance(root, InterfaceBase):
            _check_factory(name, root)
    return dict(roots)


def _check_factory(name: str, factory: Callable[..., object]) -> None:
    """Refuse what cannot be called with the peer: the first request would find out, one for each connection."""
    if inspect.iscoroutinefunction(factory):
        raise ConfigurationError(
            f"root {name!r}: its factory is async def, and a factory is called, not awaited",
            hint="make it a def; its object may have methods that are async def",
        )
    try:
        takes = inspect.signature(factory)
    except ValueError:
        # Of a builtin that does not say what it takes.
        return
    try:
        takes.bind(None)
    except TypeError as exc:
        called = getattr(factory, "__name__", type(factory).__name__)
        given = f"give an object, {called}()," if isinstance(factory, type) else "give the object that it makes,"
        raise ConfigurationError(
            f"root {name!r}: {called}{takes} is called with the peer, as a factory is: {exc}",
            hint=f"{given} or have it take the peer",
        ) from exc


def _check_implementation(name: str, cls: type) -> None:
    for base in cls.__mro__:
        if interface_info(base) is None:
            continue
        for member in shape_of(base).members.values():
            try:
                member.check(cls)
            except TypeError as exc:
                raise ConfigurationError(f"root {name!r}: {exc}") from exc


def contracts_of_roots(roots: Mapping[str, object]) -> dict[str, InterfaceContract]:
    """Return the contracts of everything that the roots' classes implement, and of what can be reached from there.

    A factory that is a class shows its interfaces, and so does a function whose result is annotated with one that is
    there where the function is defined; any other function shows them only once it has been called.
    """
    interfaces: list[type] = []
    for root in roots.values():
        interfaces.extend(base for base in class_of_root(root).__mro__ if interface_info(base) is not None)
    return interface_closure(interfaces)


def class_of_root(root: object) -> type:
    """Return the class of a root's object, as far as it is known before a factory runs."""
    if isinstance(root, InterfaceBase):
        return type(root)
    try:
        return class_made(root) or type(root)
    except NameError:
        return type(root)


def shape_for(obj: object, interface: str) -> Shape | None:
    """Return the declared shape of that name which the object's class implements, or None."""
    for base in type(obj).__mro__:
        info = interface_info(base)
        if info is not None and info.name == interface:
            return shape_of(base)
    return None


def root_export(declared: Mapping[str, object], peer: PeerIdentity, guard: Guard) -> Export:
    """Return export 0 of a connection: its only operation is ``root``, which the guard permits by name."""
    names = RootNames(declared, peer)
    return Export(ROOT_EXPORT, names, names, ROOT_SHAPE, guard.roots, None)


class RootListing:
    """The member behind the operation ``root`` without a name: which roots there are for this peer."""

    __slots__ = ("blocking",)

    name = ""
    operation = OP_ROOT
    takes_references = False
    scalar_result = None
    result_trees: frozenset[type] = frozenset()
    errors: tuple[type[Exception], ...] = ()

    def __init__(self, *, blocking: bool = False) -> None:
        self.blocking = blocking

    @property
    def signature(self) -> Self:
        """Return itself: it takes nothing, and its result is written by ``encode_result`` below."""
        return self

    @property
    def parameters(self) -> tuple[object, ...]:
        """Return no parameters."""
        return ()

    def decode_args(self, raw: object, _refs: object, *, plain: bool = False) -> tuple[list[object], dict[str, object]]:
        """Refuse arguments.

        Raises:
            ArgumentError: There are any.
        """
        if raw != [[], {}]:
            raise ArgumentError("", "no arguments: a root takes none")
        return [], {}

    def encode_result(self, obj: Any, _writer: ResultWriter) -> object:
        """Return the result as it crosses: names and interfaces."""
        return obj


class RootMember(RootListing):
    """The member behind the operation ``root``: writes the object under the facet that the policy names."""

    __slots__ = ("_facet",)

    def __init__(self, facet: Facet, *, made: bool) -> None:
        """Take the facet, and whether the object is there; otherwise a factory makes it, which may take its time."""
        super().__init__(blocking=not made)
        self._facet = facet

    def encode_result(self, obj: object, writer: ResultWriter) -> RemoteReference:
        """Export the root's object.

        Raises:
            TypeError: Its class does not implement the interface of the facet.
        """
        shape = shape_for(obj, self._facet.interface)
        if shape is None:
            rule = self._facet.permits.rule
            raise TypeError(f"{type(obj).__name__} does not implement {self._facet.interface}, which {rule} grants")
        return writer.hand_over(obj, shape, self._facet)
