"""The package as the architecture tests see it: parsed, never imported."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ParsedModule:
    """One source file of the package: its path below the repository, its text and its tree."""

    path: str
    text: str
    tree: ast.Module

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Yield every call with the last name of what is called: ``Permit`` for ``guard.Permit(…)``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node, last_name(node.func)

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield line and dotted name of everything imported; ``from a import b`` gives ``a`` and ``a.b``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                yield node.lineno, module
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def last_name(node: ast.expr) -> str:
    """Return ``c`` for ``a.b.c`` and for ``c``, and the empty string for everything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def parse(path: Path) -> ParsedModule:
    text = path.read_text(encoding="utf-8")
    return ParsedModule(str(path.relative_to(ROOT)), text, ast.parse(text, filename=str(path)))


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def package() -> list[ParsedModule]:
    """Every module of ``caprpc``."""
    modules = [parse(path) for path in sorted((ROOT / "caprpc").rglob("*.py"))]
    assert len(modules) > 10
    return modules


@pytest.fixture(scope="session")
def tracked_files() -> list[Path]:
    """Every file under version control, or every file of an unpacked source archive."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        hidden = {".venv", ".git", "__pycache__", "_build", "build", "dist"}
        return [p for p in ROOT.rglob("*") if p.is_file() and not hidden.intersection(p.relative_to(ROOT).parts)]
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]
