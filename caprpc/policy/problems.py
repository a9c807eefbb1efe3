"""Everything that is wrong in a policy directory, collected, so that one run names it all."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from caprpc.errors import ConfigurationError, PolicyError

MAX_PROBLEMS: Final = 200
"""Problems that are kept: nobody reads more, and a hostile file could make millions."""

CODES: Final[Mapping[str, str]] = {
    "ambiguous-peer": "two policies that one certificate could match",
    "bad-name": "a word that is not of its grammar: a wildcard, a private name, other letters",
    "bad-value": "a value of another type, or out of its range",
    "contract-drift": "the code declares something else than what was reviewed",
    "duplicate": "the same thing twice",
    "empty": "a list or table with nothing in it",
    "expired": "a policy that has ended",
    "invariant": "a peer reaches what an invariant forbids",
    "misplaced-path": "what changes while the service runs lies among the policies",
    "missing-key": "a key that must be there is not",
    "no-accept": "a granted member takes a reference, and no accept says what we may do with it",
    "no-contract": "an interface without a contract",
    "no-result-facet": "a member returns references, and nothing says what may be done with them",
    "no-such-facet": "a facet that the file does not have",
    "no-such-member": "a member that the interface does not declare for this",
    "no-such-parameter": "a parameter that the member does not have",
    "no-such-policy": "an exception for a policy that does not exist",
    "no-such-root": "a root, or something to restore, that the service does not have",
    "not-toml": "the text is not TOML, or beyond its bounds",
    "nothing-to-narrow": "a table narrows what no list grants",
    "placeholder": "a fingerprint of no key",
    "sensitive": "the audit log may not keep this parameter in clear",
    "unknown-key": "a key that the language does not know here",
    "unlisted-file": "a file that is not listed, or listed as something else",
    "unreachable-facet": "a facet that nothing gives to the peer",
    "unreadable-text": "bytes or characters that a reader cannot see for what they are",
    "unsafe-file": "a file or directory that others could have written, or that is no file",
    "useless-rule": "a rule that demands nothing, or that nothing can pass",
    "version": "a version that is too old, or that did not grow",
    "wrong-facet": "a facet for another interface",
    "wrong-kind": "a file of another kind than is expected",
}
"""Every code that a problem of a policy directory can have; for programs, and the same in every version."""

_HINTS: Final[Mapping[str, str]] = {
    "bad-name": "write a word of the grammar in section 1.2 of the policy reference",
    "bad-value": "write what the policy reference says of this key",
    "expired": "renew it, or take it out of caprpc.toml",
    "invariant": "take the way there away, or name the policy in 'except'",
    "no-contract": "write contracts.toml anew: caprpc policy contracts MODULE --write",
    "no-such-facet": "write that table, or name a facet that is there",
    "no-such-member": "name a member that the interface declares, or write contracts.toml anew",
    "no-such-parameter": "name a parameter that the member declares",
    "no-such-policy": "name a policy that caprpc.toml lists",
    "not-toml": "write TOML 1.0: one key on each line, texts in quotes",
    "useless-rule": "delete the rule, or write one that some argument of the declared type passes",
    "wrong-facet": "name a facet for the interface that is declared",
}
"""What to do about a problem of which nothing more is known."""


class Where(str):
    """``file:line`` of a value, which also knows its column; rules in records are without it."""

    __slots__ = ("column",)

    column: int

    def __new__(cls, text: str, column: int) -> "Where":
        """Return the place with its column, counted from 1 in characters."""
        made = super().__new__(cls, text)
        made.column = column
        return made


class Problems:
    """Collects errors and warnings; only ``raise_if_any`` decides."""

    def __init__(self) -> None:
        self._errors: list[ConfigurationError] = []
        self._warnings: list[ConfigurationError] = []
        self._texts: dict[str, str] = {}

    def read(self, name: str, text: str) -> None:
        """Take note of a file: a problem of which only the line is known is where that line begins."""
        self._texts[name] = text

    def add(self, where: str, message: str, hint: str = "", *, code: str) -> None:
        """Note an error at ``file:line``; ``code`` is one of ``CODES``."""
        self._append(self._errors, where, message, hint, code)

    def warn(self, where: str, message: str, hint: str = "", *, code: str) -> None:
        """Note something that grants nothing wrong but is likely a mistake."""
        self._append(self._warnings, where, message, hint, code)

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

    def _append(self, target: list[ConfigurationError], where: str, message: str, hint: str, code: str) -> None:
        if len(target) < MAX_PROBLEMS:
            column = where.column if isinstance(where, Where) else self._column(where)
            hint = hint or _HINTS.get(code, "")
            target.append(ConfigurationError(message, where=where, hint=hint, code=code, column=column))

    def _column(self, where: str) -> int | None:
        """Return where in its line a rule begins; None for what is no line of a file that was read."""
        file, _, number = where.rpartition(":")
        text = self._texts.get(file)
        lines = [] if text is None else text.split("\n")
        if not number.isdecimal() or not 1 <= int(number) <= len(lines):
            return None
        line = lines[int(number) - 1]
        return len(line) - len(line.lstrip()) + 1


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
    file, _, line = problem.where.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (problem.where, 0)
