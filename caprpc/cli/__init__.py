"""The command line: ``caprpc`` and its commands, each loaded when it is used."""

import difflib
import importlib
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import click

from caprpc.cli.exits import EX_OK, reader_gone, run_and_report
from caprpc.cli.streams import hold_standard_streams


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a command lives, and the line that lists it; listing commands must not import them."""

    module: str
    attribute: str
    summary: str


_COMMANDS: Final = {
    "demo": _Entry("caprpc.cli.demo", "demo", "Run the line counter over mutual TLS, then try to break it."),
    "pki": _Entry("caprpc.cli.pki", "pki", "A private CA for development and small deployments."),
    "serve": _Entry("caprpc.cli.serve", "serve", "Serve the roots that MODULE:FACTORY makes."),
    "status": _Entry("caprpc.cli.status", "status", "Say how a running server is."),
    "call": _Entry("caprpc.cli.call", "call", "Call one member of one root and print the result."),
    "shell": _Entry("caprpc.cli.shell", "shell", "Try a service by hand, with completion and help."),
    "stubs": _Entry("caprpc.cli.stubs", "stubs", "Write the types of a module's interfaces for asyncio."),
    "policy": _Entry("caprpc.cli.policy", "policy", "Check policy directories, and generate contracts."),
    "contracts": _Entry("caprpc.cli.contracts", "contracts", "Write down what the code declares, and find drift."),
    "audit": _Entry("caprpc.cli.audit", "audit", "Verify and show audit logs."),
    "grants": _Entry("caprpc.cli.grants", "grants", "List and revoke what was granted for longer than a connection."),
    "explain": _Entry("caprpc.cli.explain", "explain", "Say why, for a reference number from a refusal."),
    "completion": _Entry("caprpc.cli.completion", "completion", "Print the completion script of a shell."),
}
"""Every command, in the order a newcomer meets them. Names and modules are constants: no input selects code."""

_EPILOG: Final = """\b
Examples:
  caprpc demo                                  see it work, and see what it refuses
  caprpc pki init pki                          make a private CA in ./pki
  caprpc policy check policies/server          find mistakes in a policy directory
  caprpc audit verify audit/server             prove that a log is whole
  caprpc explain R-7KQ2M9XW4HTA                why a peer was refused

Exit codes are those of sysexits.h: 64 usage, 65 bad data, 69 unavailable, 70 internal,
76 protocol, 77 denied, 78 configuration.
"""


class CommandLine(click.Group):
    """The group of all commands: loads one only when it is used, and turns every error into one line and a code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the installed commands, in table order."""
        return [name for name, entry in _COMMANDS.items() if importlib.util.find_spec(entry.module) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or None if there is none."""
        entry = _COMMANDS.get(cmd_name)
        if entry is None or importlib.util.find_spec(entry.module) is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}.{entry.attribute} is {type(command).__name__}, expected a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name].summary) for name in self.list_commands(ctx)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names; a mistyped name gets the nearest one as a hint."""
        name = args[0]
        if name.startswith("-") or ctx.resilient_parsing or name in self.list_commands(ctx):
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
        raise click.UsageError(f"no command {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""), ctx=ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; one whose output nobody reads any more ends quietly."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return reader_gone()

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit with a code of sysexits.h; a command's integer result is its exit code.

        With ``standalone_mode=False``, errors propagate as they are.
        """
        run = partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        hold_standard_streams()
        sys.exit(run_and_report(run))


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    # Imported here because only this option needs it, and every command would pay for it.
    import ssl

    try:
        version = importlib.metadata.version("caprpc")
    except importlib.metadata.PackageNotFoundError:
        version = "(run from a checkout that is not installed)"
    click.echo(f"caprpc {version} (Python {platform.python_version()}, {ssl.OPENSSL_VERSION})")
    ctx.exit()


@click.group(
    cls=CommandLine,
    epilog=_EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(ctx: click.Context) -> int:
    """Capability RPC over mutual TLS, under policy, with an audit log."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    return EX_OK
