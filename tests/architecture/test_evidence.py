"""Evidence types: who a peer is and what was permitted can be made in one module each (ADR 0004)."""

import ast

import pytest

MAKERS = {
    "PeerIdentity": "caprpc/tls/identity.py",
    "Permit": "caprpc/policy/guard.py",
}
DECLARED_IN = {"PeerIdentity": "caprpc/peer.py", "Permit": "caprpc/policy/guard.py"}


def makers(package, evidence):
    """Return ``file:line`` of every expression that can make an instance of the evidence type."""
    found = []
    for module in package:
        found += [f"{module.path}:{call.lineno}" for call, name in module.calls() if name == evidence]
        for node in ast.walk(module.tree):
            # type.__new__(…), a subclass, or another name for the type would make one without the name above.
            if isinstance(node, ast.Attribute) and node.attr == "__new__" and evidence in ast.unparse(node.value):
                found.append(f"{module.path}:{node.lineno}")
            if isinstance(node, ast.ClassDef) and any(evidence in ast.unparse(base) for base in node.bases):
                found.append(f"{module.path}:{node.lineno}")
            if isinstance(node, ast.alias) and node.name == evidence and node.asname not in (None, evidence):
                found.append(f"{module.path}:{node.lineno}")
            if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Name, ast.Attribute)):
                value = ast.unparse(node.value)
                if value == evidence or value.endswith(f".{evidence}"):
                    found.append(f"{module.path}:{node.lineno}")
    return found


@pytest.mark.parametrize("evidence", MAKERS)
def test_evidence_is_made_in_its_one_module(package, evidence):
    elsewhere = [where for where in makers(package, evidence) if not where.startswith(MAKERS[evidence] + ":")]
    assert not elsewhere, "\n".join(elsewhere)


@pytest.mark.parametrize("evidence", MAKERS)
def test_evidence_is_made_somewhere(package, evidence):
    assert [where for where in makers(package, evidence) if where.startswith(MAKERS[evidence] + ":")]


@pytest.mark.parametrize("evidence", MAKERS)
def test_evidence_cannot_be_changed_once_made(package, evidence):
    declaration = next(
        node
        for module in package
        if module.path == DECLARED_IN[evidence]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and node.name == evidence
    )
    decorators = " ".join(ast.unparse(decorator) for decorator in declaration.decorator_list)
    members = {getattr(node, "name", "") for node in declaration.body}
    assert "frozen=True" in decorators or "__setattr__" in members


DEMANDED_BY = [
    ("caprpc/session/session.py", "Session", "PeerIdentity"),
    ("caprpc/session/calls.py", "Answer", "Permit"),
    ("caprpc/objects/dispatch.py", "Plan", "Permit"),
    ("caprpc/objects/dispatch.py", "Job", "Plan"),
]


@pytest.mark.parametrize(("path", "class_name", "evidence"), DEMANDED_BY)
def test_what_follows_the_check_demands_its_evidence(package, path, class_name, evidence):
    """No default, no ``| None``: without the evidence the next thing cannot be built."""
    class_ = next(
        node
        for module in package
        if module.path == path
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and node.name == class_name
    )
    init = next(node for node in class_.body if getattr(node, "name", "") == "__init__")
    required = init.args.args[: len(init.args.args) - len(init.args.defaults)]
    assert evidence in {ast.unparse(argument.annotation) for argument in required if argument.annotation}


def test_modules_that_hold_evidence_do_not_copy_it_with_changes(package):
    """``dataclasses.replace`` and ``copy.replace`` would make evidence that nobody checked."""
    copying = []
    for module in package:
        names = {name.rsplit(".", 1)[-1] for _, name in module.imports()}
        if names & set(MAKERS):
            copying += [
                f"{module.path}:{call.lineno}"
                for call, name in module.calls()
                if name in {"replace", "__replace__"} and is_copy(call)
            ]
    assert not copying, "\n".join(copying)


def is_copy(call):
    """Tell ``dataclasses.replace(x, …)`` from ``text.replace(a, b)``: only the first has keyword arguments."""
    return bool(call.keywords)


def test_the_test_sees_a_forged_identity(package):
    """The check is no better than what it recognizes: each way to make evidence is found in a forged module."""
    forged = type(package[0])(
        "caprpc/session/forged.py",
        "",
        ast.parse(
            "from caprpc.peer import PeerIdentity as P\n"
            "a = peer.PeerIdentity('x')\n"
            "b = object.__new__(PeerIdentity)\n"
            "class C(PeerIdentity): ...\n"
            "D = peer.PeerIdentity\n"
            "e = PeerIdentity.__new__(PeerIdentity)\n"
        ),
    )
    lines = {int(where.rsplit(":", 1)[1]) for where in makers([forged], "PeerIdentity")}
    assert {1, 2, 4, 5, 6} <= lines


def test_the_session_never_decodes_arguments(package):
    """They are decoded on the floor above, from an ``Answer``, which cannot exist without a ``Permit``."""
    found = [
        f"{module.path}:{call.lineno}"
        for module in package
        if module.path.startswith(("caprpc/session/", "caprpc/policy/"))
        for call, name in module.calls()
        if name in {"unpack", "decode_args", "decode_result"}
    ]
    assert not found, "\n".join(found)


def test_permits_are_looked_up_by_the_guard_alone(package):
    """A table that others read would be a second gate; the session reads names to announce, and a rule to record."""
    allowed = {"caprpc/policy/guard.py", "caprpc/policy/derived.py", "caprpc/session/tables.py"}
    found = []
    for module in package:
        tree = module.tree
        rules = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "rule"}
        found += [
            f"{module.path}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "permits" and id(node) not in rules
            if module.path not in allowed
        ]
    assert not found, "\n".join(found)
