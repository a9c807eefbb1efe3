"""Importing a module that the operator names on the command line: the only import by name, and never a peer's."""

import importlib
import os
import sys
from types import ModuleType

import click

from caprpc.cli.exits import EX_SOFTWARE


class ModuleFailed(click.ClickException):
    """Our own code has failed before anything was served: the words of the command line were right."""

    exit_code = EX_SOFTWARE


def import_local(name: str) -> ModuleType:
    """Import our own module by its dotted name; modules in the current directory are found too.

    Raises:
        click.UsageError: Not the name of a module, or there is none such.
        ModuleFailed: It fails, or ends the process, while it is imported.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise click.UsageError(f"{name!r} is not the dotted name of a module")
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise click.UsageError(f"cannot import {name!r}: {exc}") from exc
    except (Exception, SystemExit) as exc:  # The module is application code: what it raises is the operator's to mend.
        raise ModuleFailed(f"{name!r} fails while it is imported: {type(exc).__name__}: {exc}") from exc
