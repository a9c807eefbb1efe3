"""Importing a module that the operator names on the command line: the only import by name, and never a peer's."""

import importlib
import os
import sys
from types import ModuleType

import click


def import_local(name: str) -> ModuleType:
    """Import our own module by its dotted name; modules in the current directory are found too.

    Raises:
        click.UsageError: Not the name of a module, there is none such, or it fails while it is imported.
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
    except Exception as exc:  # The module is application code: whatever it raises while it loads is the operator's.
        raise click.UsageError(f"{name!r} fails while it is imported: {type(exc).__name__}: {exc}") from exc
