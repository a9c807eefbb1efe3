"""Tracebacks for the operator's log in which nothing can pass for another line, or steer a terminal.

The text of an exception is often what a peer has sent: ``ValueError(f"no such account: {name}")``. Written as it is, a
line feed in it begins a line that looks like one of ours.
"""

import logging
from traceback import format_tb
from typing import Final

from caprpc.errors import printable

_LONGEST_TEXT: Final = 2_000
"""Of one exception."""

_MOST_LINKS: Final = 8
"""Exceptions that are shown of a chain, and of a group."""

_CAUSED: Final = "The above exception was the direct cause of the following exception:"
_MEANWHILE: Final = "During handling of the above exception, another exception occurred:"


def log_failure(log: logging.Logger, exc: BaseException, message: str, *args: object) -> None:
    """Write an error with its traceback; handlers that look for the exception itself find it."""
    if log.isEnabledFor(logging.ERROR):
        trace = (type(exc), exc, exc.__traceback__)
        record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message, args, trace, "log_failure")
        # What a formatter would make of the exception, if it were not here already.
        record.exc_text = text_of(exc)
        log.handle(record)


def text_of(exc: BaseException) -> str:
    """Return the traceback of an exception and of those behind it, as Python shows them; texts are escaped."""
    links = [_link(exc)]
    seen = {id(exc)}
    while len(links) < _MOST_LINKS:
        behind = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
        if behind is None or id(behind) in seen:
            break
        how = _CAUSED if exc.__cause__ else _MEANWHILE
        links.append(f"{_link(behind)}\n\n{how}\n")
        seen.add(id(behind))
        exc = behind
    return "\n".join(reversed(links))


def _link(exc: BaseException) -> str:
    lines = ["Traceback (most recent call last):"] if exc.__traceback__ is not None else []
    lines += [line.rstrip("\n") for line in format_tb(exc.__traceback__)]
    lines.append(_named(exc))
    if isinstance(exc, BaseExceptionGroup):
        lines += [f"  {_named(one)}" for one in exc.exceptions[:_MOST_LINKS]]
    lines += [
        printable(note, _LONGEST_TEXT) for note in getattr(exc, "__notes__", ())[:_MOST_LINKS] if type(note) is str
    ]
    return "\n".join(lines)


def _named(exc: BaseException) -> str:
    try:
        text = printable(str(exc), _LONGEST_TEXT)
    except Exception:  # application code: an exception may fail to say what it is
        text = "(its text cannot be shown)"
    name = type(exc).__qualname__
    return f"{name}: {text}" if text else name
