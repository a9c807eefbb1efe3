"""Findings as SARIF 2.1.0, the form that code scanning services read."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from caprpc.cli.findings import Shown
from caprpc.cli.version import package_version

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT: Final = "%SRCROOT%"
"""What a relative address is relative to: where the tool was started, which in CI is the root of the repository."""


def as_sarif(findings: Sequence[Shown], directory: Path, rules: Mapping[str, str]) -> str:
    """Return findings in files of a directory as a SARIF log with one run.

    Args:
        findings: What was found.
        directory: The directory that the places of findings are in.
        rules: What each code means.
    """
    used = sorted({one.code for one in findings})
    driver = {
        "name": "caprpc policy",
        "version": package_version(),
        "rules": [{"id": code, "shortDescription": {"text": _text(rules.get(code, code))}} for code in used],
    }
    results = [
        {
            "ruleId": one.code,
            "ruleIndex": used.index(one.code),
            "level": one.level,
            "message": {"text": _text(f"{one.message}\n{one.hint}" if one.hint else one.message)},
            "locations": [_location(one, directory)],
            "partialFingerprints": {"caprpcFinding/v1": _fingerprint(one)},
        }
        for one in findings
    ]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"version": "2.1.0", "$schema": _SCHEMA, "runs": [run]}, indent=2)


def _text(text: str) -> str:
    """Return a text as a message in which nothing is a placeholder (3.11.5) or a link (3.11.6).

    Braces become parentheses. The specification would have them doubled, and not every reader undoes that.
    """
    return text.replace("{", "(").replace("}", ")").replace("](", "] (")


def _fingerprint(one: Shown) -> str:
    """Return what tells a finding from others when lines have moved."""
    return hashlib.sha256(f"{one.code}\0{one.file}\0{one.message}".encode()).hexdigest()[:32]


def _location(one: Shown, directory: Path) -> dict[str, object]:
    place: dict[str, object] = {"artifactLocation": _artifact((directory / (one.file or "caprpc.toml")).absolute())}
    if one.line is not None:
        place["region"] = {"startLine": one.line} | ({} if one.column is None else {"startColumn": one.column})
    return {"physicalLocation": place}


def _artifact(file: Path) -> dict[str, str]:
    """Return the address of a file: relative if it lies below the working directory, else absolute (3.4)."""
    # Not resolved: a link is named as the user names it, so that it is found in the repository.
    parts: list[str] = []
    for part in file.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    plain = Path(*parts)
    if not plain.is_relative_to(Path.cwd()):
        return {"uri": plain.as_uri()}
    relative = quote(os.fsencode(plain.relative_to(Path.cwd())), safe="/")
    return {"uri": relative, "uriBaseId": _ROOT}
