"""``caprpc policy lint | diff | test``: what a reviewer looks at before a change goes in."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

import click

from caprpc.analysis.changes import WIDENING, Difference
from caprpc.analysis.decide import Line
from caprpc.analysis.difference import difference
from caprpc.analysis.expectations import Coverage, Result, coverage
from caprpc.analysis.expectations import run as run_expectations
from caprpc.analysis.lint import CODES, Finding
from caprpc.analysis.lint import lint as find
from caprpc.cli import approvals
from caprpc.cli.exits import TOOL_FINDINGS, TOOL_OK
from caprpc.cli.findings import Level, Shown, as_json, markdown, text_lines
from caprpc.cli.policy_ask import DIRECTORY, load
from caprpc.cli.policy_contracts import contracts_of
from caprpc.cli.revisions import at_revision, last_signed
from caprpc.cli.sarif import as_sarif
from caprpc.errors import printable

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_FORMATS: Final = click.Choice(["text", "json", "sarif", "markdown"])

_UNUSED: Final = {approvals.UNUSED: "an approval, or an entry of a baseline, that lets nothing pass"}

_LINT_EPILOG: Final = """\b
Examples:
  caprpc policy lint policies/server
  caprpc policy lint policies/server --contracts shop.interfaces --format sarif
  caprpc policy lint policies/server --write-baseline baseline.toml
  caprpc policy lint policies/server --baseline baseline.toml

Exit codes: 0 clean, 1 findings, 2 usage, 3 it does not load.
"""
_DIFF_EPILOG: Final = """\b
Examples:
  caprpc policy diff policies.before policies.after
  caprpc policy diff --git main policies/server
  caprpc policy diff --git v1..v2 policies/server --format markdown
  caprpc policy diff --git main policies/server --approvals approved.toml
  caprpc policy diff --last-signed pki/signers.toml policies/server

Exit codes: 0 nobody may do more, 1 somebody may, 2 usage, 3 one of them does not load.
"""
_TEST_EPILOG: Final = """\b
Examples:
  caprpc policy test policies/server
  caprpc policy test policies/server --coverage

Exit codes: 0 all pass, 1 some fail (or, with --coverage, a grant could go unnoticed), 2 usage, 3 it does not load.
"""


@click.command(epilog=_LINT_EPILOG)
@DIRECTORY
@click.option("--contracts", "modules", metavar="MODULE[:NAME]", multiple=True, help="Compare with this code, too.")
@click.option("--baseline", type=_FILE, help="Findings that a person has let pass.")
@click.option("--write-baseline", "target", type=_FILE, help="Write the findings there, to be let pass.")
@click.option("--format", "form", type=_FORMATS, default="text", show_default=True)
def lint(directory: Path, modules: tuple[str, ...], baseline: Path | None, target: Path | None, form: str) -> int:
    """Find what loads and is likely a mistake, or more than somebody meant to give."""
    policies = load(directory)
    code = contracts_of(modules) if modules else None
    findings = find(policies, now=datetime.now(UTC), code=code)
    if target is not None:
        target.write_text(approvals.write_baseline([finding.key for finding in findings], "caprpc"), encoding="utf-8")
        click.echo(f"{target}: {len(findings)} findings; put down why each may pass")
        return TOOL_OK
    entries = approvals.read(baseline, "baseline")
    passed = approvals.let_pass(entries)
    left = [finding for finding in findings if finding.key not in passed]
    notes = approvals.unused(entries, (finding.key for finding in findings))
    shown = [*map(_finding, left), *(_elsewhere(note) for note in notes)]
    if form == "json":
        click.echo(as_json(shown, directory=str(directory), passed=len(findings) - len(left)))
    elif form == "sarif":
        click.echo(as_sarif(shown, directory, {**CODES, **_UNUSED}))
    elif form == "markdown":
        click.echo(markdown(("where", "code", "finding"), [(one.where, one.code, one.message) for one in shown]))
    else:
        for line in [*text_lines(map(_finding, left), directory), *text_lines(notes)]:
            click.echo(line)
        past = f", {len(findings) - len(left)} let pass by the baseline" if passed else ""
        click.echo(f"{directory}: {_count(len(left), 'finding')}{past}")
    return TOOL_FINDINGS if left else TOOL_OK


@click.command(epilog=_DIFF_EPILOG)
@click.argument("directories", metavar="OLD NEW | DIR", nargs=-1, type=click.Path(path_type=Path), required=True)
@click.option("--git", "revision", metavar="REV[..REV]", help="Compare DIR at a revision with DIR, or two revisions.")
@click.option(
    "--last-signed",
    "signers",
    metavar="SIGNERS",
    type=_FILE,
    help="Compare the newest git revision of DIR that enough of these have signed with DIR.",
)
@click.option("--approvals", "approved", type=_FILE, help="Widenings that a person has approved.")
@click.option("--format", "form", type=_FORMATS, default="text", show_default=True)
def diff(
    directories: tuple[Path, ...], revision: str | None, signers: Path | None, approved: Path | None, form: str
) -> int:
    """Say what changes in what peers may do: what is new, wider, narrower and gone, whatever the files look like."""
    alone = revision is not None or signers is not None
    if len(directories) != (1 if alone else 2) or (revision is not None and signers is not None):
        raise click.UsageError("name two directories, or one and either --git REV or --last-signed SIGNERS")
    with ExitStack() as stack:
        if signers is not None:
            sets = [last_signed(directories[0], signers)[0], load(directories[0])]
        else:
            sets = [load(place, name) for place, name in _places(stack, directories, revision)]
    found = difference(sets[0], sets[1])
    entries = approvals.read(approved, "approvals")
    passed = approvals.let_pass(entries)
    wider = [one for one in found if one.verdict in WIDENING]
    left = [one for one in wider if one.key not in passed]
    notes = approvals.unused(entries, (one.key for one in wider))
    _print_differences(found, left, notes, form, directories[-1])
    return TOOL_FINDINGS if left else TOOL_OK


def _places(stack: ExitStack, directories: tuple[Path, ...], revision: str | None) -> list[tuple[Path, str]]:
    """Return the old and the new directory, each with what messages call it."""
    if revision is None:
        return [(place, str(place)) for place in directories]
    directory = directories[0]
    before, _, after = revision.partition("..")
    old = stack.enter_context(at_revision(directory, before)), f"{before}:{directory}"
    if not after:
        return [old, (directory, str(directory))]
    return [old, (stack.enter_context(at_revision(directory, after)), f"{after}:{directory}")]


def _print_differences(
    found: Sequence[Difference], left: Sequence[Difference], notes: Sequence[Shown], form: str, directory: Path
) -> None:
    if form == "json":
        rows = [
            {
                "verdict": one.verdict,
                "peer": one.peer,
                "subject": one.subject,
                "through": one.way,
                "old": one.old,
                "new": one.new,
                "old_rule": one.old_rule,
                "new_rule": one.new_rule,
                "approved": one.verdict in WIDENING and one not in left,
                "key": one.key,
            }
            for one in found
        ]
        click.echo(as_json(notes, wider=bool(left), differences=rows))
    elif form == "sarif":
        rules = {"new": "a peer may do something new", "wider": "a constraint lets more through", **_UNUSED}
        shown = [Shown("error", one.verdict, one.new_rule, _difference_text(one)) for one in left]
        shown += map(_elsewhere, notes)
        click.echo(as_sarif(shown, directory, rules))
    elif form == "markdown":
        columns = ("verdict", "peer", "what", "through", "before", "after", "rule")
        cells: list[tuple[str, ...]] = [
            (one.verdict, one.peer, one.subject, one.way, one.old, one.new, one.new_rule or one.old_rule)
            for one in found
        ]
        cells += [("note", "", note.message, "", "", "", note.where) for note in notes]
        click.echo(markdown(columns, cells))
    else:
        for peer in dict.fromkeys(one.peer for one in found):
            click.echo(printable(peer, 2_048))
            for one in found:
                if one.peer == peer:
                    mark = " (approved)" if one.verdict in WIDENING and one not in left else ""
                    click.echo(f"  {one.verdict:8} {_difference_text(one)}{mark}")
        for line in text_lines(notes):
            click.echo(line)
        click.echo(_summary(found, left))


def _difference_text(one: Difference) -> str:
    through = f", through {one.way}" if one.way else ""
    change = f": {one.old or 'nothing'} -> {one.new or 'nothing'}"
    rule = one.new_rule or one.old_rule
    return f"{one.subject}{through}{change} ({rule})"


def _summary(found: Sequence[Difference], left: Sequence[Difference]) -> str:
    if not found:
        return "no difference in what anybody may do"
    counts = {one.verdict: sum(other.verdict == one.verdict for other in found) for one in found}
    words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    if left:
        return f"{words}; somebody may do more than before"
    approved = any(one.verdict in WIDENING for one in found)
    return f"{words}; nobody may do more than {'was approved' if approved else 'before'}"


@click.command("test", epilog=_TEST_EPILOG)
@DIRECTORY
@click.option("--coverage", "covered", is_flag=True, help="Also drop each grant in turn: does a test notice?")
@click.option("--verbose", is_flag=True, help="Show the steps of what passes, too.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "junit", "markdown"]), default="text", show_default=True
)
def test(directory: Path, covered: bool, verbose: bool, form: str) -> int:
    """Run the expectations of the directory's test files against its policies."""
    policies = load(directory)
    if not policies.expectations:
        raise click.UsageError(f'{directory} lists no tests; write in caprpc.toml: tests = ["tests.toml"]')
    results = run_expectations(policies)
    failed = [result for result in results if not result.passed]
    measured = coverage(policies) if covered else None
    if form == "json":
        click.echo(json.dumps(_json_results(results, measured), indent=2))
    elif form == "junit":
        click.echo(_junit(results, measured, str(directory)))
    elif form == "markdown":
        rows = [_cells(result) for result in results]
        rows += [("not covered", "", line.text, "no test notices if it goes", line.where) for line in _missed(measured)]
        click.echo(markdown(("", "id", "expectation", "got", "where"), rows))
    else:
        for result in results if verbose else failed:
            _print_result(result)
        click.echo(f"{directory}: {_count(len(results), 'expectation')}, {len(failed)} failed")
        if measured is not None:
            _print_coverage(measured)
    unnoticed = measured is not None and bool(measured.survivors)
    return TOOL_FINDINGS if failed or unnoticed else TOOL_OK


def _missed(measured: Coverage | None) -> Sequence[Line]:
    return () if measured is None else measured.survivors


def _question(result: Result) -> str:
    one = result.expectation
    verb = f"{one.verb}{'' if one.expected else ' not'}"
    return f"{one.peer} {verb} {one.interface}.{one.member}" if one.member else f"{one.peer} {verb} {one.interface}"


def _cells(result: Result) -> tuple[str, ...]:
    one = result.expectation
    return ("ok" if result.passed else "FAIL", one.name, _question(result), result.got, one.where)


def _junit(results: Sequence[Result], measured: Coverage | None, suite: str) -> str:
    """Return results as JUnit XML; a grant that no test would miss is a failed case of its own."""
    cases = [
        (
            one.expectation.name,
            "" if one.passed else f"{_question(one)}: {one.got} ({one.expectation.where})",
            one.lines,
        )
        for one in results
    ]
    cases += [(line.text, f"no test notices if it goes ({line.where})", ()) for line in _missed(measured)]
    failed = sum(bool(failure) for _, failure, _ in cases)
    name = escape(printable(suite, 1_000))
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines.append(f'<testsuite name="{name}" tests="{len(cases)}" failures="{failed}" errors="0" skipped="0">')
    for case, failure, steps in cases:
        head = f'  <testcase classname="{name}" name="{escape(printable(case, 1_000))}"'
        if not failure:
            lines.append(f"{head}/>")
            continue
        text = "\n".join(f"{printable(step.text, 1_000)} ({step.where})" for step in steps)
        message = escape(printable(failure, 1_000))
        lines.append(f'{head}><failure message="{message}">{escape(text)}</failure></testcase>')
    return "\n".join([*lines, "</testsuite>"])


def _print_result(result: Result) -> None:
    one = result.expectation
    click.echo(f"{'ok  ' if result.passed else 'FAIL'} {one.name}: {_question(result)}: {result.got} ({one.where})")
    for line in result.lines:
        click.echo(f"       {printable(line.text, 1_000)}" + (f"  ({line.where})" if line.where else ""))


def _print_coverage(measured: Coverage) -> None:
    caught = measured.grants - len(measured.survivors)
    click.echo(f"{measured.grants} grants, {caught} of which cannot be dropped without a test failing")
    for line in measured.survivors:
        click.echo(f"  no test notices if it goes: {line.text} ({line.where})")


def _json_results(results: Sequence[Result], measured: Coverage | None) -> dict[str, object]:
    rows = [
        {
            "id": result.expectation.name,
            "where": result.expectation.where,
            "passed": result.passed,
            "got": result.got,
            "rule": result.granted_by,
            "steps": [{"where": line.where, "text": line.text} for line in result.lines],
        }
        for result in results
    ]
    found: dict[str, object] = {"passed": all(result.passed for result in results), "expectations": rows}
    if measured is not None:
        found["coverage"] = {
            "grants": measured.grants,
            "survivors": [{"where": line.where, "text": line.text} for line in measured.survivors],
        }
    return found


def _finding(finding: Finding) -> Shown:
    level: Level = "error" if finding.code in {"contract-drift", "expired"} else "warning"
    return Shown(level, finding.code, finding.where, finding.message, finding.hint, finding.column)


def _elsewhere(note: Shown) -> Shown:
    """Return a note about a file that the user named, not about one in the directory of policies."""
    return replace(note, where=str(Path(note.where).absolute()))


def _count(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
