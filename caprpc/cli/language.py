"""The language of ``caprpc shell``: literals, names, members of references, calls, assignments; nothing else.

A line is parsed into Python's syntax tree and walked here, node by node: no text is ever run as code, and only what
the interfaces declare can be reached on an object of a peer.
"""

import ast
import inspect
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, NoReturn

from caprpc.cli.arguments import Unfit, annotations_of, convert
from caprpc.ids import (
    OP_CALL,
    OP_CONTAINS,
    OP_GET,
    OP_INDEX_GET,
    OP_INDEX_SET,
    OP_INVOKE,
    OP_SET,
)
from caprpc.interface import Announced, AnnouncedSignature, Member
from caprpc.interface.annotations import strip, text_of
from caprpc.interface.records import is_record
from caprpc.objects.describing import describe
from caprpc.objects.stubs import Stub

MAX_LINE: Final = 65_536
"""Characters of one line: deeper nesting than the parser takes cannot be written in less by accident."""

_DISPLAYS: Final[Mapping[type[ast.AST], Callable[[list[Any]], Any]]] = {ast.List: list, ast.Tuple: tuple, ast.Set: set}


class ShellError(Exception):
    """What was typed is not of the language, or names what is not there; nothing was sent."""


class BoundMember:
    """``ref.member`` before it is called."""

    def __init__(self, stub: Stub, member: Member) -> None:
        self.stub = stub
        self.member = member

    def __repr__(self) -> str:
        return f"<{self.member.name} of {self.stub!r}; call it with (), or ask ?NAME>"


Caller = Callable[[Stub, Member, list[Any], dict[str, Any]], Any]
"""Makes one call of a member and waits for its answer."""


class Language:
    """Evaluates lines; owns the variables.

    Args:
        call: Makes a call.
        root: Returns a root by name, or None if there is none of that name.
        functions: What may be called by name beside members: the shell's own.
    """

    def __init__(
        self, call: Caller, root: Callable[[str], Stub | None], functions: Mapping[str, Callable[..., Any]]
    ) -> None:
        self._call = call
        self._root = root
        self._functions = functions
        self.variables: dict[str, Any] = {}

    def run(self, line: str) -> Any:
        """Evaluate one line and return its value; an assignment has none.

        Raises:
            ShellError: It is not of the language.
        """
        try:
            if len(line) > MAX_LINE:
                raise ShellError(f"a line has at most {MAX_LINE} characters")
            body = ast.parse(line.strip()).body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
            raise ShellError(f"not understood: {exc.msg if isinstance(exc, SyntaxError) else exc}") from None
        if not body:
            return None
        if len(body) > 1:
            raise ShellError("one statement a line")
        try:
            return self._statement(body[0])
        except RecursionError:
            raise ShellError("nested too deep") from None

    def lookup(self, name: str) -> Any:
        """Return a variable or a root.

        Raises:
            ShellError: There is neither.
        """
        if name in self.variables:
            return self.variables[name]
        root = self._root(name)
        if root is None:
            raise ShellError(f"nothing is called {name!r}; roots() lists what the peer grants")
        return root

    def path(self, line: str) -> tuple[Any, str]:
        """Return what ``ref.name`` names, as the reference and the name, without reading or calling ``name``.

        A line without a dot gives the reference, or the function, and no name.
        """
        try:
            node = ast.parse(line.strip(), mode="eval").body
        except (SyntaxError, ValueError):
            raise ShellError("help is for a name or for ref.member") from None
        if isinstance(node, ast.Attribute):
            return self._reference(node.value), node.attr
        return self._argument(node), ""

    def _statement(self, node: ast.stmt) -> Any:
        if isinstance(node, ast.Expr):
            return self._value(node.value)
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._assign(node.targets[0], node.value)
            return None
        return _refuse(node)

    def _assign(self, target: ast.expr, source: ast.expr) -> None:
        if isinstance(target, ast.Name):
            if target.id in self._functions:
                raise ShellError(f"{target.id} is a function of the shell")
            self.variables[target.id] = self._value(source)
        elif isinstance(target, ast.Attribute):
            stub = self._reference(target.value)
            self._use(stub, _member(stub, OP_SET, target.attr), [self._value(source)], {})
        elif isinstance(target, ast.Subscript):
            stub = self._reference(target.value)
            self._use(stub, _member(stub, OP_INDEX_SET), [self._value(target.slice), self._value(source)], {})
        else:
            _refuse(target)

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return _constant(node)
        if isinstance(node, ast.Name):
            return self.lookup(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Call):
            return self._called(node)
        if isinstance(node, ast.Subscript):
            return self._item(node)
        if isinstance(node, ast.Compare):
            return self._contains(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self._value(node.operand)
            return -number if type(number) in (int, float, complex, Decimal) else _refuse(node)
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return _DISPLAYS[type(node)]([self._value(item) for item in node.elts])
        if isinstance(node, ast.Dict) and None not in node.keys:
            keys = [self._value(key) for key in node.keys if key is not None]
            return dict(zip(keys, [self._value(value) for value in node.values], strict=True))
        return _refuse(node)

    def _attribute(self, node: ast.Attribute) -> Any:
        stub = self._reference(node.value)
        member = stub._caprpc_shape.members.get((OP_CALL, node.attr))
        if member is not None:
            return BoundMember(stub, member)
        return self._call(stub, _member(stub, OP_GET, node.attr), [], {})

    def _called(self, node: ast.Call) -> Any:
        if any(isinstance(arg, ast.Starred) for arg in node.args):
            _refuse(node)
        named = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
        if len(named) != len(node.keywords):
            _refuse(node)
        function = self._function_name(node.func)
        if function:
            return self._function(function, node.args, named)
        target = self._value(node.func)
        args = [self._argument(arg) for arg in node.args]
        kwargs = {name: self._argument(value) for name, value in named.items()}
        if isinstance(target, BoundMember):
            return self._use(target.stub, target.member, args, kwargs)
        if isinstance(target, Stub):
            return self._use(target, _member(target, OP_INVOKE), args, kwargs)
        raise ShellError(f"a {type(target).__name__} cannot be called")

    def _function(self, name: str, args: list[ast.expr], named: dict[str, ast.expr]) -> Any:
        function = self._functions[name]
        if name == "help" and len(args) == 1 and not named:
            return function(ast.unparse(args[0]))
        given = [self._argument(one) for one in args]
        kwargs = {key: self._argument(value) for key, value in named.items()}
        try:
            inspect.signature(function).bind(*given, **kwargs)
        except TypeError as exc:
            raise ShellError(f"{name}(): {exc}") from None
        return function(*given, **kwargs)

    def _function_name(self, node: ast.expr) -> str:
        """Return the name of the shell's function that a node names, or nothing; variables hide none of them."""
        return node.id if isinstance(node, ast.Name) and node.id in self._functions else ""

    def _argument(self, node: ast.expr) -> Any:
        """Return an argument: a value, or a function of the shell that is to be lent."""
        function = self._function_name(node)
        return self._functions[function] if function else self._value(node)

    def _item(self, node: ast.Subscript) -> Any:
        holder = self._value(node.value)
        index = self._value(node.slice)
        if isinstance(holder, Stub):
            return self._use(holder, _member(holder, OP_INDEX_GET), [index], {})
        if type(holder) not in (list, tuple, dict, str, bytes):
            raise ShellError(f"a {type(holder).__name__} has no items")
        try:
            return holder[index]
        except (LookupError, TypeError) as exc:
            raise ShellError(f"no such item: {exc}") from None

    def _contains(self, node: ast.Compare) -> Any:
        if len(node.ops) != 1 or not isinstance(node.ops[0], ast.In):
            _refuse(node)
        item = self._value(node.left)
        holder = self._value(node.comparators[0])
        if isinstance(holder, Stub):
            return self._use(holder, _member(holder, OP_CONTAINS), [item], {})
        if type(holder) not in (list, tuple, dict, set, frozenset, str):
            raise ShellError(f"a {type(holder).__name__} holds nothing that could be looked for")
        return item in holder

    def _use(self, stub: Stub, member: Member, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call with each literal turned into what the declaration asks for, as ``caprpc call`` does."""
        if isinstance(member.signature, AnnouncedSignature):
            # What was typed is what is sent: the peer alone knows what it asks for.
            return self._call(stub, member, args, kwargs)
        hints = annotations_of(member)
        names = [parameter.name for parameter in member.signature.parameters if parameter.positional]
        args = [_fit(value, hints.get(name, Any)) for value, name in zip(args, names, strict=False)] + args[
            len(names) :
        ]
        return self._call(stub, member, args, {name: _fit(v, hints.get(name, Any)) for name, v in kwargs.items()})

    def _reference(self, node: ast.expr) -> Stub:
        value = self._value(node)
        if not isinstance(value, Stub):
            raise ShellError(f"a {type(value).__name__} is no reference: it has no members here")
        return value


def member_of(stub: Stub, name: str) -> Member | None:
    """Return the member of a reference that a name means: a method, or an attribute."""
    members = stub._caprpc_shape.members
    return members.get((OP_CALL, name)) or members.get((OP_GET, name)) or members.get((OP_SET, name))


def _member(stub: Stub, operation: int, name: str = "") -> Member:
    member = stub._caprpc_shape.members.get((operation, name))
    if member is None:
        what = repr(name) if name else "that"
        usable = ", ".join(sorted({one.name or one.operation for one in describe(stub).members}))
        if operation == OP_SET and (OP_GET, name) in stub._caprpc_shape.members:
            raise ShellError(f"{stub._caprpc_shape.name} does not declare {name!r} as writable: it is read only")
        says = "is not announced with" if isinstance(stub._caprpc_shape, Announced) else "does not declare"
        raise ShellError(f"{stub._caprpc_shape.name} {says} {what}; you may use: {usable or 'nothing'}")
    return member


def _constant(node: ast.Constant) -> Any:
    if node.value is ...:
        _refuse(node)
    return node.value


def _fit(value: Any, annotation: Any) -> Any:
    """Return a literal as what an annotation declares; what is no literal, or does not fit, goes on as it is.

    Raises:
        ShellError: A dictionary stands where a record is declared, and is none.
    """
    try:
        return convert(_exact(value), annotation)
    except Unfit as exc:
        if type(value) is dict and is_record(strip(annotation)):
            raise ShellError(f"{text_of(annotation)} expected, {exc}") from None
        return value
    except TypeError:
        return value


def _exact(value: Any) -> Any:
    """Return a literal with its fractions as they were typed, and not as the nearest binary ones: for a Decimal."""
    if type(value) is float:
        return Decimal(repr(value))
    if type(value) in (list, tuple):
        return type(value)(_exact(item) for item in value)
    return {key: _exact(item) for key, item in value.items()} if type(value) is dict else value


def _refuse(node: ast.AST) -> NoReturn:
    raise ShellError(
        f"{type(node).__name__} is not of the shell's language: literals, names, ref.member, calls, ref[i], x in ref, "
        "NAME = value, ref.attribute = value"
    )
