"""Nothing from a peer selects code: the constructs that could do it are absent, or listed here with the reason."""

import ast

import pytest

BANNED_MODULES = {
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "multiprocessing", "code", "codeop",
    "runpy", "imp", "pkgutil", "yaml", "ctypes", "xmlrpc", "telnetlib", "pty", "commands",
}  # fmt: skip
BANNED_NAMES = {
    "eval", "exec", "compile", "__import__", "globals", "locals", "vars", "import_module", "resolve_name",
    "attrgetter", "methodcaller", "spec_from_file_location", "module_from_spec", "find_class", "__subclasses__",
    "exec_module", "load_module",
}  # fmt: skip
BANNED_ATTRIBUTES = {
    "__globals__",
    "__builtins__",
    "__subclasses__",
    "__code__",
    "__reduce__",
    "__reduce_ex__",
    "f_globals",
    "gi_frame",
    "tb_frame",
}
NAME_TAKING = {
    "getattr", "setattr", "delattr", "hasattr", "getattr_static", "__getattribute__", "__setattr__", "__delattr__",
}  # fmt: skip
"""Constructs that take an attribute's name as their second argument; a literal is harmless."""

ALLOWED = {
    ("caprpc/cli/__init__.py", "import_module"): "loads a command from a table of constants",
    ("caprpc/cli/__init__.py", "getattr"): "takes the command's attribute from the same table of constants",
    ("caprpc/cli/modules.py", "import_module"): "imports the module that the operator names on the command line",
    (
        "caprpc/interface/base.py",
        "setattr",
    ): "keeps what an interface declares, under a constant name, at its declaration",
    ("caprpc/interface/kinds.py", "vars"): "lists the iterator types of itertools, once, at import",
    ("caprpc/interface/member.py", "__code__"): "reads whether a function of ours is a coroutine function",
    ("caprpc/interface/member.py", "__getattribute__"): "the name was declared with attribute(); one closure for each",
    (
        "caprpc/interface/member.py",
        "setattr",
    ): "the name was declared with attribute(writable=True); one closure for each",
    ("caprpc/interface/records.py", "attrgetter"): "field names of a dataclass or Struct that a signature names",
    ("caprpc/cli/results.py", "attrgetter"): "prints the declared fields of a record; its class is ours",
    ("caprpc/objects/stubs.py", "getattr"): "the local user assigns to a stub; looked up on the stub's own class",
}
"""(file, construct) -> why it cannot be reached with a name that a peer chose."""


def constructs(module):
    """Yield line and name of every construct that can turn text into code or into an attribute."""
    for line, name in module.imports():
        if name.split(".")[0] in BANNED_MODULES:
            yield line, name.split(".")[0]
    for call, name in module.calls():
        is_re_compile = (
            isinstance(call.func, ast.Attribute) and name == "compile" and ast.unparse(call.func.value) == "re"
        )
        if name in BANNED_NAMES and not is_re_compile:
            yield call.lineno, name
        if name in NAME_TAKING and not (len(call.args) > 1 and isinstance(call.args[1], ast.Constant)):
            yield call.lineno, name
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in BANNED_ATTRIBUTES:
            yield node.lineno, node.attr
        # Passed around instead of called: `map(eval, …)`.
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in {"eval", "exec", "__import__"}:
            yield node.lineno, node.id


def test_no_construct_selects_code(package):
    found = [
        f"{module.path}:{line} {name}"
        for module in package
        for line, name in constructs(module)
        if (module.path, name) not in ALLOWED
    ]
    assert not found, "\n".join(found)


def test_every_allowed_construct_is_still_there(package):
    """An entry that is no longer needed would cover the next use without a review."""
    present = {(module.path, name) for module in package for _, name in constructs(module)}
    assert set(ALLOWED) - present == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import multiprocessing.connection",
        "eval(text)",
        "builtins.exec(text)",
        "importlib.import_module(name)",
        "getattr(target, name)",
        "setattr(target, name, 1)",
        "inspect.getattr_static(target, name)",
        "operator.attrgetter(name)",
        "object.__getattribute__(target, name)",
        "object.__setattr__(target, name, 1)",
        "f.__globals__",
        "list(map(eval, texts))",
        "object.__subclasses__()",
    ],
)
def test_the_test_sees_the_construct(package, source):
    assert list(constructs(type(package[0])("x.py", source, ast.parse(source))))


@pytest.mark.parametrize("source", ["getattr(stub, 'name', None)", "re.compile('x')", "text.format()"])
def test_harmless_constructs_pass(package, source):
    assert not list(constructs(type(package[0])("x.py", source, ast.parse(source))))
