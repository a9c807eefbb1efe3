"""``export --to cedar``: the same decisions in another policy language, to be checked with other people's tools.

A request is ``principal`` (the peer), ``action`` (operation and member), ``resource`` (the facet of the reference), and
a ``context`` with the arguments. Cedar has no floats, no exact decimals beyond four digits and no lengths of texts: a
part of a rule that it cannot express is named in ``context.holds``, which the caller fills with the rules that hold.
"""

import json
from collections.abc import Iterator
from typing import Final

from caprpc.analysis.authority import limits_text, member_name, rule_toml
from caprpc.ids import OP_RESTORE, OP_ROOT, OPERATION_NAMES
from caprpc.policy import ArgumentRule, Grant, Key, Policy, PolicySet

_LONGEST: Final = 2**63 - 1
"""Cedar's integers have 64 bits."""


def cedar(policies: PolicySet) -> str:
    """Return one ``permit`` statement for each grant; what none of them permits is denied."""
    lines = [f"// {policies.directory.name} version {policies.version}, {policies.digest}"]
    for policy in policies.policies:
        for root in policy.roots.values():
            lines += _statement(policy, "root", (OP_ROOT, root.name), None, root.rule)
        for entry in policy.restores.values():
            lines += _statement(policy, "root", (OP_RESTORE, entry.name), None, entry.rule)
        for offer in policy.offers.values():
            for key, grant in offer.grants.items():
                name = member_name(offer.interface, *key)
                lines += _statement(policy, offer.name, key, grant, grant.rule, name, limits_text(offer, grant))
    return "\n".join(lines) + "\n"


def resource_id(policy: Policy, facet: str) -> str:
    """Return the name of a facet's entity."""
    return f"{policy.name}/{facet}"


def action_id(key: Key) -> str:
    """Return the name of an operation's entity: ``call post``, ``iterate``."""
    return f"{OPERATION_NAMES[key[0]]} {key[1]}".strip()


def is_expressed(rule: ArgumentRule) -> bool:
    """Say whether Cedar can express a whole rule: texts by value or prefix, integers by value or bound."""
    if rule.max_len is not None or rule.chars is not None:
        return False
    numbers = [rule.minimum, rule.maximum, *(value for tag, value in rule.values or () if tag == "number")]
    return all(number is None or (type(number) is int and abs(number) <= _LONGEST) for number in numbers)


def _statement(
    policy: Policy, facet: str, key: Key, grant: Grant | None, rule: str, name: str = "", limits: str = ""
) -> Iterator[str]:
    yield ""
    yield f"// {rule} {name}".rstrip()
    if limits:
        # Cedar decides one request and counts none: what is counted beside it is said where its tools show it.
        yield f"@limits({_text(limits)})"
    if len(policy.principals) == 1:
        principal = f"principal == Peer::{_text(next(iter(policy.principals)))}"
    else:
        principal = "principal"
    yield f"permit({principal}, action == Action::{_text(action_id(key))},"
    yield f"       resource == Facet::{_text(resource_id(policy, facet))})"
    conditions = []
    if len(policy.principals) > 1:
        peers = ", ".join(f"Peer::{_text(peer)}" for peer in sorted(policy.principals))
        conditions.append(f"[{peers}].contains(principal)")
    for parameter, argument in ({} if grant is None else grant.arguments).items():
        conditions.append(_condition(parameter, argument))
    yield f"when {{ {' && '.join(conditions)} }};" if conditions else ";"


def _condition(parameter: str, rule: ArgumentRule) -> str:
    if not is_expressed(rule):
        return f"context has holds && context.holds.contains({_text(held_name(parameter, rule))})"
    value = f"context[{_text(parameter)}]"
    parts = [f"context has {_text(parameter)}"]
    if rule.minimum is not None:
        parts.append(f"{value} >= {rule.minimum}")
    if rule.maximum is not None:
        parts.append(f"{value} <= {rule.maximum}")
    if rule.values is not None:
        parts.append(f"[{', '.join(sorted(_value(tagged) for tagged in rule.values))}].contains({value})")
    if rule.prefix is not None:
        parts.append(f'{value} like {_text(rule.prefix)[:-1]}*"')
    return " && ".join(parts)


def held_name(parameter: str, rule: ArgumentRule) -> str:
    """Return what stands in ``context.holds`` for a rule that Cedar cannot express, once it holds."""
    return f"{rule.rule} {parameter} {rule_toml(rule)}"


def _value(tagged: tuple[str, object]) -> str:
    tag, value = tagged
    if tag == "flag":
        return "true" if value else "false"
    return _text(str(value)) if tag == "text" else str(value)


def _text(text: str) -> str:
    # Names are ASCII by their grammar; an asterisk is a wildcard in Cedar only where a pattern stands.
    return json.dumps(text)
