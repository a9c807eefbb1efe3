"""``diff``: what changes in what peers may do, whatever the files look like.

Two policies of one peer are walked side by side from their roots and lends. Facets are compared by what they give and
not by name, so that renaming or splitting one is no change, and each pair is compared once. What is new, or wider, is
found wherever it can be reached; ``bounds`` says what "wider" is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime

from caprpc.analysis.authority import (
    Step,
    is_made,
    lend_name,
    lifetime_text,
    limit_text,
    member_name,
    passing_text,
    returned,
    rule_text,
    terms_text,
)
from caprpc.analysis.bounds import Change, compare, lend_no_wider, limit_no_wider, restore_no_wider, rules_no_wider
from caprpc.analysis.changes import Difference, Verdict, directory_changes
from caprpc.policy import NO_PASSING, OPAQUE, Grant, Offer, Policy, PolicySet


def difference(old: PolicySet, new: PolicySet) -> list[Difference]:
    """Return what changes from one set of policies to another, peer by peer."""
    before, after = _by_principal(old), _by_principal(new)
    found: list[Difference] = []
    for peer in sorted(before.keys() | after.keys()):
        olds, news = before.get(peer, {}), after.get(peer, {})
        # What is approved for the peer of one CA is not approved for that of another.
        several = any(len({policy.name for policy in one.values()}) > 1 for one in (olds, news))
        for anchor in sorted(olds.keys() | news.keys()):
            pair = olds.get(anchor), news.get(anchor)
            label = next(f"{peer} (policy {policy.name})" for policy in reversed(pair) if policy is not None)
            found += _Comparison(label if several else peer, anchor, *pair).run()
    return [*_once(found), *directory_changes(old, new)]


def _by_principal(policies: PolicySet) -> dict[str, dict[str, Policy]]:
    found: dict[str, dict[str, Policy]] = {}
    for policy in policies.policies:
        for principal in policy.principals:
            for anchor in policy.anchors:
                found.setdefault(principal, {})[anchor] = policy
    return found


def _once(differences: list[Difference]) -> list[Difference]:
    """Drop what several anchors of one peer repeat."""
    return list(dict.fromkeys(differences))


class _Comparison:
    """Compares what one certificate authority's word for one name lets a peer do, before and after."""

    def __init__(self, peer: str, anchor: str, old: Policy | None, new: Policy | None) -> None:
        self._peer = peer
        self._anchor = anchor
        self._old = old
        self._new = new
        self._found: list[Difference] = []
        self._seen: set[tuple[str, str]] = set()

    def run(self) -> list[Difference]:
        old, new = self._old, self._new
        if old is None and new is not None:
            self._note("new", "identity", "", "", _identity_text(new, self._anchor), "", new.peer_rule)
        elif new is None and old is not None:
            self._note("gone", "identity", "", _identity_text(old, self._anchor), "", old.peer_rule, "")
        self._compare_names()
        self._walk()
        self._compare_counters()
        self._compare_accepts()
        if old is not None and new is not None:
            self._compare_restores(old, new)
            self._compare_frames(old, new)
        return self._found

    def _compare_names(self) -> None:
        """Note each root, restore and lend that is new or gone, with its terms.

        Where two lead to the same facet, what it gives is compared once; each may be another object.
        """
        old, new = ({} if one is None else _named(one) for one in (self._old, self._new))
        for name in dict.fromkeys((*old, *new)):
            if name not in old:
                terms, rule = new[name]
                self._note("new", name, "", "", terms, "", rule)
            elif name not in new:
                terms, rule = old[name]
                self._note("gone", name, "", terms, "", rule, "")

    def _walk(self) -> None:
        """Compare every facet that can be held with the one that the same way led to before."""
        pending = [
            (old, new, "")
            for old, new in self._paired(
                [] if self._old is None else list(_first(self._old)),
                [] if self._new is None else list(_first(self._new)),
            )
        ]
        while pending:
            old_step, new_step, before = pending.pop(0)
            step = new_step or old_step
            if step is None:
                continue
            way = f"{before} > {step.text}" if before else step.text
            old_offer, new_offer = _offer(self._old, old_step), _offer(self._new, new_step)
            names = ("" if old_offer is None else old_offer.name, "" if new_offer is None else new_offer.name)
            if names in self._seen:
                continue
            self._seen.add(names)
            self._compare_facets(old_offer, new_offer, way)
            pending += [
                (one, other, way)
                for one, other in self._paired(
                    [] if old_offer is None else list(returned(old_offer)),
                    [] if new_offer is None else list(returned(new_offer)),
                )
            ]

    @staticmethod
    def _paired(old: list[Step], new: list[Step]) -> Iterator[tuple[Step | None, Step | None]]:
        before = {step.text: step for step in old}
        after = {step.text: step for step in new}
        for text in dict.fromkeys((*before, *after)):
            yield before.get(text), after.get(text)

    def _compare_facets(self, old: Offer | None, new: Offer | None, way: str) -> None:
        if old is not None and new is not None and old.interface != new.interface:
            self._compare_facets(old, None, way)
            old = None
        before: Mapping[tuple[int, str], Grant] = {} if old is None else old.grants
        after: Mapping[tuple[int, str], Grant] = {} if new is None else new.grants
        offer = new or old
        if offer is None:
            return
        if old is not None and new is not None:
            self._compare_whole(old, new, way)
        self._compare_passing(old, new, way)
        for key in dict.fromkeys((*before, *after)):
            subject = member_name(offer.interface, *key)
            one, other = before.get(key), after.get(key)
            if one is None and other is not None:
                self._note("new", subject, way, "", _grant_text(other), "", other.rule)
            elif other is None and one is not None:
                self._note("gone", subject, way, _grant_text(one), "", one.rule, "")
            elif one is not None and other is not None:
                self._compare_grants(subject, way, one, other)

    def _compare_counters(self) -> None:
        """Note facets that were split: what counted calls together counts them apart, and lets more through."""
        apart: dict[str, set[str]] = {}
        for was, now in self._seen:
            if was and now and "/" not in was:
                apart.setdefault(was, set()).add(now)
        for was, names in sorted(apart.items()):
            if self._old is None or self._new is None or len(names) == 1:
                continue
            old = self._old.offers[was]
            if not _is_counted(old):
                continue
            text = ", ".join(sorted(names))
            rules = (old.limit_rule or old.rule, self._new.offers[min(names)].rule)
            self._note("wider", f"{old.interface}: counters of facet {was}", "", "one for all ways", text, *rules)

    def _compare_whole(self, old: Offer, new: Offer, way: str) -> None:
        """Compare the limits that all members of a facet share; iterators have those of what they come from."""
        if "/" in new.name:
            return
        change = compare(forward=limit_no_wider(new.limit, old.limit), backward=limit_no_wider(old.limit, new.limit))
        if change is not Change.SAME:
            verdict: Verdict = "wider" if change is Change.WIDER else "narrower"
            was, now = limit_text(old.limit) or "none", limit_text(new.limit) or "none"
            rules = (old.limit_rule or old.rule, new.limit_rule or new.rule)
            self._note(verdict, f"{new.interface}: limits of the facet", way, was, now, *rules)

    def _compare_passing(self, old: Offer | None, new: Offer | None, way: str) -> None:
        """Compare what crosses more than one connection under a facet; its iterators have the same."""
        offer = new or old
        before, after = NO_PASSING if old is None else old.passing, NO_PASSING if new is None else new.passing
        if offer is None or "/" in offer.name or before == after:
            return
        verdict: Verdict = "narrower" if after.within(before) == after else "wider"
        was = "" if old is None else passing_text(old) or "none"
        now = "" if new is None else passing_text(new) or "none"
        rules = ("" if old is None else old.rule, "" if new is None else new.rule)
        self._note(verdict, f"{offer.interface}: passing on", way, was, now, *rules)

    def _compare_restores(self, old: Policy, new: Policy) -> None:
        """Compare on which terms the same sturdy references may be restored."""
        for name, entry in new.restores.items():
            before = old.restores.get(name)
            if before is None:
                continue
            change = compare(forward=restore_no_wider(entry, before), backward=restore_no_wider(before, entry))
            if change is not Change.SAME:
                verdict: Verdict = "wider" if change is Change.WIDER else "narrower"
                was, now = terms_text(before) or " without end", terms_text(entry) or " without end"
                rules = (before.rule, entry.rule)
                self._note(verdict, f"restore {name}", "", was.lstrip(", "), now.lstrip(", "), *rules)

    def _compare_grants(self, subject: str, way: str, old: Grant, new: Grant) -> None:
        rules = compare(
            forward=rules_no_wider(new.arguments, old.arguments), backward=rules_no_wider(old.arguments, new.arguments)
        )
        self._weigh(rules, f"{subject}: arguments", way, rule_text(old) or "any", rule_text(new) or "any", old, new)
        limits = compare(forward=limit_no_wider(new.limit, old.limit), backward=limit_no_wider(old.limit, new.limit))
        self._weigh(
            limits,
            f"{subject}: limits",
            way,
            limit_text(old.limit) or "none",
            limit_text(new.limit) or "none",
            old,
            new,
        )
        if _kind(old) != _kind(new):
            # What a facet gives is compared where it leads; here only whether a reference comes out at all.
            change = Change.WIDER if _kind(new) > _kind(old) else Change.NARROWER
            self._weigh(change, f"{subject}: result", way, _result(old), _result(new), old, new)
        if old.record != new.record:
            was, now = ", ".join(sorted(old.record)) or "none", ", ".join(sorted(new.record)) or "none"
            self._note("changed", f"{subject}: recorded arguments", way, was, now, old.rule, new.rule)

    def _weigh(self, change: Change, subject: str, way: str, was: str, now: str, old: Grant, new: Grant) -> None:
        if change is Change.WIDER:
            self._note("wider", subject, way, was, now, old.rule, new.rule)
        elif change is Change.NARROWER:
            self._note("narrower", subject, way, was, now, old.rule, new.rule)

    def _compare_accepts(self) -> None:
        before = {} if self._old is None else self._old.accepts
        after = {} if self._new is None else self._new.accepts
        for key in dict.fromkeys((*before, *after)):
            subject = f"accept {member_name(*key)}"
            if key not in before:
                self._note("new", subject, "", "", "we may", "", after[key].rule)
            elif key not in after:
                self._note("gone", subject, "", "we may", "", before[key].rule, "")
        self._compare_lends()

    def _compare_lends(self) -> None:
        old, new = self._old, self._new
        if old is None or new is None:
            return
        for key, lend in new.lends.items():
            before = old.lends.get(key)
            if before is None or not is_made(old, before) or not is_made(new, lend):
                continue
            change = compare(forward=lend_no_wider(lend, before), backward=lend_no_wider(before, lend))
            if change is not Change.SAME:
                verdict: Verdict = "wider" if change is Change.WIDER else "narrower"
                was, now = lifetime_text(before), lifetime_text(lend)
                self._note(verdict, f"lend {lend_name(lend)}", "", was, now, before.rule, lend.rule)

    def _compare_frames(self, old: Policy, new: Policy) -> None:
        """Compare what surrounds the grants: validity, limits of the connection, audit, and words for the reader."""
        rules = (old.peer_rule, new.peer_rule)
        if old.not_after != new.not_after:
            longer = new.not_after is None or (old.not_after is not None and new.not_after > old.not_after)
            verdict: Verdict = "wider" if longer else "narrower"
            self._note(verdict, "not_after", "", _moment(old.not_after), _moment(new.not_after), *rules)
        if old.not_before != new.not_before:
            earlier = new.not_before is None or (old.not_before is not None and new.not_before < old.not_before)
            was, now = _moment(old.not_before, "at once"), _moment(new.not_before, "at once")
            self._note("wider" if earlier else "narrower", "not_before", "", was, now, *rules)
        before, after = asdict(old.limits), asdict(new.limits)
        before["connections"], after["connections"] = old.connections, new.connections
        for name, bound in after.items():
            was = before[name]
            if was != bound:
                more = bound is None or (was is not None and bound > was)
                self._note("wider" if more else "narrower", f"limits.{name}", "", str(was), str(bound), *rules)
        for name, was, now in (
            ("audit.level", old.audit_level, new.audit_level),
            ("audit.durability", old.audit_durability, new.audit_durability),
            ("audit.arguments", old.audit_arguments, new.audit_arguments),
            ("name", old.name, new.name),
            ("owner", old.owner, new.owner),
            ("reason", old.reason, new.reason),
            ("tags", ", ".join(old.tags), ", ".join(new.tags)),
        ):
            if was != now:
                self._note("changed", name, "", was, now, *rules)

    def _note(self, verdict: Verdict, subject: str, way: str, old: str, new: str, old_rule: str, new_rule: str) -> None:
        self._found.append(Difference(verdict, self._peer, subject, way, old, new, old_rule, new_rule))


def _first(policy: Policy) -> Iterator[Step]:
    """Yield the first references under names that do not hold their terms, which are compared by themselves."""
    for root in policy.roots.values():
        yield Step(f"root {root.name}", root.facet, root.rule)
    for entry in policy.restores.values():
        yield Step(f"restore {entry.name}", entry.facet, entry.rule)
    for lend in policy.lends.values():
        if is_made(policy, lend):
            yield Step(f"lent to {lend_name(lend)}", lend.facet, lend.rule)


def _named(policy: Policy) -> dict[str, tuple[str, str]]:
    """Return facet and terms, and the rule, of each name under which the peer comes to hold something first."""
    terms = {f"restore {entry.name}": terms_text(entry) for entry in policy.restores.values()}
    terms |= {f"lent to {lend_name(lend)}": f" {lifetime_text(lend)}" for lend in policy.lends.values()}
    return {step.text: (f"{step.facet}{terms.get(step.text, '')}", step.rule) for step in _first(policy)}


def _identity_text(policy: Policy, anchor: str) -> str:
    begins = "" if policy.not_before is None else f", from {_moment(policy.not_before)}"
    ends = "without end" if policy.not_after is None else f"until {_moment(policy.not_after)}"
    return f"{policy.name}, issued by {anchor}{begins}, {ends}"


def _is_counted(offer: Offer) -> bool:
    return offer.limit.is_counted or any(grant.limit.is_counted for grant in offer.grants.values())


def _offer(policy: Policy | None, step: Step | None) -> Offer | None:
    return None if policy is None or step is None else policy.offers.get(step.facet)


def _kind(grant: Grant) -> int:
    """Rank a result: 0 for no reference, 1 for an opaque one, 2 for one that can be used."""
    return 0 if grant.returns is None else 1 if grant.returns == OPAQUE else 2


def _result(grant: Grant) -> str:
    return grant.returns or "values only"


def _grant_text(grant: Grant) -> str:
    parts = [rule_text(grant), limit_text(grant.limit), f"returns {grant.returns}" if grant.returns else ""]
    return "; ".join(part for part in parts if part) or "unrestricted"


def _moment(moment: datetime | None, otherwise: str = "never") -> str:
    return otherwise if moment is None else moment.isoformat()
