"""``caprpc call``: call one member of one root, from a shell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from caprpc import blocking
from caprpc.cli.arguments import Arguments, ArgumentUnfit, member_in, plain_arguments, undecodable
from caprpc.cli.exits import EX_OK, EX_SOFTWARE
from caprpc.cli.logs import log_to_terminal
from caprpc.cli.modules import import_local
from caprpc.cli.results import lines_of, shown
from caprpc.errors import DeadlineExceeded, RemoteError
from caprpc.ids import OP_NEXT
from caprpc.interface import Member, Undeclared, interface_info, shape_of
from caprpc.objects.stubs import Flavor, Stub

_EPILOG: Final = """\b
Examples:
  caprpc call caprpc://127.0.0.1:4853 ledger.balance '"EUR"' \\
      --identity pki/alice --policies policies/client --interface shop.interfaces:Ledger
  caprpc call unix:/run/caprpc.sock ledger.post account=A-1 amount=12.50 ...
  caprpc call caprpc://127.0.0.1 counter.line_counter @testfile.txt @print ...

ARG is JSON; a text needs no quotes where the declaration says text. NAME=ARG names the
parameter. @PATH lends an open file where one is declared, and is the file's content where
text or bytes are; @print lends a function that prints what it is called with. Bytes are
base64, dates ISO 8601, durations seconds. Without --interface, ARG is JSON, or a text
if it is none, and only values can be sent: the peer says whether they fit.

Exit codes: 0 returned, 64 usage, 65 an argument does not fit, 69 nobody is there, 70 the
method failed, 75 not now (time, limits), 77 denied, 78 configuration.
"""


class MethodFailed(click.ClickException):
    """The method raised an error that its interface declares."""

    exit_code = EX_SOFTWARE


@click.command(epilog=_EPILOG)
@click.argument("url")
@click.argument("what", metavar="ROOT.MEMBER")
@click.argument("words", metavar="[ARG]...", nargs=-1)
@click.option("--identity", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Certificate and key.")
@click.option("--policies", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Policy directory.")
@click.option(
    "--interface",
    "declared",
    metavar="MODULE:NAME",
    help="The declaration of the root; without it ARGs are sent as the JSON that they are.",
)
@click.option(
    "--audit", metavar="DIR", type=click.Path(path_type=Path), help="Audit log, instead of what caprpc.toml says."
)
@click.option("--peer", metavar="SPIFFE-ID", help="Who must answer; any peer with a policy, if left out.")
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="For connecting, and again for the answer.",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def call(
    url: str,
    what: str,
    words: tuple[str, ...],
    identity: Path,
    policies: Path,
    declared: str | None,
    audit: Path | None,
    peer: str | None,
    timeout_s: float,
    form: str,
) -> int:
    """Call one member of one root of the service at URL and print what it returns.

    Without ARGs, an attribute is read; with one, it is set. What an iterator gives is printed line by line.
    """
    log_to_terminal()
    root, dot, name = what.partition(".")
    if not dot or not root or not name:
        raise click.UsageError(f"{what!r}: ROOT.MEMBER expected, such as ledger.balance")
    if declared is None:
        args, kwargs = plain_arguments(words)
        with blocking.connect(
            url, identity=identity, policies=policies, audit=audit, peer=peer, timeout_s=timeout_s
        ) as connected:
            stub = announced_root(connected, root, Undeclared())
            member = member_in(stub._caprpc_shape, name, len(words))
            _show(_answer(stub, member, args, kwargs, timeout_s), form)
        return EX_OK
    interface = load_interface(declared)
    member = member_in(shape_of(interface), name, len(words))
    arguments = Arguments(member)
    try:
        args, kwargs = arguments.parse(words)
        with blocking.connect(
            url, identity=identity, policies=policies, audit=audit, peer=peer, timeout_s=timeout_s
        ) as connected:
            stub = connected.root(root, interface)
            _show(_answer(stub, member, args, kwargs, timeout_s), form)
    except RemoteError as exc:
        # The peer knows only that our object failed; if it was a lent file, we can say where.
        wrong = next(filter(None, map(undecodable, arguments.files)), "") if exc.code == "internal" else ""
        if not wrong:
            raise
        raise ArgumentUnfit(f"{wrong}\n  the peer was told no more than that it failed, and answered: {exc}") from exc
    finally:
        arguments.close()
    return EX_OK


def load_interface(argument: str) -> Callable[..., Any]:
    """Return the interface class that ``MODULE:NAME`` names.

    Raises:
        click.UsageError: There is no such module or interface.
    """
    module_name, colon, name = argument.partition(":")
    if not colon or not name:
        raise click.UsageError(f"--interface {argument!r}: MODULE:NAME expected, such as shop.interfaces:Ledger")
    members = import_local(module_name).__dict__
    found = members.get(name)
    if not isinstance(found, type) or interface_info(found) is None:
        known = ", ".join(sorted(key for key, value in members.items() if interface_info(value) is not None))
        raise click.UsageError(f"--interface {argument}: no such interface; the module has: {known or 'none'}")
    return found


def announced_root(peer: blocking.Peer, name: str, undeclared: Undeclared) -> Stub:
    """Return a root whose declaration is not here, as what the peer announces it to be."""
    stub: Stub = peer._connection.caller.call_root(name, undeclared, Flavor.BLOCKING)
    return stub


def _answer(stub: Any, member: Member, args: list[Any], kwargs: dict[str, Any], timeout_s: float) -> Any:
    """Make the call; the member was found in the interface, by the operator's word, and not by a peer's."""
    connection = stub._caprpc_call.__self__
    try:
        future = connection.start(stub._caprpc_import, member, tuple(args), kwargs)
    except TypeError as exc:
        raise click.UsageError(str(exc)) from exc
    try:
        return future.result(timeout_s)
    except TimeoutError:
        future.cancel()
        raise DeadlineExceeded(
            f"{member.name}: no answer within {timeout_s:g} s (--timeout); it was told to stop", code="deadline"
        ) from None
    except member.errors as exc:
        notes = "".join(f"\n  {note}" for note in getattr(exc, "__notes__", ()))
        raise MethodFailed(f"{member.name}: {type(exc).__name__}: {exc}{notes}") from exc


def _show(value: Any, form: str) -> None:
    stub: Any = value if isinstance(value, Stub) else None
    if stub is not None and (OP_NEXT, "") in stub._caprpc_shape.members:
        for line in lines_of(stub, form):
            click.echo(line)
    elif value is not None or form == "json":
        click.echo(shown(value, form))
