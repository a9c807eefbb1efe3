"""Mutants of a module: one small change each, of the kind that a slip of the hand or of a review would leave behind."""

import ast
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Replacement = Callable[[ast.AST], ast.AST]

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_NAMES = {"min": "max", "max": "min", "all": "any", "any": "all"}


@dataclass(frozen=True)
class Mutant:
    """One change to one module.

    Attributes:
        node: Which node of the tree, in the order of ``ast.walk``.
        function: First line of the function around it, 0 for the module itself.
        name: What that function is called, such as ``Guard.check``.
        text: What the change is, in source.
    """

    node: int
    line: int
    function: int
    name: str
    operator: str
    text: str
    replace: Replacement

    def applied(self, source: str) -> ast.Module:
        """Return the module with the change."""
        tree = ast.parse(source)
        target = list(ast.walk(tree))[self.node]
        replacement = ast.copy_location(self.replace(target), target)
        changed = _Replace(target, replacement).visit(tree)
        return ast.fix_missing_locations(changed)

    @property
    def key(self) -> str:
        """What a list of equivalent mutants names: no line, so that it holds when text above is changed."""
        return f"{self.name} | {self.operator}: {self.text}"


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self._target = target
        self._replacement = replacement

    def visit(self, node: ast.AST) -> ast.AST:
        return self._replacement if node is self._target else self.generic_visit(node)


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a module, in a fixed order."""
    tree = ast.parse(source)
    skipped = _skipped(tree)
    functions = _functions(tree)
    found = []
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for operator, replace, text in _changes(node):
            first, name = functions.get(id(node), (0, "module"))
            found.append(Mutant(number, node.lineno, first, name, operator, text, replace))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.node, mutant.key))


def sampled(found: list[Mutant], most: int, seed: int, name: str) -> list[Mutant]:
    """Return at most so many, chosen by the seed and the module's name alone."""
    if len(found) <= most:
        return found
    chosen = random.Random(f"{seed} {name}").sample(range(len(found)), most)
    return [found[index] for index in sorted(chosen)]


def _skipped(tree: ast.Module) -> set[int]:
    """Return nodes without meaning at run time: annotations, docstrings, ``__slots__``, what is for type checkers."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        unread: list[ast.AST | None] = []
        if isinstance(node, ast.AnnAssign | ast.arg):
            unread.append(node.annotation)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            unread += [node.returns, *node.decorator_list]
        if isinstance(node, ast.ClassDef):
            unread += node.decorator_list
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            unread.append(node)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in {"__slots__", "__all__"}:
            unread.append(node)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            unread.append(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"TypeVar", "dataclass"}:
            unread.append(node)
        skipped |= {id(inner) for outer in unread if outer is not None for inner in ast.walk(outer)}
    return skipped


def _functions(tree: ast.Module) -> dict[int, tuple[int, str]]:
    """Return for each node the innermost function: the line at which its code object begins, and its name."""
    found: dict[int, tuple[int, str]] = {}
    pending: list[tuple[ast.AST, str]] = [(tree, "")]
    while pending:
        outer, prefix = pending.pop()
        for node in ast.iter_child_nodes(outer):
            name = prefix
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{prefix}.{node.name}".lstrip(".")
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                # Outer functions come first, so that inner ones have the last word. Defaults run with the module.
                found |= {id(inner): (first, name) for statement in node.body for inner in ast.walk(statement)}
            elif isinstance(node, ast.ClassDef):
                name = f"{prefix}.{node.name}".lstrip(".")
            pending.append((node, name))
    return found


def _changes(node: ast.AST) -> Iterator[tuple[str, Replacement, str]]:
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield _change("and/or", node, ast.BoolOp(other, node.values))
            for index in range(len(node.values)):
                kept = node.values[:index] + node.values[index + 1 :]
                yield _change("operand dropped", node, kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept))
        case ast.UnaryOp(op=ast.Not()):
            yield _change("not dropped", node, node.operand)
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            yield _change("arithmetic", node, ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right))
        case ast.AugAssign() if type(node.op) in _ARITHMETIC:
            yield _change("arithmetic", node, ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value))
        case ast.Constant(value=bool()):
            yield _change("constant", node, ast.Constant(not node.value))
        case ast.Constant(value=int() | float()):
            yield _change("constant", node, ast.Constant(node.value + 1))
        case ast.Name(id=name, ctx=ast.Load()) if name in _NAMES:
            yield _change("name", node, ast.Name(_NAMES[name], ast.Load()))
        case ast.If():
            for value in (True, False):
                yield _change(f"if {value}", node, ast.If(ast.Constant(value), node.body, node.orelse), node.test)
        case ast.IfExp():
            yield _change("branch", node, node.body)
            yield _change("branch", node, node.orelse)
        case ast.Return(value=value) if value is not None:
            yield from _returns(node)
        case ast.Raise():
            yield _change("raise dropped", node, ast.Pass())
        case ast.Expr(value=ast.Call() | ast.YieldFrom() | ast.Yield()):
            yield _change("statement dropped", node, ast.Pass())
        case ast.Continue():
            yield _change("continue", node, ast.Break())
        case ast.Break():
            yield _change("break", node, ast.Continue())


def _comparisons(node: ast.Compare) -> Iterator[tuple[str, Replacement, str]]:
    for index, op in enumerate(node.ops):
        for other in _COMPARISONS.get(type(op), ()):
            ops = [*node.ops[:index], other(), *node.ops[index + 1 :]]
            yield _change("comparison", node, ast.Compare(node.left, ops, node.comparators))
    for index, value in enumerate([node.left, *node.comparators]):
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            sides = [node.left, *node.comparators]
            sides[index] = ast.Constant(value.value + "x")
            yield _change("constant", node, ast.Compare(sides[0], node.ops, sides[1:]))


def _returns(node: ast.Return) -> Iterator[tuple[str, Replacement, str]]:
    value = node.value
    if not (isinstance(value, ast.Constant) and value.value is None):
        yield _change("return", node, ast.Return(ast.Constant(None)))
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield _change("return", node, ast.Return(ast.Constant("" if value.value else "x")))


def _change(operator: str, node: ast.AST, other: ast.AST, shown: ast.AST | None = None) -> tuple[str, Replacement, str]:
    """Return a change with its text; the node it is applied to comes from another parse of the same source."""
    before = ast.unparse(shown or node).split("\n")[0]
    text = before if shown is not None or isinstance(other, ast.Pass) else f"{before} -> {ast.unparse(other)}"
    return operator, lambda _node: other, text.split("\n")[0]
