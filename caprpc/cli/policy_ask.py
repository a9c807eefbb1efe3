"""``caprpc policy list | can-i | explain``: what a peer may do, and the lines that say so."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

import click

from caprpc.analysis.authority import Right, accepted_of, passing_text, rights_of, rule_text
from caprpc.analysis.decide import Answer, Line, Request, Verdict, decide, operation_code, out_of_time, policies_of
from caprpc.analysis.events import Event, Owners, events_in
from caprpc.audit import Selection, select
from caprpc.cli.exits import TOOL_CANNOT_DECIDE, TOOL_FINDINGS, TOOL_OK
from caprpc.cli.findings import as_csv, markdown, table
from caprpc.contract import InterfaceContract
from caprpc.errors import ConfigurationError, PolicyError, printable
from caprpc.ids import OP_RESTORE, OP_ROOT, OPERATION_NAMES
from caprpc.policy import INDEX_FILE, Policy, PolicySet
from caprpc.policy.problems import suggest

CODES: Final = {Answer.YES: TOOL_OK, Answer.NO: TOOL_FINDINGS, Answer.UNKNOWN: TOOL_CANNOT_DECIDE}

DIRECTORY: Final = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
PEER: Final = click.option("--peer", metavar="PEER", required=True, help="A SPIFFE ID, or the name of a policy.")
_OPERATIONS: Final = click.Choice(list(OPERATION_NAMES.values()))

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
  caprpc policy explain policies/server --log audit/server --reference general.000001.jsonl:812

Exit codes: 0 yes, 1 no, 2 usage, 3 it does not load, 4 cannot decide.
"""


def load(directory: Path, name: str = "") -> PolicySet:
    """Load a directory as a service would.

    Args:
        directory: Where it is.
        name: What messages call it, where that is not its path.

    Raises:
        PolicyError: With every problem in it, each with the path of its file.
    """
    try:
        return PolicySet.load(directory, now=datetime.now(UTC))
    except PolicyError as exc:
        raise PolicyError([_located(problem, directory, name or str(directory)) for problem in exc.problems]) from exc


def _located(problem: ConfigurationError, directory: Path, name: str) -> ConfigurationError:
    inside = problem.where.removeprefix(str(directory)).lstrip("/")
    where = f"{name}/{inside}" if inside else name
    return ConfigurationError(problem.message, where=where, hint=problem.hint, code=problem.code, column=problem.column)


def chosen_by(policies: PolicySet, peer: str) -> tuple[Policy, ...]:
    """Return the policies that a SPIFFE ID or a name stands for; none if no policy names that SPIFFE ID.

    Raises:
        click.UsageError: It is the name of no policy: an answer about nobody would read like one about somebody.
    """
    found = tuple(policies_of(policies, peer))
    if not found and "://" not in peer:
        hint = suggest(peer, [policy.name for policy in policies.policies])
        raise click.UsageError(f"there is no policy {peer!r} in {policies.directory}; {hint}")
    if len(found) > 1:
        names = ", ".join(policy.name for policy in found)
        text = f"{len(found)} policies name {peer}, each for another CA: {names}; --peer takes the name of one, too"
        click.echo(f"note: {text}", err=True)
    return found


def _declared(policies: PolicySet, interface: str) -> InterfaceContract:
    contract = policies.contracts.get(interface)
    if contract is None:
        hint = suggest(interface, policies.contracts)
        raise click.UsageError(f"no contract of {policies.directory} declares the interface {interface!r}; {hint}")
    return contract


def _check_member(policies: PolicySet, member: str) -> None:
    """Refuse a name that no contract declares: that nobody may use it is no answer to the question that was meant."""
    interface, _, name = member.partition(" ")[0].partition(".")
    members = {one for _, one in _declared(policies, interface).members}
    if name and name not in members:
        raise click.UsageError(f"interface {interface} has no member {name!r}; {suggest(name, members - {''})}")


@click.command("list", epilog=_LIST_EPILOG)
@DIRECTORY
@click.option("--peer", metavar="PEER", help="Only this peer: a SPIFFE ID, or the name of a policy.")
@click.option("--who-can", "member", metavar="INTERFACE[.MEMBER]", help="Only who may use this member.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "markdown", "csv"]), default="text", show_default=True
)
def list_rights(directory: Path, peer: str | None, member: str | None, form: str) -> int:
    """List everything that peers may do, one line each: what is not listed, nobody may."""
    policies = load(directory)
    chosen = policies.policies if peer is None else chosen_by(policies, peer)
    if member is not None:
        _check_member(policies, member)
    rights = [
        right
        for policy in chosen
        for right in rights_of(policy)
        if member is None or member in (right.name, right.name.partition(" ")[0], right.held.offer.interface)
    ]
    columns = ("policy", "member", "facet", "arguments", "limits", "gives", "through", "rule", "passing", "now")
    now = datetime.now(UTC)
    rows = [_row(right, now) for right in rights]
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
        click.echo(_nobody(member, peer, bool(chosen)), err=True)
        return TOOL_FINDINGS
    return TOOL_OK


def _nobody(member: str | None, peer: str | None, named: bool) -> str:
    """Say that a list is empty, and for whom."""
    if peer is None:
        return f"nobody may use {member}" if member else "no peer may do anything"
    may = f"{peer} may not use {member}" if member else f"{peer} may do nothing"
    return may if named else f"{may}: no policy names it, and it is not let in at all"


def _row(right: Right, now: datetime) -> tuple[str, ...]:
    grant = right.grant
    rules, limits, gives = rule_text(grant) or "any", right.limits or "none", grant.returns or "values"
    offer, way, passing = right.held.offer, right.held.way, passing_text(right.held.offer) or "none"
    holds = out_of_time(right.policy, now) or "holds"
    return (right.policy.name, right.name, offer.name, rules, limits, gives, way, grant.rule, passing, holds)


@click.command("can-i", epilog=_CAN_I_EPILOG)
@DIRECTORY
@PEER
@click.argument("member", metavar="INTERFACE[.MEMBER]")
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1)
@click.option(
    "--operation", type=_OPERATIONS, help="For operations without a name, roots and restores; else call, get or set."
)
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
    policies = load(directory)
    request = request_of(policies, peer, member, arguments, operation, facet)
    verdict = decide(policies, request, datetime.now(UTC))
    if form == "json":
        click.echo(_json(verdict))
    else:
        last, *more = verdict.lines[-1:] if verdict.right is None else verdict.granting
        click.echo(f"{verdict.answer.value}: {_line(last, ' ')}")
        for line in more:
            click.echo(f"  {_line(line, ' ')}")
    return CODES[verdict.answer]


@click.command(epilog=_EXPLAIN_EPILOG)
@DIRECTORY
@click.argument("member", metavar="[INTERFACE[.MEMBER]]", required=False)
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--peer", metavar="PEER", help="A SPIFFE ID, or the name of a policy.")
@click.option(
    "--operation", type=_OPERATIONS, help="For operations without a name, roots and restores; else call, get or set."
)
@click.option("--facet", help="Only through references of this facet.")
@click.option(
    "--log", "log", metavar="LOG", type=click.Path(path_type=Path), help="Decide an event of this audit log anew."
)
@click.option("--reference", metavar="REF", help="The reference number of that event, or its FILE:LINE.")
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
        verdict, request, logged = _logged(policies, log, reference)
    elif peer is None or member is None:
        raise click.UsageError("name a member and --peer, or --log and --reference")
    else:
        request = request_of(policies, peer, member, arguments, operation, facet)
        verdict = decide(policies, request, datetime.now(UTC))
    if form == "json":
        click.echo(_json(verdict, logged))
        return CODES[verdict.answer]
    for number, line in enumerate(verdict.lines, 1):
        click.echo(f"{number}. {_line(line)}")
    click.echo(f"{verdict.answer.value}: {request.peer} and {request.text}")
    if logged:
        click.echo(logged)
    return CODES[verdict.answer]


def request_of(
    policies: PolicySet, peer: str, member: str, arguments: tuple[str, ...], operation: str | None, facet: str | None
) -> Request:
    """Return the question that the words of a command line ask.

    Raises:
        click.UsageError: A word is not of its form, or names nothing.
    """
    code = None if operation is None else operation_code(operation)
    interface, _, name = member.partition(".")
    if code in {OP_ROOT, OP_RESTORE}:
        # Neither is an operation on an object: their names stand alone.
        interface, name = "", member.rpartition(".")[2]
    if not name and operation is None:
        raise click.UsageError(f"{member!r} names no member; write INTERFACE.MEMBER, or give --operation")
    chosen_by(policies, peer)
    contract = policies.contracts.get(interface)
    declared = [] if contract is None else [one for key, one in contract.members.items() if key[1] == name]
    if interface and name and not declared:
        # The answer is no, and right; that the question may be another one than was meant is said beside it.
        known = set() if contract is None else {one for _, one in contract.members} - {""}
        hint = suggest(name, known) if contract is not None else suggest(interface, policies.contracts)
        click.echo(f"note: no contract declares {member}; {hint}", err=True)
    types = _types(policies, interface, name)
    given = dict(_argument(word, types) for word in arguments)
    for word in given:
        if declared and word not in types:
            raise click.UsageError(f"{member} has no parameter {word!r}; {suggest(word, types) or 'it takes none'}")
    return Request(peer, interface, name, code, facet, given)


def _types(policies: PolicySet, interface: str, member: str) -> dict[str, str]:
    """Return the declared type of each parameter of a member."""
    contract = policies.contracts.get(interface)
    declared = [] if contract is None else [one for key, one in contract.members.items() if key[1] == member]
    return {parameter.name: parameter.type for one in declared for parameter in one.parameters}


def _argument(word: str, types: Mapping[str, str]) -> tuple[str, object]:
    name, equals, text = word.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{word!r} is not NAME=VALUE")
    return name, _value(text, types.get(name, ""))


def _value(text: str, declared: str) -> object:
    """Return what a text stands for: for a parameter that takes texts itself, however much it looks like a number."""
    try:
        value = json.loads(text, parse_float=Decimal, parse_constant=_not_finite if declared != "str" else str)
    except (ValueError, InvalidOperation):
        return text
    return value if declared != "str" or isinstance(value, str) else text


def _not_finite(word: str) -> object:
    raise click.UsageError(f"{word} is not a finite number; no rule lets it through")


def _logged(policies: PolicySet, log: Path, reference: str | None) -> tuple[Verdict, Request, str]:
    """Decide an event of a log anew; return what it was about and what the log says of it besides."""
    if reference is None:
        raise click.UsageError("--log needs the --reference number of one event, or its FILE:LINE")
    by_place, wanted = ":" in reference, Selection(reference=reference)
    for entry, event in events_in(select(log, Selection())):
        found = reference == f"{entry.file}:{entry.line}" if by_place else wanted.matches(entry)
        if not found or entry.record is None:
            continue
        owners = Owners(policies).of(event)
        offers = [policy.offers.get(event.facet) for policy in owners]
        interface = next((offer.interface for offer in offers if offer is not None), event.facet)
        types = _types(policies, interface, event.key[1])
        arguments = {
            name: value if types.get(name) == "str" else _value(value, "") for name, value in event.args.items()
        }
        request = Request(event.peer, interface, event.key[1], event.key[0], event.facet, arguments)
        detail = entry.record.text("detail")
        was = "permitted" if event.permitted else f"refused ({event.reason}{f': {detail}' if detail else ''})"
        same = any(policy.digest == event.policy for policy in policies.policies)
        note = "the same text of the policy" if same else "another text of the policy than that in these files"
        verdict = _verdict_of(policies, owners, request, event)
        if same and verdict.answer is Answer.UNKNOWN:
            verdict = _settled(verdict, event, Line(entry.record.text("rule"), f"the log says that it was {was}"))
        return verdict, request, f"logged: {was}, under {note} ({entry.file}:{entry.line})"
    raise click.UsageError(f"{reference} is the number of no decision in {log}")


def _verdict_of(policies: PolicySet, owners: tuple[Policy, ...], request: Request, event: Event) -> Verdict:
    """Decide a logged event under the policy of its peer, as of its time."""
    if not owners and event.anchor and policies_of(policies, event.peer):
        text = f"no policy names {event.peer} with the CA key {event.anchor}: it is not let in at all"
        return Verdict(Answer.NO, (Line(INDEX_FILE, text),), None)
    at = datetime.fromtimestamp(event.at, UTC)
    verdicts = [decide(policies, replace(request, policy=policy.name), at) for policy in owners]
    if len({verdict.answer for verdict in verdicts}) > 1:
        names = ", ".join(policy.name for policy in owners)
        text = f"{names} name {event.peer} for different CAs, and the log does not hold the CA of this connection"
        return Verdict(Answer.UNKNOWN, (Line("", text),), None)
    return verdicts[0] if verdicts else decide(policies, request, at)


def _settled(verdict: Verdict, event: Event, said: Line) -> Verdict:
    """Return what the log itself says where it did not keep the arguments: the same text has decided it before."""
    if event.permitted or event.reason == "argument":
        kept = tuple(line for line in verdict.lines if not line.text.startswith("it depends on "))
        return Verdict(Answer.YES if event.permitted else Answer.NO, (*kept, said), None)
    return verdict


def _line(line: Line, gap: str = "  ") -> str:
    return f"{printable(line.text, 1_000)}" + (f"{gap}({line.where})" if line.where else "")


def _json(verdict: Verdict, logged: str = "") -> str:
    steps = [{"where": line.where, "text": line.text} for line in verdict.lines]
    rule = None if verdict.right is None else verdict.right.grant.rule
    return json.dumps({"answer": verdict.answer.value, "rule": rule, "steps": steps, "logged": logged}, indent=2)
