"""``[offer.NAME]``: what the peer may do with such a reference, checked against the contract of its interface."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from caprpc.contract import InterfaceContract
from caprpc.ids import OP_CLOSE, OP_GET, OP_NEXT, OP_SET
from caprpc.policy.arguments import ArgumentRule
from caprpc.policy.contracts import GENERIC
from caprpc.policy.document import Table, shown
from caprpc.policy.listed import FLAGS, LISTS, Listed, listed
from caprpc.policy.model import ENDINGS, ITERATOR, NO_LIMIT, Grant, MemberLimit, Offer, Passing
from caprpc.policy.names import OPAQUE, name_fault, spiffe_fault
from caprpc.policy.problems import suggest
from caprpc.policy.rules import LIMIT_RANGES, argument_rules, facet_limit, member_limit

_TABLES: Final = ("args", "limit", "returns", "record")
_FORWARDING: Final = ("forward", "forward_from")
_NOWHERE: Final[Mapping[str, tuple[str, str]]] = MappingProxyType({})


def iterator_facet(facet: str) -> str:
    """Return the name of the facet that ``iterate = true`` gives to iterators that come from another facet."""
    return f"{facet}/iterator"


Elsewhere = Mapping[str, tuple[str, str]]
"""Facets that another file offers: the interface of each, and where it stands."""


def read_offers(
    table: Table | None, contracts: Mapping[str, InterfaceContract] | None, elsewhere: Elsewhere = _NOWHERE
) -> dict[str, Offer]:
    """Return all facets, those of iterators included.

    Args:
        table: ``[offer]``, if there is one.
        contracts: None if they could not be read.
        elsewhere: What may be named as if it stood here, and whose names are taken.
    """
    if table is None:
        return {}
    offers: dict[str, Offer] = {}
    tables = table.subtables(name_fault)
    interfaces = {name: interface for name, (interface, _) in elsewhere.items()}
    interfaces |= {name: peek_interface(inner) for name, inner in tables.items()}
    for name, inner in tables.items():
        if name in elsewhere:
            hint = "give this one another name: none of the two would be the plain truth"
            table.complain(name, f"the facet {name} stands at {elsewhere[name][1]}, too", hint, code="duplicate")
            continue
        if name == OPAQUE:
            table.complain(
                name, f"{OPAQUE!r} is not a name for a facet", "it means: nothing may be done with it", code="bad-name"
            )
            continue
        for offer in _Offer(name, inner, interfaces, contracts).read():
            offers[offer.name] = offer
    return offers


def known_keys() -> tuple[str, ...]:
    """Return every key of an offer, for suggestions."""
    return ("interface", *LISTS, *FLAGS, *_TABLES, *_FORWARDING)


def peek_interface(table: Table) -> str:
    """Return what an offer says it is for, before it is checked; empty if it does not."""
    value = table.take("interface")
    return value if isinstance(value, str) else ""


class _Offer:
    """Reads one offer table."""

    def __init__(
        self,
        name: str,
        table: Table,
        interfaces: Mapping[str, str],
        contracts: Mapping[str, InterfaceContract] | None,
    ) -> None:
        self._name = name
        self._table = table
        self._interfaces = interfaces
        self._contracts = contracts

    def read(self) -> list[Offer]:
        table = self._table
        interface = table.word("interface", name_fault)
        if not table.has("interface"):
            table.missing("interface", 'interface = "TextLines"')
        contract = self._contract(interface)
        found = [] if interface is None else list(listed(table, contract, interface))
        narrow = {key: table.table(key) for key in _TABLES}
        passing = Passing(table.flag("forward") is not None, frozenset(table.words("forward_from", spiffe_fault)))
        table.finish(known_keys())
        if interface is None:
            return []
        if not found and not any(table.has(key) for key in (*LISTS, *FLAGS)):
            table.problems.add(
                table.place(),
                f"the offer {self._name} grants nothing",
                f"list members, or hand it out as {OPAQUE!r}",
                code="empty",
            )
        words = self._words(found)
        arguments = argument_rules(narrow["args"], words)
        limits = self._limits(narrow["limit"], words)
        together = self._together(narrow["limit"])
        records = self._records(narrow["record"], words)
        returns = self._returns(narrow["returns"], words)
        grants = {
            item.key: Grant(
                operation=item.key[0],
                member=item.key[1],
                rule=item.rule,
                arguments=MappingProxyType(
                    arguments.get(item.word, {}) if item.key[0] not in {OP_GET, *ENDINGS} else {}
                ),
                limit=NO_LIMIT if item.key[0] in ENDINGS else limits.get(item.word, NO_LIMIT),
                returns=self._result(item, returns),
                record=records.get(item.word, frozenset()),
            )
            for item in found
        }
        rule = "" if narrow["limit"] is None else narrow["limit"].where()
        offer = Offer(self._name, interface, table.where(), MappingProxyType(grants), passing, together, rule)
        if not table.has("iterate"):
            return [offer]
        iterators = _derived(self._name, table.where("iterate"), limits.get("iterate", NO_LIMIT))
        return [offer, replace(iterators, passing=passing, limit=together, limit_rule=rule)]

    def _contract(self, interface: str | None) -> InterfaceContract | None:
        if interface is None or self._contracts is None:
            return None
        contract = self._contracts.get(interface) or GENERIC.get(interface)
        if contract is None:
            known = {*self._contracts, *GENERIC}
            self._table.complain(
                "interface",
                f"no contract of interface {shown(interface)}",
                suggest(interface, known),
                code="no-contract",
            )
        return contract

    def _words(self, found: list[Listed]) -> dict[str, list[Listed]]:
        words: dict[str, list[Listed]] = {}
        for item in found:
            words.setdefault(item.word, []).append(item)
        if self._table.has("iterate"):
            # Even if only iterators that members return can be iterated: they take its limits.
            words.setdefault("iterate", [])
        for word in words.keys() & FLAGS.keys():
            if any(item.key[1] for item in words[word]) and self._table.has(word):
                self._table.complain(
                    word,
                    f"{word!r} is a member here as well as an operation",
                    "grant them in two offers",
                    code="duplicate",
                )
        return words

    def _limits(self, table: Table | None, words: Mapping[str, list[Listed]]) -> dict[str, MemberLimit]:
        return {word: member_limit(inner) for word, inner in self._narrowed(table, words)}

    @staticmethod
    def _together(table: Table | None) -> MemberLimit:
        """Return the limit of the facet as a whole: values that stand beside the tables of the members."""
        return NO_LIMIT if table is None else facet_limit(table, _whole(table))

    def _narrowed(self, table: Table | None, words: Mapping[str, list[Listed]]) -> Iterator[tuple[str, Table]]:
        if table is None:
            return
        whole = _whole(table)
        for word in table.names(name_fault):
            if word in whole:
                continue
            if word not in words:
                _not_granted(table, word, words)
            elif (inner := table.table(word)) is not None:
                yield word, inner

    def _records(self, table: Table | None, words: Mapping[str, list[Listed]]) -> dict[str, frozenset[str]]:
        records: dict[str, frozenset[str]] = {}
        if table is None:
            return records
        for word in table.names(name_fault):
            if word not in words:
                _not_granted(table, word, words)
                continue
            names = table.words(word, name_fault)
            contracts = [item.contract for item in words[word] if item.contract is not None]
            known = {parameter.name for contract in contracts for parameter in contract.parameters}
            secret = {p.name for contract in contracts for p in contract.parameters if p.sensitive}
            for index, name in enumerate(names):
                if name in secret:
                    table.complain(
                        (word, index),
                        f"{name!r} of {word!r} is declared sensitive: the audit log never keeps it in clear",
                        "delete it",
                        code="sensitive",
                    )
                if contracts and name not in known:
                    table.complain(
                        (word, index),
                        f"{word!r} has no parameter {name!r}",
                        suggest(name, known),
                        code="no-such-parameter",
                    )
            records[word] = frozenset(names)
        return records

    def _returns(self, table: Table | None, words: Mapping[str, list[Listed]]) -> dict[str, str]:
        returns: dict[str, str] = {}
        if table is not None:
            for word in table.names(name_fault):
                if word not in words:
                    _not_granted(table, word, words)
                elif (facet := table.word(word, name_fault)) is not None:
                    returns[word] = facet
                    self._check_returned(table, word, facet, words[word])
        for word, items in words.items():
            for item in items:
                self._check_missing(item, word, returns)
        return returns

    def _check_returned(self, table: Table, word: str, facet: str, items: list[Listed]) -> None:
        if facet != OPAQUE and facet not in self._interfaces:
            hint = suggest(facet, {*self._interfaces, OPAQUE})
            table.complain(word, f"there is no [offer.{facet}]", hint, code="no-such-facet")
            return
        interfaces = {item.contract.returns_reference for item in items if item.contract is not None} - {None}
        if interfaces:
            interface = interfaces.pop()
            if facet != OPAQUE and self._interfaces[facet] != interface:
                got = self._interfaces[facet]
                text = f"{word!r} returns {interface}, but [offer.{facet}] is for {got}"
                table.complain(word, text, f"name a facet for {interface}, or {OPAQUE!r}", code="wrong-facet")
        elif any(item.contract is not None for item in items) and not self._is_generic():
            table.complain(word, f"{word!r} returns no reference", "delete the line", code="wrong-facet")

    def _is_generic(self) -> bool:
        return self._interfaces[self._name] in GENERIC

    def _check_missing(self, item: Listed, word: str, returns: Mapping[str, str]) -> None:
        reference = item.contract.returns_reference if item.contract is not None else None
        if reference is None or word in returns or (reference == ITERATOR and self._table.has("iterate")):
            return
        iterate = " (or: iterate = true)" if reference == ITERATOR else ""
        self._table.problems.add(
            item.rule,
            f"{word!r} returns a reference to {reference}, and no facet says what the peer may do with it",
            f'write in [offer.{self._name}.returns]: {word} = "FACET", or {word} = "{OPAQUE}"{iterate}',
            code="no-result-facet",
        )

    def _result(self, item: Listed, returns: Mapping[str, str]) -> str | None:
        facet = returns.get(item.word)
        if item.key[0] in {*ENDINGS, OP_SET}:
            return None
        if facet is not None:
            return facet
        reference = item.contract.returns_reference if item.contract is not None else None
        return iterator_facet(self._name) if reference == ITERATOR and self._table.has("iterate") else None


def _derived(facet: str, rule: str, limit: MemberLimit) -> Offer:
    """Return the facet of the iterators that come from a facet with ``iterate = true``."""
    nothing: Mapping[str, ArgumentRule] = MappingProxyType({})
    grants = {
        (operation, ""): Grant(operation, "", rule, nothing, operation_limit, None, frozenset())
        for operation, operation_limit in ((OP_NEXT, limit), (OP_CLOSE, NO_LIMIT))
    }
    return Offer(iterator_facet(facet), ITERATOR, rule, MappingProxyType(grants))


def _whole(table: Table) -> frozenset[str]:
    """Return the keys that limit the facet: those with a value, where a member would have a table."""
    return frozenset(key for key in LIMIT_RANGES if table.has(key) and not isinstance(table.take(key), dict))


def _not_granted(table: Table, word: str, words: Mapping[str, object]) -> None:
    hint = suggest(word, words) if words else "tables narrow what the lists of the offer grant"
    table.complain(
        word, f"{word!r} is not granted by this offer, so there is nothing to narrow", hint, code="nothing-to-narrow"
    )
