"""``caprpc audit``: prove that a log is whole, and read it."""

import json
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click

from caprpc.audit import Entry, RelationReport, Report, Selection, select
from caprpc.audit import verify as verify_log
from caprpc.cli.exits import EX_DATAERR, EX_NOINPUT, EX_OK
from caprpc.errors import AuditError, printable

_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
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
  caprpc audit verify --json audit/server

Exit codes: 0 intact, 65 not intact, 66 no log there.
"""

_SHOW_EPILOG: Final = """\b
Examples:
  caprpc audit show audit/server --decision deny --since 1h
  caprpc audit show audit/server --peer org-b.example --last 20
  caprpc audit show audit/server --kind reject --json

Exit codes: 0 done, 66 no log there. Lines that are no record are named on standard error.
"""


@click.group()
def audit() -> None:
    """Verify and show audit logs."""


@audit.command(epilog=_VERIFY_EPILOG)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--archived", is_flag=True, help="The oldest files of a relation may have been moved elsewhere.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(directory: Path, archived: bool, as_json: bool) -> int:
    """Prove that the log in DIRECTORY is what was written: nothing changed, missing, added or out of order.

    Stops at the first bad record of each peer and names it. Reads only; the server may be running.
    """
    try:
        report = verify_log(directory, archived=archived)
    except AuditError as exc:
        click.echo(f"caprpc: {printable(str(exc), 2_000)}", err=True)
        return EX_NOINPUT
    if as_json:
        click.echo(json.dumps({"intact": report.intact, **asdict(report)}))
    else:
        _print_report(directory, report)
    return EX_OK if report.intact else EX_DATAERR


@audit.command(epilog=_SHOW_EPILOG)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--peer", default="", help="Only peers with this in their principal.")
@click.option("--kind", default="", help="Only records of this kind, such as reject.")
@click.option("--decision", type=click.Choice(["permit", "deny"]), help="Only these decisions.")
@click.option("--member", default="", help="Only calls of this member.")
@click.option("--since", default="", metavar="WHEN", help="Not before 2026-01-31T12:00:00Z, or 90s, 10m, 2h, 7d ago.")
@click.option("--last", type=click.IntRange(min=1, max=100_000), help="Only the last N of them.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as they are written.")
def show(
    directory: Path,
    peer: str,
    kind: str,
    decision: str | None,
    member: str,
    since: str,
    last: int | None,
    as_json: bool,
) -> int:
    """Print the records in DIRECTORY in order of time. It does not prove them: that is what verify does."""
    selection = Selection(
        peer=peer, kind=kind, decision=decision or "", member=member, since=_since(since, datetime.now(UTC))
    )
    entries: Iterable[Entry] = select(directory, selection)
    if last is not None:
        entries = deque(entries, maxlen=last)
    for entry in entries:
        if entry.record is None:
            click.echo(f"{entry.file}:{entry.line}: {printable(entry.damage)}", err=True)
        else:
            click.echo(entry.text if as_json else describe(entry))
    return EX_OK


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


def _print_report(directory: Path, report: Report) -> None:
    click.echo(f"{directory}: audit log {printable(report.name)}")
    for relation in report.relations:
        verdict = "ok " if relation.problem is None else "BAD"
        click.echo(f"  {verdict}  {printable(relation.relation, 2_048)}: {_summary(relation)}")
        if relation.problem is not None:
            click.echo(f"       first bad: {printable(str(relation.problem), 1_024)}")
    count = sum(relation.records for relation in report.relations)
    bad = sum(relation.problem is not None for relation in report.relations)
    if bad:
        click.echo(f"NOT INTACT: {bad} of {len(report.relations)} relations; keep the directory as it is")
    else:
        click.echo(f"intact: {count} records in {len(report.relations)} relations")


def _summary(relation: RelationReport) -> str:
    parts = [f"{relation.records} records"]
    if relation.last:
        parts.append(f"{relation.first} to {relation.last}")
    if relation.problem is None:
        parts.append("closed in good order" if relation.closed else "not closed: running, or killed")
        unsealed = relation.records - relation.sealed
        if unsealed > 0 and not relation.closed:
            parts.append("sealed up to record " + str(relation.sealed))
    if relation.torn:
        parts.append(f"{relation.torn} bytes of an unfinished record at the end")
    if relation.gaps:
        parts.append(f"{relation.gaps} gaps in which {relation.lost} facts were not written")
    return ", ".join(parts)


def _since(text: str, now: datetime) -> str:
    """Return a time as records spell it."""
    if not text:
        return ""
    span = _SPAN.fullmatch(text)
    if span:
        moment = now - timedelta(seconds=int(span[1]) * _SECONDS[span[2]])
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as exc:
            raise click.BadParameter(f"{text!r}: expected 2026-01-31T12:00:00Z, or 90s, 10m, 2h, 7d") from exc
        if moment.tzinfo is None:
            raise click.BadParameter(f"{text!r} has no time zone; write Z for UTC")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
