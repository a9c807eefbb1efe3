"""What the shell gets: one exit code of sysexits.h for each kind of error, one message, never a traceback."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from caprpc.errors import (
    AuditError,
    CallRefused,
    CapRPCError,
    ConfigurationError,
    ConnectionLost,
    ConnectRefused,
    Denied,
    IdentityRefused,
    IteratorBusy,
    LimitExceeded,
    PolicyError,
    ProtocolError,
    ReferenceDead,
    RemoteError,
    StoreError,
    printable,
)

EX_OK: Final = 0
EX_USAGE: Final = 64
EX_DATAERR: Final = 65
EX_NOINPUT: Final = 66
EX_UNAVAILABLE: Final = 69
EX_SOFTWARE: Final = 70
EX_OSERR: Final = 71
EX_IOERR: Final = 74
EX_TEMPFAIL: Final = 75
EX_PROTOCOL: Final = 76
EX_NOPERM: Final = 77
EX_CONFIG: Final = 78
EX_INTERRUPTED: Final = 130
"""128 and SIGINT, as shells report it; sysexits.h has no code for it."""

EX_READER_GONE: Final = 141
"""128 and SIGPIPE, as shells report a command whose reader has ended."""

TOOL_OK: Final = 0
TOOL_FINDINGS: Final = 1
TOOL_USAGE: Final = 2
TOOL_DOES_NOT_LOAD: Final = 3
TOOL_CANNOT_DECIDE: Final = 4

TRACEBACK_VARIABLE: Final = "CAPRPC_TRACEBACK"
"""Names a file that gets the traceback of an internal error; a terminal never does."""

_BY_TYPE: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (PolicyError, EX_CONFIG),
    (ConfigurationError, EX_CONFIG),
    (Denied, EX_NOPERM),
    (CallRefused, EX_NOPERM),
    (IdentityRefused, EX_NOPERM),
    (ProtocolError, EX_PROTOCOL),
    (LimitExceeded, EX_TEMPFAIL),
    (IteratorBusy, EX_TEMPFAIL),
    (ReferenceDead, EX_UNAVAILABLE),
    (AuditError, EX_IOERR),
    (StoreError, EX_IOERR),
    (UnicodeError, EX_DATAERR),
    (FileNotFoundError, EX_NOINPUT),
    (IsADirectoryError, EX_NOINPUT),
    (PermissionError, EX_NOPERM),
    (ConnectionError, EX_UNAVAILABLE),
    (TimeoutError, EX_TEMPFAIL),
    (OSError, EX_OSERR),
)
"""The first type that fits decides; errors that carry a code are in the two tables below."""

_BY_CLOSE_CODE: Final[Mapping[str, int]] = {
    "protocol-error": EX_PROTOCOL,
    "version": EX_PROTOCOL,
    "refused": EX_NOPERM,
    "expired": EX_NOPERM,
    "revoked": EX_NOPERM,
}
"""Codes of a connection that ended; all others mean that nobody is there now (69)."""

_BY_REMOTE_CODE: Final[Mapping[str, int]] = {
    "denied": EX_NOPERM,
    "invalid-arguments": EX_DATAERR,
    "cancelled": EX_TEMPFAIL,
    "deadline": EX_TEMPFAIL,
    "limit": EX_TEMPFAIL,
    "unavailable": EX_TEMPFAIL,
    "revoked": EX_UNAVAILABLE,
}
"""Codes of a peer's answer; all others mean that its method failed (70)."""


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error that reached the command line."""
    if isinstance(error, (ConnectionLost, ConnectRefused)):
        return _BY_CLOSE_CODE.get(error.code, EX_UNAVAILABLE)
    if isinstance(error, RemoteError):
        return EX_NOPERM if isinstance(error, Denied) else _BY_REMOTE_CODE.get(error.code, EX_SOFTWARE)
    return next((code for kind, code in _BY_TYPE if isinstance(error, kind)), EX_SOFTWARE)


def run_and_report(command: Callable[[], object]) -> int:
    """Run a command and return its exit code; errors become a message on standard error."""
    try:
        result = command()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.Abort:
        _say("interrupted")
        return EX_INTERRUPTED
    except click.UsageError as error:
        _say(_describe_usage(error))
        return EX_USAGE
    except click.ClickException as error:
        _say(error.format_message())
        return EX_NOINPUT if isinstance(error, click.FileError) else error.exit_code
    except (CapRPCError, OSError, UnicodeError) as error:
        _say(describe_error(error))
        return exit_code(error)
    except Exception as error:  # The edge to the terminal: a bug ends in a message and a code too.
        _say(_describe_bug(error))
        return EX_SOFTWARE
    return result if isinstance(result, int) else EX_OK


def reader_gone() -> int:
    """Return the code for output that nobody reads any more, as ``| head`` leaves it: no error, and nothing to say."""
    # What is still buffered is thrown away; else the interpreter complains when it flushes at its end.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EX_READER_GONE


class Toolbox(click.Group):
    """A group of tools that answer questions about files, with exit codes that a pipeline can tell apart.

    0 clean or yes, 1 findings or no, 2 usage, 3 it does not load, 4 cannot decide.
    """

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the words of the command line up to the name of the tool; a missing one is a mistake of usage, too."""
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            _say(_describe_usage(error))
            raise click.exceptions.Exit(TOOL_USAGE) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run a tool; its integer result is the exit code."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except click.UsageError as error:
            _say(_describe_usage(error))
            return TOOL_USAGE
        except (ConfigurationError, AuditError, OSError, UnicodeError) as error:
            missing = isinstance(error, FileNotFoundError) and error.filename is not None
            _say(describe_error(error) + ("\n  hint: create it, or correct the name" if missing else ""))
            return TOOL_DOES_NOT_LOAD


def _describe_usage(error: click.UsageError) -> str:
    """Return what was wrong with the words of the command line, and where the right ones are listed."""
    path = error.ctx.command_path if error.ctx is not None else "caprpc"
    if error.ctx is not None and error.format_message() == error.ctx.get_help():
        return f"{path} needs a command\n  hint: {path} --help"
    return f"{' '.join(error.format_message().split())}\n  hint: {path} --help"


def describe_error(error: BaseException) -> str:
    """Return what to tell the user about an expected error."""
    if isinstance(error, OSError) and not isinstance(error, CapRPCError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or type(error).__name__}"
    if isinstance(error, UnicodeDecodeError):
        return f"not valid {error.encoding.upper()}: byte {error.start} is {error.object[error.start]:#04x}"
    reference = getattr(error, "reference", "")
    text = str(error) or type(error).__name__
    if reference and reference not in text:
        text += f"\n  hint: the peer's operator finds the reason with: caprpc explain {reference}"
    return text


def _describe_bug(error: Exception) -> str:
    """Return what to tell the user about an error that nobody expected, and keep the traceback if asked to."""
    text = f"internal error: {type(error).__name__}: {error}"
    target = os.environ.get(TRACEBACK_VARIABLE)
    if not target:
        return f"{text}\n  hint: {TRACEBACK_VARIABLE}=FILE writes the traceback to FILE; please report it"
    try:
        Path(target).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError as refused:
        return f"{text}\n  hint: {TRACEBACK_VARIABLE}: {target}: {refused.strerror}"
    return f"{text}\n  hint: the traceback is in {target}"


def _say(text: str) -> None:
    """Write a message whose lines cannot steer the terminal."""
    lines = [printable(line, limit=2_000) for line in text.splitlines()] or [""]
    try:
        click.echo("caprpc: " + "\n".join(lines), err=True)
    except OSError:
        # Standard error is gone; the exit code is all that can still be said.
        sys.stderr = None
