"""``[[never]]``: what no policy may ever let a peer reach, and what no peer can reach although it is written down."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from caprpc.contract import InterfaceContract
from caprpc.policy.contracts import GENERIC
from caprpc.policy.document import Table
from caprpc.policy.model import Policy
from caprpc.policy.names import label_fault, name_fault
from caprpc.policy.problems import Problems, suggest


@dataclass(frozen=True, slots=True)
class Never:
    """Only the policies in ``excepted`` may reach the facets and interfaces in ``reach``."""

    name: str
    text: str
    reach: frozenset[str]
    excepted: frozenset[str]
    rule: str


def reachable(policy: Policy) -> dict[str, str]:
    """Return the facets that the peer can come to hold, each with the rule by which it first does.

    A peer holds a facet through a root, a sturdy reference, an object lent to it, or the result of a call on a facet
    that it holds.
    """
    found: dict[str, str] = {}
    pending = [(root.facet, root.rule) for root in policy.roots.values()]
    pending += [(lend.facet, lend.rule) for lend in policy.lends.values()]
    pending += [(restorable.facet, restorable.rule) for restorable in policy.restores.values()]
    while pending:
        facet, rule = pending.pop()
        offer = policy.offers.get(facet)
        if offer is None or facet in found:
            continue
        found[facet] = rule
        pending += [(grant.returns, grant.rule) for grant in offer.grants.values() if grant.returns is not None]
    return found


def read_invariants(
    tables: Sequence[Table],
    policies: Sequence[Policy],
    contracts: Mapping[str, InterfaceContract] | None,
    shared: Iterable[str] = (),
) -> list[Never]:
    """Return the invariants; one that speaks of something unknown is an error, for it would never fail."""
    nevers: dict[str, Never] = {}
    facets = {facet for policy in policies for facet in policy.offers if "/" not in facet} | set(shared)
    names = {policy.name for policy in policies}
    for table in tables:
        name = table.word("id", label_fault)
        text = table.text("text")
        reach = table.words("reach", name_fault)
        excepted = table.words("except", label_fault)
        table.finish(("id", "text", "reach", "except"))
        for key, example in (("id", 'id = "N1"'), ("text", 'text = "..."'), ("reach", 'reach = ["LedgerAdmin"]')):
            if not table.has(key):
                table.missing(key, example)
        for index, word in enumerate(reach):
            if contracts is not None and word not in facets and word not in contracts and word not in GENERIC:
                hint = suggest(word, facets | contracts.keys())
                table.complain(("reach", index), f"there is no facet or interface {word!r}", hint, code="no-such-facet")
        for index, word in enumerate(excepted):
            if word not in names:
                table.problems.warn(
                    table.place("except", index),
                    f"there is no policy {word!r}",
                    suggest(word, names),
                    code="no-such-policy",
                )
        if name is None:
            continue
        if name in nevers:
            table.complain(
                "id", f"the id {name!r} is taken at {nevers[name].rule}", "give it another", code="duplicate"
            )
        nevers[name] = Never(name, text or "", frozenset(reach), frozenset(excepted), table.where())
    return list(nevers.values())


def check_invariants(nevers: Sequence[Never], policies: Sequence[Policy], problems: Problems) -> None:
    """Note every policy that lets its peer reach what an invariant forbids."""
    for policy in policies:
        held = reachable(policy)
        for never in nevers:
            if policy.name in never.excepted:
                continue
            for facet, rule in held.items():
                if facet in never.reach or policy.offers[facet].interface in never.reach:
                    problems.add(
                        rule,
                        f"policy {policy.name} reaches {facet}, against invariant {never.name} ({never.rule})",
                        never.text.encode("ascii", "backslashreplace").decode(),
                        code="invariant",
                    )


def warn_unused(policy: Policy, shared: Collection[str], problems: Problems) -> None:
    """Warn of facets of the policy's own that the peer can never hold.

    A warning only: an operator who takes a root away in a hurry must not be stopped by what hung on it.
    """
    held = reachable(policy)
    for name, offer in policy.offers.items():
        if name not in held and name not in shared and "/" not in name:
            given = f"no root, restore, lend or result gives the peer the facet {name}"
            problems.warn(offer.rule, given, "use it or delete it", code="unreachable-facet")


def check_references(policy: Policy, contracts: Mapping[str, InterfaceContract] | None, problems: Problems) -> None:
    """Note every granted member that takes a reference for which no accept says what we may do with it."""
    accepted = {interface for interface, _, _ in policy.accepts}
    for offer in policy.offers.values():
        contract = None if contracts is None else contracts.get(offer.interface)
        for key, grant in offer.grants.items():
            declared = None if contract is None else contract.members.get(key)
            place = "" if grant.rule.startswith(f"{policy.file}:") else f" in {policy.file}"
            for parameter in () if declared is None else declared.parameters:
                if parameter.reference is not None and parameter.reference not in accepted:
                    problems.add(
                        grant.rule,
                        f"the peer may pass a {parameter.reference} to {grant.member!r} ({parameter.name}), and "
                        "nothing says what we may do with it",
                        f"write [accept.{parameter.reference}]{place}, or do not grant the member",
                        code="no-accept",
                    )
