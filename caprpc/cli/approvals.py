"""Files that list what a person has looked at and let pass: approved widenings, and a baseline of findings."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from caprpc.cli.findings import Shown
from caprpc.policy.document import MAX_TEXT_CHARS, Table
from caprpc.policy.problems import Problems
from caprpc.policy.source import MAX_FILE_BYTES, decode
from caprpc.policy.text import TomlDocument, TomlProblem

Kind = Literal["approvals", "baseline"]

UNUSED: Final = "unused-entry"
"""The code of an entry that lets nothing pass."""


@dataclass(frozen=True, slots=True)
class Approval:
    """One thing that was let pass, by whom, and why.

    Attributes:
        where: ``file:line`` of the entry.
        ended: It lets nothing pass any more: the moment after ``until`` has come.
    """

    what: str
    by: str
    reason: str
    where: str
    ended: bool


def read(path: Path | None, kind: Kind) -> list[Approval]:
    """Return the entries of a file, those that have ended included; none if there is no file.

    Raises:
        PolicyError: The file is not of that kind, or not as it should be.
        OSError: It cannot be read.
    """
    if path is None:
        return []
    problems = Problems()
    approvals = _read(path, kind, problems)
    problems.raise_if_any()
    return approvals


def let_pass(entries: Iterable[Approval]) -> frozenset[str]:
    """Return the texts of the changes or findings that entries let pass now."""
    return frozenset(one.what for one in entries if not one.ended)


def unused(entries: Iterable[Approval], found: Iterable[str]) -> list[Shown]:
    """Return a note about each entry that lets nothing pass, of what was found now: left over, mistyped or ended.

    Whoever reads the file takes such an entry for something that is so, and it would let pass what comes later.
    """
    present = frozenset(found)
    notes = []
    for one in entries:
        if one.ended and one.what in present:
            message = f"has ended, and lets nothing pass: {one.what}"
        elif one.what not in present:
            message = f"matches nothing that was found: {one.what}"
        else:
            continue
        hint = "renew it, or take it away" if one.ended else "take it away, or write the key as --format json prints it"
        notes.append(Shown("note", UNUSED, one.where, message, hint))
    return notes


def _read(path: Path, kind: Kind, problems: Problems) -> list[Approval]:
    with path.open("rb") as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        problems.add(
            str(path), f"more than {MAX_FILE_BYTES} bytes", "take away what lets nothing pass", code="unsafe-file"
        )
        return []
    text = decode(content, str(path), problems)
    if text is None:
        return []
    try:
        top = Table.top(TomlDocument(text), str(path), problems)
    except TomlProblem as exc:
        problems.add(exc.where(str(path)), exc.message, exc.hint, code="not-toml")
        return []
    top.integer("caprpc", 1, 1)
    top.choice("kind", (kind,))
    for key, example in (("caprpc", "caprpc = 1"), ("kind", f'kind = "{kind}"')):
        if not top.has(key):
            top.missing(key, example)
    found = [approval for table in top.tables("pass") if (approval := _approval(table)) is not None]
    top.finish(("caprpc", "kind", "pass"))
    return found


def _approval(table: Table) -> Approval | None:
    what = table.take("what")
    by, reason, until = table.text("by"), table.text("reason"), table.moment("until")
    table.finish(("what", "by", "reason", "until"))
    for key, example in (("what", 'what = "..."'), ("by", 'by = "..."'), ("reason", 'reason = "..."')):
        if not table.has(key):
            table.missing(key, example)
    if not isinstance(what, str) or len(what) > MAX_TEXT_CHARS * 4:
        table.complain("what", "'what' is the text of a change or finding, as the tool prints it", code="bad-value")
        return None
    ended = until is not None and until <= datetime.now(UTC)
    return Approval(what, by or "", reason or "", table.where("what"), ended)


def write_baseline(keys: list[str], by: str) -> str:
    """Return a baseline file that lets these findings pass."""
    lines = ["caprpc = 1", 'kind   = "baseline"']
    for key in keys:
        quoted = key.replace("\\", "\\\\").replace('"', '\\"')
        lines += [
            "",
            "[[pass]]",
            f'what   = "{quoted}"',
            f'by     = "{by}"',
            'reason = "was there when the baseline was made"',
        ]
    return "\n".join(lines) + "\n"
