"""What a difference is, and those in what surrounds the policies: invariants, the list of the revoked, contracts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from caprpc.analysis.authority import member_name, rights_of
from caprpc.contract import MemberContract
from caprpc.policy import PolicySet
from caprpc.policy.invariants import Never

Verdict = Literal["new", "wider", "changed", "narrower", "gone"]
"""``changed``: it lets nobody do more, such as another owner or audit level ``outcome``."""

WIDENING: Final = frozenset({"new", "wider"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One change in what one peer may do, or in what we may do with what is the peer's."""

    verdict: Verdict
    peer: str
    subject: str
    """What changed: ``call Ledger.post``, ``identity``, ``accept BalanceSink.update``, ``limits.in_flight``."""
    way: str
    """How the peer comes to it: ``root ledger > call history``; empty where that says nothing."""
    old: str
    new: str
    old_rule: str
    new_rule: str

    @property
    def key(self) -> str:
        """What an approval names: everything but the lines of the files."""
        return f"{self.verdict} {self.peer} {self.subject} [{self.way}] {self.old} -> {self.new}"


ALL: Final = "all peers"
"""Stands for the peer where a change is about none of them alone."""
_INDEX: Final = "caprpc.toml"


def directory_changes(old: PolicySet, new: PolicySet) -> Iterator[Difference]:
    """Yield what changes besides the policies of single peers."""
    yield from _nevers(old, new)
    if (old.revoked_file is None) != (new.revoked_file is None):
        # Who stands on a list that is not read any more may come back.
        verdict: Verdict = "narrower" if new.revoked_file else "wider"
        was, now = ("a list" if one.revoked_file else "" for one in (old, new))
        yield Difference(verdict, ALL, "revoked", "", was, now, _INDEX, _INDEX)
    yield from _contracts(old, new)


def _nevers(old: PolicySet, new: PolicySet) -> Iterator[Difference]:
    """Yield invariants that are gone, new or worded otherwise: they permit nothing, and keep others from doing so."""
    before = {never.name: never for never in old.nevers}
    after = {never.name: never for never in new.nevers}
    for name in dict.fromkeys((*before, *after)):
        one, other = before.get(name), after.get(name)
        was, now = _never_text(one), _never_text(other)
        if was != now:
            rules = ("" if one is None else one.rule, "" if other is None else other.rule)
            yield Difference("changed", ALL, f"never {name}", "", was, now, *rules)


def _never_text(never: Never | None) -> str:
    if never is None:
        return ""
    return f"{', '.join(sorted(never.reach))} but for {', '.join(sorted(never.excepted)) or 'nobody'}"


def _contracts(old: PolicySet, new: PolicySet) -> Iterator[Difference]:
    """Yield members that somebody may use before and after, and that are declared otherwise.

    What a declaration takes is not compared: another one may take more, and is wider.
    """
    granted = _granted(old)
    for (interface, key), rule in _granted(new).items():
        before, after = _declared(old, interface, key), _declared(new, interface, key)
        if (interface, key) not in granted or before is None or after is None:
            continue
        rules = (granted[interface, key], rule)
        name = member_name(interface, *key)
        was, now = _signature(before), _signature(after)
        if was != now:
            yield Difference("wider", ALL, f"{name}: declaration", "", was, now, *rules)
        was, now = _nature(before), _nature(after)
        if was != now:
            yield Difference("changed", ALL, f"{name}: declared as", "", was, now, *rules)


def _granted(policies: PolicySet) -> dict[tuple[str, tuple[int, str]], str]:
    found: dict[tuple[str, tuple[int, str]], str] = {}
    for policy in policies.policies:
        for right in rights_of(policy):
            grant = right.grant
            found.setdefault((right.held.offer.interface, (grant.operation, grant.member)), grant.rule)
    return found


def _declared(policies: PolicySet, interface: str, key: tuple[int, str]) -> MemberContract | None:
    contract = policies.contracts.get(interface)
    return None if contract is None else contract.members.get(key)


def _signature(member: MemberContract) -> str:
    parameters = (f"{one.name}: {one.type}{'' if one.required else ' = ...'}" for one in member.parameters)
    return f"({', '.join(parameters)}) -> {member.returns}"


def _nature(member: MemberContract) -> str:
    kept = [one.name for one in member.parameters if one.sensitive]
    parts = [member.effect, "idempotent" if member.idempotent else "", f"sensitive {', '.join(kept)}" if kept else ""]
    return ", ".join(part for part in parts if part)
