"""``caprpc policy contracts``: write down what the code declares, for review."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from caprpc.cli.exits import TOOL_OK
from caprpc.cli.modules import import_local
from caprpc.contract import InterfaceContract
from caprpc.interface import interface_closure, interface_info
from caprpc.policy import contracts_to_toml

CONTRACTS_EPILOG: Final = """\b
Examples:
  caprpc policy contracts shop.interfaces
  caprpc policy contracts shop.interfaces:Ledger shop.files --write policies/server/contracts.toml

Exit codes: 0 written, 2 a module or interface was not found.
"""

InterfaceClass = Callable[..., Any]


@click.command(epilog=CONTRACTS_EPILOG)
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
    text = contracts_to_toml(contracts_of(modules))
    if target is None:
        click.echo(text, nl=False)
        return TOOL_OK
    before = target.read_text(encoding="utf-8") if target.exists() else None
    if before == text:
        click.echo(f"{target}: unchanged")
        return TOOL_OK
    _replace(target, text)
    click.echo(f"{target}: {'written' if before is None else 'changed; review the difference'}")
    return TOOL_OK


def contracts_of(modules: Iterable[str]) -> Mapping[str, InterfaceContract]:
    """Return the contracts of all interfaces in modules of ours.

    Raises:
        click.UsageError: There is no such module or interface, or two interfaces share a name.
    """
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
