"""``caprpc policy``: the group of all tools for policies, and the one that finds every mistake in a directory."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from caprpc.analysis.authority import lend_name, lifetime_text, passing_text, terms_text
from caprpc.cli.exits import TOOL_DOES_NOT_LOAD, TOOL_OK, Toolbox
from caprpc.cli.findings import Level, Shown, markdown
from caprpc.cli.policy_ask import can_i, explain, list_rights
from caprpc.cli.policy_contracts import contracts, contracts_of
from caprpc.cli.policy_export import export, report
from caprpc.cli.policy_logs import learn, shadow, unused
from caprpc.cli.policy_reach import reach
from caprpc.cli.policy_review import diff, lint, test
from caprpc.cli.policy_schema import schema
from caprpc.cli.policy_sign import keygen, sign, verify
from caprpc.cli.sarif import as_sarif
from caprpc.errors import ConfigurationError, PolicyError
from caprpc.ids import OPERATION_NAMES
from caprpc.policy import Policy, PolicySet
from caprpc.policy.problems import CODES

_CHECK_EPILOG: Final = """\b
Examples:
  caprpc policy check policies/server
  caprpc policy check policies/server --format sarif > check.sarif
  caprpc policy check policies/server --contracts shop.interfaces

Exit codes: 0 it loads, 2 usage, 3 it does not load.
"""


@click.group(
    cls=Toolbox, epilog="\b\nExamples:\n  caprpc policy check policies/server\n  caprpc policy list policies/server\n"
)
def policy() -> None:
    """Check policies, ask what they let peers do, and see what a change would change.

    Every tool works on files alone. Exit codes: 0 clean or yes, 1 findings, no or wider, 2 usage, 3 does not load,
    4 cannot decide.
    """


_TOOLS = (contracts, list_rights, can_i, explain, reach, lint, diff, test, unused, learn, shadow, export, report)

for _tool in (*_TOOLS, schema, keygen, sign, verify):
    policy.add_command(_tool)


@policy.command(epilog=_CHECK_EPILOG)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "sarif", "markdown"]), default="text", show_default=True
)
@click.option(
    "--contracts",
    "modules",
    metavar="MODULE[:NAME]",
    multiple=True,
    help="Compare contracts.toml with the interfaces of this module, too (repeatable).",
)
def check(directory: Path, form: str, modules: tuple[str, ...]) -> int:
    """Load the policies in DIR as a service would, and show every mistake with file, line and a suggestion."""
    loaded: PolicySet | None = None
    errors: Iterable[ConfigurationError] = ()
    try:
        loaded = PolicySet.load(directory, now=datetime.now(UTC))
        if modules:
            loaded.verify_contracts(contracts_of(modules))
    except PolicyError as exc:
        errors = exc.problems
    warnings = loaded.warnings if loaded is not None else ()
    if form == "sarif":
        click.echo(as_sarif(_findings(directory, errors, warnings), directory, CODES))
    elif form == "markdown":
        rows = [(one.level, one.where, one.code, one.message) for one in _findings(directory, errors, warnings)]
        click.echo(markdown(("level", "where", "code", "problem"), rows))
    else:
        report = _json_report if form == "json" else _text_report
        click.echo(report(directory, loaded, list(errors), list(warnings)))
    return TOOL_DOES_NOT_LOAD if errors else TOOL_OK


def _findings(
    directory: Path, errors: Iterable[ConfigurationError], warnings: Iterable[ConfigurationError]
) -> list[Shown]:
    levels: tuple[tuple[Level, Iterable[ConfigurationError]], ...] = (("error", errors), ("warning", warnings))
    return [
        Shown(level, one.code or "error", _inside(directory, one.where), one.message, one.hint, one.column)
        for level, found in levels
        for one in found
    ]


def _inside(directory: Path, where: str) -> str:
    """Return a place within the directory; empty for the directory itself."""
    return where.removeprefix(str(directory)).lstrip("/")


def _text_report(
    directory: Path, loaded: PolicySet | None, errors: list[ConfigurationError], warnings: list[ConfigurationError]
) -> str:
    lines = [line for problem in errors for line in _problem_lines(directory, problem, "error")]
    lines += [line for problem in warnings for line in _problem_lines(directory, problem, "warning")]
    if errors or loaded is None:
        lines.append(f"{directory}: {len(errors)} {'error' if len(errors) == 1 else 'errors'}; nothing of it is used")
        return "\n".join(lines)
    count = len(loaded.policies)
    lines.append(f"{directory}: version {loaded.version}, {count} {'policy' if count == 1 else 'policies'}, no errors")
    for one in loaded.policies:
        lines.extend(_policy_lines(one))
    return "\n".join(lines)


def _problem_lines(directory: Path, problem: ConfigurationError, severity: str) -> Iterator[str]:
    where = problem.where if problem.where.startswith(str(directory)) else f"{directory}/{problem.where}"
    place = where if problem.column is None else f"{where}:{problem.column}"
    code = f" [{problem.code}]" if problem.code else ""
    yield f"{place}: {severity}: {problem.message}{code}"
    if problem.hint:
        yield f"  hint: {problem.hint}"


def _policy_lines(one: Policy) -> Iterator[str]:
    begins = f", from {one.not_before.isoformat()}" if one.not_before is not None else ""
    until = f", until {one.not_after.isoformat()}" if one.not_after is not None else ""
    yield f"  {one.name} ({one.file}){begins}{until}"
    for principal in sorted(one.principals):
        yield f"    peer     {principal}"
    for root in one.roots.values():
        yield f"    root     {root.name} as {root.facet}"
    for entry in one.restores.values():
        yield f"    restore  {entry.name} as {entry.facet}{terms_text(entry)}"
    for offer in one.offers.values():
        yield f"    offer    {offer.name} ({offer.interface}): {_members(offer.grants)}"
        if passing := passing_text(offer):
            yield f"             {offer.name} {passing}"
    accepted: dict[str, list[tuple[int, str]]] = {}
    for interface, operation, member in one.accepts:
        if operation:
            accepted.setdefault(interface, []).append((operation, member))
    for interface, keys in accepted.items():
        yield f"    accept   {interface}: {_members(keys)}"
    for lend in one.lends.values():
        yield f"    lend     to {lend_name(lend)} as {lend.facet}, {lifetime_text(lend)}"


def _members(keys: Iterable[tuple[int, str]]) -> str:
    return ", ".join(f"{OPERATION_NAMES[operation]} {member}".strip() for operation, member in keys)


def _json_report(
    directory: Path, loaded: PolicySet | None, errors: list[ConfigurationError], warnings: list[ConfigurationError]
) -> str:
    report: dict[str, object] = {
        "directory": str(directory),
        "ok": not errors,
        "problems": [
            *(_problem(problem, "error") for problem in errors),
            *(_problem(problem, "warning") for problem in warnings),
        ],
    }
    if loaded is not None:
        report |= {
            "version": loaded.version,
            "digest": loaded.digest,
            "policies": [
                {
                    "name": one.name,
                    "file": one.file,
                    "digest": one.digest,
                    "not_after": one.not_after.isoformat() if one.not_after is not None else None,
                    "peers": sorted(one.principals),
                    "roots": {root.name: root.facet for root in one.roots.values()},
                    "members": sum(len(offer.grants) for offer in one.offers.values()),
                }
                for one in loaded.policies
            ],
        }
    return json.dumps(report, indent=2)


def _problem(problem: ConfigurationError, severity: str) -> dict[str, object]:
    file, _, line = problem.where.rpartition(":")
    has_line = line.isdecimal() and bool(file)
    return {
        "severity": severity,
        "file": file if has_line else problem.where,
        "line": int(line) if has_line else None,
        "column": problem.column,
        "code": problem.code,
        "message": problem.message,
        "hint": problem.hint,
    }
