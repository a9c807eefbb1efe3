"""The built-in kinds of reference that are no interface of anybody: callables, iterators, context managers.

Which local objects may stand for them is a closed list of exact types. A class, a module, a frame, a
coroutine, or an object that merely looks right is on no list.
"""

import itertools
from collections import deque
from contextlib import _AsyncGeneratorContextManager, _GeneratorContextManager, closing, nullcontext
from functools import partial
from io import BytesIO, StringIO, TextIOWrapper
from types import AsyncGeneratorType, BuiltinFunctionType, FunctionType, GeneratorType, MethodType
from typing import Any, Final, NoReturn

from caprpc.errors import IteratorBusy
from caprpc.ids import OP_CLOSE, OP_ENTER, OP_EXIT, OP_INVOKE, OP_NEXT
from caprpc.interface import forms
from caprpc.interface.contexts import AsyncContextServer, ContextServer, ServedContext
from caprpc.interface.forms import Form
from caprpc.interface.iteration import AsyncIteratorServer, IteratorServer, ServedIterator
from caprpc.interface.member import CallableMember, Member
from caprpc.interface.mismatch import Mismatch, type_name
from caprpc.interface.references import ReferenceReader, ReferenceWriter
from caprpc.interface.shape import Members, Shape
from caprpc.interface.signature import Parameter, Signature

CALLABLE: Final = "Callable"
ITERATOR: Final = "Iterator"
CONTEXT_MANAGER: Final = "ContextManager"

EXIT_PARAMETERS: Final = (
    Parameter("failed", forms.BOOL_FORM, positional=True, keyword=False),
    Parameter("error", forms.STR_FORM, positional=True, keyword=False, default=""),
    Parameter("text", forms.STR_FORM, positional=True, keyword=False, default=""),
)
"""Leaving a context tells whether the block failed, and how only if it did so with an error that is declared."""

FUNCTIONS: Final = frozenset({FunctionType, BuiltinFunctionType, MethodType, partial})
"""What may stand for a Callable: it is invoked, and nothing of it is readable."""

IN_MEMORY: Final = frozenset(
    {
        type(iter(())),
        type(iter([])),
        type(reversed([])),
        type(iter(set[object]())),
        type(iter({})),
        type(iter({}.values())),
        type(iter({}.items())),
        type(iter(range(0))),
        type(iter(range(1 << 70))),
        type(iter(deque[object]())),
        type(iter("")),
        type(iter("\u00e9")),
        type(iter(b"")),
        StringIO,
        BytesIO,
    }
)
"""Iterators over what is there already: none of them makes anybody wait."""

ITERATORS: Final = IN_MEMORY | frozenset(
    {
        GeneratorType,
        TextIOWrapper,
        map,
        filter,
        zip,
        enumerate,
        reversed,
        *(kind for kind in vars(itertools).values() if isinstance(kind, type)),
    }
)
"""Iterators of the language and the library that may stand for an Iterator."""

ITERABLES: Final = frozenset(
    {list, tuple, set, frozenset, dict, range, deque, type({}.keys()), type({}.values()), type({}.items())}
)
"""Collections of which an iterator is made."""

CONTEXTS: Final = frozenset({_GeneratorContextManager, closing, nullcontext})
ASYNC_CONTEXTS: Final = frozenset({_AsyncGeneratorContextManager})
"""What ``@contextmanager`` and its relatives make."""


Errors = tuple[type[Exception], ...]
"""Errors that the method declares in whose signature the reference stands."""


def callable_shape(text: str, parameters: tuple[Form, ...], result: Form, errors: Errors = ()) -> Shape:
    """Return the shape of ``Callable[[A, B], R]``: it can be invoked."""

    def members() -> Members:
        declared = tuple(
            Parameter(f"argument{i}", form, positional=True, keyword=False) for i, form in enumerate(parameters, 1)
        )
        member = CallableMember(
            OP_INVOKE,
            "",
            Signature(text, declared, result),
            interface=object,
            python_names=("__call__",),
            errors=errors,
        )
        return {(OP_INVOKE, ""): member}

    def adapt(obj: Any) -> object:
        if type(obj) not in FUNCTIONS:
            _refuse(text, obj, "pass a function, a bound method or a functools.partial")
        return obj

    return Shape(CALLABLE, text, members, adapt)


def iterator_shape(text: str, item: Form, errors: Errors = ()) -> Shape:
    """Return the shape of an iterator: chunks are pulled from it, and it can be closed."""

    def members() -> Members:
        bounds = (
            Parameter("max_items", forms.INT_FORM, positional=True, keyword=False),
            Parameter("max_bytes", forms.INT_FORM, positional=True, keyword=False),
        )
        pull, close = Signature(text, bounds, _chunk_form(item)), Signature(text, (), forms.NONE_FORM)
        return {
            (OP_NEXT, ""): Member(
                OP_NEXT,
                "",
                pull,
                interface=ServedIterator,
                python_names=("pull",),
                effect="read",
                errors=(IteratorBusy, *errors),
            ),
            (OP_CLOSE, ""): Member(OP_CLOSE, "", close, interface=ServedIterator, python_names=("close",)),
        }

    def adapt(obj: Any) -> object:
        kind = type(obj)
        if kind is IteratorServer or kind is AsyncIteratorServer:
            return obj
        if kind in ITERATORS:
            return IteratorServer(obj, in_memory=kind in IN_MEMORY)
        if kind in ITERABLES:
            return IteratorServer(iter(obj), in_memory=True)
        if kind is AsyncGeneratorType:
            return AsyncIteratorServer(obj)
        return _refuse(text, obj, "pass a generator, such as (item for item in ...)")

    return Shape(ITERATOR, text, members, adapt)


def context_shape(text: str, given: Form, errors: Errors = ()) -> Shape:
    """Return the shape of a context manager: entered once, left once."""

    def members() -> Members:
        enter, leave = Signature(text, (), given), Signature(text, EXIT_PARAMETERS, forms.BOOL_FORM)
        return {
            (OP_ENTER, ""): Member(
                OP_ENTER, "", enter, interface=ServedContext, python_names=("enter",), errors=errors
            ),
            (OP_EXIT, ""): Member(OP_EXIT, "", leave, interface=ServedContext, python_names=("exit",), errors=errors),
        }

    def adapt(obj: Any) -> object:
        kind = type(obj)
        if kind is ContextServer or kind is AsyncContextServer:
            return obj
        if kind in CONTEXTS:
            return ContextServer(obj, errors=errors)
        if kind in ASYNC_CONTEXTS:
            return AsyncContextServer(obj, errors=errors)
        return _refuse(text, obj, "pass what a @contextmanager function returns")

    return Shape(CONTEXT_MANAGER, text, members, adapt)


def _chunk_form(item: Form) -> Form:
    """Return the form of what a pull gives: ``(items, done)`` locally, ``[done, items]`` on the wire."""
    items_form = forms.list_form(item)

    def encode(value: Any, refs: ReferenceWriter, parameter: str) -> Any:
        items, done = value
        return [done, items_form.encode(items, refs, parameter)]

    def decode(raw: Any, refs: ReferenceReader) -> Any:
        if type(raw) is not list or len(raw) != 2 or type(raw[0]) is not bool:
            raise Mismatch(items_form.text, type_name(raw))
        return items_form.decode(raw[1], refs), raw[0]

    return Form(items_form.text, encode, decode, frozenset({tuple}), frozenset({list}), shapes=items_form.shapes)


def _refuse(text: str, obj: object, hint: str) -> NoReturn:
    raise Mismatch(text, type_name(obj), hint)
