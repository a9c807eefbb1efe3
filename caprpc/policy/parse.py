"""One policy file: from a table to a ``Policy`` that cannot be wrong, or to a list of what is."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from caprpc.contract import InterfaceContract, ParameterContract
from caprpc.ids import OP_CALL, OP_CLOSE, OP_COMPARE, OP_NEXT, OP_ROOT, OP_SET
from caprpc.policy.contracts import GENERIC
from caprpc.policy.document import Table, shown
from caprpc.policy.limits import read_limits
from caprpc.policy.listed import FLAGS, LISTS, listed
from caprpc.policy.model import ITERATOR, Accepted, Lend, LendKey, Lifetime, Offer, Policy, Restorable, Root
from caprpc.policy.names import PLACEHOLDER, anchor_fault, label_fault, name_fault, spiffe_fault
from caprpc.policy.offers import read_offers
from caprpc.policy.problems import Where, suggest
from caprpc.policy.restores import read_restores
from caprpc.policy.shared import NO_SHARED, SharedFacets

AuditLevel = Literal["deny", "decision", "outcome"]
AuditDurability = Literal["os", "group", "sync"]
AuditArguments = Literal["none", "digest"]
LEVELS: Final[Mapping[str, AuditLevel]] = {"deny": "deny", "decision": "decision", "outcome": "outcome"}
DURABILITIES: Final[Mapping[str, AuditDurability]] = {"os": "os", "group": "group", "sync": "sync"}
ARGUMENTS: Final[Mapping[str, AuditArguments]] = {"none": "none", "digest": "digest"}


Contracts = Mapping[str, InterfaceContract]

LIFETIME_S: Final = (0.001, 31_536_000)
"""Seconds that an object may be lent for."""
MOST_USES: Final = 2**31
_LEND_KEYS: Final = ("to", "param", "as", "lifetime", "max_uses")
_KEYS = (
    *("caprpc", "kind", "name", "owner", "reason", "tags", "not_before", "not_after"),
    *("peer", "roots", "restore", "offer", "accept", "lend", "limits", "audit"),
)


def parse_policy(
    top: Table, file: str, digest: str, contracts: Contracts | None, shared: SharedFacets = NO_SHARED
) -> Policy | None:
    """Return the policy of a file; None, or one with holes, after noting at least one problem.

    ``contracts`` is None if they could not be read; then nothing is checked against them. Facets of ``shared`` may be
    named like those of the file.
    """
    name = top.word("name", label_fault)
    if not top.has("name"):
        top.missing("name", 'name = "org-b-feed"')
    owner = top.text("owner")
    reason = top.text("reason")
    tags = tuple(top.words("tags", label_fault))
    not_before, not_after = top.moment("not_before"), top.moment("not_after")
    if not_before is not None and not_after is not None and not_before >= not_after:
        top.complain("not_before", "'not_before' is not before 'not_after': it never holds", code="bad-value")
    peer = top.table("peer")
    if not top.has("peer"):
        top.missing("peer", "[peer] with ca and spiffe: whose certificate this policy is for")
    anchors, principals = _read_peer(peer)
    own = read_offers(top.table("offer"), contracts, shared.elsewhere)
    offers = {**shared.offers, **own}
    roots_table = top.table("roots")
    roots = _read_roots(roots_table, offers)
    restores = read_restores(top.table("restore"), offers)
    accepts = _read_accepts(top.table("accept"), contracts)
    lends = _read_lends(top, offers, contracts)
    used = shared.used(own, _facets_named(roots, restores, lends))
    limits, connections = read_limits(top.table("limits"))
    level, durability, arguments = _read_audit(top.table("audit"))
    top.finish(_KEYS)
    if name is None:
        return None
    peer_rule = peer.where() if peer is not None else top.where()
    return Policy(
        name=name,
        file=file,
        owner=owner or "",
        reason=reason or "",
        tags=tags,
        not_before=not_before,
        not_after=not_after,
        anchors=frozenset(anchors),
        principals=frozenset(principals),
        peer_rule=peer_rule,
        roots_rule=roots_table.where() if roots_table is not None else peer_rule,
        roots=MappingProxyType(roots),
        offers=MappingProxyType({**own, **used}),
        accepts=MappingProxyType(accepts),
        lends=MappingProxyType(lends),
        restores=MappingProxyType(restores),
        limits=limits,
        connections=connections,
        audit_level=level,
        audit_on_failure="refuse",
        audit_durability=durability,
        audit_arguments=arguments,
        digest=shared.digest(digest, used),
    )


def _read_peer(table: Table | None) -> tuple[dict[str, Where], dict[str, Where]]:
    if table is None:
        return {}, {}
    anchors = table.words("ca", anchor_fault)
    principals = table.words("spiffe", spiffe_fault)
    if PLACEHOLDER in anchors:
        hint = "put the fingerprint of the CA's key there: caprpc pki show"
        table.problems.warn(
            anchors[PLACEHOLDER],
            "the fingerprint is a placeholder: no certificate will match",
            hint,
            code="placeholder",
        )
    if not table.has("ca"):
        table.missing("ca", 'ca = ["sha256:..."], the key of the CA that must have issued the certificate')
    if not table.has("spiffe"):
        table.missing("spiffe", 'spiffe = ["spiffe://org-b.example/feed"]')
    table.finish()
    return anchors, principals


def _read_roots(table: Table | None, offers: Mapping[str, Offer]) -> dict[str, Root]:
    roots: dict[str, Root] = {}
    if table is None:
        return roots
    for name in table.names(name_fault):
        facet = table.word(name, name_fault)
        if facet is None:
            continue
        if facet not in offers:
            table.complain(name, f"there is no [offer.{facet}]", suggest(facet, _written(offers)), code="no-such-facet")
        roots[name] = Root(name, facet, table.where(name))
    return roots


def _read_accepts(table: Table | None, contracts: Contracts | None) -> dict[tuple[str, int, str], Accepted]:
    accepts: dict[tuple[str, int, str], Accepted] = {}
    if table is None:
        return accepts
    for interface, inner in table.subtables(name_fault).items():
        contract = None
        if contracts is not None:
            contract = contracts.get(interface) or GENERIC.get(interface)
            if contract is None:
                hint = suggest(interface, {*contracts, *GENERIC})
                table.complain(interface, f"no contract of interface {shown(interface)}", hint, code="no-contract")
        for item in listed(inner, contract, interface):
            operation, member = item.key
            accepts[interface, operation, member] = Accepted(interface, operation, member, item.rule)
        accepts[interface, OP_ROOT, ""] = Accepted(interface, OP_ROOT, "", inner.where())
        if inner.take("iterate") is True:
            # What we may iterate gives us iterators, and an iterator does not say where it came from.
            for operation in (OP_NEXT, OP_CLOSE):
                accepts.setdefault((ITERATOR, operation, ""), Accepted(ITERATOR, operation, "", inner.where("iterate")))
        inner.finish((*LISTS, *FLAGS))
        if not inner.keys:
            inner.problems.add(
                inner.place(), f"[accept.{interface}] accepts nothing", "list the members we may use", code="empty"
            )
    return accepts


def _read_lends(top: Table, offers: Mapping[str, Offer], contracts: Contracts | None) -> dict[LendKey, Lend]:
    lends: dict[LendKey, Lend] = {}
    for table in top.tables("lend"):
        lend = _read_lend(table, offers, contracts)
        if lend is None:
            continue
        key = (lend.interface, lend.member, lend.parameter)
        if key in lends:
            table.problems.add(
                table.place(),
                f"two lends for the same parameter, the other at {lends[key].rule}",
                "keep one",
                code="duplicate",
            )
        lends[key] = lend
    return lends


def _read_lend(table: Table, offers: Mapping[str, Offer], contracts: Contracts | None) -> Lend | None:
    target = table.word("to", _target_fault, 'write: to = "LineCounter.line_counter"')
    parameter = table.word("param", name_fault)
    facet = table.word("as", name_fault)
    lifetime = _lifetime(table)
    max_uses = table.integer("max_uses", 1, MOST_USES)
    table.finish(_LEND_KEYS)
    examples = (("to", 'to = "LineCounter.line_counter"'), ("param", 'param = "fileobj"'), ("as", 'as = "LinesOnly"'))
    for key, example in examples:
        if not table.has(key):
            table.missing(key, example)
    if facet is not None and facet not in offers:
        table.complain("as", f"there is no [offer.{facet}]", suggest(facet, _written(offers)), code="no-such-facet")
        facet = None
    if target is None or parameter is None or facet is None or lifetime is None:
        return None
    interface, member = target.split(".")
    if contracts is not None:
        declared = _target_parameter(table, interface, member, parameter, contracts)
        if declared is not None and declared.reference != offers[facet].interface:
            reference = declared.reference
            takes, hint = f"takes {reference}", f"name a facet for {reference}"
            if reference is None:
                takes, hint = "takes no reference", "delete the lend: what is passed by value needs none"
            text = f"{parameter!r} {takes}, but [offer.{facet}] is for {offers[facet].interface}"
            table.complain("as", text, hint, code="wrong-facet")
    return Lend(interface, member, parameter, facet, lifetime, max_uses, table.where())


def _target_parameter(
    table: Table, interface: str, member: str, parameter: str, contracts: Contracts
) -> ParameterContract | None:
    contract = contracts.get(interface)
    if contract is None:
        table.complain(
            "to", f"no contract of interface {shown(interface)}", suggest(interface, contracts), code="no-contract"
        )
        return None
    keys = ((operation, member) for operation in (OP_CALL, OP_SET, OP_COMPARE))
    found = next((contract.members[key] for key in keys if key in contract.members), None)
    if found is None:
        hint = suggest(member, {name for _, name in contract.members if name})
        table.complain(
            "to", f"interface {interface} has no member {member!r} that takes an argument", hint, code="no-such-member"
        )
        return None
    known = {declared.name: declared for declared in found.parameters}
    if parameter not in known:
        table.complain(
            "param", f"{member!r} has no parameter {parameter!r}", suggest(parameter, known), code="no-such-parameter"
        )
    return known.get(parameter)


def _lifetime(table: Table) -> Lifetime | None:
    if not table.has("lifetime"):
        # The least that a loan can be.
        return "call"
    value = table.take("lifetime")
    if isinstance(value, str):
        if value == "call":
            return "call"
        if value == "connection":
            return "connection"
        table.complain(
            "lifetime", f"'lifetime' is {shown(value)}", "write: 'call', 'connection', or seconds", code="bad-value"
        )
        return None
    return table.number("lifetime", *LIFETIME_S)


def _read_audit(table: Table | None) -> tuple[AuditLevel, AuditDurability, AuditArguments]:
    if table is None:
        return "decision", "os", "none"
    level = table.choice("level", tuple(LEVELS)) or "decision"
    durability = table.choice("durability", tuple(DURABILITIES)) or "os"
    arguments = table.choice("arguments", tuple(ARGUMENTS)) or "none"
    table.choice(
        "on_failure", ("refuse",), "a call that cannot be recorded does not happen; there is no other way to run"
    )
    table.finish(("level", "on_failure", "durability", "arguments"))
    if not table.keys:
        table.problems.add(table.place(), "[audit] is empty", "delete the table", code="empty")
    return LEVELS[level], DURABILITIES[durability], ARGUMENTS[arguments]


def _target_fault(text: str) -> str:
    interface, dot, member = text.partition(".")
    if not dot:
        return "is not INTERFACE.MEMBER"
    return name_fault(interface) or name_fault(member)


def _facets_named(
    roots: Mapping[str, Root], restores: Mapping[str, Restorable], lends: Mapping[LendKey, Lend]
) -> list[str]:
    named = [root.facet for root in roots.values()]
    named += [restorable.facet for restorable in restores.values()]
    return [*named, *(lend.facet for lend in lends.values())]


def _written(offers: Mapping[str, Offer]) -> list[str]:
    """Return the facets that the file names, without those that follow from others."""
    return [name for name in offers if "/" not in name]
