"""Nothing in the package inflates what was sent: there is no bound to get wrong. CAP-CO-11."""

import ast

import pytest

MODULES = {"gzip", "bz2", "lzma", "zipfile", "tarfile", "brotli", "zstandard", "compression", "snappy", "lz4", "blosc"}
OF_ZLIB = {"crc32"}
"""What is used of the one module that checks sums, too."""


def inflates(module):
    for line, name in module:
        if name.split(".")[0] in MODULES or (name.startswith("zlib.") and name.split(".")[1] not in OF_ZLIB):
            yield line, name


def used(tree):
    """Yield the modules that are imported, and everything that is taken of ``zlib`` or of a method named so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "zlib":
            yield node.lineno, f"zlib.{node.attr}"
        elif isinstance(node, ast.Attribute) and node.attr in {"decompress", "decompressobj"}:
            yield node.lineno, f"gzip.{node.attr}"


def test_nothing_inflates(package):
    assert [(module.path, *found) for module in package for found in inflates(used(module.tree))] == []


@pytest.mark.parametrize(
    "source", ["import gzip", "from zlib import decompress", "zlib.decompressobj()", "codec.decompress(x)",
               "from compression.zstd import open"]
)  # fmt: skip
def test_what_inflates_is_found(source):
    assert len(list(inflates(used(ast.parse(source))))) == 1


def test_sums_are_none():
    assert list(inflates(used(ast.parse("import zlib\nzlib.crc32(x)")))) == []
