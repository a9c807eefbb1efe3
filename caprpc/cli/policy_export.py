"""``caprpc policy export | report``: the policies in other forms, for other tools and for people."""

import json
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from caprpc.analysis.authority import accepted_of, lend_name, lifetime_text, passing_text, rights_of, rule_text
from caprpc.analysis.cedar import cedar
from caprpc.analysis.difference import difference
from caprpc.analysis.report import Sources, html_report
from caprpc.analysis.usage import unused
from caprpc.cli.exits import TOOL_OK
from caprpc.cli.findings import as_csv
from caprpc.cli.policy_ask import DIRECTORY, load
from caprpc.cli.policy_logs import events
from caprpc.cli.revisions import at_revision, last_signed
from caprpc.policy import Policy, PolicySet

_EXPORT_EPILOG: Final = """\b
Examples:
  caprpc policy export policies/server --to cedar > server.cedar
  caprpc policy export policies/server --to csv

Exit codes: 0 exported, 2 usage, 3 it does not load.
"""
_REPORT_EPILOG: Final = """\b
Examples:
  caprpc policy report policies/server --html report.html
  caprpc policy report policies/server --html report.html --since policies.signed --log audit/server
  caprpc policy report policies/server --html report.html --git v1
  caprpc policy report policies/server --html report.html --last-signed pki/signers.toml

Exit codes: 0 written, 2 usage, 3 it does not load.
"""


@click.command(epilog=_EXPORT_EPILOG)
@DIRECTORY
@click.option("--to", "form", type=click.Choice(["cedar", "json", "csv"]), required=True)
def export(directory: Path, form: str) -> int:
    """Print the policies as Cedar statements, as JSON, or as a CSV of everything that peers may do."""
    policies = load(directory)
    if form == "cedar":
        click.echo(cedar(policies), nl=False)
    elif form == "json":
        click.echo(json.dumps(_everything(policies), indent=2))
    else:
        columns = ("policy", "peer", "member", "facet", "arguments", "limits", "gives", "through", "rule", "passing")
        rows = [
            (
                policy.name,
                peer,
                right.name,
                right.held.offer.name,
                rule_text(right.grant),
                right.limits,
                right.grant.returns or "",
                right.held.way,
                right.grant.rule,
                passing_text(right.held.offer),
            )
            for policy in policies.policies
            for peer in sorted(policy.principals)
            for right in rights_of(policy)
        ]
        click.echo(as_csv(columns, rows))
    return TOOL_OK


@click.command(epilog=_REPORT_EPILOG)
@DIRECTORY
@click.option("--html", "target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--since", metavar="DIR", type=click.Path(path_type=Path), help="Show changes since these files.")
@click.option("--git", "revision", metavar="REV", help="Show changes since a git revision of DIR.")
@click.option(
    "--last-signed",
    "signers",
    metavar="SIGNERS",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Show changes since the newest git revision of DIR that enough of these have signed.",
)
@click.option(
    "--log", "logs", metavar="LOG", type=click.Path(path_type=Path), multiple=True, help="Show what was never used."
)
def report(
    directory: Path,
    target: Path,
    since: Path | None,
    revision: str | None,
    signers: Path | None,
    logs: tuple[Path, ...],
) -> int:
    """Write one HTML file, without scripts, that says what each peer can reach: to be read, printed and mailed."""
    if sum(one is not None for one in (since, revision, signers)) > 1:
        raise click.UsageError("compare with one of --since, --git and --last-signed")
    policies = load(directory)
    changes, compared = None, ""
    with ExitStack() as stack:
        old = None
        if signers is not None:
            old, compared = last_signed(directory, signers)
        elif revision is not None:
            old = load(stack.enter_context(at_revision(directory, revision)), f"{revision}:{directory}")
            compared = f"version {old.version} ({revision})"
        elif since is not None:
            old = load(since)
            compared = f"version {old.version}"
        if old is not None:
            changes = difference(old, policies)
    never = unused(policies, events(logs)) if logs else None
    text = html_report(policies, Sources(datetime.now(UTC), changes, compared, never))
    target.write_text(text, encoding="utf-8")
    click.echo(f"{target}: written, {len(policies.policies)} policies")
    return TOOL_OK


def _everything(policies: PolicySet) -> dict[str, object]:
    return {
        "version": policies.version,
        "digest": policies.digest,
        "policies": [_policy(policy) for policy in policies.policies],
        "never": [
            {"id": never.name, "text": never.text, "reach": sorted(never.reach), "except": sorted(never.excepted)}
            for never in policies.nevers
        ],
    }


def _policy(policy: Policy) -> dict[str, object]:
    return {
        "name": policy.name,
        "file": policy.file,
        "owner": policy.owner,
        "reason": policy.reason,
        "tags": list(policy.tags),
        "not_before": None if policy.not_before is None else policy.not_before.isoformat(),
        "not_after": None if policy.not_after is None else policy.not_after.isoformat(),
        "peers": sorted(policy.principals),
        "ca": sorted(policy.anchors),
        "may": [
            {
                "member": right.name,
                "facet": right.held.offer.name,
                "arguments": rule_text(right.grant),
                "limits": right.limits,
                "gives": right.grant.returns,
                "through": right.held.way,
                "forward": right.held.offer.passing.onward,
                "forward_from": sorted(right.held.offer.passing.sources),
                "rule": right.grant.rule,
            }
            for right in rights_of(policy)
        ],
        "roots": {root.name: root.facet for root in policy.roots.values()},
        "restores": [
            {
                "name": entry.name,
                "as": entry.facet,
                "bearer": entry.bearer,
                "max_for_s": entry.max_for_s,
                "rule": entry.rule,
            }
            for entry in policy.restores.values()
        ],
        "we_may": list(accepted_of(policy)),
        "lends": [
            {"to": lend_name(lend), "as": lend.facet, "lifetime": lifetime_text(lend), "rule": lend.rule}
            for lend in policy.lends.values()
        ],
    }
