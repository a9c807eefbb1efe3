"""``learn``: the text of a policy that gives no more than what was used."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Final

from caprpc.analysis.authority import quoted, rule_toml
from caprpc.analysis.usage import Need, returned_facets
from caprpc.ids import OP_CALL, OP_GET, OP_SET
from caprpc.policy import OPAQUE, Key, Lend, Policy, grant_line

_WORDS: Final = {OP_CALL: "call", OP_GET: "get", OP_SET: "set"}


def draft(policy: Policy, roots: set[str], facets: Mapping[str, Need]) -> str:
    """Return the text of a narrower policy: the peer, roots, members and limits of ``policy`` that were used.

    Constraints, accepts and lends are carried over: a log shows what was done, and not what must never be done.
    """
    kept = {facet for facet in facets if "/" not in facet}
    for need in facets.values():
        kept |= {facet for facet in returned_facets(need.offer, need.used) if "/" not in facet}
    kept |= {policy.roots[name].facet for name in roots} | {lend.facet for lend in policy.lends.values()}
    lines = [*_head(policy), "", "[roots]"] if roots else list(_head(policy))
    lines += [f'{name} = "{policy.roots[name].facet}"' for name in sorted(roots)]
    for facet in policy.offers:
        if facet in kept and "/" not in facet:
            lines += _offer(policy, facet, facets)
    lines += _accepts(policy)
    for lend in policy.lends.values():
        lines += _lend(lend)
    lines += ["", "[audit]", f'level = "{policy.audit_level}"']
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
    if policy.not_after is not None:
        yield f"not_after = {policy.not_after.isoformat()}"
    yield ""
    yield "[peer]"
    yield f"ca     = [{', '.join(quoted(anchor) for anchor in sorted(policy.anchors))}]"
    yield f"spiffe = [{', '.join(quoted(principal) for principal in sorted(policy.principals))}]"


def _offer(policy: Policy, facet: str, facets: Mapping[str, Need]) -> Iterator[str]:
    offer = policy.offers[facet]
    need = facets.get(facet)
    used: set[Key] = set() if need is None else set(need.used)
    iterated = facets.get(f"{facet}/iterator")
    keys = [key for key in offer.grants if key in used]
    if not keys and iterated is None:
        yield ""
        yield f"# {facet}: held, and nothing of it was used; hand it out as {OPAQUE!r} instead."
    yield ""
    yield f"[offer.{facet}]"
    yield f'interface = "{offer.interface}"'
    for operation, word in _WORDS.items():
        names = [name for code, name in keys if code == operation]
        if names:
            yield f"{word} = [{', '.join(quoted(name) for name in names)}]"
    flags = dict.fromkeys(grant_line(*key) for key in keys if key[0] not in _WORDS)
    if iterated is not None:
        flags.setdefault("iterate = true")
    yield from flags
    yield from _narrowing(policy, facet, keys)


def _narrowing(policy: Policy, facet: str, keys: list[Key]) -> Iterator[str]:
    """Yield the tables that narrow what is kept: none of them may get lost, or the draft would give more."""
    grants = {_word(key): policy.offers[facet].grants[key] for key in keys}
    for word, grant in grants.items():
        if grant.arguments:
            yield f"[offer.{facet}.args.{word}]"
            yield from (f"{parameter} = {rule_toml(rule)}" for parameter, rule in grant.arguments.items())
        bounds = {name: bound for name, bound in asdict(grant.limit).items() if bound is not None}
        if bounds:
            yield f"[offer.{facet}.limit.{word}]"
            yield from (f"{name} = {bound}" for name, bound in bounds.items())
    results = {word: grant.returns for word, grant in grants.items()}
    written = {word: result for word, result in results.items() if result is not None and "/" not in result}
    if written:
        yield f"[offer.{facet}.returns]"
        yield from (f'{word} = "{result}"' for word, result in written.items())
    recorded = {word: grant.record for word, grant in grants.items() if grant.record}
    if recorded:
        yield f"[offer.{facet}.record]"
        yield from (f"{word} = [{', '.join(map(quoted, sorted(names)))}]" for word, names in recorded.items())


def _word(key: Key) -> str:
    return key[1] or grant_line(*key).partition(" ")[0]


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
    yield f"lifetime = {quoted(lend.lifetime) if isinstance(lend.lifetime, str) else f'{lend.lifetime:g}'}"
    if lend.max_uses is not None:
        yield f"max_uses = {lend.max_uses}"
