"""What a factory of ours makes, as far as it says so: of roots, and of what is restored."""

import inspect
from functools import partial
from typing import get_type_hints


def class_made(factory: object) -> type | None:
    """Return the class of what a factory makes: itself, or what its result is annotated with; None if it does not say.

    Raises:
        NameError: Its annotations are texts (as all are under ``from __future__ import annotations``), and name what is
            not there where it is defined.
    """
    if isinstance(factory, partial):
        factory = factory.func
    if isinstance(factory, type):
        return factory
    if not callable(factory):
        return None
    function = factory if inspect.isroutine(factory) else type(factory).__call__
    made = get_type_hints(function).get("return")
    return made if isinstance(made, type) else None
