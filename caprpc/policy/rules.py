"""The narrowing tables: what ``args`` and ``limit`` say about one member."""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from caprpc.contract import ParameterContract
from caprpc.policy.arguments import ArgumentRule, Tagged
from caprpc.policy.document import Table, exact_number, kind
from caprpc.policy.listed import Listed
from caprpc.policy.model import FACET_LIMITS, MemberLimit
from caprpc.policy.names import name_fault, template_fault
from caprpc.policy.problems import suggest

MAX_RATE: Final = 1_000_000.0
"""Highest rate a policy may name: nothing here is faster."""
_DAY_S: Final = 86_400.0
LIMIT_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "per_second": (0.000_001, MAX_RATE),
    "per_hour": (0.000_001, MAX_RATE),
    "per_day": (0.000_001, MAX_RATE),
    "burst": (1, 1_000_000),
    "in_flight": (1, 65_536),
    "timeout_s": (0.001, _DAY_S),
    "max_items": (1, 2**31),
    "max_bytes": (1, 2**40),
    "callbacks": (0, 2**31),
}
"""For each field of ``MemberLimit`` the smallest and largest value."""
LIMIT_INTEGERS: Final = frozenset({"burst", "in_flight", "max_items", "max_bytes", "callbacks"})
MOST_LENGTH: Final = 2**31
PARTS: Final = ("min", "max", "in", "const", "prefix", "max_len", "chars")
_POSITION: Final = re.compile(r"argument[1-9][0-9]?")
"""Parameters of a callable have no names: their rules go by position."""
_NUMBERS: Final = frozenset({"int", "float", "Decimal"})
_TEXTS: Final = frozenset({"str"})
_COUNTED: Final = frozenset({"str", "bytes", "list", "tuple", "set", "frozenset", "dict", "Sequence", "Mapping"})
_ANYTHING: Final = frozenset({"Any", "object", ""})
_TYPES_OF: Final[Mapping[str, frozenset[str]]] = {
    "min": _NUMBERS,
    "max": _NUMBERS,
    "in": _NUMBERS | _TEXTS | {"bool", "Literal"},
    "const": _NUMBERS | _TEXTS | {"bool", "Literal"},
    "prefix": _TEXTS,
    "max_len": _COUNTED,
    "chars": _TEXTS,
}
"""For each part of a rule the types that can pass it; on others it would forbid every call."""
_TYPE_OF_TAG: Final[Mapping[str, frozenset[str]]] = {"text": _TEXTS, "number": _NUMBERS, "flag": frozenset({"bool"})}


def argument_rules(table: Table | None, words: Mapping[str, Sequence[Listed]]) -> dict[str, dict[str, ArgumentRule]]:
    """Return for each narrowed member the rules of its parameters."""
    rules: dict[str, dict[str, ArgumentRule]] = {}
    if table is None:
        return rules
    for word in table.names(name_fault):
        if word not in words:
            hint = suggest(word, words) if words else "tables narrow what the lists of the offer grant"
            table.complain(
                word,
                f"{word!r} is not granted by this offer, so there is nothing to narrow",
                hint,
                code="nothing-to-narrow",
            )
            continue
        inner = table.table(word)
        if inner is None:
            continue
        contracts = [item.contract for item in words[word] if item.contract is not None]
        known = {parameter.name: parameter for contract in contracts for parameter in contract.parameters}
        rules[word] = {}
        for name, rule in inner.subtables(name_fault).items():
            if contracts and name not in known and not (word == "invoke" and _POSITION.fullmatch(name)):
                hint = suggest(name, known) if known else "it takes no parameters that have names"
                inner.complain(name, f"{word!r} has no parameter {name!r}", hint, code="no-such-parameter")
                continue
            rules[word][name] = argument_rule(rule, known.get(name))
    return rules


def argument_rule(table: Table, parameter: ParameterContract | None) -> ArgumentRule:
    """Return the rule of one parameter."""
    types = _base_types(parameter)
    for part in PARTS:
        if table.has(part) and types is not None and not types & _TYPES_OF[part]:
            declared = parameter.type if parameter is not None else ""
            table.complain(part, f"{part!r} says nothing about {declared}: no argument could pass", code="useless-rule")
    rule = ArgumentRule(
        minimum=_bound(table, "min"),
        maximum=_bound(table, "max"),
        values=_values(table, types),
        prefix=_prefix(table),
        max_len=table.integer("max_len", 0, MOST_LENGTH),
        chars=_chars(table),
        rule=table.where(),
    )
    table.finish(PARTS)
    if not any(table.has(part) for part in PARTS):
        table.problems.add(
            table.place(), "the rule demands nothing", f"write one of: {', '.join(PARTS)}", code="useless-rule"
        )
    if rule.minimum is not None and rule.maximum is not None and rule.minimum > rule.maximum:
        table.complain(
            "min",
            f"'min' is above 'max' ({rule.minimum} > {rule.maximum}): no argument could pass",
            "exchange the two",
            code="useless-rule",
        )
    return rule


def member_limit(table: Table) -> MemberLimit:
    """Return the limits of one member."""
    limit = MemberLimit(
        per_second=_number(table, "per_second"),
        per_hour=_number(table, "per_hour"),
        per_day=_number(table, "per_day"),
        burst=_integer(table, "burst"),
        in_flight=_integer(table, "in_flight"),
        timeout_s=_number(table, "timeout_s"),
        max_items=_integer(table, "max_items"),
        max_bytes=_integer(table, "max_bytes"),
        callbacks=_integer(table, "callbacks"),
    )
    table.finish(MemberLimit.__dataclass_fields__)
    if not table.keys:
        table.problems.add(table.place(), "the limit limits nothing", "delete the table", code="useless-rule")
    _check_burst(table, limit)
    return limit


def facet_limit(table: Table, keys: frozenset[str]) -> MemberLimit:
    """Return the limit of a facet as a whole, which stands under ``keys``."""
    for key in sorted(keys.difference(FACET_LIMITS)):
        hint = f"write it for a member: [....limit.MEMBER] {key} = ..."
        table.complain(key, f"{key!r} is a limit of one member, not of a facet", hint, code="bad-value")
    chosen = {
        key: _integer(table, key) if key in LIMIT_INTEGERS else _number(table, key)
        for key in FACET_LIMITS
        if key in keys
    }
    limit = MemberLimit(**chosen)  # type: ignore[arg-type]  # integers were read as integers
    _check_burst(table, limit)
    return limit


def _check_burst(table: Table, limit: MemberLimit) -> None:
    if limit.burst is not None and limit.per_second is None:
        table.complain("burst", "'burst' needs 'per_second'", "it is how many calls may come at once", code="bad-value")


def _number(table: Table, key: str) -> float | None:
    return table.number(key, *LIMIT_RANGES[key])


def _integer(table: Table, key: str) -> int | None:
    low, high = LIMIT_RANGES[key]
    return table.integer(key, int(low), int(high))


def _complainer(table: Table, key: str) -> Callable[..., None]:
    def complain(message: str, hint: str = "") -> None:
        table.complain(key, f"{key!r} {message}", hint, code="bad-value")

    return complain


def _bound(table: Table, key: str) -> int | Decimal | None:
    return exact_number(table.take(key), _complainer(table, key))


def _values(table: Table, types: frozenset[str] | None) -> frozenset[Tagged] | None:
    listed = table.take("in")
    constant = table.take("const")
    if listed is not None and constant is not None:
        table.complain("const", "'in' and 'const' exclude each other", "keep one", code="bad-value")
    if constant is not None:
        tagged = _tagged(table, ("const",), constant, types)
        return frozenset() if tagged is None else frozenset({tagged})
    if listed is None:
        return None
    if not isinstance(listed, list) or not listed:
        text = f"'in' must be a list with something in it, not {kind(listed)}"
        table.complain("in", text, 'write: in = ["EUR", "USD"]', code="bad-value")
        return frozenset()
    values: set[Tagged] = set()
    for index, value in enumerate(listed):
        tagged = _tagged(table, ("in", index), value, types)
        if tagged is None:
            continue
        if tagged in values:
            table.complain(("in", index), "the value stands twice in 'in'", "delete one", code="duplicate")
        values.add(tagged)
    return frozenset(values)


def _tagged(table: Table, path: tuple[str | int, ...], value: object, types: frozenset[str] | None) -> Tagged | None:
    tagged: Tagged
    if isinstance(value, str):
        if fault := _value_fault(value):
            table.complain(path, f"the text {fault}", code="bad-value")
            return None
        tagged = ("text", value)
    elif isinstance(value, bool):
        tagged = ("flag", value)
    else:

        def complain(message: str, hint: str = "") -> None:
            table.complain(path, f"the value {message}", hint, code="bad-value")

        number = exact_number(value, complain)
        if number is None:
            return None
        tagged = ("number", number)
    if types is not None and "Literal" not in types and not types & _TYPE_OF_TAG[tagged[0]]:
        text = f"the parameter is never {kind(value)}: no argument could pass"
        table.complain(path, text, f"what it takes: {', '.join(sorted(types))}", code="useless-rule")
        return None
    return tagged


def _prefix(table: Table) -> str | None:
    value = table.take("prefix")
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        text = f"'prefix' must be a text with something in it, not {kind(value)}"
        table.complain("prefix", text, 'write: prefix = "INV-"', code="bad-value")
        return None
    if fault := _value_fault(value):
        table.complain("prefix", f"'prefix' {fault}", code="bad-value")
        return None
    return value


def _chars(table: Table) -> frozenset[str] | None:
    allowed: set[str] = set()
    if not table.has("chars"):
        return None
    for entry in table.words("chars", _chars_fault, 'write: chars = ["A-Z", "_"]'):
        if len(entry) == 1:
            allowed.add(entry)
        else:
            allowed.update(chr(code) for code in range(ord(entry[0]), ord(entry[2]) + 1))
    return frozenset(allowed)


def _chars_fault(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        return "has other characters than printable ASCII"
    if len(text) == 1:
        return ""
    if len(text) == 3 and text[1] == "-" and text[0] <= text[2]:
        return ""
    return "is neither one character nor a range such as 'A-Z'"


def _value_fault(text: str) -> str:
    if not text.isascii() or not all(" " <= character <= "~" for character in text):
        return "has other characters than printable ASCII"
    return template_fault(text)


def _base_types(parameter: ParameterContract | None) -> frozenset[str] | None:
    """Return the names of the types that a parameter takes, without what is in brackets; None if it takes anything."""
    if parameter is None:
        return None
    names: set[str] = set()
    depth = 0
    name = ""
    for character in f"{parameter.type}|":
        depth += (character == "[") - (character == "]")
        if character == "|" and depth == 0:
            names.add(name.split("[", 1)[0].strip().rsplit(".", 1)[-1])
            name = ""
        else:
            name += character
    if names & {"Optional", "Union", "Annotated"} or names & _ANYTHING:
        return None
    return frozenset(names)
