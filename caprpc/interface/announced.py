"""References whose declaration is not here: what the peer has announced of them is all that is known.

For tools that try a service by hand. Arguments are values, checked by the peer alone; results are values, and
references which are as little known. Programs declare what they use.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

from caprpc.ids import NAMED_OPERATIONS, OP_NEXT, OP_RESTORE, OP_ROOT, OPERATION_NAMES
from caprpc.interface.dynamic import ANY_FORM
from caprpc.interface.forms import Form
from caprpc.interface.kinds import iterator_shape
from caprpc.interface.member import Member
from caprpc.interface.mismatch import Mismatch, type_name
from caprpc.interface.references import ReferenceReader, ReferenceWriter
from caprpc.interface.shape import Shape
from caprpc.interface.signature import Signature
from caprpc.wire.values import OwnReference, RemoteReference

UNKNOWN: Final = "unknown"
"""What is said of the effect of a member whose declaration is not here."""

MOST_SHAPES: Final = 4_096
"""Kinds of references of one service that are kept apart: as many as it may announce by default."""

_OPERATIONS: Final = OPERATION_NAMES.keys() - {OP_ROOT, OP_RESTORE}
"""What can be announced of a reference."""

_REFERENCES: Final = frozenset({RemoteReference, OwnReference})
_CONTAINERS: Final = frozenset({list, tuple})
_NEEDS: Final = "its declaration is not here, so only plain values and references of this peer may be passed"


class Announced(Shape):
    """The shape of a reference of one interface, made of what the peer announced; a stub of it has no attributes."""

    __slots__ = ()


class Undeclared(Shape):
    """Stands where any reference may come; ``of`` gives the shape that one has.

    Invariant: one announcement is one shape, so that the same reference is the same stub.
    """

    __slots__ = ("_form", "_shapes")

    def __init__(self) -> None:
        super().__init__("", "any reference", dict, _ours)
        self._shapes: dict[tuple[str, frozenset[tuple[int, str]]], Shape] = {}
        self._form = Form("...", self._encode, self._decode, None, frozenset(), shapes=(self,))

    def of(self, interface: str, operations: frozenset[tuple[int, str]]) -> Shape:
        """Return the shape of a reference that was announced so.

        Raises:
            Mismatch: The name of its interface could be none, or there are too many kinds of references.
        """
        shape = self._shapes.get((interface, operations))
        if shape is None:
            if not _is_name(interface) or len(self._shapes) >= MOST_SHAPES:
                raise Mismatch(f"one of at most {MOST_SHAPES} interfaces with a name", "another")
            if (OP_NEXT, "") in operations:
                shape = iterator_shape(interface, self._form)
            else:
                members = self._announced(interface, operations)
                shape = Announced(interface, interface, lambda: members, _ours)
            self._shapes[interface, operations] = shape
        return shape

    def _announced(self, interface: str, operations: frozenset[tuple[int, str]]) -> Mapping[tuple[int, str], Member]:
        members = {}
        for operation, name in operations:
            named = operation in NAMED_OPERATIONS
            # What no declaration could name is left out: it could neither be typed nor be shown safely.
            if operation in _OPERATIONS and (_is_name(name) if named else not name):
                signature = AnnouncedSignature(f"{interface}.{name or OPERATION_NAMES[operation]}", self._form)
                members[operation, name] = Member(
                    operation, name, signature, interface=object, python_names=(), effect=UNKNOWN
                )
        return MappingProxyType(members)

    def _encode(self, value: Any, refs: ReferenceWriter, parameter: str) -> Any:
        try:
            return ANY_FORM.encode(value, refs, parameter)
        except Mismatch:
            if type(value) in ANY_FORM.raw_types:
                raise
        # A reference of this very peer goes home; the policy decides about all else, and its shape refuses it.
        return refs.write(value, self, parameter)

    def _decode(self, raw: Any, refs: ReferenceReader) -> Any:
        if type(raw) in _REFERENCES:
            return refs.read(raw, self)
        if type(raw) in _CONTAINERS:
            return type(raw)(self._decode(item, refs) for item in raw)
        if type(raw) is dict:
            return {key: self._decode(value, refs) for key, value in raw.items()}
        return ANY_FORM.decode(raw, refs)


class AnnouncedSignature(Signature):
    """Takes any values and gives any: the peer, which has the declaration, decides what fits."""

    __slots__ = ()

    def __init__(self, member: str, form: Form) -> None:
        super().__init__(member, (), form)
        self.takes_references = True

    def encode_args(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], refs: ReferenceWriter) -> list[Any]:
        """Return the raw pair ``[args, kwargs]`` that travels."""
        try:
            by_position = [self.result.encode(value, refs, "an argument") for value in args]
            return [by_position, {name: self.result.encode(value, refs, name) for name, value in kwargs.items()}]
        except Mismatch as mismatch:
            raise TypeError(f"{self.member}: {mismatch}") from None


def _is_name(text: str) -> bool:
    return text.isascii() and text.isidentifier() and not text.startswith("_")


def _ours(obj: object) -> NoReturn:
    raise Mismatch("a value", type_name(obj), _NEEDS)
