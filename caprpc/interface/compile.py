"""Annotations compiled to forms; what cannot cross is refused here, with what to write instead."""

import array
import collections.abc
import io
import pathlib
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin

from caprpc.interface import forms
from caprpc.interface.annotations import strip, text_of, union_members
from caprpc.interface.dynamic import ANY_FORM, VALUE_FORMS
from caprpc.interface.forms import Form
from caprpc.interface.records import enum_form, is_record, record_fields, record_form

ReferenceForms = Callable[[object], Form | None]
"""Gives the form of an annotation that stands for a reference, None for all others."""

_SCALARS: Final[Mapping[Any, Form]] = {
    NoneType: forms.NONE_FORM,
    bool: forms.BOOL_FORM,
    int: forms.INT_FORM,
    float: forms.FLOAT_FORM,
    str: forms.STR_FORM,
    bytes: forms.BYTES_FORM,
    Any: ANY_FORM,
    **VALUE_FORMS,
}

_INSTEAD: Final[Mapping[object, str]] = {
    object: "write Any for any value, or an Interface for an object",
    list: "write list[Any] or say what it holds",
    dict: "write dict[str, Any] or say what it holds",
    set: "write set[Any] or say what it holds",
    frozenset: "write frozenset[Any] or say what it holds",
    tuple: "write tuple[Any, ...] or say what it holds",
    typing.TextIO: "write TextLines or TextFile of caprpc.interfaces",
    typing.BinaryIO: "write BinaryFile of caprpc.interfaces",
    typing.IO: "write TextFile or BinaryFile of caprpc.interfaces",
    io.TextIOWrapper: "write TextLines or TextFile of caprpc.interfaces",
    io.BytesIO: "write BinaryFile of caprpc.interfaces",
    bytearray: "write bytes",
    array.array: "write memoryview, which keeps the item type",
    pathlib.Path: "write str; a path means nothing on the other side",
    pathlib.PurePath: "write str; a path means nothing on the other side",
    type: "classes never cross; write an Interface",
    collections.abc.Callable: "write Callable[[...], ...] with the parameter and result types",
    typing.Callable: "write Callable[[...], ...] with the parameter and result types",
    typing.Self: "name the interface",
    typing.NoReturn: "write None",
    typing.Never: "write None",
}

_LITERAL_TYPES: Final = frozenset({str, int, bool, bytes, NoneType})

_SEQUENCES: Final = frozenset({collections.abc.Sequence})
_MAPPINGS: Final = frozenset({collections.abc.Mapping})


class Compiler:
    """Compiles the annotations of one declaration; records that hold themselves end in the form under way."""

    def __init__(self, where: str, reference_form: ReferenceForms) -> None:
        """Take what to name in errors, and who knows the annotations that stand for references."""
        self._where = where
        self._reference_form = reference_form
        self._records: dict[type, Form] = {}

    def form(self, annotation: object) -> Form:
        """Return the form of an annotation.

        Raises:
            TypeError: Values of this annotation cannot cross; says what to write instead.
        """
        annotation = strip(annotation)
        scalar = _SCALARS.get(annotation) if _hashable(annotation) else None
        if scalar is not None:
            return scalar
        alternatives = union_members(annotation)
        if alternatives is not None:
            return self._union(alternatives)
        reference = self._reference_form(annotation)
        if reference is not None:
            return reference
        origin = get_origin(annotation)
        if origin is Literal:
            return self._literal(annotation)
        if origin is not None:
            return self._container(annotation, origin, get_args(annotation))
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            return self._refusing(enum_form, annotation)
        if isinstance(annotation, type) and is_record(annotation):
            return self._record(annotation)
        raise self._unsupported(annotation)

    def _union(self, alternatives: tuple[object, ...]) -> Form:
        if Any in alternatives:
            raise TypeError(f"{self._where}: a union with Any means Any; write Any")
        return self._refusing(forms.union_form, tuple(self.form(alternative) for alternative in alternatives))

    def _literal(self, annotation: object) -> Form:
        values = get_args(annotation)
        if not all(type(value) in _LITERAL_TYPES for value in values):
            raise TypeError(f"{self._where}: {text_of(annotation)} may hold str, int, bool, bytes and None only")
        return forms.literal_form(text_of(annotation), values)

    def _container(self, annotation: object, origin: Any, arguments: tuple[Any, ...]) -> Form:
        if origin is tuple:
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return forms.array_form(self.form(arguments[0]), tuple, "tuple")
            return forms.tuple_form(tuple(self.form(argument) for argument in arguments))
        if origin is list:
            return forms.list_form(self.form(arguments[0]))
        if origin is set or origin is frozenset:
            return forms.array_form(self._hashable_item(annotation, arguments[0]), origin, origin.__name__)
        if origin in _SEQUENCES:
            return forms.sequence_form(self.form(arguments[0]))
        if origin is dict or origin in _MAPPINGS:
            key, value = self._hashable_item(annotation, arguments[0]), self.form(arguments[1])
            return forms.dict_form(key, value) if origin is dict else forms.mapping_form(key, value)
        raise self._unsupported(annotation)

    def _hashable_item(self, annotation: object, item: object) -> Form:
        """Keys and set members: plain values only, so that hashing them runs no code and takes bounded time."""
        form = self.form(item)
        if form.local_types is None or form.shapes or not (form.local_types <= _HASHABLE or form.raw_types == _ENUM):
            raise TypeError(f"{self._where}: {form.text} cannot be a key or set member in {text_of(annotation)}")
        return form

    def _record(self, record: type) -> Form:
        known = self._records.get(record)
        if known is not None:
            return known
        fields: dict[str, Form] = {}
        form = self._records[record] = self._refusing(record_form, record, fields)
        hints = typing.get_type_hints(record)
        for name in record_fields(record):
            fields[name] = self.form(hints[name])
            if fields[name].shapes:
                raise TypeError(
                    f"{self._where}: {record.__name__}.{name} is a reference; records hold values only, so pass it "
                    f"as a parameter of its own"
                )
        return form

    def _refusing(self, make: Callable[..., Form], *arguments: object) -> Form:
        """Call a form's maker and say where the annotation stands if it refuses."""
        try:
            return make(*arguments)
        except TypeError as error:
            raise TypeError(f"{self._where}: {error}") from None

    def _unsupported(self, annotation: object) -> TypeError:
        instead = _INSTEAD.get(annotation) if _hashable(annotation) else None
        if instead is None:
            instead = "declare a value type, a dataclass, a msgspec.Struct, an Enum or an Interface"
        return TypeError(f"{self._where}: {text_of(annotation)} cannot cross; {instead}")


def _hashable(annotation: object) -> bool:
    """Say whether an annotation may be looked up in a table (one with a list inside may not)."""
    try:
        hash(annotation)
    except TypeError:
        return False
    return True


_ENUM: Final = frozenset({str})
"""An enumeration travels by name, so its members may be keys."""

_HASHABLE: Final = frozenset({NoneType, bool, int, float, str, bytes, *(VALUE_FORMS.keys() - {memoryview})})
