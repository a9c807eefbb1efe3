"""Findings and tables as text for people, and as JSON, SARIF, Markdown and CSV for machines."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from caprpc.errors import printable

Level = Literal["error", "warning", "note"]

_SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True, slots=True)
class Shown:
    """One finding as every format shows it."""

    level: Level
    code: str
    where: str
    """``file:line`` within the directory; either part may be missing."""
    message: str
    hint: str = ""

    @property
    def file(self) -> str:
        """The file, without its line."""
        return self.where.partition(":")[0]

    @property
    def line(self) -> int | None:
        """The line, if there is one."""
        line = self.where.partition(":")[2].partition(":")[0]
        return int(line) if line.isdecimal() else None


def text_lines(findings: Iterable[Shown], directory: Path) -> list[str]:
    """Return findings as compilers print them, each hint below."""
    lines = []
    for one in findings:
        where = f"{directory}/{one.where}: " if one.where else ""
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


def as_sarif(findings: Sequence[Shown], directory: Path, rules: Mapping[str, str]) -> str:
    """Return findings as SARIF 2.1.0, as code scanning services read it."""
    used = sorted({one.code for one in findings})
    results = [
        {
            "ruleId": one.code,
            "level": one.level,
            "message": {"text": f"{one.message}\n{one.hint}" if one.hint else one.message},
            "locations": [_location(one, directory)],
        }
        for one in findings
    ]
    driver = {
        "name": "caprpc policy",
        "rules": [{"id": code, "shortDescription": {"text": rules.get(code, code)}} for code in used],
    }
    run = {"tool": {"driver": driver}, "results": results}
    return json.dumps({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _location(one: Shown, directory: Path) -> dict[str, object]:
    file = (directory / (one.file or "caprpc.toml")).as_posix()
    place: dict[str, object] = {"artifactLocation": {"uri": file}}
    if one.line is not None:
        place["region"] = {"startLine": one.line}
    return {"physicalLocation": place}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in columns, the last one as wide as it is."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    )


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows as a Markdown table; what would end a cell is escaped."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows as CSV; a cell that a spreadsheet would take for a formula gets an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([f"'{cell}" if cell[:1] in {"=", "+", "-", "@", "\t"} else cell for cell in row])
    return out.getvalue().rstrip("\n")


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") or " "
