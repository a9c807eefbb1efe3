"""``caprpc policy schema``: a JSON Schema of each kind of file, for editors; made from what the parser goes by.

An editor completes keys and marks mistakes as they are typed. What one file cannot know about another (facets, members,
contracts) is for ``caprpc policy check``.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import click

from caprpc.bundles import MOST_KEYS
from caprpc.cli.exits import TOOL_OK
from caprpc.policy.contracts import CODES, EFFECTS
from caprpc.policy.directory import LANGUAGE_VERSION, MAX_VERSION
from caprpc.policy.document import MAX_LIST, MAX_TEXT_CHARS
from caprpc.policy.expectations import OPERATIONS
from caprpc.policy.limits import CONNECTIONS, INTEGERS, RANGES
from caprpc.policy.listed import FLAGS, LISTS
from caprpc.policy.model import FACET_LIMITS
from caprpc.policy.names import (
    ANCHOR_GRAMMAR,
    DOMAIN_GRAMMAR,
    FILE_GRAMMAR,
    LABEL_GRAMMAR,
    MAX_NAME_CHARS,
    MAX_SPIFFE_CHARS,
    NAME_GRAMMAR,
    SEGMENT_GRAMMAR,
)
from caprpc.policy.parse import ARGUMENTS, DURABILITIES, LEVELS, LIFETIME_S, MOST_USES
from caprpc.policy.restores import LEAST_SECONDS, MOST_SECONDS
from caprpc.policy.rules import LIMIT_INTEGERS, LIMIT_RANGES, MOST_LENGTH, PARTS

Schema = dict[str, Any]

_EPILOG: Final = """\b
Examples:
  caprpc policy schema --kind policy > caprpc-policy.schema.json

Exit codes: 0 printed, 2 usage.
"""


def _word(*grammars: str, longest: int = MAX_NAME_CHARS) -> Schema:
    return {"type": "string", "pattern": f"^(?:{''.join(grammars)})$", "maxLength": longest}


def _list(items: Schema, *, most: int = MAX_LIST) -> Schema:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most, "uniqueItems": True}


def _range(low: float, high: float, *, integer: bool) -> Schema:
    return {"type": "integer" if integer else "number", "minimum": low, "maximum": high}


def _table(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "minProperties": 1,
        "additionalProperties": False,
    }


def _named(inner: Schema) -> Schema:
    """Return the schema of a table whose keys are names."""
    return {"type": "object", "propertyNames": _NAME, "additionalProperties": inner, "minProperties": 1}


def _tables(inner: Schema) -> Schema:
    return {"type": "array", "items": inner, "minItems": 1, "maxItems": MAX_LIST}


_NAME: Final = _word(NAME_GRAMMAR.pattern)
_LABEL: Final = _word(LABEL_GRAMMAR.pattern)
_FILE: Final = _word(FILE_GRAMMAR.pattern)
_MEMBER: Final = _word(NAME_GRAMMAR.pattern, "[.]", NAME_GRAMMAR.pattern, longest=2 * MAX_NAME_CHARS + 1)
_SPIFFE: Final = _word(
    "spiffe://",
    DOMAIN_GRAMMAR.pattern,
    f"(?:/(?![.]{{1,2}}(?:/|$)){SEGMENT_GRAMMAR.pattern})+",
    longest=MAX_SPIFFE_CHARS,
)
_TEXT: Final[Schema] = {"type": "string", "pattern": "\\S", "maxLength": MAX_TEXT_CHARS}
_MOMENT: Final[Schema] = {"type": "string", "format": "date-time"}
_TRUE: Final[Schema] = {"const": True}
_SCALAR: Final[Schema] = {"type": ["string", "number", "boolean"]}
_PRINTABLE: Final[Schema] = {"type": "string", "pattern": "^[ -~]+$"}

_LISTS: Final = {word: _list(_NAME) for word in LISTS}
_FLAGS: Final = dict.fromkeys(FLAGS, _TRUE)
_RULES: Final[Mapping[str, Schema]] = {
    "min": {"type": "number"},
    "max": {"type": "number"},
    "in": _list(_SCALAR),
    "const": _SCALAR,
    "prefix": _PRINTABLE,
    "max_len": _range(0, MOST_LENGTH, integer=True),
    "chars": _list({"type": "string", "pattern": "^[ -~](?:-[ -~])?$"}),
}
_LIMIT: Final = {key: _range(*LIMIT_RANGES[key], integer=key in LIMIT_INTEGERS) for key in LIMIT_RANGES}
_MEMBER_LIMIT: Final[Schema] = {**_table(_LIMIT), "dependentRequired": {"burst": ["per_second"]}}
_LIMITS: Final[Schema] = {
    **_named(_MEMBER_LIMIT),
    # A number beside the members' tables limits the facet as a whole; a member may have the name of a limit.
    "properties": {key: {"anyOf": [_LIMIT[key], _MEMBER_LIMIT]} for key in FACET_LIMITS},
    "if": {"properties": {"burst": {"type": "integer"}}, "required": ["burst"]},
    "then": {"required": ["per_second"]},
}
_OFFER: Final = _table(
    {
        "interface": _NAME,
        **_LISTS,
        **_FLAGS,
        "args": _named(_named(_table({part: _RULES[part] for part in PARTS}))),
        "limit": _LIMITS,
        "returns": _named(_NAME),
        "record": _named(_list(_NAME)),
        "forward": _TRUE,
        "forward_from": _list(_SPIFFE),
    },
    ["interface"],
)
_RESTORE: Final = _table(
    {"as": _NAME, "bearer": _TRUE, "max_for_s": _range(LEAST_SECONDS, MOST_SECONDS, integer=False)}, ["as"]
)
_LEND: Final = _table(
    {
        "to": _MEMBER,
        "param": _NAME,
        "as": _NAME,
        "lifetime": {"anyOf": [{"enum": ["call", "connection"]}, _range(*LIFETIME_S, integer=False)]},
        "max_uses": _range(1, MOST_USES, integer=True),
    },
    ["to", "param", "as"],
)


def _file(kind: str, properties: Mapping[str, Schema], required: Iterable[str]) -> Schema:
    top = _table(
        {"caprpc": {"const": LANGUAGE_VERSION}, "kind": {"const": kind}, **properties}, ["caprpc", "kind", *required]
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"CapRPC policy language {LANGUAGE_VERSION}: a file of the kind {kind!r}",
        **top,
    }


def _policy() -> Schema:
    limits = {key: _range(*RANGES[key], integer=key in INTEGERS) for key in RANGES}
    tables = {
        "peer": _table({"ca": _list(_word(ANCHOR_GRAMMAR.pattern)), "spiffe": _list(_SPIFFE)}, ["ca", "spiffe"]),
        "roots": _named(_NAME),
        "restore": _named(_RESTORE),
        "offer": _named(_OFFER),
        "accept": _named(_table({**_LISTS, **_FLAGS})),
        "lend": _tables(_LEND),
        "limits": _table({**limits, "connections": _range(*CONNECTIONS, integer=True)}),
        "audit": _table(
            {
                "level": {"enum": list(LEVELS)},
                "durability": {"enum": list(DURABILITIES)},
                "arguments": {"enum": list(ARGUMENTS)},
                "on_failure": {"const": "refuse"},
            }
        ),
    }
    words = {"name": _LABEL, "owner": _TEXT, "reason": _TEXT, "tags": _list(_LABEL)}
    moments = {"not_before": _MOMENT, "not_after": _MOMENT}
    return _file("policy", {**words, **moments, **tables}, ["name", "peer"])


def _directory() -> Schema:
    never = _table(
        {"id": _LABEL, "text": _TEXT, "reach": _list(_NAME), "except": _list(_LABEL)}, ["id", "text", "reach"]
    )
    listed = {"policies": _list(_FILE), "contracts": _FILE, "facets": _list(_FILE), "tests": _list(_FILE)}
    paths = {"audit": _TEXT, "revoked": _TEXT}
    return _file(
        "directory",
        {"version": _range(1, MAX_VERSION, integer=True), **listed, **paths, "never": _tables(never)},
        ["version", "policies", "contracts", "audit"],
    )


def _facets() -> Schema:
    return _file("facets", {"offer": _named(_OFFER)}, ["offer"])


def _tests() -> Schema:
    target: Schema = {"anyOf": [_NAME, _MEMBER]}
    asked = dict.fromkeys(("may", "may_not", "reaches", "reaches_not"), target)
    expect = _table(
        {
            "id": _LABEL,
            "peer": {"anyOf": [_LABEL, _SPIFFE]},
            **asked,
            "operation": {"enum": list(OPERATIONS)},
            "args": {"type": "object"},
            "facet": _NAME,
            "rule": _TEXT,
        },
        ["id", "peer"],
    )
    expect["oneOf"] = [{"required": [key]} for key in asked]
    return _file("tests", {"expect": _tables(expect)}, ["expect"])


def _contracts() -> Schema:
    parameter = _table(
        {"name": _NAME, "type": _TEXT, "reference": _NAME, "required": _TRUE, "sensitive": _TRUE}, ["name", "type"]
    )
    member = _table(
        {
            "operation": {"enum": list(CODES)},
            "name": _NAME,
            "effect": {"enum": list(EFFECTS)},
            "idempotent": _TRUE,
            "parameters": _tables(parameter),
            "returns": _TEXT,
            "returns_reference": _NAME,
        },
        ["operation"],
    )
    interface = {**_table({"doc": {"type": "string"}, "member": _tables(member)}), "minProperties": 0}
    return _file("contracts", {"interface": _named(interface)}, ["interface"])


def _signers() -> Schema:
    return _file(
        "signers",
        {
            "threshold": _range(1, MOST_KEYS, integer=True),
            "state": _TEXT,
            "keys": _list({"type": "string", "pattern": "^[^+]+[+][0-9a-f]{8}[+][A-Za-z0-9+/=]+$"}),
        },
        ["threshold", "state", "keys"],
    )


SCHEMAS: Final[Mapping[str, Callable[[], Schema]]] = {
    "policy": _policy,
    "directory": _directory,
    "facets": _facets,
    "tests": _tests,
    "contracts": _contracts,
    "signers": _signers,
}
"""For each kind of file what makes its schema."""


@click.command(epilog=_EPILOG)
@click.option("--kind", type=click.Choice(list(SCHEMAS)), required=True, help="The kind of file.")
def schema(kind: str) -> int:
    """Print the JSON Schema (2020-12) of a kind of file, for editors that complete and check TOML."""
    click.echo(json.dumps(SCHEMAS[kind](), indent=2))
    return TOOL_OK
