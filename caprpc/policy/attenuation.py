"""Narrowings: which members and arguments a derived reference keeps, in the words of the policy language.

One of our own code and one that a peer has sent are read alike; a peer's is hostile input. A narrowing grants nothing:
it is intersected with what the facet permits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from caprpc.ids import OP_CALL, OP_GET
from caprpc.policy.arguments import ArgumentRule
from caprpc.policy.document import Table
from caprpc.policy.listed import FLAGS, LISTS
from caprpc.policy.model import Key
from caprpc.policy.names import name_fault
from caprpc.policy.problems import Problems
from caprpc.policy.rules import argument_rule
from caprpc.policy.text import Path

MOST_MEMBERS: Final = 1_024
"""Members that one narrowing names; an interface has far fewer."""

RULE: Final = "attenuated"
"""What the audit log names in place of a line for a rule that is in no file."""

Only = Iterable[str] | Mapping[str, Any]
Rules = Mapping[str, Mapping[str, ArgumentRule]]

_WORD_OF: Final[Mapping[int, str]] = {code: word for word, codes in FLAGS.items() for code in codes}


class Narrowing:
    """The members that are kept, and rules for their arguments; never changed."""

    __slots__ = ("arguments", "only")

    def __init__(self, only: frozenset[Key] | None, arguments: Rules) -> None:
        """Take the operations that are kept, None for all, and rules by word and parameter."""
        self.only = only
        self.arguments = arguments

    def keeps(self, key: Key) -> bool:
        """Whether an operation is kept."""
        return self.only is None or key in self.only

    def rules_for(self, key: Key) -> Mapping[str, ArgumentRule]:
        """Return the rules for the arguments of an operation; reading an attribute has none."""
        return {} if key[0] == OP_GET else self.arguments.get(word_of(key), {})

    def unknown(self, known: Iterable[Key]) -> list[str]:
        """Return what it names and ``known`` does not have, as words; empty if there is no such thing."""
        known = set(known)
        words = {word_of(key) for key in known}
        members = () if self.only is None else (word_of(key) for key in self.only - known)
        return sorted({*members, *(word for word in self.arguments if word not in words)})


def word_of(key: Key) -> str:
    """Return what the policy language calls an operation: the member's name, or a flag such as ``iterate``."""
    return key[1] or _WORD_OF.get(key[0], "")


def keys_of(only: Only) -> list[frozenset[Key]]:
    """Return for each word the operations it may stand for.

    A plain name stands for calling a method and for reading an attribute; assigning has to be asked for:
    ``{"call": ["post"], "set": ["label"], "iterate": True}``, as in an offer.

    Raises:
        TypeError: It is neither names nor such a table.
        ValueError: A word is none, or there are none, or too many.
    """
    if isinstance(only, str):
        raise TypeError(f"only= takes the names of members, such as [{only!r}]")
    found: list[frozenset[Key]] = []
    if isinstance(only, Mapping):
        for word, value in only.items():
            if word in LISTS:
                found += [frozenset({(LISTS[word], _name(name))}) for name in value]
            elif word in FLAGS and value is True:
                found.append(frozenset((code, "") for code in FLAGS[word]))
            else:
                raise ValueError(
                    f"only=: {word!r} expected to be one of {', '.join([*LISTS, *FLAGS])}, flags with True"
                )
    else:
        for name in only:
            codes = FLAGS.get(name, ())
            word = _name(name)
            found.append(frozenset({(OP_CALL, word), (OP_GET, word), *((code, "") for code in codes)}))
    if not 0 < len(found) <= MOST_MEMBERS:
        raise ValueError(f"only= names {len(found)} members, 1 to {MOST_MEMBERS} expected")
    return found


def rules_of(args: object) -> dict[str, dict[str, ArgumentRule]]:
    """Return the rules of ``{"post": {"amount": {"max": 100}}}``, in the words of ``[offer.*.args.*]``.

    Raises:
        ValueError: A rule is wrong; names the first mistake, and no value.
    """
    problems = Problems()
    table = Table(_NoFile(), RULE, (), _table(args, 3), problems)
    rules = {
        word: {
            name: replace(argument_rule(rule, None), rule=RULE) for name, rule in inner.subtables(name_fault).items()
        }
        for word, inner in table.subtables(name_fault).items()
    }
    if problems:
        raise ValueError(f"args=: {problems.first}")
    return rules


class _NoFile:
    """Rules that are in no file have no line."""

    def place(self, _path: Path) -> tuple[int, int]:
        return 0, 0


def _name(name: object) -> str:
    if not isinstance(name, str) or name_fault(name):
        raise ValueError("only=: names of members expected")
    return name


def _table(value: object, depth: int) -> dict[str, Any]:
    """Return nested mappings as the tables that a policy file would have given; numbers are exact from here on."""
    if not isinstance(value, Mapping) or len(value) > MOST_MEMBERS:
        raise ValueError("args=: tables of members, of parameters and of rules expected")
    tables: dict[str, Any] = {}
    for key, inner in value.items():
        if type(key) is not str:
            raise ValueError("args=: names expected")
        tables[key] = _table(inner, depth - 1) if depth > 1 else _plain(inner)
    return tables


def _plain(value: object) -> object:
    if type(value) is float:
        return Decimal(repr(value))
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value
