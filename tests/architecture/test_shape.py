"""The shape of the code: sizes that keep a file readable, and a docstring on everything public."""

import ast
import re
from itertools import pairwise

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_ATTRIBUTES = 14
FORBIDDEN_FILE_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def attributes(class_: ast.ClassDef) -> set[str]:
    """Return the names that instances hold: ``self.x = …`` anywhere, slots, and annotated fields."""
    found = set()
    for node in ast.walk(class_):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            for leaf in ast.walk(target) if isinstance(target, ast.AST) else ():
                if (
                    isinstance(leaf, ast.Attribute)
                    and isinstance(leaf.ctx, ast.Store)
                    and ast.unparse(leaf.value) == "self"
                ):
                    found.add(leaf.attr)
    return found


def test_files_stay_short(package):
    assert [f"{m.path}: {n} lines" for m in package if (n := m.text.count("\n")) > MAX_FILE_LINES] == []


def test_functions_stay_short(package):
    long = [
        f"{module.path}:{node.lineno} {node.name}: {lines} lines"
        for module in package
        for node in ast.walk(module.tree)
        if isinstance(node, FUNCTIONS) and (lines := node.end_lineno - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_classes_hold_few_attributes(package):
    """A class that owns the connection collects everything, unless something stops it."""
    fat = [
        f"{module.path}:{node.lineno} {node.name}: {len(held)} attributes"
        for module in package
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and len(held := attributes(node)) > MAX_ATTRIBUTES
    ]
    assert not fat, "\n".join(fat)


def test_no_file_is_a_drawer(package):
    assert [m.path for m in package if m.path.rsplit("/", 1)[-1] in FORBIDDEN_FILE_NAMES] == []


def public_definitions(module):
    """Yield the public functions, classes and methods of a module."""
    holders = [module.tree]
    while holders:
        for node in holders.pop().body:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
                yield node
                if isinstance(node, ast.ClassDef):
                    holders.append(node)


def is_overload(node):
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def test_public_names_have_docstrings(package):
    bare = [f"{m.path}:1" for m in package if m.text.strip() and ast.get_docstring(m.tree) is None]
    bare += [
        f"{module.path}:{node.lineno} {node.name}"
        for module in package
        for node in public_definitions(module)
        if ast.get_docstring(node) is None and not is_overload(node)
    ]
    assert not bare, "\n".join(bare)


def test_no_history_and_no_promises_in_comments(package):
    marks = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")
    assert [
        f"{m.path}:{i}" for m in package for i, line in enumerate(m.text.splitlines(), 1) if marks.search(line)
    ] == []


def test_no_banners_in_comments(package):
    """A file that needs banners is two files."""
    banner = re.compile(r"^\s*#.*([-=#*~])\1{3}")
    found = [f"{m.path}:{i}" for m in package for i, line in enumerate(m.text.splitlines(), 1) if banner.search(line)]
    assert not found, "\n".join(found)


def reraises(handler):
    """Tell a handler that only cleans up: it ends by raising what it caught."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_broad_excepts_say_why(package):
    """``except Exception`` belongs to the edges, each with a comment on its line or beside it."""
    silent = []
    for module in package:
        lines = module.text.splitlines()
        for node in (n for n in ast.walk(module.tree) if isinstance(n, ast.ExceptHandler)):
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            near = lines[node.lineno - 2 : node.lineno + 1]
            if broad and not reraises(node) and not any("# " in line for line in near):
                silent.append(f"{module.path}:{node.lineno}")
    assert not silent, "\n".join(silent)


def optimized_away(tree):
    """Yield where ``python -O`` changes what code does: asserts, and questions for how it was started."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "__debug__"):
            yield node.lineno
        elif isinstance(node, ast.Attribute) and node.attr == "flags" and ast.unparse(node.value) == "sys":
            yield node.lineno


def test_asserts_never_guard_input(package):
    """Everything must hold under ``python -O``: no assert at all is left, so none carries a decision."""
    found = [f"{m.path}:{line}" for m in package for line in optimized_away(m.tree)]
    assert not found, "\n".join(found)


def test_what_optimization_takes_away_is_found():
    for source in ("assert may(x)", "if __debug__:\n    check(x)", "check(x) if not sys.flags.optimize else None"):
        assert list(optimized_away(ast.parse(source))) == [1], source
    assert list(optimized_away(ast.parse("raise AssertionError"))) == []


def test_no_module_keeps_mutable_state(package):
    """A module-level list, dict or set that is not Final would be shared by every connection."""
    found = []
    for module in package:
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and isinstance(
                node.value, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp)
            ):
                names = [ast.unparse(target) for target in node.targets]
                if names != ["__all__"]:
                    found.append(f"{module.path}:{node.lineno} {names}")
        found += [
            f"{module.path}:{node.lineno} global" for node in ast.walk(module.tree) if isinstance(node, ast.Global)
        ]
    assert not found, "\n".join(found)


def test_imports_stand_at_the_top_or_say_why(package):
    """An import inside a function hides a circle; where it is meant, a comment above it says why."""
    silent = []
    for module in package:
        lines = module.text.splitlines()
        for function in (node for node in ast.walk(module.tree) if isinstance(node, FUNCTIONS)):
            inner = [node for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))]
            for before, node in pairwise([None, *inner]):
                above = lines[node.lineno - 2].strip()
                follows = before is not None and before.end_lineno == node.lineno - 1
                if not above.startswith("#") and not follows:
                    silent.append(f"{module.path}:{node.lineno}")
    assert not silent, "\n".join(silent)
