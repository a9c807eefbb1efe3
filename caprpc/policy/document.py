"""Reading tables: each key is taken once, by kind; what nobody took is unknown, and every complaint has a line."""

from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Final, Protocol, TypeVar

from caprpc.policy.names import grammar_of, template_fault
from caprpc.policy.problems import Problems, Where, suggest
from caprpc.policy.text import Path, TomlDocument, describe_character, is_refused

MAX_LIST: Final = 1_000
"""Elements of one list."""
MAX_TEXT_CHARS: Final = 1_000
"""Longest free text."""

T = TypeVar("T")

Fault = Callable[[str], str]
"""Says what is wrong with a word, or returns an empty text."""

_KINDS: Final[dict[type, str]] = {
    bool: "true or false",
    int: "an integer",
    Decimal: "a decimal number",
    str: "a text",
    list: "a list",
    dict: "a table",
    datetime: "a date-time",
}
_EXAMPLES: Final[dict[type, str]] = {str: '"..."', list: '["..."]'}
_TEXT_HINT: Final = "write one line of text, without templates and invisible characters"


class Lines(Protocol):
    """What knows where a value stands."""

    def place(self, path: Path) -> tuple[int, int]:
        """Return line and column of the value at ``path``."""


class Table:
    """One table of a document; ``finish`` complains about every key that was not taken."""

    def __init__(self, document: Lines, file: str, path: Path, data: dict[str, object], problems: Problems):
        self._document = document
        self._file = file
        self._path = path
        self._data = data
        self._taken: set[str] = set()
        self.problems = problems

    @classmethod
    def top(cls, document: TomlDocument, file: str, problems: Problems) -> "Table":
        """Return the whole document as a table."""
        return cls(document, file, (), document.data, problems)

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, in the order of the text."""
        return tuple(self._data)

    def where(self, *path: str | int) -> str:
        """Return ``file:line`` of the table, or of a value in it: what a rule is called in records."""
        return str(self.place(*path))

    def place(self, *path: str | int) -> Where:
        """Return ``file:line`` with the column, for a problem."""
        line, column = self._document.place(self._path + path)
        return Where(f"{self._file}:{line}", column)

    def has(self, key: str) -> bool:
        """Say whether the key is there, without taking it."""
        return key in self._data

    def complain(self, key: str | int | Path, message: str, hint: str = "", *, code: str) -> None:
        """Note an error at the key."""
        path = key if isinstance(key, tuple) else (key,)
        self.problems.add(self.place(*path), message, hint, code=code)

    def missing(self, key: str, example: str) -> None:
        """Note that a key which must be there is not."""
        self.problems.add(self.place(), f"{self._name()}{key!r} is missing", f"write: {example}", code="missing-key")

    def finish(self, known: Iterable[str] = ()) -> None:
        """Note every key that was not taken; ``known`` adds keys that may stand here to the suggestions."""
        for key in self._data:
            if key not in self._taken:
                self.complain(
                    key,
                    f"unknown key {shown(key)} {self._context()}",
                    suggest(key, {*self._taken, *known}),
                    code="unknown-key",
                )

    def take(self, key: str) -> object | None:
        """Return the raw value, or None if the key is not there."""
        self._taken.add(key)
        return self._data.get(key)

    def text(self, key: str) -> str | None:
        """Return a free text: one line, nothing invisible, no template."""
        value = self._typed(key, str)
        if value is None:
            return None
        fault = text_fault(value)
        if fault:
            self.complain(key, f"{key!r} {fault}", _TEXT_HINT, code="bad-value")
            return None
        return value

    def word(self, key: str, fault_of: Fault, hint: str = "") -> str | None:
        """Return a text that obeys a grammar; ``hint`` says how it is written, where the grammar itself does not."""
        value = self._typed(key, str)
        if value is None:
            return None
        fault = fault_of(value)
        if fault:
            self.complain(key, f"{shown(value)} {fault}", hint or grammar_of(fault_of), code="bad-name")
            return None
        return value

    def choice(self, key: str, choices: tuple[str, ...], why: str = "") -> str | None:
        """Return one of a closed list of words."""
        value = self._typed(key, str)
        if value is None or value in choices:
            return value
        known = " or ".join(repr(choice) for choice in choices)
        self.complain(
            key, f"{key!r} must be {known}, not {shown(value)}", why or suggest(value, choices), code="bad-value"
        )
        return None

    def words(self, key: str, fault_of: Fault, hint: str = "") -> dict[str, Where]:
        """Return the words of a list, each with its ``file:line``; empty if the key is absent or the list is bad."""
        values = self._typed(key, list)
        if values is None:
            return {}
        if not values:
            self.complain(key, f"{key!r} is an empty list", "delete the key, or name what is meant", code="empty")
        if len(values) > MAX_LIST:
            self._too_long(key, values)
            return {}
        words: dict[str, Where] = {}
        for index, value in enumerate(values):
            if type(value) is not str:
                text = f"{key!r} must be a list of texts, here is {kind(value)}"
                self.complain((key, index), text, f'write: {key} = ["..."]', code="bad-value")
            elif fault := fault_of(value):
                self.complain((key, index), f"{shown(value)} {fault}", hint or grammar_of(fault_of), code="bad-name")
            elif value in words:
                self.complain((key, index), f"{shown(value)} stands twice in {key!r}", "delete one", code="duplicate")
            else:
                words[value] = self.place(key, index)
        return words

    def flag(self, key: str) -> str | None:
        """Return the ``file:line`` of a key that is literally ``true``; anything else but absence is an error."""
        if not self.has(key):
            return None
        value = self.take(key)
        if value is True:
            return self.where(key)
        hint = "nothing is allowed to begin with: delete the key" if value is False else f"write: {key} = true"
        self.complain(
            key,
            f"{key!r} can only be true, not {kind(value) if value is not False else 'false'}",
            hint,
            code="bad-value",
        )
        return None

    def integer(self, key: str, low: int, high: int) -> int | None:
        """Return an integer within bounds."""
        value = self.take(key)
        if value is None:
            return None
        if type(value) is not int:
            text = f"{key!r} must be an integer, not {kind(value)}"
            self.complain(key, text, f"write: {key} = {max(low, 1)}", code="bad-value")
            return None
        if not low <= value <= high:
            text = f"{key!r} must be between {low} and {high}, not {value}"
            self.complain(key, text, f"write: {key} = {low if value < low else high}", code="bad-value")
            return None
        return value

    def number(self, key: str, low: float, high: float) -> float | None:
        """Return a number within bounds, as a float."""
        value = exact_number(
            self.take(key), lambda message, hint="": self.complain(key, f"{key!r} {message}", hint, code="bad-value")
        )
        if value is None:
            return None
        # Bounds are meant as they are written: the float 0.1 is a little more than the decimal 0.1.
        if not Decimal(repr(low)) <= value <= Decimal(repr(high)):
            text = f"{key!r} must be between {low:g} and {high:g}, not {value}"
            self.complain(key, text, f"write: {key} = {low if value < low else high:g}", code="bad-value")
            return None
        return float(value)

    def moment(self, key: str) -> datetime | None:
        """Return a date-time with its offset from UTC."""
        value = self.take(key)
        if value is None:
            return None
        if type(value) is not datetime:
            self.complain(
                key, f"{key!r} must be a date-time, not {kind(value)}", "write: 2027-06-30T00:00:00Z", code="bad-value"
            )
            return None
        if value.tzinfo is None:
            self.complain(key, f"{key!r} has no offset from UTC", f"write: {value.isoformat()}Z", code="bad-value")
            return None
        return value

    def table(self, key: str) -> "Table | None":
        """Return a table."""
        value = self._typed(key, dict)
        return None if value is None else self._inner((key,), value)

    def tables(self, key: str) -> "list[Table]":
        """Return the tables of a list of tables, ``[[key]]``."""
        hint = f"write: [[{dotted((*self._path, key))}]]"
        values = self._typed(key, list, hint)
        if values is None:
            return []
        if not values:
            self.complain(key, f"{key!r} is an empty list", "delete the key", code="empty")
        if len(values) > MAX_LIST:
            self._too_long(key, values)
            return []
        found: list[Table] = []
        for index, value in enumerate(values):
            if isinstance(value, dict):
                found.append(self._inner((key, index), value))
            else:
                self.complain((key, index), f"{key!r} must be tables, here is {kind(value)}", hint, code="bad-value")
        return found

    def subtables(self, fault_of: Fault) -> "dict[str, Table]":
        """Return all values of this table as tables, by name; for tables whose keys are names."""
        return {name: table for name in self.names(fault_of) if (table := self.table(name)) is not None}

    def names(self, fault_of: Fault) -> list[str]:
        """Return all keys that obey a grammar, and complain about the others."""
        if not self._data:
            self.problems.add(self.place(), f"{self._context()} nothing stands", "delete the table", code="empty")
        good: list[str] = []
        for key in self._data:
            self._taken.add(key)
            fault = fault_of(key)
            if fault:
                self.complain(key, f"{shown(key)} {fault}", grammar_of(fault_of), code="bad-name")
            else:
                good.append(key)
        return good

    def _inner(self, path: Path, data: dict[str, object]) -> "Table":
        return Table(self._document, self._file, self._path + path, data, self.problems)

    def _typed(self, key: str, kind_of: type[T], hint: str = "") -> T | None:
        value = self.take(key)
        if value is None:
            return None
        if type(value) is not kind_of:
            example = f"[{dotted((*self._path, key))}]" if kind_of is dict else f"{key} = {_EXAMPLES[kind_of]}"
            text = f"{key!r} must be {_KINDS[kind_of]}, not {kind(value)}"
            self.complain(key, text, hint or f"write: {example}", code="bad-value")
            return None
        return value

    def _too_long(self, key: str, values: list[object]) -> None:
        text = f"{key!r} has {len(values)} elements, at most {MAX_LIST} allowed"
        self.complain(key, text, "split the file", code="bad-value")

    def _name(self) -> str:
        return f"[{dotted(self._path)}] " if self._path else ""

    def _context(self) -> str:
        return f"in [{dotted(self._path)}]" if self._path else "at the top of the file"


def exact_number(value: object, complain: Callable[..., None]) -> int | Decimal | None:
    """Return a finite number of sane size, or None after a complaint (None also for an absent value)."""
    if value is None:
        return None
    if type(value) is int:
        if abs(value) > 2**63 - 1:
            complain("has more than 64 bits", f"write a number of at most {2**63 - 1}")
            return None
        return value
    if type(value) is not Decimal:
        complain(f"must be a number, not {kind(value)}", "write a number without quotes, such as 0.5")
        return None
    if not value.is_finite():
        complain(f"must be a finite number, not {value}", "delete it where there is no bound")
        return None
    if value and not -300 <= value.adjusted() <= 300:
        complain("is too large or too small a number", "write a number of at most 300 digits")
        return None
    return value


def kind(value: object) -> str:
    """Return what a value is, in the words of this page: ``a text``, ``a table``."""
    return _KINDS.get(type(value), "a date or time")


def shown(text: str) -> str:
    """Return a word of the file in quotes, with everything escaped that could mislead a reader, and not too long."""
    return ascii(text if len(text) <= 100 else text[:100] + "...")


def dotted(path: Path) -> str:
    """Return ``offer.FeedLedger.args`` for a path; what may stand there unescaped is for the scanner to say."""
    return ".".join(str(part) for part in path if isinstance(part, str)).encode("ascii", "backslashreplace").decode()


def text_fault(text: str) -> str:
    """Return what is wrong with a free text; empty if nothing."""
    if not text.strip():
        return "is empty"
    if len(text) > MAX_TEXT_CHARS:
        return f"has more than {MAX_TEXT_CHARS} characters"
    for character in () if text.isascii() and text.isprintable() else text:
        if is_refused(character) or character == "\t":
            return f"has {describe_character(character)} in it"
    return template_fault(text)
