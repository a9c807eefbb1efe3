"""``caprpc explain``: the whole reason behind the reference number that a peer was given."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from caprpc.audit import Entry, Selection, select
from caprpc.cli.exits import EX_NOINPUT, EX_OK
from caprpc.cli.reasons import advice
from caprpc.errors import printable

_REFERENCE: Final = re.compile(r"[RG]-[A-HJ-NP-Z2-9]{12}")
"""A reference number, or the id of a grant: everything that was recorded about it."""
_DEFAULT: Final = Path("audit")

_EPILOG: Final = """\b
Examples:
  caprpc explain R-7KQ2M9XW4HTA
  caprpc explain R-7KQ2M9XW4HTA --audit audit/server

Exit codes: 0 found, 66 no such number in the logs.
"""


@click.command(epilog=_EPILOG)
@click.argument("reference", metavar="REF")
@click.option(
    "--audit",
    "directory",
    type=click.Path(path_type=Path),
    envvar="CAPRPC_AUDIT",
    show_envvar=True,
    default=_DEFAULT,
    show_default=True,
    help="An audit log, or a directory of audit logs.",
)
def explain(reference: str, directory: Path) -> int:
    """Say why: print every record that has the reference number REF, what it means, and what to do.

    The id of a grant (G-...) gives the records of its life.

    A refused peer sees only this number; the reason is in the audit log of the side that refused.
    """
    reference = reference.upper()
    if not _REFERENCE.fullmatch(reference):
        raise click.BadParameter(f"{reference!r}: expected a number like R-7KQ2M9XW4HTA", param_hint="REF")
    found = False
    for log in _logs(directory):
        for entry in select(log, Selection(reference=reference)):
            if entry.record is not None:
                found = True
                click.echo(_explained(reference, log, entry))
    if found:
        return EX_OK
    there = (
        f"is in no audit log below {directory}" if directory.is_dir() else f"is looked for in {directory}: not there"
    )
    click.echo(
        f"caprpc: {reference} {there}\n"
        "  hint: the number belongs to the side that refused; name its log with --audit DIR",
        err=True,
    )
    return EX_NOINPUT


def _logs(directory: Path) -> Iterator[Path]:
    """Return the directory itself if it is a log, else the logs in it."""
    if (directory / "log.json").exists():
        yield directory
    elif directory.is_dir():
        yield from sorted(child for child in directory.iterdir() if (child / "log.json").exists())


def _explained(reference: str, log: Path, entry: Entry) -> str:
    record = entry.record
    if record is None:
        return entry.damage
    text, reason = record.text, record.text("reason")
    call = f"{text('operation')} {text('member')}".strip()
    meaning, remedy = advice(text("kind"), reason, text("operation"), text("error"))
    which = f", questions {text('first')} to {text('last')}" if text("first") else ""
    count = f"{text('count')} equal refusals{which}, counted in one record"
    ended = text("kind") == "close"
    rows = [
        ("when", text("time")),
        ("who", text("peer") or "a peer that proved no accepted identity"),
        ("from", text("address")),
        ("connection", text("connection")),
        ("tried", f"{call} on {text('facet')}" if call and text("facet") else call or text("facet")),
        ("decision", text("decision") or text("kind")),
        ("reason", reason),
        ("error", text("error")),
        ("detail", text("detail")),
        ("rule", text("rule")),
        ("policy", text("policy")),
        ("asked", f"{text('count')} questions of ours, answered or not" if ended else ""),
        ("count", count if text("count") and not ended else ""),
        ("record", f"{log / entry.file}:{entry.line}, seq {text('seq')}"),
        ("it means", meaning),
        ("to do", remedy),
    ]
    return "\n".join([reference, *(f"  {name:11} {printable(value, 2_048)}" for name, value in rows if value)])
