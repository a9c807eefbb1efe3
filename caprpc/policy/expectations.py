"""Test files: what a reviewer expects of the policies, as questions with their answers.

A test file grants nothing; it stands beside the policies so that both are reviewed, versioned and signed together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from caprpc.contract import InterfaceContract
from caprpc.ids import OP_CALL, OP_GET, OP_RESTORE, OP_SET, OPERATION_NAMES
from caprpc.policy.document import Table, shown
from caprpc.policy.model import Policy
from caprpc.policy.names import label_fault, name_fault, spiffe_fault
from caprpc.policy.problems import suggest

_KEYS: Final = ("id", "peer", "may", "may_not", "operation", "args", "facet", "rule", "reaches", "reaches_not")
OPERATIONS: Final = {name: code for code, name in OPERATION_NAMES.items() if name != "root"}
_NAMED: Final = (OP_CALL, OP_GET, OP_SET)
_QUESTIONS: Final = ("may", "may_not", "reaches", "reaches_not")
_TARGET_HINT: Final = "write INTERFACE.MEMBER, or the name of a facet or interface"


@dataclass(frozen=True, slots=True)
class Known:
    """What an expectation may speak of: what is misspelt is never allowed, and would pass as ``may_not`` for good."""

    policies: frozenset[str]
    facets: frozenset[str]
    contracts: Mapping[str, InterfaceContract]

    @classmethod
    def of(
        cls, policies: Sequence[Policy], shared: Iterable[str], contracts: Mapping[str, InterfaceContract]
    ) -> "Known":
        """Return what a directory has: its policies, their facets and the shared ones, and its contracts."""
        facets = {name for policy in policies for name in policy.offers} | set(shared)
        return cls(frozenset(policy.name for policy in policies), frozenset(facets), contracts)


@dataclass(frozen=True, slots=True)
class Expectation:
    """One question about one peer, and the answer that must come.

    Attributes:
        name: Its id, for reports.
        peer: A SPIFFE ID or the name of a policy.
        verb: ``may`` asks whether the peer may use a member, ``reaches`` whether it can come to hold a facet.
        expected: Whether the answer must be yes.
        interface: The interface of the member; for ``reaches`` a facet or an interface.
        member: Empty for operations without a name.
        operation: A code of ``caprpc.ids``, or None: whatever the member is for.
        arguments: Values by parameter.
        facet: The facet that must grant it; None for any.
        rule: The ``file:line`` that must grant it; None for any.
        where: Where it stands.
    """

    name: str
    peer: str
    verb: Literal["may", "reaches"]
    expected: bool
    interface: str
    member: str
    operation: int | None
    arguments: Mapping[str, object]
    facet: str | None
    rule: str | None
    where: str


def parse_expectations(top: Table, known: Known | None) -> list[Expectation]:
    """Return the expectations of a test file; complaints go to the table's problems.

    Args:
        top: The file.
        known: What its expectations may speak of; None looks at their form alone.
    """
    found: dict[str, Expectation] = {}
    tables = top.tables("expect")
    top.finish(("caprpc", "kind", "expect"))
    if not top.has("expect"):
        top.missing("expect", "[[expect]] with id, peer, and may or may_not")
    for table in tables:
        one = _expectation(table)
        if one is None:
            continue
        if known is not None:
            _check_names(table, one, known)
        if one.name in found:
            table.complain(
                "id", f"the id {one.name!r} is taken at {found[one.name].where}", "give it another", code="duplicate"
            )
        found[one.name] = one
    return list(found.values())


def _expectation(table: Table) -> Expectation | None:
    name = table.word("id", label_fault)
    peer = table.word("peer", _peer_fault, "write a SPIFFE ID, or the name of a policy")
    asked = {key: table.word(key, _target_fault, _TARGET_HINT) for key in _QUESTIONS}
    operation = table.choice("operation", tuple(OPERATIONS))
    arguments = table.table("args")
    facet = table.word("facet", name_fault)
    rule = table.text("rule")
    values = {} if arguments is None else {key: arguments.take(key) for key in arguments.keys}
    table.finish(_KEYS)
    for key, example in (("id", 'id = "T1"'), ("peer", 'peer = "spiffe://org-b.example/feed"')):
        if not table.has(key):
            table.missing(key, example)
    given = [key for key in asked if table.has(key)]
    if len(given) != 1:
        table.problems.add(
            table.place(),
            f"an expectation has one of may, may_not, reaches and reaches_not; here are {len(given)}",
            'write: may = "Ledger.post"',
            code="bad-value",
        )
        return None
    target = asked[given[0]]
    if name is None or peer is None or target is None:
        return None
    interface, _, member = target.partition(".")
    verb: Literal["may", "reaches"] = "may" if given[0].startswith("may") else "reaches"
    if verb == "may" and not member and operation is None:
        hint = 'write: operation = "iterate", or INTERFACE.MEMBER'
        table.complain(given[0], f"{shown(target)} names no member, and no operation is given", hint, code="bad-value")
        return None
    return Expectation(
        name=name,
        peer=peer,
        verb=verb,
        expected=not given[0].endswith("_not"),
        interface=interface,
        member=member,
        operation=None if operation is None else OPERATIONS[operation],
        arguments=values,
        facet=facet,
        rule=rule,
        where=table.where(),
    )


def _check_names(table: Table, one: Expectation, known: Known) -> None:
    """Complain of names that nothing has."""
    if "://" not in one.peer and one.peer not in known.policies:
        hint = suggest(one.peer, known.policies)
        table.complain("peer", f"there is no policy {one.peer!r}", hint, code="no-such-policy")
    if one.facet is not None and one.facet not in known.facets:
        hint = suggest(one.facet, known.facets)
        table.complain("facet", f"there is no facet {one.facet!r}", hint, code="no-such-facet")
    key = next(key for key in _QUESTIONS if table.has(key))
    if one.verb == "reaches":
        names = known.facets | known.contracts.keys()
        if one.interface not in names:
            hint = suggest(one.interface, names)
            table.complain(key, f"there is no facet or interface {one.interface!r}", hint, code="no-such-facet")
        return
    if one.operation == OP_RESTORE:
        return
    contract = known.contracts.get(one.interface)
    if contract is None:
        hint = suggest(one.interface, known.contracts)
        table.complain(key, f"no contract declares the interface {one.interface!r}", hint, code="no-contract")
    elif one.operation is None or one.operation in _NAMED:
        members = {name for operation, name in contract.members if operation in _NAMED}
        if one.member not in members:
            text = f"interface {one.interface} has no member {one.member!r}"
            table.complain(key, text, suggest(one.member, members), code="no-such-member")


def _peer_fault(text: str) -> str:
    return spiffe_fault(text) if "://" in text else label_fault(text)


def _target_fault(text: str) -> str:
    interface, dot, member = text.partition(".")
    return name_fault(interface) or (name_fault(member) if dot else "")
