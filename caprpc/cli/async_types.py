"""Source text of the types that an asyncio client sees: for each interface a protocol whose members are awaited.

At run time each of these names *is* its interface (ADR 0024), so that nothing generated runs.
"""

import collections.abc
import contextlib
import inspect
import sys
import typing
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from textwrap import wrap
from types import NoneType
from typing import Any, Final, get_args, get_origin

from caprpc import interfaces
from caprpc.ids import OP_CALL, OP_ENTER, OP_EXIT, OP_INDEX_GET, OP_INVOKE, OP_ITERATE
from caprpc.interface import interface_info
from caprpc.interface.annotations import strip, union_members
from caprpc.interface.declaration import AttributeDeclaration, InterfaceInfo, MethodDeclaration

BUILT_IN: Final = interfaces.__name__
"""The module of the interfaces that come with CapRPC; ``caprpc.aio.interfaces`` is made of it."""

_WIDTH: Final = 120
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
_ASYNC_NAMES: Final[Mapping[int, str]] = {
    OP_INVOKE: "__call__",
    OP_ITERATE: "__aiter__",
    OP_INDEX_GET: "__getitem__",
    OP_ENTER: "__aenter__",
    OP_EXIT: "__aexit__",
}
"""What Python can await; ``len``, ``in`` and ``ref[i] = v`` have no such form, and an asyncio stub lacks them."""
_BODY: Final = "            ..."
"""Without it, pyright takes a body that is a docstring alone for a function that returns None."""
_EXIT: Final = (
    "def __aexit__(self, kind: type[BaseException] | None, value: object = ..., trace: object = ...) -> Awaitable[None]"
)


class Unnameable(Exception):
    """An annotation names what a generated module could not import."""


def async_module(module: str, declared: Iterable[type]) -> str:
    """Return the source of a module with ``AsyncX`` for each interface ``X``, and for those that they lead to.

    The text depends on the declarations alone: the same input gives the same bytes.

    Raises:
        Unnameable: Two different classes have one name, or one is defined inside a function.
    """
    return _Writer(module).module({info.name: info for info in map(interface_info, declared) if info is not None})


class _Writer:
    """Collects imports and interfaces while it renders declarations."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._imports: defaultdict[str, set[str]] = defaultdict(set)
        self._named: dict[str, object] = {}
        self._waiting: dict[str, InterfaceInfo] = {}

    def module(self, declared: dict[str, InterfaceInfo]) -> str:
        """Return the text of the whole module."""
        self._waiting.update(declared)
        classes: dict[str, str] = {}
        while self._waiting:
            name = min(self._waiting)
            classes[name] = self._class(self._waiting.pop(name), classes)
            self._waiting = {key: info for key, info in self._waiting.items() if key not in classes}
        names = sorted(classes)
        self._imports["typing"] |= {"TYPE_CHECKING", "Protocol"}
        title = f'"""``{self._module}`` as a client with asyncio sees it; made by ``caprpc stubs``, do not edit."""'
        exported = "".join(f'    "Async{name}",\n' for name in names)
        future = "from __future__ import annotations\n"
        text = f"{title}\n\n{future}\n{self._import_lines()}\n__all__ = [\n{exported}]\n\nif TYPE_CHECKING:\n"
        text += "".join(f"\n{classes[name]}" for name in names)
        return text + "\nelse:\n" + "".join(f"    Async{name} = {name}\n" for name in names)

    def _class(self, info: InterfaceInfo, done: Mapping[str, str]) -> str:
        self._known = {*done, info.name, *self._waiting}
        self._name(info.interface)
        lines = [f"    class Async{info.name}(Protocol):", *_docstring(info.doc, 8)]
        for name, (declaration, owner) in sorted(info.declarations.items(), key=lambda item: _order(item[0])):
            if isinstance(declaration, AttributeDeclaration):
                member = self._attribute(name, declaration, owner)
            else:
                member = self._method(declaration)
            if member:
                lines += ["", *member] if len(lines) > 1 else member
        return "\n".join(lines if len(lines) > 1 else [*lines, "        pass"]) + "\n"

    def _attribute(self, name: str, declaration: AttributeDeclaration, owner: type) -> list[str]:
        told = "Read with ``await``" + ("; set with ``caprpc.aio.set_attribute``." if declaration.writable else ".")
        result = self._awaited(typing.get_type_hints(owner)[name])
        return ["        @property", f"        def {name}(self) -> {result}:", *_docstring(told, 12), _BODY]

    def _method(self, declaration: MethodDeclaration) -> list[str]:
        name = _ASYNC_NAMES.get(declaration.operation, "") if declaration.operation != OP_CALL else declaration.name
        if not name:
            return []
        if declaration.operation == OP_EXIT:
            self._imports["collections.abc"].add("Awaitable")
            return [f"        {_EXIT}: ..."]
        hints = typing.get_type_hints(declaration.function)
        result = (
            self._result(hints["return"]) if declaration.operation == OP_ITERATE else self._awaited(hints["return"])
        )
        parameters = ["self", *self._parameters(declaration.function, hints)]
        doc = _docstring(inspect.getdoc(declaration.function) or "", 12)
        doc, end = ([*doc, _BODY], ":") if doc else ([], ": ...")
        line = f"        def {name}({', '.join(parameters)}) -> {result}{end}"
        if len(line) <= _WIDTH:
            return [line, *doc]
        spread = [f"            {parameter}," for parameter in parameters]
        return [f"        def {name}(", *spread, f"        ) -> {result}{end}", *doc]

    def _parameters(self, function: Callable[..., Any], hints: Mapping[str, Any]) -> list[str]:
        """Return the declared parameters after ``self``, with the marks of what goes by position or name only."""
        declared = list(inspect.signature(function).parameters.values())[1:]
        shown: list[str] = []
        for index, one in enumerate(declared):
            if one.kind is one.KEYWORD_ONLY and not any(p.kind is p.KEYWORD_ONLY for p in declared[:index]):
                shown.append("*")
            default = "" if one.default is one.empty else " = ..."
            shown.append(f"{one.name}: {self._argument(hints[one.name])}{default}")
            last = index + 1 == len(declared) or declared[index + 1].kind is not one.POSITIONAL_ONLY
            if one.kind is one.POSITIONAL_ONLY and last:
                shown.append("/")
        return shown

    def _awaited(self, annotation: Any) -> str:
        """Return what a call gives whose declared result this is."""
        annotation = strip(annotation)
        for origins, name in ((_ITERATIONS, "AwaitableIterator"), (_CONTEXTS, "AwaitableContext")):
            if get_origin(annotation) in origins:
                self._imports["caprpc.aio.typed"].add(name)
                return f"{name}[{self._result(get_args(annotation)[0])}]"
        self._imports["collections.abc"].add("Awaitable")
        return f"Awaitable[{self._result(annotation)}]"

    def _result(self, annotation: Any) -> str:
        """Return what comes from the peer where this is declared: references are awaited, values are values."""
        annotation = strip(annotation)
        origin, arguments = get_origin(annotation), get_args(annotation)
        info = interface_info(annotation)
        if info is not None:
            return self._async_name(info)
        if origin in _ITERATIONS:
            self._imports["collections.abc"].add("AsyncIterator")
            return f"AsyncIterator[{self._result(arguments[0])}]"
        if origin in _CONTEXTS:
            self._imports["contextlib"].add("AbstractAsyncContextManager")
            return f"AbstractAsyncContextManager[{self._result(arguments[0])}]"
        if origin is collections.abc.Callable:
            self._imports["collections.abc"].add("Callable")
            taken = ", ".join(self._argument(one) for one in arguments[0])
            return f"Callable[[{taken}], {self._awaited(arguments[1])}]"
        return self._generic(annotation, self._result)

    def _argument(self, annotation: Any) -> str:
        """Return what may be passed where this is declared: objects of ours with ``def`` or ``async def``, or stubs."""
        annotation = strip(annotation)
        origin, arguments = get_origin(annotation), get_args(annotation)
        info = interface_info(annotation)
        if info is not None:
            return f"{self._name(info.interface)} | {self._async_name(info)}"
        if origin in _ITERATIONS:
            self._imports["collections.abc"] |= {"Iterable", "AsyncIterable"}
            item = self._argument(arguments[0])
            return f"Iterable[{item}] | AsyncIterable[{item}]"
        if origin in _CONTEXTS:
            self._imports["contextlib"] |= {"AbstractContextManager", "AbstractAsyncContextManager"}
            given = self._argument(arguments[0])
            return f"AbstractContextManager[{given}] | AbstractAsyncContextManager[{given}]"
        if origin is collections.abc.Callable:
            self._imports["collections.abc"] |= {"Awaitable", "Callable"}
            taken = ", ".join(self._result(one) for one in arguments[0])
            given = self._argument(arguments[1])
            return f"Callable[[{taken}], Awaitable[{given}] | {given}]"
        return self._generic(annotation, self._argument)

    def _generic(self, annotation: Any, part: Callable[[Any], str]) -> str:
        """Return the text of an annotation that is no reference itself, its parts rendered by ``part``."""
        alternatives = union_members(annotation)
        if alternatives is not None:
            return " | ".join(part(one) for one in alternatives)
        if annotation is Any:
            self._imports["typing"].add("Any")
            return "Any"
        if annotation is NoneType:
            return "None"
        if annotation is Ellipsis:
            return "..."
        origin = get_origin(annotation)
        if origin is None:
            return self._name(annotation)
        if origin is typing.Literal:
            self._imports["typing"].add("Literal")
            return f"Literal[{', '.join(_quoted(value) for value in get_args(annotation))}]"
        arguments = ", ".join(part(one) for one in get_args(annotation)) or "()"
        return f"{self._name(origin)}[{arguments}]"

    def _async_name(self, info: InterfaceInfo) -> str:
        """Return the name of an interface's asyncio type, which is imported or written as well."""
        built_in = info.name in sys.modules[BUILT_IN].__dict__ and info.interface.__module__.startswith(
            "caprpc.interface"
        )
        if built_in and self._module != BUILT_IN:
            self._imports["caprpc.aio.interfaces"].add(f"Async{info.name}")
        elif info.name not in self._known:
            self._waiting[info.name] = info
        return f"Async{info.name}"

    def _name(self, cls: Any) -> str:
        """Return the name of a class, imported from where it is defined."""
        home, qualified = cls.__module__, cls.__qualname__
        if "<locals>" in qualified:
            raise Unnameable(f"{qualified} is defined inside a function; a module cannot import it")
        first = qualified.partition(".")[0]
        if self._named.setdefault(first, home) != home:
            raise Unnameable(f"{first} is defined in {self._named[first]} and in {home}; one module cannot import both")
        if home != "builtins":
            self._imports[BUILT_IN if _is_built_in(cls) else home].add(first)
        return str(qualified)

    def _import_lines(self) -> str:
        groups: list[list[str]] = [[], []]
        for module, names in sorted(self._imports.items()):
            words = sorted(names, key=lambda name: (not name.isupper(), name))
            line = f"from {module} import {', '.join(words)}"
            if len(line) > _WIDTH:
                line = f"from {module} import (\n" + "".join(f"    {word},\n" for word in words) + ")"
            groups[module.partition(".")[0] not in sys.stdlib_module_names].append(line)
        return "\n".join("\n".join(group) + "\n" for group in groups if group)


def _is_built_in(cls: type) -> bool:
    """Whether a class is an interface that comes with CapRPC."""
    return interfaces.__dict__.get(cls.__name__) is cls and interface_info(cls) is not None


def _order(name: str) -> tuple[bool, str]:
    return name.startswith("__"), name


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) and value.isalnum() else repr(value)


def _docstring(text: str, indent: int) -> list[str]:
    if not text:
        return []
    text = text.replace("\\", "\\\\").replace('"""', "'''")
    margin = " " * indent
    lines: list[str] = []
    for line in text.splitlines():
        begin = line[: len(line) - len(line.lstrip())]
        # A line that fits where it was declared may stand further to the right here.
        lines += wrap(line, _WIDTH - indent - 6, initial_indent="", subsequent_indent=begin) or [""]
    if len(lines) == 1:
        return [f'{margin}"""{lines[0]}"""']
    return [f'{margin}"""{lines[0]}', *(f"{margin}{line}".rstrip() for line in lines[1:]), f'{margin}"""']
