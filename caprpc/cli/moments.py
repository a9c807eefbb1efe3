"""Points in time as options name them: a time, a day, or how long ago."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
SPELLINGS: Final = "2026-01-31T12:00:00Z, the day 2026-01-31, or 90s, 10m, 2h, 7d ago"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    """Return a time as records spell it; a day is its midnight in UTC. For the callback of an option.

    Raises:
        click.BadParameter: It is no time: whatever else it is, records would be compared with it as a text.
    """
    if not text:
        return ""
    span = _SPAN.fullmatch(text)
    if span:
        found = datetime.now(UTC) - timedelta(seconds=int(span[1]) * _SECONDS[span[2]])
    else:
        try:
            found = datetime.fromisoformat(text)
        except ValueError as exc:
            raise click.BadParameter(f"{text!r}: expected {SPELLINGS}") from exc
        if _DAY.fullmatch(text):
            found = found.replace(tzinfo=UTC)
        if found.tzinfo is None:
            raise click.BadParameter(f"{text!r} has no time zone; write Z for UTC")
    return found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
