"""Annotations as text, the way a contract and an error message show them."""

import collections.abc
import contextlib
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Literal, Union, get_args, get_origin

GENERIC_NAMES: Final[Mapping[object, str]] = {
    collections.abc.Callable: "Callable",
    collections.abc.Iterator: "Iterator",
    collections.abc.Iterable: "Iterable",
    collections.abc.Generator: "Generator",
    collections.abc.AsyncIterator: "AsyncIterator",
    collections.abc.AsyncIterable: "AsyncIterable",
    collections.abc.AsyncGenerator: "AsyncGenerator",
    collections.abc.Sequence: "Sequence",
    collections.abc.Mapping: "Mapping",
    contextlib.AbstractContextManager: "ContextManager",
    contextlib.AbstractAsyncContextManager: "AsyncContextManager",
}
"""Origins whose own name could be mistaken or differs between ``typing`` and ``collections.abc``."""


def strip(annotation: object) -> object:
    """Return what an annotation means: without ``Annotated``, ``NewType`` and ``type X = ...`` around it."""
    while True:
        if get_origin(annotation) is typing.Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType" and hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        elif annotation is None:
            return type(None)
        else:
            return annotation


def union_members(annotation: object) -> tuple[object, ...] | None:
    """Return the alternatives of a union, or None if the annotation is no union."""
    origin = get_origin(annotation)
    if origin is Union or origin is types.UnionType:
        return tuple(strip(alternative) for alternative in get_args(annotation))
    return None


def text_of(annotation: object) -> str:
    """Return an annotation as text, such as ``Callable[[str], None]`` or ``int | None``."""
    annotation = strip(annotation)
    if annotation is Any:
        return "Any"
    if annotation is Ellipsis:
        return "..."
    if annotation is type(None):
        return "None"
    alternatives = union_members(annotation)
    if alternatives is not None:
        return " | ".join(text_of(alternative) for alternative in alternatives)
    if isinstance(annotation, list):
        return "[" + ", ".join(text_of(item) for item in annotation) + "]"
    origin = get_origin(annotation)
    if origin is None:
        return getattr(annotation, "__name__", None) or repr(annotation)
    if origin is Literal:
        return "Literal[" + ", ".join(_literal(value) for value in get_args(annotation)) + "]"
    name: str = GENERIC_NAMES.get(origin) or getattr(origin, "__name__", None) or repr(origin)
    # What a context manager does with exceptions never crosses, so only what it gives is shown.
    shown = get_args(annotation)[:1] if name.endswith("ContextManager") else get_args(annotation)
    arguments = ", ".join(text_of(argument) for argument in shown) or "()"
    return f"{name}[{arguments}]"


def _literal(value: object) -> str:
    return f"{type(value).__name__}.{value.name}" if isinstance(value, Enum) else repr(value)
