"""``caprpc shell``: try a service by hand, with completion over what this identity may do."""

import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from caprpc import blocking
from caprpc.cli.arguments import print_json
from caprpc.cli.call import announced_root, load_interface
from caprpc.cli.completer import completer, with_readline
from caprpc.cli.exits import EX_DATAERR, EX_OK, describe_error, exit_code
from caprpc.cli.language import BoundMember, Language, ShellError, member_of
from caprpc.cli.logs import log_to_terminal
from caprpc.cli.modules import import_local
from caprpc.cli.results import shown
from caprpc.errors import CapRPCError, DeadlineExceeded, RemoteError, printable
from caprpc.ids import OP_ITERATE, OP_LENGTH, OP_NEXT
from caprpc.interface import Announced, Member, Undeclared, interface_info
from caprpc.objects.describing import Description, describe
from caprpc.objects.stubs import Stub
from caprpc.objects.targets import caller_of

_LONGEST_LINE: Final = 4_096
_PAGE: Final = 100
"""Items of an iterator that one line shows; typing ``_`` shows the next ones."""

_EPILOG: Final = """\b
Examples:
  caprpc shell caprpc://127.0.0.1:4853 --identity pki/alice --policies policies/client \\
      --interface shop.interfaces
  echo 'ledger.balance("A")' | caprpc shell unix:/run/caprpc.sock ...

\b
In the shell:
  roots()                       what the peer grants
  ?ledger   ?ledger.balance     what it is, and what you may do with it
  ledger.balance("A")           call; an attribute is read, and set with =
  rows = ledger.history("A")    keep; _ is the last value
  ledger.load(open("f.txt"), print)    lend a file, and a function that prints

Ctrl-C cancels the running call, Ctrl-D leaves. A script (no terminal) stops at its first error, with the
exit code that caprpc call would have.
"""


@click.command(epilog=_EPILOG)
@click.argument("url")
@click.option("--identity", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Certificate and key.")
@click.option("--policies", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Policy directory.")
@click.option(
    "--interface",
    "declared",
    multiple=True,
    metavar="MODULE[:NAME]",
    help="Declarations of the roots, for types and documentation: one, or all of a module; may be given several times.",
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
    default=30.0,
    show_default=True,
    help="For connecting, and again for each answer.",
)
@click.option("--time", "timed", is_flag=True, help="Say how long each line took; always on at a terminal.")
@click.option("--traceback", "traces", is_flag=True, help="Show the traceback of our side with each error.")
@click.option("--history", metavar="FILE", type=click.Path(path_type=Path), help="Keep what is typed in a file.")
def shell(
    url: str,
    identity: Path,
    policies: Path,
    declared: tuple[str, ...],
    audit: Path | None,
    peer: str | None,
    timeout_s: float,
    timed: bool,
    traces: bool,
    history: Path | None,
) -> int:
    """Try the service at URL by hand: call what this identity may call, with completion and help.

    Lines are literals, names, members of references, calls and assignments. Nothing that a peer sends is evaluated.
    """
    log_to_terminal()
    interfaces = _interfaces(declared)
    terminal = sys.stdin.isatty()
    with (
        ExitStack() as opened,
        blocking.connect(
            url, identity=identity, policies=policies, audit=audit, peer=peer, timeout_s=timeout_s
        ) as connected,
    ):
        session = Shell(connected, interfaces, timeout_s, opened)
        report = _Report(timed or terminal, traces)
        if not terminal:
            return report.script(session, sys.stdin)
        with with_readline(completer(session.language, session.words), history) as completes:
            click.echo(f"{printable(connected.principal)}: {', '.join(map(printable, connected.roots()))}", err=True)
            click.echo(f"?NAME helps, {'TAB completes, ' if completes else ''}Ctrl-D leaves", err=True)
            report.converse(session)
    return EX_OK


class Shell:
    """One peer, what we have obtained from it, and the functions that a line may use."""

    def __init__(
        self, peer: blocking.Peer, interfaces: dict[str, Callable[..., Any]], timeout_s: float, opened: ExitStack
    ) -> None:
        self._peer = peer
        self._interfaces = interfaces
        self._timeout_s = timeout_s
        self._opened = opened
        self._granted: dict[str, str] | None = None
        self._roots: dict[str, Stub] = {}
        self._undeclared = Undeclared()
        self._functions: dict[str, Callable[..., Any]] = {
            "describe": self._described,
            "help": self.help,
            "len": self._length,
            "list": self._list,
            "next": self._next,
            "open": self._open,
            "print": print_json,
            "release": blocking.release,
            "roots": self._list_roots,
        }
        self.language = Language(self._call, self._root, self._functions)

    def words(self) -> list[str]:
        """Return every name that a line may begin with."""
        return sorted({*self._functions, *self.language.variables, *self._names()})

    def help(self, text: str) -> str:
        """Return what a name, or a member of a reference, is and does: of our own declarations, never text of a peer.

        ``help(ref.member)`` or ``?ref.member``.
        """
        value, name = self.language.path(text)
        stub = value.stub if isinstance(value, BoundMember) else value
        if not isinstance(stub, Stub):
            return _doc_of(value) if callable(value) else f"a {type(value).__name__}"
        name = value.member.name if isinstance(value, BoundMember) else name
        if not name:
            return _overview(describe(stub), stub._caprpc_shape.doc or _undeclared_note(stub))
        if member_of(stub, name) is None:
            word = "announced" if isinstance(stub._caprpc_shape, Announced) else "declared"
            raise ShellError(f"nothing is {word} under {name!r} there")
        offered = [one for one in describe(stub).members if one.name == name]
        if not offered:
            return f"{name}: declared by {stub._caprpc_shape.name}, but not offered to you"
        return "\n".join([f"{one.operation} {one}  [{one.effect}]\n{_indented(one.doc)}".rstrip() for one in offered])

    def show(self, value: Any) -> None:
        """Print the value of a line; an iterator is printed item by item, a page at a time."""
        if value is None:
            return
        self.language.variables["_"] = value
        if isinstance(value, Stub) and (OP_NEXT, "") in value._caprpc_shape.members:
            iterator: Any = value
            for count, item in enumerate(iterator, 1):
                click.echo(_text(item))
                if count == _PAGE:
                    click.echo(f"... {_PAGE} shown; _ shows the next ones", err=True)
                    return
            return
        click.echo(printable(repr(value)) if isinstance(value, BoundMember) else _text(value))

    def _names(self) -> list[str]:
        if self._granted is None:
            self._granted = self._peer.roots()
        return list(self._granted)

    def _root(self, name: str) -> Stub | None:
        if name not in self._names():
            return None
        stub = self._roots.get(name)
        if stub is None or not stub._caprpc_import.alive:
            wanted = (self._granted or {})[name]
            interface = self._interfaces.get(wanted)
            if interface is None:
                stub = announced_root(self._peer, name, self._undeclared)
            else:
                stub = self._peer.root(name, interface)
            self._roots[name] = stub
        return stub

    def _call(self, stub: Stub, member: Member, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call and wait; Ctrl-C and the time limit cancel it at the peer."""
        future = caller_of(stub).start(stub._caprpc_import, member, tuple(args), kwargs)
        try:
            return future.result(self._timeout_s)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{member.name}: no answer within {self._timeout_s:g} s (--timeout); it was told to stop",
                code="deadline",
            ) from None
        finally:
            # Says nothing once there is an answer.
            future.cancel()

    def _described(self, reference: object) -> str:
        """Say what a reference lets you do; nothing is sent."""
        if not isinstance(reference, Stub):
            raise ShellError(f"a {type(reference).__name__} is no reference")
        return _overview(describe(reference), "")

    def _length(self, value: Any) -> Any:
        """Return the length of a reference or of a value."""
        if isinstance(value, Stub):
            return self._special(value, OP_LENGTH)
        if not hasattr(value, "__len__"):
            raise ShellError(f"a {type(value).__name__} has no length")
        return len(value)

    def _list(self, values: Any) -> list[Any]:
        """Return all items of an iterator, of a reference that can be iterated, or of a value."""
        if isinstance(values, Stub) and (OP_NEXT, "") not in values._caprpc_shape.members:
            values = self._special(values, OP_ITERATE)
        if not isinstance(values, Iterable):
            raise ShellError(f"a {type(values).__name__} cannot be iterated")
        return list(values)

    def _next(self, iterator: Any) -> Any:
        """Return the next item of an iterator."""
        if not isinstance(iterator, Stub) or (OP_NEXT, "") not in iterator._caprpc_shape.members:
            raise ShellError("an iterator expected")
        values: Any = iterator
        try:
            return next(values)
        except StopIteration:
            raise ShellError("the iterator has no more items") from None

    def _open(self, path: str, mode: str = "r") -> Any:
        """Open a file of ours, to be lent: open(PATH) for text, open(PATH, "rb") for bytes; also "w" and "wb"."""
        if type(path) is not str or mode not in ("r", "rb", "w", "wb"):
            raise ShellError('open(PATH) or open(PATH, MODE) with MODE "r", "rb", "w" or "wb"')
        return self._opened.enter_context(Path(path).open(mode, encoding=None if "b" in mode else "utf-8"))

    def _list_roots(self) -> dict[str, str]:
        """Return the roots that the peer grants, with their interfaces."""
        self._granted = self._peer.roots()
        return dict(self._granted)

    def _special(self, stub: Stub, operation: int) -> Any:
        member = stub._caprpc_shape.members.get((operation, ""))
        if member is None:
            raise ShellError(f"{stub._caprpc_shape.name} does not declare that")
        return self._call(stub, member, [], {})


class _Report:
    """Runs lines and says what came of them."""

    def __init__(self, timed: bool, traces: bool) -> None:
        self._timed = timed
        self._traces = traces

    def script(self, session: Shell, lines: Iterable[str]) -> int:
        """Run lines until one fails; return the exit code."""
        for line in lines:
            error = self._run(session, line)
            if isinstance(error, KeyboardInterrupt):
                raise error
            if error is not None:
                return EX_DATAERR if isinstance(error, ShellError | TypeError) else exit_code(error)
        return EX_OK

    def converse(self, session: Shell) -> None:
        """Run what is typed until the end of input."""
        while True:
            try:
                line = input("caprpc> ")
            except KeyboardInterrupt:
                click.echo(err=True)
                continue
            except EOFError:
                click.echo(err=True)
                return
            self._run(session, line)

    def _run(self, session: Shell, line: str) -> BaseException | None:
        """Run one line; what goes wrong is said and returned."""
        line = line.strip()
        if not line or line.startswith("#"):
            return None
        begun = time.perf_counter()
        try:
            if line.startswith("?") or line.endswith("?"):
                click.echo(session.help(line.strip("?")))
                return None
            session.show(session.language.run(line))
        except KeyboardInterrupt as error:
            click.echo("\ncancelled", err=True)
            return error
        except Exception as error:  # The edge to the terminal: a declared error of a peer may be of any class.
            self._say(error)
            return error
        finally:
            if self._timed:
                click.secho(f"{(time.perf_counter() - begun) * 1000:.1f} ms", dim=True, err=True)
        return None

    def _say(self, error: Exception) -> None:
        if isinstance(error, ShellError):
            text = str(error)
        elif isinstance(error, CapRPCError | OSError):
            code = f" ({error.code})" if isinstance(error, RemoteError) else ""
            text = f"{type(error).__name__}{code}: {describe_error(error)}"
        else:
            notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
            text = f"{type(error).__name__}: {error}{notes}"
        click.echo("\n".join(printable(line, _LONGEST_LINE) for line in text.splitlines() or [""]), err=True)
        if self._traces:
            lines = "".join(traceback.format_exception(error)).splitlines()
            click.echo("\n".join(printable(line, _LONGEST_LINE) for line in lines), err=True)


def _interfaces(declared: Iterable[str]) -> dict[str, Callable[..., Any]]:
    """Return the declared interfaces by name."""
    found: dict[str, Callable[..., Any]] = {}
    for word in declared:
        if ":" in word:
            interface = load_interface(word)
            found[interface.__name__] = interface
            continue
        members = import_local(word).__dict__.values()
        found.update((info.name, info.interface) for info in map(interface_info, members) if info is not None)
    return found


def _text(value: Any) -> str:
    """Return a value for the terminal; a line of a file does not end twice."""
    return shown(value.removesuffix("\n") if type(value) is str else value, "text")


def _overview(description: Description, doc: str) -> str:
    lines = [f"{description.interface} of {printable(description.holder)}{'' if description.alive else ' (dead)'}"]
    if doc:
        lines.append(_indented(doc))
    lines += [f"  {one.operation:8} {one}  [{one.effect}]" for one in description.members]
    return "\n".join(lines)


def _undeclared_note(stub: Stub) -> str:
    if not isinstance(stub._caprpc_shape, Announced):
        return ""
    name = printable(stub._caprpc_shape.name)
    return f"known from what the peer announced; --interface MODULE:{name} adds types and documentation"


def _doc_of(function: Callable[..., Any]) -> str:
    return next(iter((function.__doc__ or "").splitlines()), "") or "a function of the shell"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
