"""The lists and flags that grant, in offers as in accepts, checked against the contract of the interface."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from caprpc.contract import InterfaceContract, MemberContract
from caprpc.ids import (
    OP_CALL,
    OP_CLOSE,
    OP_COMPARE,
    OP_CONTAINS,
    OP_ENTER,
    OP_EXIT,
    OP_GET,
    OP_INDEX_GET,
    OP_INDEX_SET,
    OP_INVOKE,
    OP_ITERATE,
    OP_LENGTH,
    OP_NEXT,
    OP_SET,
)
from caprpc.policy.document import Table
from caprpc.policy.model import ITERATOR, Key
from caprpc.policy.names import name_fault
from caprpc.policy.problems import suggest

LISTS: Final = {"call": OP_CALL, "get": OP_GET, "set": OP_SET, "compare": OP_COMPARE}
"""Keys whose list names members."""
FLAGS: Final = {
    "invoke": (OP_INVOKE,),
    "iterate": (OP_ITERATE, OP_NEXT, OP_CLOSE),
    "length": (OP_LENGTH,),
    "contains": (OP_CONTAINS,),
    "index_get": (OP_INDEX_GET,),
    "index_set": (OP_INDEX_SET,),
    "context": (OP_ENTER, OP_EXIT),
}
"""Keys that can only be ``true``, and the operations they stand for."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One operation that a list or flag of an offer grants, before the narrowing tables are read."""

    key: Key
    word: str
    """What the narrowing tables call it: the member's name, or the flag."""
    rule: str
    contract: MemberContract | None


def listed(table: Table, contract: InterfaceContract | None, interface: str) -> Iterator[Listed]:
    """Yield what the lists and flags of an offer or accept table grant; a member that is not declared is an error."""
    for word, operation in LISTS.items():
        for member, rule in table.words(word, name_fault).items():
            declared = None if contract is None else contract.members.get((operation, member))
            if contract is not None and declared is None:
                _undeclared(table, word, member, rule, contract)
                continue
            yield Listed((operation, member), member, str(rule), declared)
    for word, operations in FLAGS.items():
        rule_of_flag = table.flag(word)
        if rule_of_flag is None:
            continue
        if contract is None:
            yield from (Listed((operation, ""), word, rule_of_flag, None) for operation in operations)
            continue
        known = [operation for operation in operations if (operation, "") in contract.members]
        if not known and not (word == "iterate" and _gives_iterators(contract)):
            hint = f"what it declares: {', '.join(_words(contract))}"
            table.complain(word, f"interface {interface} does not declare {word!r}", hint, code="no-such-member")
        for operation in known:
            yield Listed((operation, ""), word, rule_of_flag, contract.members[operation, ""])


def grant_line(operation: int, member: str) -> str:
    """Return the line that grants an operation in an offer or accept table: ``call = ["post"]``, ``iterate = true``."""
    for word, code in LISTS.items():
        if code == operation:
            return f'{word} = ["{member}"]'
    return next((f"{word} = true" for word, codes in FLAGS.items() if operation in codes), "")


def grant_word(operation: int, member: str) -> str:
    """Return what the narrowing tables call an operation: the member's name, or the flag that grants it."""
    return member or grant_line(operation, "").partition(" ")[0]


def _gives_iterators(contract: InterfaceContract) -> bool:
    return any(member.returns_reference == ITERATOR for member in contract.members.values())


def _words(contract: InterfaceContract) -> list[str]:
    flags = {code: word for word, codes in FLAGS.items() for code in codes}
    return sorted({name or flags[operation] for operation, name in contract.members})


def _undeclared(table: Table, word: str, member: str, rule: str, contract: InterfaceContract) -> None:
    operation = LISTS[word]
    elsewhere = [w for w, code in LISTS.items() if code != operation and (code, member) in contract.members]
    if elsewhere:
        hint = f"it can stand in {' or '.join(repr(w) for w in elsewhere)}"
    else:
        hint = suggest(member, {name for code, name in contract.members if code == operation})
    table.problems.add(
        rule, f"interface {contract.name} has no member {member!r} for {word!r}", hint, code="no-such-member"
    )
