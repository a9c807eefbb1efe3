"""Bytes become values in one module, so that its bounds hold for every value there is (ADR 0001)."""

import ast

CODEC = "caprpc/wire/codec.py"
DECODERS = {"msgpack", "json", "convert", "to_builtins", "yaml", "toml", "Raw"}
"""Attributes of ``msgspec`` that decode or encode; ``Struct`` and its inspection are free to use."""
HARMLESS = {"msgspec.msgpack.Ext"}
"""The pair of a code and bytes that the codec packs: it decodes nothing."""


def taken_from_modules(module):
    """Yield line and full name of what is imported: ``a.b`` for ``import a.b`` and for ``from a import b``."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def offences(module):
    for line, name in taken_from_modules(module):
        parts = name.split(".")
        if parts[0] in {"msgpack", "umsgpack", "ormsgpack", "cbor2", "bson"}:
            yield line, name
        if parts[0] == "msgspec" and len(parts) > 1 and parts[1] in DECODERS and name not in HARMLESS:
            yield line, name
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "msgspec" and node.attr in DECODERS:
            yield node.lineno, f"msgspec.{node.attr}"


def test_only_the_codec_decodes_and_encodes(package):
    found = [f"{m.path}:{line} {name}" for m in package if m.path != CODEC for line, name in offences(m)]
    assert not found, "\n".join(found)


def test_the_codec_is_where_the_rule_says(package):
    assert any(list(offences(module)) for module in package if module.path == CODEC)


def test_the_envelope_is_never_decoded_without_a_type(package):
    """Untyped msgspec decoding overflows the C stack on hostile nesting."""
    codec = next(module for module in package if module.path == CODEC)
    untyped = [
        call.lineno
        for call, name in codec.calls()
        if name in {"Decoder", "decode"}
        and ast.unparse(call.func).startswith("msgspec.")
        and not (call.args[1:] if name == "decode" else call.args)
        and not any(keyword.arg == "type" for keyword in call.keywords)
    ]
    assert untyped == []


def test_the_test_sees_every_way_to_a_decoder(package):
    make = type(package[0])
    for source in (
        "import msgpack",
        "from msgspec.msgpack import Decoder",
        "import msgspec.json",
        "msgspec.convert(x, T)",
    ):
        assert list(offences(make("x.py", source, ast.parse(source)))), source
    for source in (
        "import msgspec",
        "from msgspec import Struct",
        "from msgspec.msgpack import Ext",
        "msgspec.structs.fields(T)",
    ):
        assert not list(offences(make("x.py", source, ast.parse(source)))), source
