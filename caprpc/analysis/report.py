"""The report: one static HTML file that an auditor can mail, with everything the files say of each peer."""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Final

from caprpc.analysis.authority import (
    accepted_of,
    held_by,
    is_made,
    lend_name,
    lifetime_text,
    member_name,
    passing_text,
    rights_of,
    rule_text,
)
from caprpc.analysis.changes import Difference
from caprpc.analysis.graph import drawing
from caprpc.analysis.usage import Unused
from caprpc.errors import printable
from caprpc.ids import OPERATION_NAMES
from caprpc.policy import Policy, PolicySet

_EFFECTS: Final = ("admin", "write", "read")
"""What matters most stands first."""
_DIGEST: Final = re.compile(r"[0-9a-f]{40}")
_EXPIRES_SOON: Final = timedelta(days=30)
_COLUMNS: Final = 6
"""Policies side by side in the matrix: as many as fit on a page, and on a screen of 1,280 pixels."""

_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; margin: 2rem auto; max-width: 1180px; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d0d7de; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; } p, ul { margin: .4rem 0; } ul { padding-left: 1.3rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; font-size: .86rem; }
th, td { border: 1px solid #d0d7de; padding: .3rem .5rem; text-align: left; vertical-align: top; }
td { overflow-wrap: break-word; } td b, td span { white-space: nowrap; }
th { background: #f3f5f7; font-weight: 600; } .who { overflow-wrap: anywhere; }
td.yes { background: #e6f2ff; text-align: center; font-weight: 600; } td.no { color: #8a929b; text-align: center; }
td.some { background: #fff6d9; text-align: center; font-weight: 600; }
code { font: .92em ui-monospace, monospace; } .rule { color: #57606a; white-space: nowrap; }
.read { color: #1a5e20; } .write { color: #8a4b00; } .admin { color: #a40e26; font-weight: 600; }
.wide { color: #a40e26; font-weight: 600; } .muted { color: #57606a; } .drawing { overflow-x: auto; }
svg { max-width: 100%; height: auto; } svg text { font: 13px system-ui, sans-serif; } svg .name { font-weight: 600; }
svg .kind, svg .label { fill: #57606a; font-size: 12px; }
svg .label { paint-order: stroke; stroke: #fff; stroke-width: 5px; } svg rect { fill: #fff; stroke: #57606a; }
svg rect.peer { fill: #e6f2ff; } svg .arrow { fill: none; stroke: #57606a; stroke-width: 1.3; }
@page { size: A4 landscape; margin: 14mm; }
@media print {
  body { margin: 0; max-width: none; padding: 0; font-size: 10.5pt; print-color-adjust: exact; }
  table { font-size: 8.5pt; }
  h2 { break-after: avoid; } tr, svg { break-inside: avoid; }
  section.peer { break-before: page; }
}
"""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a report is made of besides the policies.

    Attributes:
        now: The time, with its offset from UTC.
        changes: Differences from an older version; None if none was given to compare with.
        compared: What the changes are from, such as ``version 6``.
        unused: What a log says was never used; None if no log was given.
    """

    now: datetime
    changes: Sequence[Difference] | None = None
    compared: str = ""
    unused: Sequence[Unused] | None = None


def html_report(policies: PolicySet, sources: Sources) -> str:
    """Return the report: no scripts, nothing from elsewhere, and a content security policy that holds it to that."""
    style_hash = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    security = f"default-src 'none'; style-src 'sha256-{style_hash}'; base-uri 'none'; form-action 'none'"
    body = "\n".join(_body(policies, sources))
    title = f"What peers may do: {printable(policies.directory.resolve().name)}, version {policies.version}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{security}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _body(policies: PolicySet, sources: Sources) -> Iterator[str]:
    stamp = sources.now.strftime("%Y-%m-%d %H:%M UTC")
    count = len(policies.policies)
    yield (
        f'<p class="muted">{count} {"policy" if count == 1 else "policies"} · {stamp} · digest '
        f"<code>{escape(policies.digest)}</code>. Worked out from the files alone; what is not listed is denied.</p>"
    )
    yield from _expiries(policies, sources.now)
    yield from _matrix(policies)
    yield from _invariants(policies)
    yield from _changes(sources)
    yield from _unused(sources)
    for policy in policies.policies:
        yield from _peer(policies, policy)


def _expiries(policies: PolicySet, now: datetime) -> Iterator[str]:
    yield "<h2>Policies and how long they hold</h2>"
    rows = []
    for policy in policies.policies:
        if policy.not_after is None:
            until = "without end"
        else:
            left = policy.not_after - now
            mark = " <b class='wide'>(ended)</b>" if left <= timedelta() else ""
            mark = mark or (f" <b class='wide'>({left.days} days)</b>" if left < _EXPIRES_SOON else "")
            until = f"{policy.not_after:%Y-%m-%d}{mark}"
        peers = "<br>".join(f"<code>{_soft(peer)}</code>" for peer in sorted(policy.principals))
        rows.append((f"<b>{escape(policy.name)}</b>", peers, escape(policy.owner), escape(policy.reason), until))
    yield _table(("policy", "peers", "owner", "reason", "until"), rows)


def _matrix(policies: PolicySet) -> Iterator[str]:
    yield "<h2>Who may use what</h2>"
    yield (
        "<p>Every member that the contracts declare, with its effect; "
        "<b>yes</b>, <b>limited</b> by rules for arguments or rates, or <span class='muted'>no</span>.</p>"
    )
    rights: dict[str, dict[str, bool]] = {policy.name: {} for policy in policies.policies}
    for policy in policies.policies:
        for right in rights_of(policy):
            narrowed = bool(right.grant.arguments) or bool(right.limits)
            rights[policy.name][right.name] = rights[policy.name].get(right.name, True) and narrowed
    declared = [
        (_rank(member.effect), member_name(interface, *key), member.effect)
        for interface, contract in policies.contracts.items()
        for key, member in contract.members.items()
    ]
    nobody = {name for _, name, _ in declared if not any(name in held for held in rights.values())}
    for start in range(0, len(policies.policies), _COLUMNS):
        shown = policies.policies[start : start + _COLUMNS]
        rows = [
            (
                f"<code>{escape(name)}</code>",
                _effect(effect),
                *(_mark(rights[policy.name].get(name)) for policy in shown),
                "nobody" if name in nobody else "",
            )
            for _, name, effect in sorted(declared)
        ]
        names = (f'<span class="who">{escape(policy.name)}</span>' for policy in shown)
        yield _table(("member", "effect", *names, ""), rows)


def _effect(effect: str) -> str:
    return f'<span class="{escape(effect)}">{escape(effect)}</span>'


def _mark(narrowed: bool | None) -> str:
    if narrowed is None:
        return "no"
    return "limited" if narrowed else "yes"


def _rank(effect: str) -> int:
    return _EFFECTS.index(effect) if effect in _EFFECTS else len(_EFFECTS)


def _invariants(policies: PolicySet) -> Iterator[str]:
    yield "<h2>What must never happen</h2>"
    if not policies.nevers:
        yield "<p>No invariants are written down.</p>"
        return
    rows = [
        (
            f"<b>{escape(never.name)}</b>",
            escape(never.text),
            f"<code>{escape(', '.join(sorted(never.reach)))}</code>",
            escape(", ".join(sorted(never.excepted)) or "nobody"),
            _rule(never.rule),
        )
        for never in policies.nevers
    ]
    yield _table(("id", "invariant", "out of reach", "but for", "rule"), rows)
    yield "<p>All of them hold: these files would not load otherwise.</p>"


def _changes(sources: Sources) -> Iterator[str]:
    if sources.changes is None:
        yield '<h2>Changes</h2>\n<p class="muted">No older version was given to compare with.</p>'
        return
    yield f"<h2>Changes since {escape(sources.compared)}</h2>"
    if not sources.changes:
        yield "<p>Nobody may do more or less than then.</p>"
        return
    rows = [
        (
            f'<span class="{"wide" if one.verdict in ("new", "wider") else ""}">{one.verdict}</span>',
            f"<code>{_soft(one.peer)}</code>",
            escape(one.subject),
            escape(one.way),
            _soft(one.old),
            _soft(one.new),
            _rule(one.new_rule or one.old_rule),
        )
        for one in sources.changes
    ]
    yield _table(("", "peer", "what", "through", "before", "now", "rule"), rows)


def _unused(sources: Sources) -> Iterator[str]:
    if sources.unused is None:
        yield '<h2>Never used</h2>\n<p class="muted">No audit log was given to compare with.</p>'
        return
    yield "<h2>Never used, as far as the log goes</h2>"
    if not sources.unused:
        yield "<p>Everything was used.</p>"
        return
    yield _table(("what", "", "rule"), [(one.kind, escape(one.text), _rule(one.where)) for one in sources.unused])


def _peer(policies: PolicySet, policy: Policy) -> Iterator[str]:
    yield f'<section class="peer"><h2>{escape(policy.name)}</h2>'
    anchors = " or ".join(f"<code>{_soft(anchor)}</code>" for anchor in sorted(policy.anchors))
    yield f'<p class="muted">Whose certificate is issued under the CA key {anchors}.</p>'
    picture = drawing(policy)
    yield f'<div class="drawing">{picture}</div>' if picture else "<p>The peer can come to hold nothing of ours.</p>"
    rows = []
    for right in rights_of(policy):
        contract = policies.contracts.get(right.held.offer.interface)
        declared = None if contract is None else contract.members.get((right.grant.operation, right.grant.member))
        effect = "" if declared is None else declared.effect
        rows.append(
            (
                f"<code>{escape(right.name)}</code>",
                _effect(effect),
                escape(rule_text(right.grant) or "any"),
                escape(right.limits or "none"),
                _soft(right.grant.returns or "values"),
                escape(right.held.way),
                _rule(right.grant.rule),
            )
        )
    if rows:
        yield "<h3>What the peer may do</h3>"
        yield _table(("member", "effect", "arguments", "limits", "gives", "through", "rule"), rows)
    yield from _passing(policy)
    yield from _given(policy)
    held = held_by(policy)
    unheld = [offer for name, offer in policy.offers.items() if name not in held and "/" not in name]
    if unheld:
        names = ", ".join(f"{escape(offer.name)} ({escape(offer.rule)})" for offer in unheld)
        yield f'<p class="muted">Written down and out of reach: {names}.</p>'
    yield "</section>"


def _passing(policy: Policy) -> Iterator[str]:
    rows = [
        (escape(held.offer.name), escape(held.offer.interface), _soft(passing_text(held.offer)), _rule(held.offer.rule))
        for held in held_by(policy).values()
        if "/" not in held.offer.name and passing_text(held.offer)
    ]
    if rows:
        yield "<h3>What crosses more than one connection</h3>"
        yield _table(("facet", "interface", "", "rule"), rows)


def _given(policy: Policy) -> Iterator[str]:
    lends = [
        (
            escape(lend_name(lend)),
            escape(lend.facet),
            escape(_members(policy, lend.facet)),
            escape(lifetime_text(lend))
            + ("" if is_made(policy, lend) else " <b>(never: the call is not accepted)</b>"),
            _rule(lend.rule),
        )
        for lend in policy.lends.values()
    ]
    if lends:
        yield "<h3>What we lend to the peer</h3>"
        yield _table(("to the parameter", "as", "with which it may", "for how long", "rule"), lends)
    accepted = list(accepted_of(policy))
    if accepted:
        yield "<h3>What we may do with the peer's objects</h3>"
        yield "<ul>" + "".join(f"<li><code>{escape(name)}</code></li>" for name in accepted) + "</ul>"


def _members(policy: Policy, facet: str) -> str:
    offer = policy.offers.get(facet)
    if offer is None:
        return ""
    return ", ".join(f"{OPERATION_NAMES[operation]} {member}".strip() for operation, member in offer.grants)


def _soft(text: str) -> str:
    """Escape a text and let it break where a reader would break it: behind a slash, and within long digests."""
    pieces = [text[start : start + 16] for start in range(0, len(text), 16)] if _DIGEST.search(text) else [text]
    return "<wbr>".join(escape(piece).replace("/", "/<wbr>") for piece in pieces)


def _rule(where: str) -> str:
    return f'<span class="rule">{escape(where)}</span>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["<table><thead><tr>", *(f"<th>{cell}</th>" for cell in head), "</tr></thead><tbody>"]
    for row in rows:
        cells = "".join(f"<td{_KIND_OF.get(cell, '')}>{cell}</td>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return "".join(lines) + "</tbody></table>"


_KIND_OF: Final = {"yes": ' class="yes"', "limited": ' class="some"', "no": ' class="no"'}
"""Cells of the matrix that have a color of their own."""
