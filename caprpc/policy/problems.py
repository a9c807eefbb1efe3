"""Everything that is wrong in a policy directory, collected, so that one run names it all."""

import difflib
import re
from collections.abc import Iterable
from typing import Final

from caprpc.errors import ConfigurationError, PolicyError

MAX_PROBLEMS: Final = 200
"""Problems that are kept: nobody reads more, and a hostile file could make millions."""

_WHERE: Final = re.compile(r"^(.*?)(?::(\d+))?$", re.DOTALL)


class Problems:
    """Collects errors and warnings; only ``raise_if_any`` decides."""

    def __init__(self) -> None:
        self._errors: list[ConfigurationError] = []
        self._warnings: list[ConfigurationError] = []

    def add(self, where: str, message: str, hint: str = "") -> None:
        """Note an error at ``file:line``."""
        _append(self._errors, where, message, hint)

    def warn(self, where: str, message: str, hint: str = "") -> None:
        """Note something that grants nothing wrong but is likely a mistake."""
        _append(self._warnings, where, message, hint)

    def __bool__(self) -> bool:
        return bool(self._errors)

    @property
    def first(self) -> str:
        """What is wrong with the first thing that is; empty if nothing."""
        return self._errors[0].message if self._errors else ""

    @property
    def warnings(self) -> tuple[ConfigurationError, ...]:
        """All warnings, in file and line order."""
        return tuple(sorted(self._warnings, key=_order))

    def raise_if_any(self) -> None:
        """Raise all errors together, in file and line order.

        Raises:
            PolicyError: There is at least one.
        """
        if self._errors:
            raise PolicyError(sorted(self._errors, key=_order))


def _append(target: list[ConfigurationError], where: str, message: str, hint: str) -> None:
    if len(target) < MAX_PROBLEMS:
        target.append(ConfigurationError(message, where=where, hint=hint))


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'call'?`` if a known word is near, else the list of known words if it is short."""
    choices = sorted(known)
    near = difflib.get_close_matches(word[:100], choices, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not choices:
        return ""
    shown = ", ".join(choices[:20])
    return f"known here: {shown}{', ...' if len(choices) > 20 else ''}"


def _order(problem: ConfigurationError) -> tuple[str, int]:
    match = _WHERE.match(problem.where)
    if match is None:
        return problem.where, 0
    return match.group(1), int(match.group(2) or 0)
