"""``caprpc serve``: serve the roots that a module of ours makes, until a signal ends it."""

import asyncio
import queue
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar

import click

from caprpc import aio, blocking
from caprpc.bundles import SignedPolicies
from caprpc.cli.exits import EX_OK, EX_OSERR
from caprpc.cli.logs import log_to_terminal
from caprpc.cli.modules import ModuleFailed, import_local
from caprpc.cli.status import StatusSocket
from caprpc.cli.streams import takes_a_line
from caprpc.errors import CapRPCError, ConfigurationError, printable
from caprpc.limits import ServerLimits
from caprpc.objects.grants import NO_RESTORERS, Grants
from caprpc.objects.startup import startup_frozen

_EPILOG: Final = """\b
Examples:
  caprpc serve service:roots --identity pki/server --policies policies/server
  caprpc serve service:roots --identity pki/server --policies policies/server \\
      --listen 0.0.0.0:4853 --listen unix:/run/caprpc.sock --aio
  caprpc serve service:roots --identity pki/server --policies policies/server \\
      --listen 0.0.0.0:4853 --grants state/grants.db --restorers service:restorers \\
      --grants-address ledger.example:4853

With --fd it ends with the connection: see caprpc.connect_subprocess.

With --status SOCKET, caprpc status SOCKET tells how it is.

SIGTERM and Ctrl-C let running calls end, then stop; SIGHUP reads certificates,
revocation lists and policies again.

Exit codes: 0 stopped in order, 64 no such module or factory, 70 it fails, 71 the address is in
use or not ours, 74 no audit log, 78 identity, policies or roots are wrong.
"""

_LIMIT_HELP: Final = {
    "handshake_timeout_s": "Seconds from accept to a finished handshake.",
    "max_unauthenticated": "Connections that have not proved who they are.",
    "unauthenticated_per_address": "Of these, from one source address.",
    "max_connections": "Connections altogether.",
    "connections_per_principal": "Connections of one principal, unless its policy says otherwise.",
    "accept_per_s": "Handshakes per second, sustained.",
    "accept_burst": "Handshakes above the sustained rate.",
    "argument_bytes": "Memory of the arguments of all calls that are queued or running.",
    "workers": "Threads for methods that block.",
    "worker_wait_s": "Seconds that a call waits while others hold all of these threads; then it is refused.",
}
"""What each limit of a server bounds; docs/reference/limits.md has the reasons."""

_SIGNALS: Final = {signal.SIGTERM: "stop", signal.SIGINT: "stop", signal.SIGHUP: "reload"}

_DEFAULT_ADDRESS: Final = "127.0.0.1:4853"

_LOOK_S: Final = 0.2
"""How often to look whether an inherited connection has ended."""

F = TypeVar("F", bound=Callable[..., Any])


def _limit_options(command: F) -> F:
    """Add an option for each limit of a server."""
    for field in reversed(fields(ServerLimits)):
        number = click.IntRange(min=1) if type(field.default) is int else click.FloatRange(min=0, min_open=True)
        option = click.option(
            f"--{field.name.replace('_', '-')}",
            type=number,
            default=field.default,
            show_default=True,
            help=_LIMIT_HELP[field.name],
        )
        command = option(command)
    return command


@click.command(epilog=_EPILOG)
@click.argument("factory", metavar="MODULE:FACTORY")
@click.option("--identity", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Certificate and key.")
@click.option("--policies", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Policy directory.")
@click.option(
    "--signers", metavar="FILE", type=click.Path(path_type=Path), help="Serve only if these have signed the policies."
)
@click.option(
    "--audit", metavar="DIR", type=click.Path(path_type=Path), help="Audit log, instead of what caprpc.toml says."
)
@click.option(
    "--grants",
    "store",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Keep grants in FILE, so that methods and peers can make and restore sturdy references.",
)
@click.option(
    "--restorers",
    metavar="MODULE:NAME",
    help="A mapping of kinds to what makes their objects, for grants of other things than roots.",
)
@click.option(
    "--grants-address",
    metavar="ADDR",
    help="What stands in sturdy references as the address.  [default: where it listens first]",
)
@click.option(
    "--listen",
    "addresses",
    metavar="ADDR",
    multiple=True,
    help=f"host:port, unix:/path or unix:@name (repeatable); port 0 takes a free one.  [default: {_DEFAULT_ADDRESS}]",
)
@click.option(
    "--fd",
    "descriptor",
    metavar="N",
    type=click.IntRange(min=3),
    help="Serve the connected socket that was inherited as descriptor N, listen nowhere, and end with it.",
)
@click.option("--aio", "on_loop", is_flag=True, help="Serve on an asyncio loop instead of threads.")
@click.option(
    "--grace",
    "grace_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="How long running calls may take to end when it stops.",
)
@click.option(
    "--status",
    "status_path",
    metavar="SOCKET",
    type=click.Path(path_type=Path),
    help="Tell how the server is to whoever reads this socket file, which only its own user may: caprpc status SOCKET.",
)
@click.option("--log", "log_file", metavar="FILE", type=click.Path(path_type=Path), help="Keep tracebacks in FILE.")
@_limit_options
def serve(
    factory: str,
    identity: Path,
    policies: Path,
    signers: Path | None,
    audit: Path | None,
    store: Path | None,
    restorers: str | None,
    grants_address: str | None,
    addresses: tuple[str, ...],
    descriptor: int | None,
    on_loop: bool,
    grace_s: float,
    status_path: Path | None,
    log_file: Path | None,
    **limits: Any,
) -> int:
    """Serve what MODULE:FACTORY makes: a function that returns the roots by name, or the mapping itself.

    Modules in the current directory are found too. `listening on ADDR` is printed for each address, once it serves.
    """
    log_to_terminal(log_file)
    if descriptor is not None and addresses:
        raise click.UsageError("--fd and --listen exclude each other: one inherited connection, or addresses")
    if store is None and (restorers or grants_address):
        raise click.UsageError("--restorers and --grants-address need --grants FILE: where grants are kept")
    roots = load_roots(factory)
    grants = None if store is None else _open_grants(store, restorers, grants_address)
    doors = Doors(addresses or (_DEFAULT_ADDRESS,), descriptor, status_path)
    server_limits = ServerLimits(**limits)
    signed = policies if signers is None else SignedPolicies(policies, signers)
    options: dict[str, Any] = {
        "identity": identity,
        "policies": signed,
        "audit": audit,
        "limits": server_limits,
        "grants": grants,
    }
    try:
        if on_loop:
            asyncio.run(_serve_on_loop(roots, doors, grace_s, options))
        else:
            _serve_with_threads(roots, doors, grace_s, options)
    except ConfigurationError as exc:
        if not isinstance(exc.__cause__, OSError) or exc.where != "address":
            raise
        click.echo(f"caprpc: {exc}", err=True)
        return EX_OSERR
    finally:
        if grants is not None:
            # A server that did not come up has not closed it.
            grants.close()
    return EX_OK


class Doors:
    """Where peers come in: addresses, or one connection that was inherited; and where the operator asks."""

    def __init__(self, addresses: Iterable[str], descriptor: int | None, status: Path | None) -> None:
        self._addresses = addresses
        self._descriptor = descriptor
        self._status = status

    def status(self, server: blocking.Server | aio.Server) -> AbstractContextManager[object]:
        """Let the operator ask, while what this returns is entered.

        Raises:
            ConfigurationError: The socket cannot be made.
        """
        return nullcontext() if self._status is None else StatusSocket(self._status, server.health)

    def open(self, server: blocking.Server | aio.Server) -> list[str]:
        """Let peers in; return the addresses.

        Raises:
            ConfigurationError: An address is in use or not ours, or the descriptor is no connected socket.
        """
        if self._descriptor is None:
            return [server.listen(address) for address in self._addresses]
        try:
            sock = socket.socket(fileno=self._descriptor)
        except OSError as exc:
            raise ConfigurationError(
                f"--fd {self._descriptor}: no socket was inherited under this number: {exc.strerror}", where="--fd"
            ) from exc
        server.adopt(sock)
        return []

    def are_shut(self, server: blocking.Server | aio.Server) -> bool:
        """Whether nobody can come any more."""
        return self._descriptor is not None and not server.connections


def load_roots(argument: str) -> Mapping[str, object]:
    """Return the roots that ``MODULE:FACTORY`` names.

    Raises:
        click.UsageError: There is no such module or name, or it gives no roots.
        ModuleFailed: The module or the factory fails.
    """
    return _load_mapping(argument, "MODULE:FACTORY", "service:roots", "root names to objects")


def _open_grants(store: Path, restorers: str | None, address: str | None) -> Grants:
    """Open the store of grants.

    Raises:
        click.UsageError: There is no such module or name, or it gives no restorers.
        ConfigurationError: The store cannot be used, the address is none, or a restorer does not say what it makes.
        ModuleFailed: The module of the restorers fails.
    """
    found = NO_RESTORERS
    if restorers:
        found = _load_mapping(restorers, "MODULE:NAME", "service:restorers", "kinds to callables that take a key")
    return Grants(store, restorers=found, address=address or "")


def _load_mapping(argument: str, form: str, example: str, content: str) -> Mapping[str, Any]:
    """Return a mapping with texts as keys that a module of ours has, or that a function in it returns."""
    module_name, colon, name = argument.partition(":")
    if not colon or not name:
        raise click.UsageError(f"{argument!r}: {form} expected, such as {example}")
    members = import_local(module_name).__dict__
    if name not in members:
        raise click.UsageError(f"{argument}: the module has no {name!r}")
    made = members[name]
    if callable(made) and not isinstance(made, Mapping):
        try:
            made = made()
        except (Exception, SystemExit) as exc:  # The factory is application code: what it raises is the operator's.
            raise ModuleFailed(f"{argument} fails when it is called: {type(exc).__name__}: {exc}") from exc
    if not isinstance(made, Mapping) or not all(isinstance(key, str) for key in made):
        raise click.UsageError(
            f"{argument} gives a {type(made).__name__}; a mapping of {content} expected, or a function "
            "without parameters that returns one"
        )
    return made


def _serve_with_threads(roots: Mapping[str, object], doors: "Doors", grace_s: float, options: dict[str, Any]) -> None:
    wishes: queue.SimpleQueue[str] = queue.SimpleQueue()

    def wish(number: int, _frame: FrameType | None) -> None:
        # SimpleQueue.put is reentrant, so that a handler may call it.
        wishes.put(_SIGNALS[signal.Signals(number)])

    before = {number: signal.signal(number, wish) for number in _SIGNALS}
    server = None
    try:
        server = blocking.Server(roots, **options)
        bound = doors.open(server)
        with doors.status(server):
            server.start()
            _announce(bound)
            with startup_frozen():
                while True:
                    try:
                        if wishes.get(timeout=_LOOK_S) != "reload":
                            break
                        _reload(server.reload)
                    except queue.Empty:
                        if doors.are_shut(server):
                            break
        _say(f"stopping; running calls may take {grace_s:g} s more")
    finally:
        if server is not None:
            server.stop(grace_s)
        for number, handler in before.items():
            signal.signal(number, handler)


async def _serve_on_loop(roots: Mapping[str, object], doors: "Doors", grace_s: float, options: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    wishes: asyncio.Queue[str] = asyncio.Queue()
    for number, what in _SIGNALS.items():
        loop.add_signal_handler(number, wishes.put_nowait, what)
    server = None
    try:
        server = aio.Server(roots, **options)
        bound = doors.open(server)
        with doors.status(server):
            await server.start()
            _announce(bound)
            with startup_frozen():
                while True:
                    try:
                        if await asyncio.wait_for(wishes.get(), _LOOK_S) != "reload":
                            break
                        _reload(server.reload)
                    except TimeoutError:
                        if doors.are_shut(server):
                            break
        _say(f"stopping; running calls may take {grace_s:g} s more")
    finally:
        if server is not None:
            await server.stop(grace_s)
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _announce(bound: Iterable[str]) -> None:
    for address in bound:
        click.echo(f"listening on {address}")


def _reload(reload: Callable[[], str]) -> None:
    try:
        _say(f"reloaded: {reload()}")
    except CapRPCError as exc:
        _say(f"NOT reloaded, the last good configuration stays in force: {exc}")


def _say(text: str) -> None:
    if takes_a_line(sys.stderr):
        click.echo("\n".join(printable(line, 2_000) for line in f"caprpc: {text}".splitlines()), err=True)
