"""Words of the command line as arguments of a member: JSON, and what the declaration makes of it."""

import base64
import binascii
import collections.abc
import inspect
import json
import typing
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import Path
from typing import Any, Final, get_args, get_origin
from uuid import UUID

import click

from caprpc.cli.results import as_json
from caprpc.ids import OP_CALL, OP_GET, OP_SET
from caprpc.interface import Member, Shape, interface_info
from caprpc.interface.annotations import strip, text_of, union_members
from caprpc.interface.declaration import MethodDeclaration
from caprpc.interface.file_adapters import TextFileAdapter
from caprpc.interface.records import is_record, record_fields
from caprpc.interfaces import BinaryFile, TextFile, TextLines, UndecodableFile

PRINT: Final = "@print"
"""Stands for a function that prints what it is called with, one line of JSON for each call."""

_FILES: Final[Mapping[Any, str]] = {TextLines: "r", TextFile: "r", BinaryFile: "rb"}
_ISO: Final[tuple[Any, ...]] = (datetime, date, time)
_SEQUENCES: Final = frozenset({list, set, frozenset, collections.abc.Sequence})
_MAPPINGS: Final = frozenset({dict, collections.abc.Mapping})


class ArgumentUnfit(click.ClickException):
    """A word of the command line does not fit the declaration."""

    exit_code = 65


class Unfit(Exception):
    """A value does not fit an annotation; says what was expected."""


def member_in(shape: Shape, name: str, count: int) -> Member:
    """Return the member that ``ROOT.name`` with so many arguments means: a method, or an attribute to get or set.

    Raises:
        click.UsageError: The interface has no such member.
    """
    operations = (OP_CALL, OP_GET) if count == 0 else (OP_CALL, OP_SET)
    for operation in operations:
        member = shape.members.get((operation, name))
        if member is not None:
            return member
    if (OP_GET, name) in shape.members:
        raise click.UsageError(f"{shape.name}.{name} is an attribute that is read only; it takes no argument")
    known = ", ".join(sorted({key for _, key in shape.members if key}))
    raise click.UsageError(f"{shape.name} has no member {name!r}; it has: {known or 'none'}")


def plain_arguments(words: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and named arguments as the JSON that they are; what is no JSON is a text.

    Raises:
        click.UsageError: One is named twice.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        if not equals or not name.isidentifier():
            args.append(_json_or_text(word))
        elif name in kwargs:
            raise click.UsageError(f"{name} is given twice")
        else:
            kwargs[name] = _json_or_text(rest)
    return args, kwargs


def _json_or_text(word: str) -> Any:
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        return word


class Arguments:
    """Turns words into what a member is called with; owns the files that it opened, until ``close``."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._opened = ExitStack()
        self._hints = annotations_of(member)
        self.files: list[Path] = []
        """Files that were lent, for a better message if one of them cannot be read."""

    def close(self) -> None:
        """Close the files."""
        self._opened.close()

    def parse(self, words: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and named arguments.

        Raises:
            click.UsageError: There are too many, or one is named twice.
            ArgumentUnfit: One does not fit its declaration.
        """
        parameters = self._member.signature.parameters
        positional = [parameter for parameter in parameters if parameter.positional]
        by_name = {parameter.name for parameter in parameters if parameter.keyword}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for word in words:
            name, equals, rest = word.partition("=")
            if equals and name in by_name:
                if name in kwargs:
                    raise click.UsageError(f"{name} is given twice")
                kwargs[name] = self._convert(name, rest)
            elif len(args) < len(positional):
                args.append(self._convert(positional[len(args)].name, word))
            else:
                raise click.UsageError(
                    f"{self._member.name} takes {len(parameters)} arguments: "
                    + (", ".join(parameter.name for parameter in parameters) or "none")
                )
        return args, kwargs

    def _convert(self, name: str, word: str) -> Any:
        annotation = self._hints.get(name, Any)
        try:
            return self._word(word, annotation)
        except Unfit as exc:
            raise ArgumentUnfit(f"argument {name}: {text_of(annotation)} expected, {exc}") from None

    def _word(self, word: str, annotation: Any) -> Any:
        """Return what one word means where an annotation is declared."""
        for one in union_members(strip(annotation)) or (strip(annotation),):
            if word == PRINT and get_origin(one) is collections.abc.Callable:
                return print_json
            mode = _FILES.get(one) if isinstance(one, type) else None
            if mode is not None:
                return self._open(word, mode)
            if interface_info(one) is not None or get_origin(one) is collections.abc.Callable:
                raise Unfit(f"and none can be made on a command line{'' if interface_info(one) else f' but {PRINT}'}")
            if word.startswith("@") and one in (str, bytes):
                content = Path(word[1:]).read_bytes()
                return content if one is bytes else content.decode("utf-8")
        try:
            value = json.loads(word, parse_float=Decimal)
        except json.JSONDecodeError as exc:
            if _takes_text(annotation):
                return convert(word, annotation)
            raise Unfit(f"and {word!r} is not JSON ({exc.msg} at character {exc.pos + 1})") from None
        except RecursionError:
            raise Unfit("and it is nested too deep") from None
        if type(value) is not str and _takes_text(annotation):
            try:
                return convert(value, annotation)
            except Unfit:
                # A word such as 42 where a text is declared: the text.
                return convert(word, annotation)
        return convert(value, annotation)

    def _open(self, word: str, mode: str) -> Any:
        if not word.startswith("@"):
            raise Unfit("write @PATH to lend an open file")
        path = Path(word[1:])
        encoding = "utf-8" if mode == "r" else None
        file = self._opened.enter_context(path.open(mode, encoding=encoding))
        self.files.append(path)
        return file


def convert(value: Any, annotation: Any) -> Any:
    """Return a value that JSON can express as the one that an annotation declares.

    Raises:
        Unfit: It does not fit.
    """
    annotation = strip(annotation)
    alternatives = union_members(annotation)
    if alternatives is not None:
        return _first_that_fits(value, alternatives)
    if annotation is Any:
        return _plain(value)
    if get_origin(annotation) is typing.Literal:
        for allowed in get_args(annotation):
            if type(allowed) is type(value) and allowed == value:
                return value
        raise Unfit(f"got {value!r}")
    if get_origin(annotation) is not None:
        return _container(value, annotation)
    if is_record(annotation):
        return _record(value, annotation)
    return _scalar(value, annotation)


def annotations_of(member: Member) -> dict[str, Any]:
    """Return the declared annotation of each parameter."""
    info = interface_info(member.interface)
    declared = info.declarations if info is not None else {}
    for declaration, owner in declared.values():
        if declaration.python_name not in member.python_names:
            continue
        if isinstance(declaration, MethodDeclaration):
            return typing.get_type_hints(declaration.function)
        return {p.name: typing.get_type_hints(owner)[declaration.python_name] for p in member.signature.parameters}
    return {}


def _takes_text(annotation: Any) -> bool:
    """Whether a bare word may stand there without the quotes of JSON."""
    for one in union_members(strip(annotation)) or (strip(annotation),):
        if one in (str, bytes, Decimal, UUID, complex, *_ISO) or (isinstance(one, type) and issubclass(one, Enum)):
            return True
        if get_origin(one) is typing.Literal and any(isinstance(value, str) for value in get_args(one)):
            return True
    return False


def _first_that_fits(value: Any, alternatives: tuple[object, ...]) -> Any:
    exact = [one for one in alternatives if one is type(value)]
    for one in (*exact, *alternatives):
        try:
            return convert(value, one)
        except Unfit:
            continue
    raise Unfit(f"got {_kind(value)}")


def _scalar(value: Any, annotation: Any) -> Any:
    if type(value) is annotation:
        return value
    if annotation is float and type(value) in (int, Decimal):
        return float(value)
    if annotation in (bool, int, float, str, type(None)):
        raise Unfit(f"got {_kind(value)}")
    try:
        if annotation is bytes and type(value) is str:
            return base64.b64decode(value, validate=True)
        if annotation is timedelta and type(value) in (int, Decimal):
            return timedelta(seconds=float(value))
        if annotation is Decimal and type(value) in (str, int, Decimal):
            return Decimal(value)
        if annotation is UUID and type(value) is str:
            return UUID(value)
        if annotation is complex and type(value) in (str, int, Decimal):
            return complex(value)
        if annotation in _ISO and type(value) is str:
            return annotation.fromisoformat(value)
        if isinstance(annotation, type) and issubclass(annotation, Enum) and type(value) is str:
            if value not in annotation.__members__:
                raise Unfit(f"got {value!r}; there is {', '.join(annotation.__members__)}")
            return annotation[value]
    except (ValueError, OverflowError, InvalidOperation, binascii.Error):
        raise Unfit(f"got {value!r}") from None
    raise Unfit(f"got {_kind(value)}, which cannot stand for it on a command line")


def _container(value: Any, annotation: Any) -> Any:
    origin: Any = get_origin(annotation)
    arguments = get_args(annotation)
    if origin in _SEQUENCES and type(value) is list:
        items = [convert(item, arguments[0]) for item in value]
        return items if origin not in (set, frozenset) else origin(items)
    if origin is tuple and type(value) in (list, tuple):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(convert(item, arguments[0]) for item in value)
        if len(arguments) == len(value):
            return tuple(convert(item, one) for item, one in zip(value, arguments, strict=True))
    if origin in _MAPPINGS and type(value) is dict:
        return {_key(key, arguments[0]): convert(item, arguments[1]) for key, item in value.items()}
    raise Unfit(f"got {_kind(value)}, which cannot stand for it on a command line")


def _key(text: str, annotation: Any) -> Any:
    """Return a key of a JSON object, always a text, as the declared type."""
    if _takes_text(annotation):
        return convert(text, annotation)
    try:
        return convert(json.loads(text), annotation)
    except json.JSONDecodeError:
        raise Unfit(f"got the key {text!r}") from None


def _record(value: Any, annotation: Any) -> Any:
    if type(value) is not dict:
        raise Unfit(f"got {_kind(value)}")
    hints = typing.get_type_hints(annotation)
    known = record_fields(annotation)
    unknown = value.keys() - set(known)
    if unknown:
        raise Unfit(f"and {annotation.__name__} has no {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    fields = {name: _field(annotation, name, item, hints[name]) for name, item in value.items()}
    missing = [one.name for one in inspect.signature(annotation).parameters.values() if one.default is one.empty]
    missing = [name for name in missing if name not in fields]
    if missing:
        raise Unfit(f"and it lacks {', '.join(missing)}")
    try:
        return annotation(**fields)
    except (TypeError, ValueError) as exc:
        raise Unfit(f"{annotation.__name__}: {exc}") from None


def _field(record: Any, name: str, value: Any, annotation: Any) -> Any:
    """Return the value of one field of a record; the error names the field."""
    try:
        return convert(value, annotation)
    except Unfit as exc:
        raise Unfit(f"and in {record.__name__}.{name} {text_of(annotation)}, {exc}") from None


def _plain(value: Any) -> Any:
    """Return a value whose type nobody declares: fractions were read exactly, and are floats here."""
    if type(value) is Decimal:
        return float(value)
    if type(value) is list:
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if type(value) is dict else value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def print_json(*args: Any) -> None:
    """Print what a peer passes to a lent function."""
    click.echo(json.dumps([as_json(one) for one in args] if len(args) != 1 else as_json(args[0])))


def undecodable(path: Path) -> str:
    """Return what is wrong with a text file that was lent: file, byte and line; empty if it is valid UTF-8."""
    try:
        with path.open(encoding="utf-8") as file:
            for _ in TextFileAdapter(file).readlines():
                pass
    except UndecodableFile as exc:
        return str(exc)
    return ""
