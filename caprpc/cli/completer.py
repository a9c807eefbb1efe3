"""Completion at the prompt of ``caprpc shell``: names that the peer has told us; none is tried."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from caprpc.cli.language import Language, ShellError
from caprpc.errors import CapRPCError
from caprpc.objects.describing import describe
from caprpc.objects.stubs import Stub

_PATH: Final = re.compile(r"(?:(?P<holder>[A-Za-z_]\w*)\.)?(?P<prefix>\w*)", re.ASCII)

Completer = Callable[[str], list[str]]
"""Takes a word as it stands, returns every word that it may become, in order."""


def completer(language: Language, words: Callable[[], list[str]]) -> Completer:
    """Return what completes names, and members of references that a name stands for.

    Members are those of the reference's FACET; a root that the peer grants is asked for when its members are wanted.
    """

    def complete(word: str) -> list[str]:
        mark, word = ("?", word[1:]) if word.startswith("?") else ("", word)
        parts = _PATH.fullmatch(word)
        if parts is None:
            return []
        holder, prefix = parts["holder"], parts["prefix"]
        if not holder:
            return [mark + name for name in words() if name.startswith(prefix)]
        with suppress(ShellError, CapRPCError, OSError):
            value = language.lookup(holder)
            if isinstance(value, Stub):
                return [
                    f"{mark}{holder}.{name}{'(' if operation == 'call' and not mark else ''}"
                    for name, operation in sorted({one.name: one.operation for one in describe(value).members}.items())
                    if name and name.startswith(prefix)
                ]
        return []

    return complete


@contextmanager
def with_readline(complete: Completer, history: Path | None) -> Iterator[bool]:
    """Let the prompt complete, and keep a history in a file if one is named; says whether there is a readline.

    Raises:
        OSError: The history cannot be read or written.
    """
    try:
        # Imported here because it takes the terminal, and some builds of Python have none.
        import readline
    except ImportError:
        yield False
        return
    found: list[str] = []

    def state(word: str, index: int) -> str | None:
        if index == 0:
            try:
                found[:] = complete(word)
            except (ShellError, CapRPCError, OSError):
                found.clear()
        return found[index] if index < len(found) else None

    readline.set_completer(state)
    readline.set_completer_delims(" \t\n`~!@#$%^&*()-=+[{]}\\|;:'\",<>/")
    readline.parse_and_bind("tab: complete")
    if history is not None and history.exists():
        readline.read_history_file(history)
    try:
        yield True
    finally:
        readline.set_completer(None)
        if history is not None:
            history.touch(mode=0o600)
            readline.write_history_file(history)
