"""Forms of records that a signature names: dataclasses, ``msgspec.Struct`` classes and enumerations.

A record travels as a map of exactly its declared fields, an enumeration as the name of its member. The class
is chosen by our own signature, never by a peer. A record is built by calling its class with the checked
fields: ``__post_init__`` therefore runs while arguments are decoded, after the guard's permission and after
the record's own fields were checked, and whatever it raises is an argument error.
"""

import dataclasses
from collections.abc import Mapping
from enum import Enum, Flag
from operator import attrgetter
from typing import Any, cast

import msgspec

from caprpc.interface.forms import Form
from caprpc.interface.mismatch import Mismatch, type_name
from caprpc.interface.references import ReferenceReader, ReferenceWriter


def is_record(annotation: object) -> bool:
    """Say whether an annotation is a dataclass or a ``msgspec.Struct`` class."""
    if not isinstance(annotation, type):
        return False
    return dataclasses.is_dataclass(annotation) or issubclass(annotation, msgspec.Struct)


def record_fields(record: type) -> tuple[str, ...]:
    """Return the names of a record's fields, in order of declaration.

    Raises:
        TypeError: A field cannot cross.
    """
    if issubclass(record, msgspec.Struct):
        names = tuple(record.__struct_fields__)
    else:
        fields = dataclasses.fields(cast("Any", record))
        names = tuple(field.name for field in fields)
        for field in fields:
            if not field.init:
                raise TypeError(f"{record.__name__}.{field.name} has init=False, so a received record cannot set it")
        if any(_is_init_var(value) for value in getattr(record, "__dataclass_fields__", {}).values()):
            raise TypeError(f"{record.__name__} has an InitVar, whose value no record keeps")
    for name in names:
        if name.startswith("_") or not name.isascii():
            raise TypeError(f"{record.__name__}.{name} cannot cross: field names are ASCII without leading underscore")
    return names


def _is_init_var(field: Any) -> bool:
    return isinstance(field.type, dataclasses.InitVar) or str(field.type).startswith(("InitVar", "dataclasses.InitVar"))


def record_form(record: type, fields: Mapping[str, Form]) -> Form:
    """Return the form of a record class.

    Args:
        record: The dataclass or Struct class.
        fields: The forms of its fields in order; may be filled later, so that records may hold themselves.
    """
    text = record.__name__
    names = record_fields(record)
    expected = frozenset(names)
    read = {name: attrgetter(name) for name in names}

    def encode(value: Any, refs: ReferenceWriter, parameter: str) -> Any:
        if type(value) is not record:
            raise Mismatch(text, type_name(value))
        raw = {}
        for name, form in fields.items():
            try:
                raw[name] = form.encode(read[name](value), refs, parameter)
            except Mismatch as mismatch:
                raise Mismatch(f"{mismatch.expected} in {text}.{name}", mismatch.received, mismatch.hint) from None
            except AttributeError:
                raise Mismatch(f"{text} with {name}", f"{text} without it") from None
        return raw

    def decode(raw: Any, refs: ReferenceReader) -> Any:
        if type(raw) is not dict or raw.keys() != expected:
            raise Mismatch(text, type_name(raw))
        checked = {name: form.decode(raw[name], refs) for name, form in fields.items()}
        try:
            return record(**checked)
        # The record's own __post_init__ is application code and may raise anything.
        except Exception:
            raise Mismatch(f"a valid {text}", "fields it refuses") from None

    return Form(text, encode, decode, frozenset({record}), frozenset({dict}))


def enum_form(enumeration: type[Enum]) -> Form:
    """Return the form of an enumeration: its member's name travels.

    Raises:
        TypeError: A ``Flag``, whose combinations have no name of their own.
    """
    if issubclass(enumeration, Flag):
        raise TypeError(f"{enumeration.__name__} is a Flag, whose combinations have no name; declare int or set[...]")
    text = enumeration.__name__
    by_name = {member.name: member for member in enumeration}
    names = {id(member): name for name, member in by_name.items()}

    def encode(value: Any, _refs: ReferenceWriter, _parameter: str) -> Any:
        if type(value) is not enumeration:
            raise Mismatch(text, type_name(value))
        return names[id(value)]

    def decode(raw: Any, _refs: ReferenceReader) -> Any:
        if type(raw) is not str or raw not in by_name:
            raise Mismatch(text, type_name(raw))
        return by_name[raw]

    return Form(text, encode, decode, frozenset({enumeration}), frozenset({str}))
