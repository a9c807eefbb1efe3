"""TOML text with positions: where each key, table and list element of a document stands.

``tomllib`` says nothing about positions, and it can be made slow by deep keys. The scanner below walks the text first,
remembers the line of every path, and refuses what is too deep, too long, or defined twice. It judges the structure
only; whether each value is well formed is left to ``tomllib``, which reads the same text afterwards.
"""

import re
import tomllib
import unicodedata
from bisect import bisect_right
from decimal import Decimal
from typing import Final

from caprpc.policy.problems import Where

Path = tuple[str | int, ...]
"""How to get to a value: keys of tables and indexes of lists, from the top of the document."""

MAX_KEY_PARTS: Final = 8
"""Parts of one dotted key; the deepest key the language knows has five."""
MAX_NESTING: Final = 8
"""Lists and inline tables within each other; the language needs three."""
MAX_KEYS: Final = 20_000
"""Keys and list elements of one document: bounds the memory that small texts make."""
MAX_INTEGER: Final = 2**63 - 1
"""TOML promises 64-bit integers and no more."""
MAX_SCALAR_CHARS: Final = 64
"""Longest number, date or boolean; ``int()`` of a very long number is slow."""
MOST_REFUSED: Final = 20
"""Characters of one file that are named: who sees so many looks for more."""

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SPACE: Final = re.compile(r"[ \t]*")
_FILLER: Final = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_REST_OF_LINE: Final = re.compile(r"[ \t]*(?:#[^\n]*)?")
_SCALAR: Final = re.compile(r"[^,\]}\n#]*")
_TOMLLIB_POSITION: Final = re.compile(r"\s*\(at line (\d+), column (\d+)\)$")
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Characters that are letters or symbols to Unicode and blank on every screen."""
_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
"""Controls, format and bidirectional marks, unassigned, private, surrogates, and every space but U+0020."""


class TomlProblem(Exception):
    """A document cannot be read; the first such problem ends its reading.

    Attributes:
        line: Where, counted from 1.
        column: Where in the line, counted from 1 in characters.
        message: What is wrong.
        hint: What to do about it.
    """

    def __init__(self, place: tuple[int, int], message: str, hint: str = "") -> None:
        self.line, self.column = place
        # What is quoted from the text must not be able to mislead who reads the message.
        self.message = message.encode("ascii", "backslashreplace").decode("ascii")
        self.hint = hint
        super().__init__(f"line {self.line}: {self.message}")

    def where(self, file: str) -> Where:
        """Return ``file:line`` with the column, for a problem."""
        return Where(f"{file}:{self.line}", self.column)


class TomlDocument:
    """A parsed document that can say where each of its values stands.

    Attributes:
        data: What ``tomllib`` made of the text; numbers with a fraction are exact decimals.
    """

    def __init__(self, text: str) -> None:
        """Parse ``text``.

        Raises:
            TomlProblem: The text is not TOML, or beyond the bounds of this module.
        """
        scanner = _Scanner(text)
        self._positions = scanner.scan()
        self._starts = scanner.starts
        self.data: dict[str, object] = _parse(text)

    def place(self, path: Path) -> tuple[int, int]:
        """Return line and column of the value at ``path``, or of the nearest table around it; both from 1."""
        while path:
            found = self._positions.get(path)
            if found is not None:
                line = bisect_right(self._starts, found)
                return line, found - self._starts[line - 1] + 1
            path = path[:-1]
        return 1, 1


def refused_characters(text: str) -> list[tuple[int, int, str]]:
    """Return line, column and name of the first characters that must not stand in a policy text, comments included.

    Such characters make a reviewer see something else than the parser does (CVE-2021-42574). At most one for each line,
    and ``MOST_REFUSED``: looking up the names of all that a hostile file holds takes longer than anything else.
    """
    found: list[tuple[int, int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.isascii() and line.isprintable():
            continue
        for column, character in enumerate(line, 1):
            if is_refused(character):
                found.append((number, column, describe_character(character)))
                break
        if len(found) == MOST_REFUSED:
            break
    return found


def is_refused(character: str) -> bool:
    """Say whether a character is invisible, steers the direction of text, or is a control character other than tab."""
    if character in " \t":
        return False
    if unicodedata.category(character) in _REFUSED_CATEGORIES or character in _INVISIBLE:
        return True
    # Variation selectors and tags: marks that change nothing a reader sees.
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0000" <= character <= "\U000e0fff"


def describe_character(character: str) -> str:
    """Return ``U+202E RIGHT-TO-LEFT OVERRIDE`` for a character."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'control character')}"


def _parse(text: str) -> dict[str, object]:
    def exact(number: str) -> Decimal:
        try:
            return Decimal(number)
        except ArithmeticError as exc:
            place = _place(text, max(text.find(number), 0))
            said = "not TOML: a number that is too large or too small"
            raise TomlProblem(place, said, "write a shorter one") from exc

    try:
        return tomllib.loads(text, parse_float=exact)
    except tomllib.TOMLDecodeError as exc:
        message = str(exc)
        position = _TOMLLIB_POSITION.search(message)
        if position is None:
            raise TomlProblem(_place(text, len(text)), f"not TOML: {message}") from exc
        place = int(position.group(1)), int(position.group(2))
        raise TomlProblem(place, f"not TOML: {message[: position.start()]}") from exc
    except (ValueError, ArithmeticError, RecursionError) as exc:
        raise TomlProblem((1, 1), f"not TOML: {exc}") from exc


def _place(text: str, position: int) -> tuple[int, int]:
    """Return line and column of a position in a text."""
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


class _Scanner:
    """Walks TOML text once, from left to right, and fills the table of positions."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._positions: dict[Path, int] = {}
        self._headers: set[Path] = set()
        self._elements: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        prefix: Path = ()
        while True:
            self._skip(_FILLER)
            if self._position == len(self._text):
                return self._positions
            if self._text[self._position] == "[":
                prefix = self._header()
            else:
                self._key_value(prefix, 0)
            self._skip(_REST_OF_LINE)
            if self._position < len(self._text) and self._text[self._position] != "\n":
                hint = "write each key on a line of its own, and texts in quotes"
                raise self._problem("not TOML: expected the end of the line here", hint)

    def _problem(self, message: str, hint: str = "", at: int | None = None) -> TomlProblem:
        position = self._position if at is None else at
        line = self._line(position)
        return TomlProblem((line, position - self.starts[line - 1] + 1), message, hint)

    def _line(self, position: int) -> int:
        return bisect_right(self.starts, position)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._position)
        if match is None:
            return ""
        self._position = match.end()
        return match.group()

    def _take(self, literal: str) -> bool:
        if not self._text.startswith(literal, self._position):
            return False
        self._position += len(literal)
        return True

    def _expect(self, literal: str, what: str) -> None:
        if not self._take(literal):
            raise self._problem(f"not TOML: expected {what}", f"write {literal} here")

    def _remember(self, path: Path, position: int) -> None:
        if len(self._positions) >= MAX_KEYS:
            raise self._problem(f"more than {MAX_KEYS} keys and list elements", "split the policy")
        self._positions.setdefault(path, position)

    def _header(self) -> Path:
        start = self._position
        self._position += 1
        is_element = self._take("[")
        keys = self._key()
        self._expect("]", "']' after the name of the table")
        if is_element:
            self._expect("]", "']]' after the name of the table")
        path: Path = ()
        for key in keys[:-1]:
            path = self._inside((*path, key), start)
        path = (*path, keys[-1])
        if is_element:
            index = self._elements.get(path, -1) + 1
            self._elements[path] = index
            self._remember(path, start)
            path = (*path, index)
            self._remember(path, start)
            return path
        if path in self._headers:
            first = self._line(self._positions[path])
            raise self._problem(f"duplicate table [{_dotted(keys)}], first at line {first}", "merge the two", start)
        self._headers.add(path)
        # A table that its own sub-table mentioned first stands where its header stands.
        self._positions.pop(path, None)
        self._remember(path, start)
        return path

    def _inside(self, path: Path, position: int) -> Path:
        self._remember(path, position)
        index = self._elements.get(path)
        return path if index is None else (*path, index)

    def _key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            parts.append(self._key_part())
            if len(parts) > MAX_KEY_PARTS:
                raise self._problem(f"a key of more than {MAX_KEY_PARTS} parts", "the policy language needs five")
            self._skip(_SPACE)
            if not self._take("."):
                return parts

    def _key_part(self) -> str:
        bare = self._skip(_BARE_KEY)
        if bare:
            return bare
        start = self._position
        if self._text.startswith(("'", '"'), start) and not self._text.startswith(("'''", '"""'), start):
            self._string()
            try:
                return str(_parse(f"k = {self._text[start : self._position]}")["k"])
            except TomlProblem as exc:
                raise self._problem(exc.message, exc.hint, start) from exc
        raise self._problem("not TOML: expected a key", "a key is a name, or a string in quotes")

    def _key_value(self, prefix: Path, depth: int) -> None:
        start = self._position
        keys = self._key()
        path = prefix
        for key in keys[:-1]:
            path = (*path, key)
            self._remember(path, start)
        path = (*path, keys[-1])
        if path in self._positions:
            first = self._line(self._positions[path])
            raise self._problem(f"duplicate key {_dotted(keys)!r}, first at line {first}", "keep one of the two", start)
        self._remember(path, start)
        self._expect("=", "'=' after the key")
        self._value(path, depth)

    def _value(self, path: Path, depth: int) -> None:
        if depth > MAX_NESTING:
            raise self._problem(f"values nested more than {MAX_NESTING} deep", "the policy language needs three levels")
        self._skip(_SPACE)
        first = self._text[self._position : self._position + 1]
        if first in {'"', "'"} and first:
            self._string()
        elif first == "[":
            self._list(path, depth)
        elif first == "{":
            self._inline_table(path, depth)
        else:
            start = self._position
            scalar = self._skip(_SCALAR).strip()
            if not scalar:
                hint = "write a text in quotes, a number, true, a list or a table"
                raise self._problem("not TOML: expected a value", hint, start)
            if len(scalar) > MAX_SCALAR_CHARS:
                hint = "write texts in quotes; no number is as long"
                raise self._problem(f"a number of more than {MAX_SCALAR_CHARS} characters", hint, start)

    def _list(self, path: Path, depth: int) -> None:
        self._position += 1
        index = 0
        while True:
            self._skip(_FILLER)
            if self._take("]"):
                return
            self._remember((*path, index), self._position)
            self._value((*path, index), depth + 1)
            index += 1
            self._skip(_FILLER)
            if not self._take(","):
                self._expect("]", "',' or ']' in the list")
                return

    def _inline_table(self, path: Path, depth: int) -> None:
        self._position += 1
        self._skip(_FILLER)
        if self._take("}"):
            return
        while True:
            self._skip(_FILLER)
            self._key_value(path, depth + 1)
            self._skip(_FILLER)
            if not self._take(","):
                self._expect("}", "',' or '}' in the inline table")
                return

    def _string(self) -> None:
        start = self._position
        quote = self._text[start]
        triple = quote * 3
        if self._text.startswith(triple, start):
            end = self._end_of_multiline(quote, start + 3)
        else:
            end = self._end_of_line_string(quote, start + 1)
        if end < 0:
            raise self._problem("not TOML: the string is not closed", f"write {quote} where it ends", start)
        self._position = end

    def _end_of_line_string(self, quote: str, position: int) -> int:
        pattern = _BASIC_END if quote == '"' else _LITERAL_END
        match = pattern.match(self._text, position)
        return -1 if match is None else match.end()

    def _end_of_multiline(self, quote: str, position: int) -> int:
        pattern = _BASIC_MULTILINE_END if quote == '"' else _LITERAL_MULTILINE_END
        match = pattern.match(self._text, position)
        return -1 if match is None else match.end()


_BASIC_END: Final = re.compile(r'(?:[^"\\\n]+|\\.)*+"')
_LITERAL_END: Final = re.compile(r"[^'\n]*+'")
_BASIC_MULTILINE_END: Final = re.compile(r'(?:[^"\\]+|\\[\s\S]|"{1,2}(?!"))*+"{3,5}')
_LITERAL_MULTILINE_END: Final = re.compile(r"(?:[^']+|'{1,2}(?!'))*+'{3,5}")


def _dotted(keys: list[str]) -> str:
    return ".".join(keys)
