"""Every error that reaches the command line becomes a code of sysexits.h and one message, never a traceback."""

import errno

import click
import pytest
from click.testing import CliRunner

from caprpc import errors
from caprpc.cli import CommandLine
from caprpc.cli.exits import TRACEBACK_VARIABLE, exit_code

PROBLEM = errors.ConfigurationError("unknown key 'calls'", where="org-b.toml:12", hint="did you mean 'call'?")

CASES = [
    (PROBLEM, 78),
    (errors.PolicyError([PROBLEM]), 78),
    (errors.ConnectRefused("nobody listens on 127.0.0.1:4853"), 69),
    (errors.ConnectRefused("the peer refused us", code="refused", reference="R-AAAAAAAAAAAA"), 77),
    (errors.ConnectRefused("no common version", code="version"), 76),
    (errors.ConnectionLost("the connection ended"), 69),
    (errors.ConnectionLost("it is draining", code="drain"), 69),
    (errors.ConnectionLost("bad frame", code="protocol-error"), 76),
    (errors.RemoteProtocolError("frame of 9 bytes"), 76),
    (errors.LocalProtocolError("already closed"), 76),
    (errors.Denied("denied", code="denied"), 77),
    (errors.CallRefused("our policy does not lend this"), 77),
    (errors.IdentityRefused("eku", "no clientAuth"), 77),
    (errors.RemoteError("bad arguments", code="invalid-arguments"), 65),
    (errors.RemoteError("it failed", code="internal"), 70),
    (errors.RemoteError("it failed", code="declared"), 70),
    (errors.DeadlineExceeded("too late", code="deadline"), 75),
    (errors.CallCancelled("cancelled", code="cancelled"), 75),
    (errors.RemoteError("revoked", code="revoked"), 69),
    (errors.LimitExceeded("9 calls in flight, at most 8 (limits.in_flight)"), 75),
    (errors.ReferenceDead("the connection has ended"), 69),
    (errors.AuditError("audit/server: no space left"), 74),
    (errors.StoreError("state/grants.db: no space left"), 74),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.txt"), 66),
    (PermissionError(errno.EACCES, "Permission denied", "key.pem"), 77),
    (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), 66),
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 69),
    (OSError(errno.EADDRINUSE, "Address already in use"), 71),
    (UnicodeDecodeError("utf-8", b"ab\xff", 2, 3, "invalid start byte"), 65),
    (ZeroDivisionError("division by zero"), 70),
    (click.UsageError("no"), 64),
    (click.BadParameter("no"), 64),
    (click.FileError("x.txt", "gone"), 66),
    (KeyboardInterrupt(), 130),
]


def run_raising(error, **options):
    @click.group(cls=CommandLine)
    def program():
        """A program."""

    @click.command()
    def fail():
        """Fail."""
        raise error

    program.get_command = lambda ctx, name: fail
    program.list_commands = lambda ctx: ["fail"]
    return CliRunner().invoke(program, ["fail"], prog_name="caprpc", **options)


@pytest.mark.parametrize(
    ("error", "code"), CASES, ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value)
)
def test_error_becomes_its_exit_code_and_one_message(error, code):
    result = run_raising(error)
    assert result.exit_code == code
    assert result.stderr.lstrip("\n").startswith("caprpc: ")
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_every_error_of_the_package_has_a_code_of_its_own_choosing():
    """A new error class without an entry would come out as an internal error (70)."""
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.CapRPCError)]
    unmapped = []
    for class_ in classes:
        if class_ in {errors.CapRPCError, errors.RemoteError}:
            continue
        error = class_.__new__(class_)
        error.code = "drain"
        if exit_code(error) == 70 and not issubclass(class_, errors.RemoteError):
            unmapped.append(class_.__name__)
    assert unmapped == []


def test_the_hint_follows_the_message():
    assert run_raising(PROBLEM).stderr == "caprpc: org-b.toml:12: unknown key 'calls'\n  hint: did you mean 'call'?\n"


def test_every_problem_of_a_policy_is_listed():
    second = errors.ConfigurationError("no CA", where="org-b.toml:3")
    stderr = run_raising(errors.PolicyError([PROBLEM, second])).stderr
    assert "2 problems" in stderr
    assert "org-b.toml:12" in stderr
    assert "org-b.toml:3: no CA" in stderr


def test_a_reference_number_comes_with_what_to_do():
    stderr = run_raising(errors.ConnectRefused("refused", code="refused", reference="R-AAAAAAAAAAAA")).stderr
    assert "caprpc explain R-AAAAAAAAAAAA" in stderr


def test_text_of_a_peer_cannot_steer_the_terminal():
    stderr = run_raising(errors.RemoteError("evil \x1b[2J\x07 \u202e text", code="internal")).stderr
    assert "\x1b" not in stderr
    assert "\x07" not in stderr
    assert "\u202e" not in stderr
    assert "\\x1b[2J" in stderr


def test_a_file_that_is_not_utf8_names_the_byte():
    error = UnicodeDecodeError("utf-8", b"ab\xff", 2, 3, "invalid start byte")
    assert run_raising(error).stderr == "caprpc: not valid UTF-8: byte 2 is 0xff\n"


def test_an_error_of_the_system_names_the_file():
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", "missing.txt")
    assert run_raising(error).stderr == "caprpc: missing.txt: No such file or directory\n"


def test_a_bug_keeps_its_traceback_in_a_file_when_asked(tmp_path):
    target = tmp_path / "trace.txt"
    result = run_raising(ZeroDivisionError("division by zero"), env={TRACEBACK_VARIABLE: str(target)})
    assert result.exit_code == 70
    assert "Traceback" not in result.stderr
    assert "ZeroDivisionError" in target.read_text(encoding="utf-8")


def test_a_bug_whose_traceback_cannot_be_kept_still_ends_in_order(tmp_path):
    result = run_raising(ZeroDivisionError("x"), env={TRACEBACK_VARIABLE: str(tmp_path / "missing" / "trace.txt")})
    assert result.exit_code == 70
    assert "No such file or directory" in result.stderr


def test_an_integer_result_is_the_exit_code():
    @click.group(cls=CommandLine)
    def program():
        """A program."""

    program.get_command = lambda ctx, name: click.Command("verdict", callback=lambda: 65)
    program.list_commands = lambda ctx: ["verdict"]
    assert CliRunner().invoke(program, ["verdict"]).exit_code == 65


def test_without_standalone_mode_errors_propagate():
    @click.group(cls=CommandLine)
    def program():
        """A program."""

    def fail():
        raise PROBLEM

    program.get_command = lambda ctx, name: click.Command("fail", callback=fail)
    program.list_commands = lambda ctx: ["fail"]
    with pytest.raises(errors.ConfigurationError):
        program.main(["fail"], standalone_mode=False)
