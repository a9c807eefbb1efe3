"""``coverage.json`` maps attacks of the catalogue to the tests that make them; each of those tests exists."""

import ast
import json
from pathlib import Path

HERE = Path(__file__).parent


def test_every_named_test_exists():
    coverage = json.loads((HERE / "coverage.json").read_text(encoding="utf-8"))
    functions = {}
    missing = []
    for attack, tests in coverage.items():
        assert tests, attack
        for test in tests:
            file, _, name = test.partition("::")
            if file not in functions:
                tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
                functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
                for group in (node for node in tree.body if isinstance(node, ast.ClassDef)):
                    functions[file] |= {f"{group.name}::{node.name}" for node in group.body if hasattr(node, "name")}
            if name not in functions[file]:
                missing.append(f"{attack}: {test}")
    assert missing == []


def test_every_attack_test_is_of_use_to_an_auditor():
    """A test that no attack names would be lost to whoever reads the table."""
    named = {
        test for tests in json.loads((HERE / "coverage.json").read_text(encoding="utf-8")).values() for test in tests
    }
    assert len(named) >= 200
