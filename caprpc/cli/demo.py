"""``caprpc demo``: the line counter between two processes over mutual TLS, and the attacks that it refuses."""

import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from types import FrameType
from typing import Final

import click

from caprpc.audit.reader import Record
from caprpc.cli.arguments import ArgumentUnfit, undecodable
from caprpc.cli.audit import verify as verify_command
from caprpc.cli.exits import EX_OK, EX_SOFTWARE
from caprpc.cli.logs import log_to_terminal
from caprpc.demo.client import Outcome, count_lines
from caprpc.demo.evidence import lend_rule, peer_rule, record_of, rule_text
from caprpc.demo.site import ServerProcess, Site, remove
from caprpc.demo.strangers import TurnedAway, unnamed, without_certificate
from caprpc.errors import CapRPCError, printable

_EPILOG: Final = """\b
Examples:
  caprpc demo                              a short text that comes with it
  caprpc demo /usr/share/dict/words        a long one
  caprpc demo --pairing aio-aio --keep     asyncio on both sides; keep keys, policies, logs

Exit codes: 0 every attack was refused and every log verifies, 65 FILE is not UTF-8,
66 there is no such file, 70 anything else.
"""

_PAIRINGS: Final = ("blocking-blocking", "blocking-aio", "aio-blocking", "aio-aio")
_SHOWN_LINES: Final = 20
_SHOWN_CHARACTERS: Final = 160
_PROGRESS_S: Final = 1.0


class _Noisy:
    """The client's function: shows each line, and only the progress once there were many."""

    def __init__(self) -> None:
        self.count = 0
        self._next = time.monotonic() + _PROGRESS_S

    def show(self, line: str) -> None:
        """Take one line; the server calls this."""
        self.count += 1
        if self.count <= _SHOWN_LINES:
            more = "..." if len(line) > _SHOWN_CHARACTERS else ""
            click.echo(f"  Noisy: {line[:_SHOWN_CHARACTERS]!r}{more}")
        elif self.count == _SHOWN_LINES + 1:
            click.echo("  (more lines; from here on only how many)")
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _PROGRESS_S
            click.echo(f"  {self.count:,} lines so far")


class _Report:
    """Prints findings; owns how many attacks were made and how many were refused with a record to show."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.attacks = 0
        self.refused = 0

    def attempt(self, found: dict[str, str]) -> None:
        """Show one attempt of the misbehaving server."""
        parameter = "function" if found["tried"].startswith("function") else "fileobj"
        saw = f"{found['error']}: code {found['code']}, reference number {found['reference']}"
        entry_rule = lend_rule(self._site.policies / "client", "LineCounter", "line_counter", parameter)
        self._show(
            f"the server tries {found['tried']}",
            saw if found["error"] else "",
            self._site.audit / "client",
            self._site.policies / "client",
            reference=found["reference"],
            otherwise=(entry_rule, "nothing is left to apply a rule to: what was lent ended with the call"),
        )

    def stranger(self, who: str, away: TurnedAway) -> None:
        """Show one peer at the door."""
        server = self._site.policies / "server"
        why = "TLS, before any policy: a certificate is no setting. The policy is for nobody but"
        if away.reference:
            why = "no line: the only policy there is names"
        self._show(
            who,
            away.error,
            self._site.audit / "server",
            server,
            reference=away.reference,
            address=away.address,
            otherwise=(peer_rule(server), why),
        )

    def _show(
        self,
        tried: str,
        saw: str,
        log: Path,
        policies: Path,
        *,
        reference: str,
        address: str = "",
        otherwise: tuple[str, str],
    ) -> None:
        self.attacks += 1
        click.echo(f"\n{self.attacks}. {tried}")
        click.echo(f"   attacker saw  {printable(saw, 1_000) if saw else 'NO ERROR: IT WORKED'}")
        entry = record_of(log, reference=reference, address=address) if saw else None
        if entry is None or entry.record is None:
            click.echo("   audit record  NONE FOUND")
            return
        click.echo(f"   audit record  {log.relative_to(self._site.root)}/{entry.file}:{entry.line}")
        for line in _record_lines(entry.record):
            click.echo(f"                 {printable(line, 1_000)}")
        rule = entry.record.text("rule")
        lines = rule_text(policies, rule)
        if not lines:
            click.echo(f"   decided by    {otherwise[1]}")
            lines = rule_text(policies, otherwise[0])
        else:
            click.echo(f"   decided by    {rule}: what the table there does not list is denied")
        for line in lines:
            click.echo(f"                 {printable(line, 500)}")
        self.refused += entry.record.text("decision") == "deny" or entry.record.text("kind") == "reject"


@click.command(epilog=_EPILOG)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--pairing",
    type=click.Choice(_PAIRINGS),
    default=_PAIRINGS[0],
    show_default=True,
    help="Driver of the server and of the client.",
)
@click.option("--keep", is_flag=True, help="Keep keys, policies and logs, to go on with.")
@click.pass_context
def demo(ctx: click.Context, file: Path | None, pairing: str, keep: bool) -> int:
    """Count the lines of FILE, which stays with the client, from another process; then try to break it."""
    log_to_terminal()
    if file is not None:
        file.open("rb").close()
    server_driver, client_driver = pairing.split("-")
    root = Path(tempfile.mkdtemp(prefix="caprpc-demo-"))
    try:
        with _ended_by_signals(), as_file(files("caprpc.demo") / "lines.txt") as bundled:
            site = Site(root)
            shutil.copyfile(bundled, site.root / "lines.txt")
            good = _run(ctx, site, file or bundled, on_loops=(server_driver == "aio", client_driver == "aio"))
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            remove(root)
    _go_on(site if keep else None, file)
    return EX_OK if good else EX_SOFTWARE


def _run(ctx: click.Context, site: Site, path: Path, *, on_loops: tuple[bool, bool]) -> bool:
    """Run everything; return whether every attack was refused and every log verifies."""
    click.echo("Making a throw-away CA, certificates for server, alice and mallory, and policies.")
    site.make()
    server = ServerProcess(site, on_loop=on_loops[0])
    try:
        url = server.address()
        drivers = ["asyncio" if on_loop else "blocking" for on_loop in on_loops]
        click.echo(
            f"Server: process {server.pid}, {url}, {drivers[0]} driver. Client: this process, {drivers[1]} driver."
        )
        report = _Report(site)
        outcome = _count(site, url, path, on_loop=on_loops[1])
        _attack(site, url, report, outcome)
    finally:
        code = server.stop()
    click.echo(f"\nThe server has stopped in order (exit code {code})." if not code else f"\nSERVER EXIT CODE {code}")
    intact = _verify(ctx, site)
    click.echo(f"\n{report.refused} of {report.attacks} attacks were refused, each with an audit record.")
    return intact and not code and report.refused == report.attacks


def _count(site: Site, url: str, path: Path, *, on_loop: bool) -> Outcome:
    click.echo(
        f"\nalice calls counter.line_counter(open({path.name!r}), noisy). The server reads her lines and calls her"
    )
    click.echo("function for each; both stay in this process.")
    noisy = _Noisy()
    began = time.monotonic()

    def counted(count: int) -> None:
        took = time.monotonic() - began
        click.echo(f"The call returned {count}.  ({noisy.count:,} calls of noisy, {took:.2f} s with the connection)")

    try:
        return count_lines(url, site.client("alice"), path, noisy.show, counted, on_loop=on_loop)
    except CapRPCError as exc:
        wrong = undecodable(path)
        if not wrong:
            raise
        raise ArgumentUnfit(f"{wrong}\n  the server was told no more than that it failed, and answered: {exc}") from exc


def _attack(site: Site, url: str, report: _Report, outcome: Outcome) -> None:
    click.echo(
        "\nNow the safety. alice calls counter.misbehave(fileobj, noisy): this server has a modified library that sends"
    )
    click.echo("what an honest one refuses to send. Her side decides, by policies/client/server.toml.")
    for found in outcome.attempts:
        report.attempt(found)
    click.echo("\nTwo peers at the door. The server decides, by policies/server/alice.toml.")
    report.stranger(
        "mallory connects: a certificate of the right CA, which no policy names", unnamed(url, site.client("mallory"))
    )
    report.stranger(
        "somebody connects without a certificate", without_certificate(url, site.pki / "alice" / "anchors.pem")
    )


def _record_lines(record: Record) -> Iterator[str]:
    """Yield the record's decision and then the fields that a reader looks for; the file has all of them."""
    what = record.text("decision") or record.text("kind")
    target = ".".join(filter(None, (record.text("facet"), record.text("member"))))
    yield "  ".join(filter(None, (record.text("time"), what, record.text("operation"), target, record.text("peer"))))
    names = ("reason", "rule", "reference", "address", "detail")
    yield "  ".join(f"{name}={record.text(name)}" for name in names if record.text(name))


def _verify(ctx: click.Context, site: Site) -> bool:
    click.echo("Both audit logs, verified as a third party would: caprpc audit verify DIR")
    codes = [
        ctx.invoke(verify_command, directory=site.audit / side, archived=False, keys=(), as_json=False)
        for side in ("server", "client")
    ]
    return not any(codes)


def _go_on(site: Site | None, file: Path | None) -> None:
    """Print what to do next, ready to be pasted."""
    caprpc = _ourselves()
    click.echo("\nTo go on:")
    if site is None:
        again = f" {shlex.quote(str(file))}" if file is not None else ""
        click.echo(f"  {caprpc} demo --keep{again}    keeps keys, policies and logs, and prints commands for them")
        click.echo(f"  {caprpc} --help")
        return
    pki, policies, audit = (shlex.quote(str(one)) for one in (site.pki, site.policies, site.audit))
    text = shlex.quote(str(file or site.root / "lines.txt"))
    address = "127.0.0.1:4853"
    serve = " ".join(shlex.quote(word) for word in site.serve_arguments(address, on_loop=False))
    for line in (
        f"{caprpc} audit show {audit}/client --decision deny",
        f"{caprpc} policy check {policies}/server",
        f"{caprpc} {serve} & SERVER=$!",
        f"{caprpc} call caprpc://{address} counter.line_counter @{text} @print \\\n      "
        f"--interface caprpc.demo.interfaces:LineCounter --identity {pki}/alice --policies {policies}/client",
        f"{caprpc} pki revoke {pki} alice && kill -HUP $SERVER    # the same call is refused now",
        f"kill $SERVER; wait $SERVER; rm -r {shlex.quote(str(site.root))}",
    ):
        click.echo(f"  {line}")


def _ourselves() -> str:
    """Return how this program is called, ready to be pasted."""
    script = Path(sys.argv[0])
    if script.name != "caprpc":
        return f"{shlex.quote(sys.executable)} -m caprpc"
    found = shutil.which("caprpc")
    return "caprpc" if found is not None and Path(found).resolve() == script.resolve() else shlex.quote(sys.argv[0])


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demonstration like Ctrl-C: its server stops and its directory goes."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: dict[signal.Signals, Callable[..., object] | int | None] = {
        number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
