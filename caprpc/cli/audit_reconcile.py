"""``caprpc audit reconcile``: lay the logs of both sides beside each other."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from caprpc.audit import verify
from caprpc.audit.reconcile import reconcile as compare
from caprpc.cli.exits import TOOL_CANNOT_DECIDE, TOOL_FINDINGS, TOOL_OK
from caprpc.errors import AuditError, printable

_EPILOG = """\b
Example:
  caprpc audit reconcile audit/server from-org-b/audit

Exit codes: 0 clean or yes, 1 findings or no, 2 usage, 3 does not load, 4 cannot decide.
"""


@click.command(epilog=_EPILOG)
@click.argument("ours", type=click.Path(path_type=Path))
@click.argument("theirs", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reconcile(ours: Path, theirs: Path, as_json: bool) -> int:
    """Find calls that only one side has: the logs of both sides, by shared connection and question number."""
    for path in (ours, theirs):
        if not verify(path).intact:
            raise AuditError(f"{path}: not intact, so it proves nothing; see: caprpc audit verify {path}")
    found = compare(ours, theirs)
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        for one in found.differences:
            first, last = one.questions
            which = f"questions {first} to {last}" if last > first else f"question {first}" if first else "all of it"
            click.echo(f"only {one.only}: connection {printable(one.connection)}: {one.what}, {which}")
        for connection, why in found.undecided:
            click.echo(f"undecided: connection {printable(connection)}: {why}")
        click.echo(
            f"{found.connections} connections and {found.calls} calls in both logs, "
            f"{len(found.differences)} differences, {len(found.undecided)} undecided"
        )
    if found.differences:
        return TOOL_FINDINGS
    return TOOL_CANNOT_DECIDE if found.undecided else TOOL_OK
