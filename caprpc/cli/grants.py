"""``caprpc grants``: what was granted for longer than a connection. It works on the store; servers may be running."""

import json
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from caprpc.cli.exits import EX_NOINPUT, EX_OK
from caprpc.errors import printable
from caprpc.store import SqliteStore, StoredGrant, accept_restore

_STATES: Final = ("live", "expired", "revoked")

_LIST_EPILOG: Final = """\b
Examples:
  caprpc grants list state/grants.db
  caprpc grants list state/grants.db --holder org-b.example --state live
  caprpc grants list state/grants.db --json

Exit codes: 0 done, 66 no store there, 78 the store is refused: others may read it, or it is an old copy.
"""

_SHOW_EPILOG: Final = """\b
Examples:
  caprpc grants show state/grants.db G-7KQ2M9XW4HTA

Exit codes: 0 found, 66 no store there, or no such grant in it.
"""

_REVOKE_EPILOG: Final = """\b
Examples:
  caprpc grants revoke state/grants.db G-7KQ2M9XW4HTA G-2C5PXK8NMQ4D

Exit codes: 0 all of them are revoked, now or before; 66 no store there, or no such grant in it; the others are
revoked all the same.
"""

_ACCEPT_EPILOG: Final = """\b
Examples:
  caprpc grants accept-restore state/grants.db

Exit codes: 0 the store can be used again, 66 no store there, 78 it cannot: see the message.
"""


class _StorePath(click.Path):
    """A store that is there: a command must not make one by a typing error."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(str(super().convert(value, param, ctx)))  # type: ignore[arg-type]  # click hands on what it was given
        if not path.exists():
            raise FileNotFoundError(2, "no store of grants there", str(path))
        return path


_STORE: Final = click.argument("store", type=_StorePath())


@click.group()
def grants() -> None:
    """List, show and revoke grants, the other half of sturdy references."""


@grants.command("list", epilog=_LIST_EPILOG)
@_STORE
@click.option("--holder", default="", help="Only of holders with this in their principal.")
@click.option("--name", default="", help="Only of this root or kind.")
@click.option("--state", type=click.Choice(_STATES), help="Only these.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each grant.")
def list_grants(store: Path, holder: str, name: str, state: str | None, as_json: bool) -> int:
    """List the grants in STORE, oldest first, those that have ended included."""
    now = time.time()
    with closing(SqliteStore(store)) as opened:
        found = opened.grants()
    for one in found:
        if holder in one.holder and name in ("", one.name) and state in (None, one.state(now)):
            click.echo(json.dumps(_as_json(one, now)) if as_json else _line(one, now))
    return EX_OK


@grants.command(epilog=_SHOW_EPILOG)
@_STORE
@click.argument("grant_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(store: Path, grant_id: str, as_json: bool) -> int:
    """Show everything about the grant ID but its secret, which is not kept."""
    now = time.time()
    with closing(SqliteStore(store)) as opened:
        one = opened.get(grant_id.upper())
    if one is None:
        return _unknown(store, grant_id)
    fields = _as_json(one, now)
    if as_json:
        click.echo(json.dumps(fields))
    else:
        for label, value in fields.items():
            shown = "" if value is None else ", ".join(value) if isinstance(value, list) else str(value)
            click.echo(f"  {label:11} {printable(shown, 2_048)}".rstrip())
    return EX_OK


@grants.command(epilog=_REVOKE_EPILOG)
@_STORE
@click.argument("grant_ids", metavar="ID...", nargs=-1, required=True)
def revoke(store: Path, grant_ids: tuple[str, ...]) -> int:
    """End the grants ID, and every reference that was restored from them; running servers see it within a second."""
    result = EX_OK
    with closing(SqliteStore(store)) as opened:
        for grant_id in grant_ids:
            one = opened.get(grant_id.upper())
            if one is None:
                result = _unknown(store, grant_id)
            elif opened.revoke(one.grant_id, time.time()) is None:
                click.echo(f"{one.grant_id} was revoked before")
            else:
                click.echo(f"{one.grant_id} is revoked: {_what(one)}")
    return result


@grants.command("accept-restore", epilog=_ACCEPT_EPILOG)
@_STORE
def accept(store: Path) -> int:
    """Take STORE into use again that came back from a backup: what was revoked since is revoked again."""
    again, lost = accept_restore(store)
    for grant_id in again:
        click.echo(f"{grant_id} is revoked again")
    for grant_id in lost:
        click.echo(f"{grant_id} was granted after the backup and is lost: its sturdy reference gives nothing")
    click.echo(f"{store} can be used: {len(again)} revoked again, {len(lost)} lost")
    return EX_OK


def _unknown(store: Path, grant_id: str) -> int:
    click.echo(f"caprpc: no grant {printable(grant_id, 64)} in {store}\n  hint: caprpc grants list {store}", err=True)
    return EX_NOINPUT


def _what(one: StoredGrant) -> str:
    key = f" {printable(one.key, 512)}" if one.key else ""
    return f"{one.name}{key} for {one.holder or 'whoever has the secret'}"


def _line(one: StoredGrant, now: float) -> str:
    ends = "until revoked" if one.expires_at is None else f"until {_time(one.expires_at)}"
    return f"{one.grant_id}  {one.state(now):7}  {_time(one.granted_at)}  {ends}  {_what(one)}"


def _as_json(one: StoredGrant, now: float) -> dict[str, object]:
    return {
        "id": one.grant_id,
        "state": one.state(now),
        "name": one.name,
        "key": one.key,
        "holder": one.holder,
        "only": None if one.only is None else sorted(one.only),
        "granted_by": one.granted_by,
        "granted_at": _time(one.granted_at),
        "expires_at": None if one.expires_at is None else _time(one.expires_at),
        "revoked_at": None if one.revoked_at is None else _time(one.revoked_at),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
