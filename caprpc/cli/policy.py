"""``caprpc policy``: find every mistake in a policy directory, and write down what the code declares."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from caprpc.cli.exits import EX_CONFIG, EX_NOINPUT, EX_OK
from caprpc.cli.modules import import_local
from caprpc.contract import InterfaceContract
from caprpc.errors import ConfigurationError, PolicyError
from caprpc.ids import OPERATION_NAMES
from caprpc.interface import interface_closure, interface_info
from caprpc.policy import Policy, PolicySet, contracts_to_toml

_CHECK_EPILOG: Final = """\b
Examples:
  caprpc policy check policies/server
  caprpc policy check policies/server --format json
  caprpc policy check policies/server --contracts shop.interfaces

Exit codes: 0 it loads, 66 there is no such directory, 78 it does not load.
"""
_CONTRACTS_EPILOG: Final = """\b
Examples:
  caprpc policy contracts shop.interfaces
  caprpc policy contracts shop.interfaces:Ledger shop.files --write policies/server/contracts.toml

Exit codes: 0 written, 64 a module or interface was not found.
"""

InterfaceClass = Callable[..., Any]


@click.group(epilog="\b\nExample:\n  caprpc policy check policies/server\n")
def policy() -> None:
    """Check policy directories, and generate the contracts that they are checked against."""


@policy.command(epilog=_CHECK_EPILOG)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--contracts",
    "modules",
    metavar="MODULE[:NAME]",
    multiple=True,
    help="Compare contracts.toml with the interfaces of this module, too (repeatable).",
)
def check(directory: Path, form: str, modules: tuple[str, ...]) -> int:
    """Load the policies in DIR as a service would, and show every mistake with file, line and a suggestion."""
    if not directory.exists():
        click.echo(f"caprpc: {directory}: there is no such directory", err=True)
        return EX_NOINPUT
    loaded: PolicySet | None = None
    errors: Iterable[ConfigurationError] = ()
    try:
        loaded = PolicySet.load(directory, now=datetime.now(UTC))
        if modules:
            loaded.verify_contracts(_contracts(modules))
    except PolicyError as exc:
        errors = exc.problems
    warnings = loaded.warnings if loaded is not None else ()
    report = _json_report if form == "json" else _text_report
    click.echo(report(directory, loaded, list(errors), list(warnings)))
    return EX_CONFIG if errors else EX_OK


@policy.command(epilog=_CONTRACTS_EPILOG)
@click.argument("modules", metavar="MODULE[:NAME]...", nargs=-1, required=True)
@click.option(
    "--write",
    "target",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Replace this file instead of printing.",
)
def contracts(modules: tuple[str, ...], target: Path | None) -> int:
    """Print the contracts of all interfaces in our own MODULEs, and of every interface that these mention."""
    text = contracts_to_toml(_contracts(modules))
    if target is None:
        click.echo(text, nl=False)
        return EX_OK
    before = target.read_text(encoding="utf-8") if target.exists() else None
    if before == text:
        click.echo(f"{target}: unchanged")
        return EX_OK
    _replace(target, text)
    click.echo(f"{target}: {'written' if before is None else 'changed; review the difference'}")
    return EX_OK


def _contracts(modules: Iterable[str]) -> Mapping[str, InterfaceContract]:
    found = [interface for argument in modules for interface in _interfaces(argument)]
    try:
        return interface_closure(found)
    except TypeError as exc:
        raise click.UsageError(str(exc)) from exc


def _interfaces(argument: str) -> Iterator[InterfaceClass]:
    """Yield the interface class that ``module:Name`` names, or all that ``module`` holds."""
    module_name, _, name = argument.partition(":")
    members = import_local(module_name).__dict__
    if name:
        candidate = members.get(name)
        if not isinstance(candidate, type) or interface_info(candidate) is None:
            known = ", ".join(sorted(key for key, value in members.items() if interface_info(value) is not None))
            raise click.UsageError(f"{argument}: no such interface; the module has: {known or 'none'}")
        yield candidate
        return
    classes = [value for value in members.values() if isinstance(value, type) and interface_info(value) is not None]
    if not classes:
        raise click.UsageError(f"{argument}: the module has no interfaces")
    yield from classes


def _replace(target: Path, text: str) -> None:
    """Replace a file as a whole: a service that reloads now sees the old text or the new one."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".contracts-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


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
    yield f"{where}: {severity}: {problem.message}"
    if problem.hint:
        yield f"  hint: {problem.hint}"


def _policy_lines(one: Policy) -> Iterator[str]:
    until = f", until {one.not_after.isoformat()}" if one.not_after is not None else ""
    yield f"  {one.name} ({one.file}){until}"
    for principal in sorted(one.principals):
        yield f"    peer     {principal}"
    for root in one.roots.values():
        yield f"    root     {root.name} as {root.facet}"
    for offer in one.offers.values():
        yield f"    offer    {offer.name} ({offer.interface}): {_members(offer.grants)}"
    accepted: dict[str, list[tuple[int, str]]] = {}
    for interface, operation, member in one.accepts:
        if operation:
            accepted.setdefault(interface, []).append((operation, member))
    for interface, keys in accepted.items():
        yield f"    accept   {interface}: {_members(keys)}"
    for lend in one.lends.values():
        lifetime = f"{lend.lifetime:g} s" if isinstance(lend.lifetime, float) else f"the {lend.lifetime}"
        yield f"    lend     to {lend.interface}.{lend.member} ({lend.parameter}) as {lend.facet}, for {lifetime}"


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
        "message": problem.message,
        "hint": problem.hint,
    }
