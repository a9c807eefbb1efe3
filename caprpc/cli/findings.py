"""Findings and tables as text for people, and as JSON, SARIF, Markdown and CSV for machines."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from caprpc.errors import printable

Level = Literal["error", "warning", "note"]

_FORMULA: Final = re.compile(r"[\s\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
"""What a spreadsheet takes for a formula: also behind blanks, and in the wide forms of the four characters."""
_QUOTED: Final = re.compile(r"[\",\r\n]|^\s|\s$")
"""What a cell of a CSV has to be quoted for (RFC 4180, section 2), and blanks that some readers drop."""
_MARKUP: Final = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)|!(?=\[)")
"""What Markdown gives a meaning to within a line; an underscore inside a word has none."""
_ADDRESS: Final = re.compile(r"(?i)\b(https?|ftp)(:)(?=//)|\b(www)(\.)")
"""What GitHub's Markdown makes a link of by itself: its colon or dot is written as an entity, and it no longer does."""
_AT: Final = "@<!-- -->"
"""An address of mail is looked for behind all escapes, in one piece of text; so are names that are notified."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One finding as every format shows it."""

    level: Level
    code: str
    where: str
    """``file:line`` within the directory; either part may be missing."""
    message: str
    hint: str = ""
    column: int | None = None
    """Where in the line, counted in characters from 1."""

    @property
    def file(self) -> str:
        """The file, without its line."""
        return self.where.partition(":")[0]

    @property
    def line(self) -> int | None:
        """The line, if there is one."""
        line = self.where.partition(":")[2].partition(":")[0]
        return int(line) if line.isdecimal() else None


def text_lines(findings: Iterable[Shown], directory: Path | None = None) -> list[str]:
    """Return findings as compilers print them, each hint below; places are in ``directory``, if one is given."""
    lines = []
    for one in findings:
        place = one.where if directory is None else f"{directory}/{one.where}"
        where = f"{place}: " if one.where else ""
        lines.append(f"{where}{one.level}: {printable(one.message, 1_000)} [{one.code}]")
        if one.hint:
            lines.append(f"  hint: {printable(one.hint, 1_000)}")
    return lines


def as_json(findings: Iterable[Shown], **more: object) -> str:
    """Return findings as a JSON object, with ``more`` beside them."""
    rows = [
        {
            "level": one.level,
            "code": one.code,
            "file": one.file,
            "line": one.line,
            "message": one.message,
            "hint": one.hint,
        }
        for one in findings
    ]
    return json.dumps({**more, "findings": rows}, indent=2)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in columns, the last one as wide as it is."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    )


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows as a Markdown table; no text of a cell ends the cell, makes a link or looks like anything else."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows as CSV; a cell that a spreadsheet would take for a formula gets an apostrophe before it."""
    return "\n".join(",".join(map(_csv_cell, row)) for row in (columns, *rows))


def _csv_cell(text: str) -> str:
    # Python's own writer leaves a lone carriage return bare, where spreadsheets begin a new row.
    shown = f"'{text}" if _FORMULA.match(text) else text
    return '"' + shown.replace('"', '""') + '"' if _QUOTED.search(shown) else shown


def _cell(text: str) -> str:
    line = printable(" ".join(text.split()), len(text) + 1).replace("&", "&amp;").replace("<", "&lt;")
    marked = _MARKUP.sub(r"\\\g<0>", line).replace("@", _AT)
    return _ADDRESS.sub(lambda found: found[1] + "&#58;" if found[1] else found[3] + "&#46;", marked) or " "
