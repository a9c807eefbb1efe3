"""Signatures: declared parameters and result, compiled once, checked on every call in both directions."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any, Final
from uuid import UUID

from caprpc.interface.forms import Form
from caprpc.interface.mismatch import ArgumentError, Mismatch, ResultError
from caprpc.interface.references import NoReferences, ReferenceReader, ReferenceWriter

RETURN: Final = "return"
"""What a reference writer is told in place of a parameter name when it writes a result."""

_SCALARS: Final = frozenset({NoneType, bool, int, float, str, bytes})
"""Types that MessagePack knows and that hold nothing."""

_CONSTANT_TYPES: Final = frozenset(
    {NoneType, bool, int, float, complex, str, bytes, Decimal, UUID, timedelta, date, time}
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declared parameter."""

    name: str
    form: Form
    positional: bool
    """May be passed by position."""
    keyword: bool
    """May be passed by name."""
    default: object = inspect.Parameter.empty
    """The declared default; ``inspect.Parameter.empty`` if an argument is required."""

    @property
    def required(self) -> bool:
        """Whether a caller must pass it."""
        return self.default is inspect.Parameter.empty


class Signature:
    """What goes into a member and what comes out; arguments that do not fit never reach the member."""

    __slots__ = (
        "_by_name",
        "_decoders",
        "_encoders",
        "_plain",
        "_positional",
        "arg_trees",
        "member",
        "parameters",
        "result",
        "result_trees",
        "returns_references",
        "scalar_result",
        "scalars",
        "takes_references",
    )

    def __init__(self, member: str, parameters: tuple[Parameter, ...], result: Form) -> None:
        """Take a compiled declaration.

        Raises:
            TypeError: A default does not fit its annotation or can be changed by those who receive it, or one
                parameter takes several kinds of references.
        """
        self.member = member
        self.result = result
        for name, form in [*((p.name, p.form) for p in parameters), (RETURN, result)]:
            if len({shape.name for shape in form.shapes}) > 1:
                raise TypeError(
                    f"{member}: {name} mixes kinds of references ({form.text}); a policy names one for each"
                )
        parameters = tuple(p if p.required else self._with_checked_default(p) for p in parameters)
        self.parameters = parameters
        self._positional = tuple(parameter for parameter in parameters if parameter.positional)
        self._by_name = {parameter.name: i for i, parameter in enumerate(parameters) if parameter.keyword}
        # The usual call passes every parameter by position; these two are None where that is impossible.
        by_position = len(self._positional) == len(parameters)
        self._encoders = tuple((p.form.encode, p.name) for p in parameters) if by_position else None
        self._decoders = tuple(p.form.decode for p in parameters) if by_position else None
        plain = tuple(parameter.form.plain for parameter in parameters)
        self._plain = plain if by_position and None not in plain else None
        self.scalars = self._plain if self._plain is not None and _SCALARS.issuperset(self._plain) else None
        """Types of the parameters if each travels as the encoder has it, else None."""
        trees = tuple(parameter.form.trees for parameter in parameters)
        self.arg_trees = trees if by_position and all(trees) else None
        """Types of arguments that fit as they are if all in them is plain (``Form.trees``), for each parameter."""
        self.result_trees = result.trees
        """Types of results that fit as they are if all in them is plain (``Form.trees``)."""
        self.scalar_result = result.plain if result.plain in _SCALARS else None
        """Type of the result if it travels as the encoder has it, else None."""
        self.takes_references = any(parameter.form.shapes for parameter in parameters)
        """Whether an argument may be a reference."""
        self.returns_references = bool(result.shapes)
        """Whether the result may be or hold a reference."""

    def passes(self, args: Sequence[Any]) -> bool:
        """Say whether arguments fit as they are, one for each parameter, if all in them is plain (``Form.trees``)."""
        trees = self.arg_trees
        if trees is None or len(args) != len(trees):
            return False
        for value, types in zip(args, trees, strict=True):  # noqa: SIM110 - a generator costs more than the rest
            if type(value) not in types:
                return False
        return True

    def encode_args(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], refs: ReferenceWriter) -> list[Any]:
        """Check our own arguments and return the raw pair ``[args, kwargs]`` that travels.

        Raises:
            TypeError: An argument is missing, unknown or of another type; names the parameter and what is
                expected, never the value.
        """
        if not kwargs:
            plain = self._plain
            if plain is not None and (not (args or plain) or tuple(map(type, args)) == plain):
                return [list(args), {}]
            if self._encoders is not None and len(args) == len(self._encoders):
                return [self._encode_all(args, refs), {}]
        if len(args) > len(self._positional):
            raise TypeError(f"{self.member} takes {len(self._positional)} positional arguments, got {len(args)}")
        for name in kwargs:
            position = self._by_name.get(name)
            if position is None:
                raise TypeError(f"{self.member} has no parameter {name!r}")
            if position < len(args):
                raise TypeError(f"{self.member}: {name} is passed twice, by position and by name")
        missing = [p.name for p in self.parameters[len(args) :] if p.required and p.name not in kwargs]
        if missing:
            raise TypeError(f"{self.member} needs {', '.join(missing)}")
        raw_args = [self._encode(p, value, refs) for p, value in zip(self._positional, args, strict=False)]
        by_name = self._by_name
        return [raw_args, {n: self._encode(self.parameters[by_name[n]], v, refs) for n, v in kwargs.items()}]

    def decode_args(self, raw: Any, refs: ReferenceReader, *, plain: bool = False) -> tuple[list[Any], dict[str, Any]]:
        """Check a peer's raw arguments and return what the member is called with, declared defaults filled in.

        ``plain`` says that nothing in them is but what MessagePack knows, with texts as keys.

        Raises:
            ArgumentError: The arguments do not fit; nothing ran. Names the parameter and what is expected.
        """
        if type(raw) is not list or len(raw) != 2:
            raise ArgumentError("", "a list of arguments and a map of keyword arguments")
        raw_args, raw_kwargs = raw
        if type(raw_args) is not list or type(raw_kwargs) is not dict:
            raise ArgumentError("", "a list of arguments and a map of keyword arguments")
        if not raw_kwargs:
            types = self._plain
            if types is not None and (not (raw_args or types) or tuple(map(type, raw_args)) == types):
                return raw_args, {}
            if plain and self.passes(raw_args):
                return raw_args, {}
            if self._decoders is not None and len(raw_args) == len(self._decoders):
                return self._decode_all(raw_args, refs), {}
        if len(raw_args) + len(raw_kwargs) > len(self.parameters) or len(raw_args) > len(self._positional):
            raise ArgumentError("", f"at most {len(self.parameters)} arguments")
        args = [self._decode(p, value, refs) for p, value in zip(self._positional, raw_args, strict=False)]
        named = {}
        for name, value in raw_kwargs.items():
            position = self._by_name.get(name)
            if position is None or position < len(args):
                raise ArgumentError("", f"only the declared parameters of {self.member}, each once")
            named[name] = self._decode(self.parameters[position], value, refs)
        return self._fill(args, named)

    def encode_result(self, value: Any, refs: ReferenceWriter) -> Any:
        """Check what a member returned and return its raw form.

        Raises:
            TypeError: The member returned something else than it declares.
        """
        try:
            return self.result.encode(value, refs, RETURN)
        except Mismatch as mismatch:
            raise TypeError(f"{self.member} does not return {self.result.text}: {mismatch}") from None
        except RecursionError:
            raise TypeError(f"{self.member} returned a value that holds itself or is nested too deep") from None

    def decode_result(self, raw: Any, refs: ReferenceReader, *, plain: bool = False) -> Any:
        """Check a peer's raw result against the declared type and return it; ``plain`` as for ``decode_args``.

        Raises:
            ResultError: The peer returned something else.
        """
        if plain and type(raw) in self.result_trees:
            return raw
        try:
            return self.result.decode(raw, refs)
        except Mismatch as exc:
            raise ResultError(self.member, self.result.text, exc) from None
        except RecursionError:
            raise ResultError(self.member, self.result.text) from None

    def named(self, args: list[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return decoded arguments by parameter name, for argument rules and the audit log."""
        arguments = {p.name: value for p, value in zip(self.parameters, args, strict=False)}
        arguments.update(kwargs)
        return arguments

    def _encode_all(self, args: tuple[Any, ...], refs: ReferenceWriter) -> list[Any]:
        """Encode one argument for each parameter."""
        raw_args: list[Any] = []
        try:
            for (encode, name), value in zip(self._encoders or (), args, strict=True):
                raw_args.append(encode(value, refs, name))
        except Mismatch as mismatch:
            raise self._argument_type_error(self.parameters[len(raw_args)], mismatch) from None
        except RecursionError:
            raise self._too_deep(self.parameters[len(raw_args)]) from None
        return raw_args

    def _decode_all(self, raw_args: list[Any], refs: ReferenceReader) -> list[Any]:
        """Decode one argument for each parameter."""
        args: list[Any] = []
        try:
            for decode, raw in zip(self._decoders or (), raw_args, strict=True):
                args.append(decode(raw, refs))
        except (Mismatch, RecursionError):
            parameter = self.parameters[len(args)]
            raise ArgumentError(parameter.name, parameter.form.text) from None
        return args

    def _encode(self, parameter: Parameter, value: Any, refs: ReferenceWriter) -> Any:
        try:
            return parameter.form.encode(value, refs, parameter.name)
        except Mismatch as mismatch:
            raise self._argument_type_error(parameter, mismatch) from None
        except RecursionError:
            raise self._too_deep(parameter) from None

    def _decode(self, parameter: Parameter, raw: Any, refs: ReferenceReader) -> Any:
        try:
            return parameter.form.decode(raw, refs)
        except (Mismatch, RecursionError):
            raise ArgumentError(parameter.name, parameter.form.text) from None

    def _argument_type_error(self, parameter: Parameter, mismatch: Mismatch) -> TypeError:
        if mismatch.expected == parameter.form.text:
            return TypeError(f"{self.member}, parameter {parameter.name!r}: {mismatch}")
        return TypeError(f"{self.member}, parameter {parameter.name!r} ({parameter.form.text}): {mismatch}")

    def _too_deep(self, parameter: Parameter) -> TypeError:
        return TypeError(f"{self.member}, parameter {parameter.name!r} holds itself or is nested too deep")

    def _fill(self, args: list[Any], named: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Put named arguments into their places and declared defaults where nothing came."""
        for parameter in self._positional[len(args) :]:
            if parameter.name in named and parameter.keyword:
                args.append(named.pop(parameter.name))
            elif parameter.required:
                raise ArgumentError(parameter.name, parameter.form.text)
            else:
                args.append(parameter.default)
        for parameter in self.parameters[len(self._positional) :]:
            if parameter.name not in named:
                if parameter.required:
                    raise ArgumentError(parameter.name, parameter.form.text)
                named[parameter.name] = parameter.default
        return args, named

    def _with_checked_default(self, parameter: Parameter) -> Parameter:
        """Return the parameter with its default as a receiver would see it."""
        if not _is_constant(parameter.default):
            raise TypeError(
                f"{self.member}: the default of {parameter.name} can be changed or cannot cross; use None, a plain "
                f"value or a tuple of them"
            )
        nowhere = NoReferences()
        raw = self._encode(parameter, parameter.default, nowhere)
        return replace(parameter, default=parameter.form.decode(raw, nowhere))


def _is_constant(value: object) -> bool:
    """Say whether a default is a plain immutable value."""
    if type(value) is tuple or type(value) is frozenset:
        return all(_is_constant(item) for item in value)
    return type(value) in _CONSTANT_TYPES or isinstance(value, Enum)


def parameters_of(function: Callable[..., Any], form_of: Callable[[str], Form]) -> tuple[Parameter, ...]:
    """Return a declared function's parameters without ``self``.

    Args:
        function: The function in the interface body.
        form_of: Gives the compiled form for a parameter's name.
    """
    declared = list(inspect.signature(function).parameters.values())[1:]
    return tuple(
        Parameter(
            name=parameter.name,
            form=form_of(parameter.name),
            positional=parameter.kind is not parameter.KEYWORD_ONLY,
            keyword=parameter.kind is not parameter.POSITIONAL_ONLY,
            default=parameter.default,
        )
        for parameter in declared
    )
