"""``caprpc policy reach``: which facets a peer can come to hold, and through what."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import click

from caprpc.analysis.authority import Held, Step, held_by, opaque_of, passing_text, ways_of
from caprpc.analysis.decide import out_of_time
from caprpc.cli.exits import TOOL_FINDINGS, TOOL_OK
from caprpc.cli.findings import markdown
from caprpc.cli.policy_ask import DIRECTORY, PEER, chosen_by, load
from caprpc.policy import Policy, PolicySet
from caprpc.policy.problems import suggest

_EPILOG: Final = """\b
Examples:
  caprpc policy reach policies/server --peer org-b-feed
  caprpc policy reach policies/server --peer org-b-feed LedgerAdmin

Exit codes: 0 reachable, 1 unreachable, 2 usage, 3 it does not load.
"""


class _Found(NamedTuple):
    """A facet that a peer can hold, and every way to it but the shortest."""

    policy: Policy
    held: Held
    others: list[tuple[Step, ...]]


@click.command(epilog=_EPILOG)
@DIRECTORY
@PEER
@click.argument("target", metavar="[FACET|INTERFACE]", required=False)
@click.option("--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True)
def reach(directory: Path, peer: str, target: str | None, form: str) -> int:
    """Show which facets PEER can come to hold, and through which roots, results and lends: its transitive authority."""
    policies = load(directory)
    if target is not None:
        _check_target(policies, target)
    chosen = chosen_by(policies, peer)
    found = [
        _Found(policy, held, [path for path in ways[held.offer.name] if path != held.path])
        for policy in chosen
        for ways in (ways_of(policy),)
        for held in held_by(policy).values()
        if target is None or target in (held.offer.name, held.offer.interface)
    ]
    if form == "json":
        click.echo(json.dumps([_as_json(one) for one in found], indent=2))
    elif form == "markdown":
        click.echo(markdown(("facet", "interface", "through", "rule", "passing", "also through"), map(_cells, found)))
    else:
        for line in _text(policies, chosen, found, target):
            click.echo(line)
    if not found:
        click.echo(f"{target or 'everything'}: unreachable for {peer}", err=form != "text")
        return TOOL_FINDINGS
    return TOOL_OK


def _check_target(policies: PolicySet, target: str) -> None:
    """Refuse a facet or interface that there is not: that it is out of reach would prove nothing."""
    facets = {name for policy in policies.policies for name in policy.offers}
    if target not in facets | policies.contracts.keys():
        hint = suggest(target, facets | policies.contracts.keys())
        raise click.UsageError(f"there is no facet or interface {target!r} in {policies.directory}; {hint}")


def _text(policies: PolicySet, chosen: tuple[Policy, ...], found: list[_Found], target: str | None) -> list[str]:
    now = datetime.now(UTC)
    lines = [
        f"policy {policy.name} {fault}: nothing of it can be reached now ({policy.peer_rule})"
        for policy in chosen
        if (fault := out_of_time(policy, now))
    ]
    for policy, held, others in found:
        under = f", under policy {policy.name}" if len(chosen) > 1 else ""
        lines.append(
            f"{held.offer.name} ({held.offer.interface}), in {len(held.path)} step{'s' * (len(held.path) > 1)}{under}"
        )
        lines += [f"  {step.text}: {step.facet} ({step.rule})" for step in held.path]
        lines += [f"  also: {_way(path)} ({path[-1].rule})" for path in others]
        if passing := passing_text(held.offer):
            lines.append(f"  {passing} ({held.offer.rule})")
    for policy in chosen:
        for interface, path in opaque_of(policy, policies.contracts):
            if target in (None, interface):
                lines.append(f"{interface}, as opaque: to be held and handed back ({path[-1].rule})")
                lines.append(f"  {_way(path)}")
    return lines


def _way(path: tuple[Step, ...]) -> str:
    return " > ".join(step.text for step in path)


def _cells(found: _Found) -> tuple[str, ...]:
    held = found.held
    others = "; ".join(map(_way, found.others))
    passing = passing_text(held.offer) or "none"
    return (held.offer.name, held.offer.interface, held.way, held.path[-1].rule, passing, others or "nothing")


def _as_json(found: _Found) -> dict[str, object]:
    held = found.held
    return {
        "policy": found.policy.name,
        "facet": held.offer.name,
        "interface": held.offer.interface,
        "path": _steps(held.path),
        "others": [_steps(path) for path in found.others],
        "forward": held.offer.passing.onward,
        "forward_from": sorted(held.offer.passing.sources),
        "now": out_of_time(found.policy, datetime.now(UTC)) or "holds",
    }


def _steps(path: tuple[Step, ...]) -> list[dict[str, str]]:
    return [{"text": step.text, "facet": step.facet, "where": step.rule} for step in path]
