"""``caprpc policy list | can-i | explain | reach``: what a peer may do, and the lines that say so."""

import json
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

import click

from caprpc.analysis.authority import Held, Right, accepted_of, held_by, rights_of, rule_text
from caprpc.analysis.decide import Answer, Line, Request, Verdict, decide, operation_code, policies_of
from caprpc.analysis.usage import event_of
from caprpc.audit import Selection, select
from caprpc.cli.exits import TOOL_CANNOT_DECIDE, TOOL_FINDINGS, TOOL_OK
from caprpc.cli.findings import as_csv, markdown, table
from caprpc.errors import printable
from caprpc.ids import OPERATION_NAMES
from caprpc.policy import PolicySet

CODES: Final = {Answer.YES: TOOL_OK, Answer.NO: TOOL_FINDINGS, Answer.UNKNOWN: TOOL_CANNOT_DECIDE}

DIRECTORY: Final = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
PEER: Final = click.option("--peer", metavar="PEER", required=True, help="A SPIFFE ID, or the name of a policy.")
_OPERATIONS: Final = click.Choice([name for name in OPERATION_NAMES.values() if name != "root"])

_LIST_EPILOG: Final = """\b
Examples:
  caprpc policy list policies/server
  caprpc policy list policies/server --peer org-b-feed --format markdown
  caprpc policy list policies/server --who-can Ledger.post

Exit codes: 0 listed, 1 nobody can, 2 usage, 3 it does not load.
"""
_CAN_I_EPILOG: Final = """\b
Examples:
  caprpc policy can-i policies/server --peer spiffe://org-b.example/feed Ledger.post amount=5 currency=EUR
  caprpc policy can-i policies/server --peer org-b-feed TextLines --operation iterate

Exit codes: 0 yes, 1 no, 2 usage, 3 it does not load, 4 cannot decide: an argument that a rule speaks of is not given.
"""
_EXPLAIN_EPILOG: Final = """\b
Examples:
  caprpc policy explain policies/server --peer org-b-feed Ledger.post amount=5
  caprpc policy explain policies/server --log audit/server --reference R-7KQ2M9XW4HTA

Exit codes: 0 yes, 1 no, 2 usage, 3 it does not load, 4 cannot decide.
"""
_REACH_EPILOG: Final = """\b
Examples:
  caprpc policy reach policies/server --peer org-b-feed
  caprpc policy reach policies/server --peer org-b-feed LedgerAdmin

Exit codes: 0 reachable, 1 unreachable, 2 usage, 3 it does not load.
"""


def load(directory: Path) -> PolicySet:
    """Load a directory as a service would.

    Raises:
        PolicyError: With every problem in it.
    """
    return PolicySet.load(directory, now=datetime.now(UTC))


@click.command("list", epilog=_LIST_EPILOG)
@DIRECTORY
@click.option("--peer", metavar="PEER", help="Only this peer: a SPIFFE ID, or the name of a policy.")
@click.option("--who-can", "member", metavar="INTERFACE.MEMBER", help="Only who may use this member.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "markdown", "csv"]), default="text", show_default=True
)
def list_rights(directory: Path, peer: str | None, member: str | None, form: str) -> int:
    """List everything that peers may do, one line each: what is not listed, nobody may."""
    policies = load(directory)
    chosen = policies.policies if peer is None else tuple(policies_of(policies, peer))
    rights = [
        right
        for policy in chosen
        for right in rights_of(policy)
        if member is None or member in (right.name, right.name.partition(" ")[0])
    ]
    columns = ("policy", "member", "facet", "arguments", "limits", "gives", "through", "rule")
    rows = [_row(right) for right in rights]
    if form == "json":
        click.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
    elif form == "markdown":
        click.echo(markdown(columns, rows))
    elif form == "csv":
        click.echo(as_csv(columns, rows))
    elif rows:
        click.echo(table(columns, rows))
        if member is None:
            for policy in chosen:
                ours = ", ".join(accepted_of(policy)) or "nothing"
                click.echo(f"we may use of {policy.name}'s objects: {ours}")
    if not rows:
        click.echo(f"nobody may use {member}" if member else "no peer may do anything", err=True)
        return TOOL_FINDINGS
    return TOOL_OK


def _row(right: Right) -> tuple[str, ...]:
    grant = right.grant
    rules, limits, gives = rule_text(grant) or "any", right.limits or "none", grant.returns or "values"
    return (right.policy.name, right.name, right.held.offer.name, rules, limits, gives, right.held.way, grant.rule)


@click.command("can-i", epilog=_CAN_I_EPILOG)
@DIRECTORY
@PEER
@click.argument("member", metavar="INTERFACE[.MEMBER]")
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--operation", type=_OPERATIONS, help="For operations without a name; else call, get or set.")
@click.option("--facet", help="Only through references of this facet.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def can_i(
    directory: Path,
    peer: str,
    member: str,
    arguments: tuple[str, ...],
    operation: str | None,
    facet: str | None,
    form: str,
) -> int:
    """Say whether PEER may use a member with these arguments: yes, no, or that it depends on what is not given."""
    verdict = decide(load(directory), request_of(peer, member, arguments, operation, facet))
    if form == "json":
        click.echo(_json(verdict))
    else:
        last = verdict.lines[-1]
        click.echo(
            f"{verdict.answer.value}: {printable(last.text, 1_000)}" + (f" ({last.where})" if last.where else "")
        )
    return CODES[verdict.answer]


@click.command(epilog=_EXPLAIN_EPILOG)
@DIRECTORY
@click.argument("member", metavar="[INTERFACE[.MEMBER]]", required=False)
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--peer", metavar="PEER", help="A SPIFFE ID, or the name of a policy.")
@click.option("--operation", type=_OPERATIONS, help="For operations without a name; else call, get or set.")
@click.option("--facet", help="Only through references of this facet.")
@click.option(
    "--log", "log", metavar="LOG", type=click.Path(path_type=Path), help="Decide an event of this audit log anew."
)
@click.option("--reference", metavar="REF", help="The reference number of that event.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain(
    directory: Path,
    member: str | None,
    arguments: tuple[str, ...],
    peer: str | None,
    operation: str | None,
    facet: str | None,
    log: Path | None,
    reference: str | None,
    form: str,
) -> int:
    """Show each step of a decision with its file and line; or decide a logged event anew, under these files."""
    policies = load(directory)
    logged = ""
    if log is not None:
        request, logged = _logged(policies, log, reference)
    elif peer is None or member is None:
        raise click.UsageError("name a member and --peer, or --log and --reference")
    else:
        request = request_of(peer, member, arguments, operation, facet)
    verdict = decide(policies, request)
    if form == "json":
        click.echo(_json(verdict, logged))
        return CODES[verdict.answer]
    for number, line in enumerate(verdict.lines, 1):
        click.echo(f"{number}. {_line(line)}")
    click.echo(f"{verdict.answer.value}: {request.peer} and {request.text}")
    if logged:
        click.echo(logged)
    return CODES[verdict.answer]


@click.command(epilog=_REACH_EPILOG)
@DIRECTORY
@PEER
@click.argument("target", metavar="[FACET|INTERFACE]", required=False)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def reach(directory: Path, peer: str, target: str | None, form: str) -> int:
    """Show which facets PEER can come to hold, and through which roots, results and lends: its transitive authority."""
    policies = load(directory)
    found = [
        held
        for policy in policies_of(policies, peer)
        for held in held_by(policy).values()
        if target is None or target in (held.offer.name, held.offer.interface)
    ]
    if form == "json":
        click.echo(json.dumps([_held(held) for held in found], indent=2))
    else:
        for held in found:
            click.echo(
                f"{held.offer.name} ({held.offer.interface}), in {len(held.path)} step{'s' * (len(held.path) > 1)}"
            )
            for step in held.path:
                click.echo(f"  {step.text}: {step.facet} ({step.rule})")
    if not found:
        click.echo(f"{target or 'everything'}: unreachable for {peer}", err=form == "json")
        return TOOL_FINDINGS
    return TOOL_OK


def request_of(peer: str, member: str, arguments: tuple[str, ...], operation: str | None, facet: str | None) -> Request:
    """Return the question that the words of a command line ask.

    Raises:
        click.UsageError: A word is not of its form.
    """
    interface, _, name = member.partition(".")
    if not name and operation is None:
        raise click.UsageError(f"{member!r} names no member; write INTERFACE.MEMBER, or give --operation")
    code = None if operation is None else operation_code(operation)
    return Request(peer, interface, name, code, facet, dict(_argument(word) for word in arguments))


def _argument(word: str) -> tuple[str, object]:
    name, equals, text = word.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{word!r} is not NAME=VALUE")
    try:
        value = json.loads(text, parse_float=Decimal, parse_constant=_not_finite)
    except (ValueError, InvalidOperation):
        value = text
    return name, value


def _not_finite(word: str) -> object:
    raise click.UsageError(f"{word} is not a finite number; no rule lets it through")


def _logged(policies: PolicySet, log: Path, reference: str | None) -> tuple[Request, str]:
    if reference is None:
        raise click.UsageError("--log needs the --reference number of one event")
    for entry in select(log, Selection(reference=reference)):
        event = None if entry.record is None else event_of(entry.record)
        if event is None:
            continue
        offers = [policy.offers.get(event.facet) for policy in policies_of(policies, event.peer)]
        interface = next((offer.interface for offer in offers if offer is not None), event.facet)
        was = "permitted" if event.permitted else f"refused ({event.reason})"
        same = any(policy.digest == event.policy for policy in policies.policies)
        note = "the same text of the policy" if same else "another text of the policy than that in these files"
        arguments = {name: _argument(f"x={value}")[1] for name, value in event.args.items()}
        request = Request(event.peer, interface, event.key[1], event.key[0], event.facet, arguments)
        return request, f"logged: {was}, under {note} ({entry.file}:{entry.line})"
    raise click.UsageError(f"{reference} is the number of no decision in {log}")


def _line(line: Line) -> str:
    return f"{printable(line.text, 1_000)}" + (f"  ({line.where})" if line.where else "")


def _json(verdict: Verdict, logged: str = "") -> str:
    steps = [{"where": line.where, "text": line.text} for line in verdict.lines]
    rule = None if verdict.right is None else verdict.right.grant.rule
    return json.dumps({"answer": verdict.answer.value, "rule": rule, "steps": steps, "logged": logged}, indent=2)


def _held(held: Held) -> dict[str, object]:
    steps = [{"text": step.text, "facet": step.facet, "where": step.rule} for step in held.path]
    return {"facet": held.offer.name, "interface": held.offer.interface, "path": steps}
