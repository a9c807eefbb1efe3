"""``caprpc stubs``: write the types that clients with asyncio complete and check against."""

import difflib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click

from caprpc.cli.async_types import Unnameable, async_module
from caprpc.cli.exits import TOOL_FINDINGS, TOOL_OK
from caprpc.cli.modules import import_local
from caprpc.interface import interface_info

_EPILOG: Final = """\b
Examples:
  caprpc stubs shop.interfaces                                   print them
  caprpc stubs shop.interfaces --write shop/async_interfaces.py  keep them beside the interfaces
  caprpc stubs shop.interfaces --check shop/async_interfaces.py  in CI: are they up to date?

\b
  from shop.async_interfaces import AsyncLedger
  ledger = await peer.root("ledger", AsyncLedger)     # completes, and type checks

Blocking clients need none: there the interface itself is the type.

Exit codes: 0 written or up to date, 1 out of date, 64 usage, 66 there is no such file.
"""


@click.command(epilog=_EPILOG)
@click.argument("module")
@click.option("--write", "target", metavar="FILE", type=click.Path(path_type=Path), help="Write them to FILE.")
@click.option("--check", "checked", metavar="FILE", type=click.Path(path_type=Path), help="Compare them with FILE.")
def stubs(module: str, target: Path | None, checked: Path | None) -> int:
    """Write a protocol AsyncX for each interface X of MODULE, with the members as a client with asyncio sees them."""
    if target is not None and checked is not None:
        raise click.UsageError("--write or --check, not both")
    try:
        text = async_module(module, interfaces_of(import_local(module)))
    except Unnameable as exc:
        raise click.UsageError(f"{module}: {exc}") from None
    if checked is not None:
        return _compare(checked, text, module)
    if target is None:
        click.echo(text, nl=False)
    else:
        target.write_text(text, encoding="utf-8")
    return TOOL_OK


def interfaces_of(module: ModuleType) -> list[Any]:
    """Return the interfaces that a module defines or, if it has ``__all__``, offers.

    Raises:
        click.UsageError: There is none.
    """
    offered = module.__dict__.get("__all__")
    members: dict[str, Callable[..., Any]] = module.__dict__
    found = [
        value
        for name, value in members.items()
        if interface_info(value) is not None
        and (name in offered if offered is not None else value.__module__ == module.__name__)
    ]
    if not found:
        raise click.UsageError(f"{module.__name__} declares no interface")
    return found


def _compare(path: Path, text: str, module: str) -> int:
    there = path.read_text(encoding="utf-8")
    if there == text:
        return TOOL_OK
    changes = difflib.unified_diff(there.splitlines(True), text.splitlines(True), str(path), "as declared now")
    click.echo("".join(changes), nl=False)
    click.echo(f"caprpc: {path} is out of date\n  hint: caprpc stubs {module} --write {path}", err=True)
    return TOOL_FINDINGS
