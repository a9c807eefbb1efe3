"""``caprpc serve --status SOCKET`` and ``caprpc status SOCKET``: how a running server is, for its operator alone.

The socket is a file that none but the server's own user may connect to (mode 0600). It gives one JSON object to whoever
connects and reads nothing: there is nothing to send it, and no peer can reach it.
"""

import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import click

from caprpc.address import Address
from caprpc.cli.exits import EX_OK, EX_PROTOCOL, EX_UNAVAILABLE
from caprpc.errors import ConfigurationError, printable
from caprpc.objects.health import Health
from caprpc.sockets import close_listener, listen

_GIVE_S: Final = 0.5
"""How long the one that asks may take to read: one is served after the other."""
_WAIT_S: Final = 5.0
"""How long to wait for the answer."""
_MOST_BYTES: Final = 1024 * 1024
_CODES: Final = {"ok": EX_OK, "attention": 1, "failing": 2}
"""As monitoring plugins have them."""

_EPILOG: Final = """\b
Examples:
  caprpc serve service:roots --identity pki/server --policies policies/server --status /run/ledger/status
  caprpc status /run/ledger/status
  caprpc status /run/ledger/status --format json | jq .policy

Exit codes, as monitoring plugins have them: 0 ok, 1 it serves and someone should look, 2 peers or calls are
refused; and 64 usage, 69 no server answers there, 76 what answers is no server of this kind.
"""


class StatusSocket:
    """Tells the state of a server to whoever may connect to a socket file; on a thread of its own."""

    def __init__(self, path: Path, health: Callable[[], Health]) -> None:
        """Listen.

        Raises:
            ConfigurationError: Another server listens there, or the path is not ours.
        """
        self._health = health
        try:
            self._listener = listen(Address.parse(f"unix:{path.absolute()}"))
        except ConfigurationError as exc:
            raise ConfigurationError(
                f"no status under {path}: {exc.__cause__ or exc}", where="--status", hint="name a path that is free"
            ) from exc
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="caprpc-status", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        close_listener(self._listener)

    def _serve(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._listener], [], [], 0.2)[0]:
                continue
            # One that is gone already, or reads too slowly, gets nothing.
            with suppress(OSError):
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(_GIVE_S)
                    if _user(connection) in {0, os.geteuid()}:
                        connection.sendall(json.dumps(self._health().as_json()).encode() + b"\n")


def _user(connection: socket.socket) -> int:
    content = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", content)[1])


@click.command(epilog=_EPILOG)
@click.argument("path", metavar="SOCKET", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(path: Path, form: str) -> int:
    """Say how a running server is: the one that was started with --status SOCKET."""
    try:
        content = _ask(path)
    except OSError as exc:
        click.echo(f"caprpc: no server answers at {path}: {exc.strerror or exc}", err=True)
        return EX_UNAVAILABLE
    try:
        found = json.loads(content)
        code = _CODES[found["state"]]
        lines = [] if form == "json" else list(_lines(found))
    except (ValueError, KeyError, TypeError, RecursionError):
        click.echo(f"caprpc: what answers at {path} is not the status of a server", err=True)
        return EX_PROTOCOL
    if form == "json":
        click.echo(json.dumps(found, indent=2))
    for line in lines:
        click.echo(printable(line, 2_000))
    return code


def _ask(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_WAIT_S)
        sock.connect(str(path))
        content = b""
        while len(content) < _MOST_BYTES and (more := sock.recv(65_536)):
            content += more
    return content


def _lines(found: dict[str, Any]) -> list[str]:
    """Return the lines of the text form."""
    policy, audit, failed = found["policy"], found["audit"], found["policy"]["failed_reload"]
    lines = [str(found["state"])]
    lines += [f"  {line}" for problem in found["problems"] for line in str(problem).splitlines()]
    lines.append(f"listening:    {', '.join(found['addresses']) or 'nowhere'}")
    lines.append(f"connections:  {found['connections']}, {found['peers']} of them of known peers")
    lines.append(f"policies:     version {policy['version']}, {policy['policies']} in force since {policy['since']}")
    lines.append(f"              {policy['digest']} of {policy['directory']}")
    lines.append(f"last reload:  {'in order' if failed is None else 'refused at ' + failed['at']}")
    lines.append(f"audit log:    {'; '.join(audit['faults']) or 'takes records'} ({audit['directory']})")
    for one in found["expiries"]:
        lines.append(f"{'ends:' if one['at'] else 'missing:':<14}{one['at'] or ''} {one['what']}".rstrip())
    return lines
