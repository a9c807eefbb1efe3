"""``learn``: the text of a policy that gives no more than what was used."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict
from typing import Final

from caprpc.analysis.authority import lend_name, number_text, quoted, rule_toml
from caprpc.analysis.usage import Need
from caprpc.ids import OP_CALL, OP_COMPARE, OP_GET, OP_NEXT, OP_SET
from caprpc.limits import DEFAULT_LIMITS
from caprpc.policy import ENDINGS, OPAQUE, Key, Lend, MemberLimit, Offer, Policy, grant_line, grant_word

_WORDS: Final = {OP_CALL: "call", OP_GET: "get", OP_SET: "set", OP_COMPARE: "compare"}


def draft(policy: Policy, roots: set[str], facets: Mapping[str, Need]) -> str:
    """Return the text of a narrower policy: the peer, roots, members and limits of ``policy`` that were used.

    Constraints and accepts are carried over: a log shows what was done, and not what must never be done. A reference
    of which nothing was used is handed out as opaque.
    """
    kept = {facet.removesuffix("/iterator") for facet, need in facets.items() if need.used}
    lines = list(_head(policy))
    used_roots = [name for name in sorted(roots) if policy.roots[name].facet in kept]
    if used_roots:
        lines += ["", "[roots]", *(f'{name} = "{policy.roots[name].facet}"' for name in used_roots)]
    for entry in policy.restores.values():
        if entry.facet in kept:
            lines += ["", f"[restore.{entry.name}]", f'as = "{entry.facet}"', *["bearer = true"] * entry.bearer]
            lines += [] if entry.max_for_s is None else [f"max_for_s = {number_text(entry.max_for_s)}"]
    for facet in policy.offers:
        if facet in kept:
            lines += _offer(policy, facet, facets, kept)
    lines += _accepts(policy)
    for lend in policy.lends.values():
        if lend.facet in kept:
            lines += _lend(lend)
        else:
            lines += ["", f"# Of what was lent to {lend_name(lend)} as {lend.facet}, nothing was used."]
    lines += _limits(policy)
    lines += ["", "[audit]", f'level = "{policy.audit_level}"']
    lines += [f'durability = "{policy.audit_durability}"'] if policy.audit_durability != "os" else []
    lines += [f'arguments = "{policy.audit_arguments}"'] if policy.audit_arguments != "none" else []
    return "\n".join(lines) + "\n"


def _head(policy: Policy) -> Iterator[str]:
    yield "# Drafted from a log: least privilege for what was seen. Review each line; add what the log cannot know."
    yield "caprpc = 1"
    yield 'kind   = "policy"'
    yield f'name   = "{policy.name}"'
    yield f"owner  = {quoted(policy.owner or 'nobody yet')}"
    yield f"reason = {quoted(policy.reason or 'learned from a log')}"
    if policy.tags:
        yield f"tags   = [{', '.join(quoted(tag) for tag in policy.tags)}]"
    if policy.not_before is not None:
        yield f"not_before = {policy.not_before.isoformat()}"
    if policy.not_after is not None:
        yield f"not_after = {policy.not_after.isoformat()}"
    yield ""
    yield "[peer]"
    yield f"ca     = [{', '.join(quoted(anchor) for anchor in sorted(policy.anchors))}]"
    yield f"spiffe = [{', '.join(quoted(principal) for principal in sorted(policy.principals))}]"


def _offer(policy: Policy, facet: str, facets: Mapping[str, Need], kept: set[str]) -> Iterator[str]:
    offer = policy.offers[facet]
    need = facets.get(facet)
    used: set[Key] = set() if need is None else set(need.used)
    iterated = facets.get(f"{facet}/iterator")
    keys = [key for key in offer.grants if key in used]
    yield ""
    if not offer.rule.startswith(f"{policy.file}:"):
        yield f"# Shared until now ({offer.rule}): rename it, or take it out there, for a name stands only once."
    yield f"[offer.{facet}]"
    yield f'interface = "{offer.interface}"'
    yield from _passing(offer)
    for operation, word in _WORDS.items():
        names = [name for code, name in keys if code == operation]
        if names:
            yield f"{word} = [{', '.join(quoted(name) for name in names)}]"
    flags = dict.fromkeys(grant_line(*key) for key in keys if key[0] not in _WORDS)
    if iterated is not None:
        flags.setdefault("iterate = true")
    yield from flags
    yield from _narrowing(policy, facet, keys, flags.keys(), kept)


def _passing(offer: Offer) -> Iterator[str]:
    if offer.passing.onward:
        yield "forward = true"
    if offer.passing.sources:
        yield f"forward_from = [{', '.join(map(quoted, sorted(offer.passing.sources)))}]"


def _narrowing(policy: Policy, facet: str, keys: list[Key], flags: Set[str], kept: Set[str]) -> Iterator[str]:
    """Yield the tables that narrow what is kept: none of them may get lost, or the draft would give more."""
    # ``context`` and ``iterate`` stand for two operations each: what narrows both is said of the one that does not end.
    ended = {grant_word(*key) for key in keys if key[0] in ENDINGS}
    grants = {
        grant_word(*key): grant
        for key, grant in policy.offers[facet].grants.items()
        if key[0] not in ENDINGS and (key in keys or (not key[1] and grant_word(*key) in ended))
    }
    iterators = policy.offers.get(f"{facet}/iterator")
    iterated = bool(flags & {"iterate = true"})
    if iterated and iterators is not None:
        # Iterators that members return take the limits of ``iterate``, whether or not that is granted itself.
        grants.setdefault("iterate", iterators.grants[OP_NEXT, ""])
    if bounds := _bounds(policy.offers[facet].limit):
        yield f"[offer.{facet}.limit]"
        yield from bounds
    for word, grant in grants.items():
        if grant.arguments:
            yield f"[offer.{facet}.args.{word}]"
            yield from (f"{parameter} = {rule_toml(rule)}" for parameter, rule in grant.arguments.items())
        if bounds := _bounds(grant.limit):
            yield f"[offer.{facet}.limit.{word}]"
            yield from bounds
    results = {word: grant.returns for word, grant in grants.items() if grant.returns is not None}
    written = {
        word: result if result in kept else OPAQUE
        for word, result in results.items()
        if not (iterated and "/" in result)
    }
    if written:
        yield f"[offer.{facet}.returns]"
        yield from (f'{word} = "{result}"' for word, result in written.items())
    recorded = {word: grant.record for word, grant in grants.items() if grant.record}
    if recorded:
        yield f"[offer.{facet}.record]"
        yield from (f"{word} = [{', '.join(map(quoted, sorted(names)))}]" for word, names in recorded.items())


def _bounds(limit: MemberLimit) -> list[str]:
    return [f"{name} = {bound}" for name, bound in asdict(limit).items() if bound is not None]


def _limits(policy: Policy) -> list[str]:
    defaults = asdict(DEFAULT_LIMITS)
    chosen = {name: bound for name, bound in asdict(policy.limits).items() if bound != defaults[name]}
    if policy.connections is not None:
        chosen["connections"] = policy.connections
    return ["", "[limits]", *(f"{name} = {bound}" for name, bound in chosen.items())] if chosen else []


def _accepts(policy: Policy) -> Iterator[str]:
    tables: dict[str, list[Key]] = {}
    for interface, operation, member in policy.accepts:
        if operation:
            tables.setdefault(interface, []).append((operation, member))
    for interface, keys in tables.items():
        lines = [
            f"{word} = [{', '.join(quoted(name) for code, name in keys if code == operation)}]"
            for operation, word in _WORDS.items()
            if any(code == operation for code, _ in keys)
        ]
        lines += dict.fromkeys(grant_line(*key) for key in keys if key[0] not in _WORDS)
        if any(lines):
            yield ""
            yield f"[accept.{interface}]"
            yield from (line for line in lines if line)


def _lend(lend: Lend) -> Iterator[str]:
    yield ""
    yield "[[lend]]"
    yield f'to       = "{lend.interface}.{lend.member}"'
    yield f'param    = "{lend.parameter}"'
    yield f'as       = "{lend.facet}"'
    yield f"lifetime = {quoted(lend.lifetime) if isinstance(lend.lifetime, str) else number_text(lend.lifetime)}"
    if lend.max_uses is not None:
        yield f"max_uses = {lend.max_uses}"
