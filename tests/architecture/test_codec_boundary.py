"""Bytes become values in one module, so that its bounds hold for every value there is (ADR 0001)."""

import ast

CODEC = "caprpc/wire/codec.py"
DECODERS = {"msgpack", "json", "convert", "to_builtins", "yaml", "toml", "Raw"}
"""Attributes of ``msgspec`` that decode or encode; ``Struct`` and its inspection are free to use."""


def offences(module):
    for line, name in module.imports():
        parts = name.split(".")
        if parts[0] in {"msgpack", "umsgpack", "ormsgpack", "cbor2", "bson"}:
            yield line, name
        if parts[0] == "msgspec" and len(parts) > 1 and parts[1] in DECODERS:
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
