"""The log of a command: one line for each message on standard error, tracebacks only in a file that was asked for."""

import logging
import sys
from pathlib import Path
from typing import Final

import click

from caprpc.cli.streams import takes_a_line
from caprpc.errors import printable

_LONGEST_LINE: Final = 2_000


class _Terminal(logging.Handler):
    """Writes to whatever standard error is at the time; while that takes nothing, messages are counted and dropped.

    A server that waited for whoever reads its messages would serve nobody.
    """

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; Ctrl-C in a method is reported by the command itself."""
        if record.exc_info and isinstance(record.exc_info[1], KeyboardInterrupt):
            return
        if not takes_a_line(sys.stderr):
            self._dropped += 1
            return
        try:
            if self._dropped:
                text = f"caprpc: {self._dropped} messages were dropped: nobody read standard error"
                self._dropped = 0
                click.echo(text, err=True)
            click.echo(self.format(record), err=True)
        except OSError:
            self.handleError(record)


class _OneLine(logging.Formatter):
    """A message and, for a failure, what failed; a terminal never gets a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line that cannot steer the terminal."""
        text = f"caprpc: {record.getMessage()}"
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text += f": {type(error).__name__}: {error}"
        return printable(text, _LONGEST_LINE)


def log_to_terminal(path: Path | None = None) -> None:
    """Show warnings and errors of our own methods; with a path, append them there too, with their tracebacks.

    A service that has set up logging by itself keeps what it has set up.

    Raises:
        OSError: The file cannot be written.
    """
    log = logging.getLogger("caprpc")
    if path is not None:
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)
    if not log.hasHandlers() or path is not None:
        terminal = _Terminal(logging.WARNING)
        terminal.setFormatter(_OneLine())
        log.addHandler(terminal)
        log.propagate = False
