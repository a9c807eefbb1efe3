"""``caprpc audit``: prove that a log is whole, and read it."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial, reduce
from pathlib import Path
from typing import Any, Final

import click

from caprpc.audit import Entry, Follower, RelationReport, Report, Selection, select
from caprpc.audit import verify as verify_log
from caprpc.audit.record import KINDS
from caprpc.cli.audit_export import export
from caprpc.cli.audit_proofs import check_proof, open_value, prove, read_keys
from caprpc.cli.audit_reconcile import reconcile
from caprpc.cli.exits import TOOL_CANNOT_DECIDE, TOOL_FINDINGS, TOOL_OK, Toolbox
from caprpc.cli.moments import SPELLINGS, moment
from caprpc.cli.reasons import ADVICE, ENDINGS
from caprpc.errors import printable
from caprpc.policy.problems import suggest

_POLL_S: Final = 0.2
"""``tail -f`` looks so often: soon enough for a person, and nothing for the machine."""
_SHOWN_FIRST: Final = (
    "seq",
    "time",
    "mono",
    "kind",
    "peer",
    "facet",
    "operation",
    "member",
    "decision",
    "relation",
    "prev",
)

_VERIFY_EPILOG: Final = """\b
Examples:
  caprpc audit verify audit/server
  caprpc audit verify --key org-b.vkey --json audit/server

Exit codes: 0 clean or yes, 1 findings or no, 2 usage, 3 does not load, 4 cannot decide.
1: changed, cut or forged; 3: no log there; 4: nothing is signed of a closed log; with
--key, a relation that none of the keys is for.
"""

_QUERY_EPILOG: Final = """\b
Examples:
  caprpc audit show audit/server --decision deny --since 1h
  caprpc audit show audit/server --peer org-b.example --last 20
  caprpc audit query audit/server --reason not-granted --json
  caprpc audit query audit/server --reference R-7KQ2M9XW4HTA

Exit codes: 0 done, 2 usage, 3 no log there; query: 1 if nothing matches. Lines that are no record are named on
standard error.
"""

Command = Callable[..., int]

_OPTIONS: Final = (
    click.option("--peer", default="", help="Only peers with this in their principal."),
    click.option("--kind", type=click.Choice(sorted(KINDS)), help="Only records of this kind."),
    click.option("--decision", type=click.Choice(["permit", "deny"]), help="Only these decisions."),
    click.option("--member", default="", help="Only calls of this member."),
    click.option("--reason", default="", help="Only refusals for this reason."),
    click.option("--reference", default="", help="Only what this reference number stands for."),
    click.option("--since", default="", metavar="WHEN", callback=moment, help=f"Not before {SPELLINGS}."),
    click.option("--until", default="", metavar="WHEN", callback=moment, help="Not after that."),
    click.option("--json", "as_json", is_flag=True, help="Print the records as they are written."),
)


def _selecting(command: Command) -> Command:
    """Give a command the options that select records."""
    return reduce(lambda made, option: option(made), reversed(_OPTIONS), command)


@click.group(cls=Toolbox)
def audit() -> None:
    """Verify, read, prove and export audit logs. All of it works on a copy, and beside a running server."""


@audit.command(epilog=_VERIFY_EPILOG)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--archived", is_flag=True, help="The oldest files of a relation may have been moved elsewhere.")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="A key to trust, or a file of them (repeatable).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(directory: Path, archived: bool, keys: tuple[str, ...], as_json: bool) -> int:
    """Prove that the log in DIRECTORY is what was written: nothing changed, missing, added or out of order.

    Stops at the first bad record of each peer and names it. Reads only; the server may be running. Without --key the
    keys that the log itself names are taken as they are: who can write the log and has its keys can write it anew.
    """
    trusted = [key for text in keys for key in read_keys(text)] if keys else None
    report = verify_log(directory, archived=archived, keys=trusted)
    if as_json:
        relations = [{**asdict(one), "verdict": one.verdict} for one in report.relations]
        click.echo(json.dumps({"intact": report.intact, "name": report.name, "relations": relations}))
    else:
        _print_report(directory, report, given=trusted is not None)
    if not report.intact:
        return TOOL_FINDINGS
    # A log signs itself when it is closed: without a signature then, a kill at that moment is as likely as a forger.
    undecided = any(one.trust == "none" and (trusted is not None or one.closed) for one in report.relations)
    return TOOL_CANNOT_DECIDE if undecided else TOOL_OK


@audit.command(epilog=_QUERY_EPILOG)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--last", type=click.IntRange(min=1, max=100_000), help="Only the last N of them.")
@_selecting
def show(directory: Path, last: int | None, as_json: bool, **filters: Any) -> int:
    """Print the records in DIRECTORY in order of time. It does not prove them: that is what verify does."""
    _print_all(directory, _selection(**filters), last, as_json)
    return TOOL_OK


@audit.command(epilog=_QUERY_EPILOG)
@click.argument("directory", type=click.Path(path_type=Path))
@_selecting
def query(directory: Path, as_json: bool, **filters: Any) -> int:
    """Print the records in DIRECTORY that match, and say by the exit code whether there are any."""
    return TOOL_OK if _print_all(directory, _selection(**filters), None, as_json) else TOOL_FINDINGS


@audit.command(
    epilog="\b\nExample:\n  caprpc audit tail -f audit/server\n\nExit codes: 0 done, 2 usage, 3 no log there.\n"
)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-n", "last", type=click.IntRange(min=0, max=100_000), default=10, show_default=True)
@click.option("-f", "follow", is_flag=True, help="Go on with what is written from now on; end with Ctrl-C.")
@_selecting
def tail(directory: Path, last: int, follow: bool, as_json: bool, **filters: Any) -> int:
    """Print the last records in DIRECTORY, and with -f those that come."""
    selection = _selection(**filters)
    follower = Follower(directory) if follow else None
    _print_all(directory, selection, last, as_json)
    while follower is not None:
        for entry in filter(selection.matches, follower.poll()):
            _print(entry, as_json)
        time.sleep(_POLL_S)
    return TOOL_OK


for _command in (prove, check_proof, open_value, reconcile, export):
    audit.add_command(_command)


def describe(entry: Entry) -> str:
    """Return one line about a record; texts of a peer cannot steer the terminal."""
    record = entry.record
    if record is None:
        return entry.damage
    what = record.text("decision") or record.text("kind")
    target = ".".join(filter(None, (record.text("facet"), record.text("member"))))
    operation = record.text("operation")
    parts = [record.text("time"), f"{what:8}", record.text("peer") or entry.relation or "-"]
    parts += [f"{operation} {target}".strip()] if operation or target else []
    parts += [
        f"{name}={_flat(value)}" for name, value in record.fields.items() if name not in _SHOWN_FIRST and value != ""
    ]
    return printable("  ".join(parts), 8_192)


def _flat(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _selection(*, decision: str | None, kind: str | None, reason: str, **others: str) -> Selection:
    if reason and reason not in ADVICE and reason not in ENDINGS:
        known = ENDINGS if kind == "close" else ADVICE
        click.echo(f"note: no record has the reason {reason!r}; {suggest(reason, known)}", err=True)
    return Selection(decision=decision or "", kind=kind or "", reason=reason, **others)


def _print_all(directory: Path, selection: Selection, last: int | None, as_json: bool) -> int:
    entries: Iterable[Entry] = select(directory, selection)
    if last is not None:
        entries = deque(entries, maxlen=last)
    return sum(map(partial(_print, as_json=as_json), entries))


def _print(entry: Entry, as_json: bool) -> bool:
    if entry.record is None:
        click.echo(f"{entry.file}:{entry.line}: {printable(entry.damage)}", err=True)
        return False
    click.echo(entry.text if as_json else describe(entry))
    return True


def _print_report(directory: Path, report: Report, *, given: bool) -> None:
    click.echo(f"{directory}: audit log {printable(report.name)}")
    for relation in report.relations:
        verdict = "ok " if relation.problem is None else "BAD"
        click.echo(f"  {verdict}  {printable(relation.relation, 2_048)}: {_summary(relation)}")
        if relation.problem is not None:
            click.echo(f"       {relation.verdict.upper()}, first bad: {printable(str(relation.problem), 1_024)}")
    count = sum(relation.records for relation in report.relations)
    bad = sum(relation.problem is not None for relation in report.relations)
    if bad:
        click.echo(f"NOT INTACT: {bad} of {len(report.relations)} relations; keep the directory as it is")
    else:
        click.echo(f"intact: {count} records in {len(report.relations)} relations")
        strange = [one.relation for one in report.relations if one.trust == "none"]
        if strange:
            names = ", ".join(printable(name) for name in strange)
            why = "none of the keys you gave is for" if given else "nothing is signed of"
            click.echo(f"cannot decide who wrote {len(strange)} of them: {why} {names}")


def _summary(relation: RelationReport) -> str:
    parts = [f"{relation.records} records"]
    if relation.last:
        parts.append(f"{relation.first} to {relation.last}")
    if relation.problem is None:
        parts.append("closed in good order" if relation.closed else "not closed: running, or killed")
    if relation.signed or relation.problem is None:
        parts.append(f"signed up to record {relation.signed}" if relation.signed else "not signed")
    if relation.unsigned and relation.signed:
        parts.append(f"{relation.unsigned} records at the end, over {relation.unsigned_s:.1f} s, are not signed")
    if relation.trust == "given":
        parts.append("by a key you trust")
    if relation.torn:
        parts.append(f"{relation.torn} bytes of an unfinished record at the end")
    if relation.damaged_checkpoints:
        parts.append(f"{relation.damaged_checkpoints} unfinished checkpoints")
    if relation.gaps:
        parts.append(f"{relation.gaps} gaps in which {relation.lost} facts were not written")
    return ", ".join(parts)
