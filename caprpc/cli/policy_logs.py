"""``caprpc policy unused | learn | shadow``: policies beside what an audit log says of their use."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from caprpc.analysis.draft import draft
from caprpc.analysis.events import Event, events_in
from caprpc.analysis.usage import needs
from caprpc.analysis.usage import shadow as shadow_of
from caprpc.analysis.usage import unused as unused_in
from caprpc.audit import Selection, select
from caprpc.cli.exits import TOOL_CANNOT_DECIDE, TOOL_FINDINGS, TOOL_OK
from caprpc.cli.findings import Shown, markdown, table
from caprpc.cli.moments import SPELLINGS, moment
from caprpc.cli.policy_ask import DIRECTORY, load
from caprpc.cli.sarif import as_sarif
from caprpc.errors import printable

LOG: Final = click.option(
    "--log", "logs", metavar="LOG", type=click.Path(path_type=Path), multiple=True, required=True, help="An audit log."
)
_SINCE: Final = click.option(
    "--since", metavar="WHEN", default="", callback=moment, help=f"Only from then on: {SPELLINGS}."
)

_UNUSED_EPILOG: Final = """\b
Examples:
  caprpc policy unused policies/server --log audit/server
  caprpc policy unused policies/server --log audit/server --since 2026-11-01

Exit codes: 0 everything was used, 1 something was not, 2 usage, 3 it does not load, 4 the log holds no decisions.
"""
_LEARN_EPILOG: Final = """\b
Examples:
  caprpc policy learn policies/test --log audit/test --write policies/draft

Exit codes: 0 written, 2 usage, 3 it does not load, 4 the log holds no permitted calls.
"""
_SHADOW_EPILOG: Final = """\b
Examples:
  caprpc policy shadow policies/candidate --log audit/server

Exit codes: 0 all would be decided the same, 1 some would not, 2 usage, 3 it does not load, 4 no decisions.
"""

_KINDS: Final = {
    "grant": "a grant that no logged call has used",
    "limit": "a limit that no logged call came near",
    "root": "a root that was never asked for",
    "policy": "a policy whose peer has done nothing",
    "rule": "a rule for an argument that no logged call came near",
}


def events(logs: tuple[Path, ...], since: str = "") -> Iterator[Event]:
    """Yield the decisions that logs hold.

    Raises:
        AuditError: A log cannot be read.
    """
    for log in logs:
        # All of it: the opening of a connection, which names the CA, may lie before what is asked about.
        for entry, event in events_in(select(log, Selection())):
            if entry.record is not None and entry.record.text("time") >= since:
                yield event


@click.command(epilog=_UNUSED_EPILOG)
@DIRECTORY
@LOG
@_SINCE
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "sarif", "markdown"]), default="text", show_default=True
)
def unused(directory: Path, logs: tuple[Path, ...], since: str, form: str) -> int:
    """Name grants that the logs never needed, and limits and rules that nobody came near: what could be taken away."""
    policies = load(directory)
    found = list(events(logs, since))
    if not found:
        click.echo("the logs hold no decisions: nothing can be said (level deny records refusals only)", err=True)
        return TOOL_CANNOT_DECIDE
    lines = unused_in(policies, found)
    if form == "json":
        click.echo(json.dumps([{"kind": one.kind, "where": one.where, "text": one.text} for one in lines], indent=2))
    elif form == "sarif":
        notes = [Shown("note", f"unused-{one.kind}", one.where, one.text) for one in lines]
        click.echo(as_sarif(notes, directory, {f"unused-{kind}": text for kind, text in _KINDS.items()}))
    elif form == "markdown":
        click.echo(markdown(("where", "kind", "not needed"), [(one.where, one.kind, one.text) for one in lines]))
    else:
        for one in lines:
            click.echo(f"{directory}/{one.where}: {one.kind}: {one.text}")
        click.echo(f"{len(found)} decisions, {len(lines)} things that they did not need")
    return TOOL_FINDINGS if lines else TOOL_OK


@click.command(epilog=_LEARN_EPILOG)
@DIRECTORY
@LOG
@_SINCE
@click.option(
    "--write", "target", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Write files there."
)
def learn(directory: Path, logs: tuple[Path, ...], since: str, target: Path | None) -> int:
    """Draft policies that give no more than what permitted calls have used: a start for a review, not a result.

    DIR is the policy directory under which the calls were made. Refused calls propose nothing, and neither do members
    whose effect is admin.
    """
    policies = load(directory)
    unclear: Counter[str] = Counter()
    found = needs(policies, events(logs, since), unclear)
    for peer, count in unclear.items():
        text = "more than one policy names it, and the log does not hold its CA"
        click.echo(f"left out: {count} calls of {printable(peer, 2_048)}: {text}", err=True)
    if not found:
        click.echo("the logs hold no permitted calls of these policies' peers", err=True)
        return TOOL_CANNOT_DECIDE
    texts = {policy.file: draft(policy, *found[policy.name]) for policy in policies.policies if policy.name in found}
    _write(texts, target)
    for name, (_, facets) in found.items():
        for facet, need in facets.items():
            for _, member in need.left_out:
                click.echo(
                    f"left out: {name}: {facet}: {member} has the effect admin; a person must grant it", err=True
                )
    return TOOL_OK


def _write(texts: Mapping[str, str], target: Path | None) -> None:
    if target is None:
        click.echo("\n".join(texts.values()), nl=False)
        return
    target.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        path = target / file
        with path.open("x", encoding="utf-8") as out:
            out.write(text)
        click.echo(f"{path}: written; review it, and complete it with what the log cannot know")


@click.command(epilog=_SHADOW_EPILOG)
@DIRECTORY
@LOG
@_SINCE
@click.option("--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True)
def shadow(directory: Path, logs: tuple[Path, ...], since: str, form: str) -> int:
    """Say which logged calls the candidate policies in DIR would decide otherwise; nothing runs under them."""
    candidate = load(directory)
    found = list(events(logs, since))
    if not found:
        click.echo("the logs hold no decisions: nothing can be said", err=True)
        return TOOL_CANNOT_DECIDE
    changes = shadow_of(candidate, found)
    columns = ("verdict", "calls", "peer", "call", "was", "because")
    rows = [
        (one.verdict, str(one.calls), one.peer, printable(one.subject), one.was, printable(one.why, 1_000))
        for one in changes
    ]
    if form == "json":
        click.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
    elif form == "markdown":
        click.echo(markdown(columns, rows))
    else:
        if rows:
            click.echo(table(columns, rows))
        click.echo(f"{len(found)} decisions, {sum(one.calls for one in changes)} of them otherwise")
    return TOOL_FINDINGS if changes else TOOL_OK
