"""``caprpc shell``: a script, a terminal, completion, and a language in which nothing is run as code."""

import os
import pty
import select
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

import caprpc
from caprpc.cli import main
from caprpc.cli.completer import completer
from caprpc.cli.language import Language, ShellError
from caprpc.cli.shell import Shell, _interfaces
from caprpc.ids import OP_CALL, OP_LENGTH, OP_ROOT
from caprpc.interface import Undeclared

HERE = Path(__file__).resolve().parent


def words(site, *arguments):
    side = site["root"] / "alice"
    options = ("--interface", "shop_service", "--identity", side / "identity", "--policies", side / "policies")
    return ["shell", site["address"], *map(str, (*options, *arguments))]


@pytest.fixture
def script(site):
    """Run lines in a shell without a terminal; returns the click result."""

    def run(*lines, options=()):
        text = "".join(f"{line}\n" for line in lines)
        return CliRunner().invoke(main, words(site, *options), input=text, prog_name="caprpc", catch_exceptions=False)

    return run


@pytest.fixture
def shell(site):
    """A shell on a connection of its own, without a prompt."""
    side = site["root"] / "alice"
    with (
        ExitStack() as opened,
        caprpc.connect(site["address"], identity=side / "identity", policies=side / "policies") as peer,
    ):
        yield Shell(peer, _interfaces(["shop_service"]), 10.0, opened)


def test_members_are_called_and_attributes_read_and_set(script):
    result = script("shop.add(1, 2)", "shop.add(b=2, a=40)", 'shop.title = "new"', "shop.title", "shop.size")
    assert (result.output, result.exit_code) == ("3\n42\nnew\n12\n", 0)


def test_values_are_kept_and_the_last_one_is_underscore(script):
    assert script("n = shop.add(1, 2)", "shop.add(n, 4)", "_", "[n, -n, {'k': (n,)}]").output == (
        '7\n7\n[3, -3, {"k": [3]}]\n'
    )


def test_literals_become_what_the_declaration_says(script):
    line = 'shop.take("BLUE", 1.10, [{"x": 1, "y": 2, "day": "2026-01-02"}], 1.5, b"\\x00", "fast", {"a": [1.5]})'
    result = script(line)
    assert result.exit_code == 0, result.output
    assert "Decimal('1.1')" in result.output
    assert "Point(x=1, y=2.0, day=datetime.date(2026, 1, 2))" in result.output


def test_literals_in_a_dictionary_become_the_fields_of_a_record(script):
    result = script('shop.label({"color": "BLUE", "price": 1.10, "raw": b"x", "span": (0.5, 2)})')
    assert result.exit_code == 0, result.output
    assert "Label(color=<Color.BLUE: 2>, price=Decimal('1.1'), raw=b'x', span=(0.5, 2.0))" in result.output


def test_an_iterator_is_shown_a_page_at_a_time(script):
    result = script("shop.lines(3)", "rows = shop.lines(150)", "rows", "rows")
    lines = result.stdout.splitlines()
    assert lines[:3] == ["line 0", "line 1", "line 2"]
    assert lines[3:] == [f"line {n}" for n in range(150)]
    assert "100 shown" in result.stderr


def test_next_and_list_take_items(script):
    result = script("rows = shop.lines(3)", "next(rows)", "list(rows)", "len(_)")
    assert result.stdout.splitlines() == ["line 0", '["line 1\\n", "line 2\\n"]', "2"]


def test_a_file_and_a_function_are_lent(script, tmp_path):
    (tmp_path / "lines").write_text("Simple\nis\n", encoding="utf-8")
    result = script(f'shop.count(open("{tmp_path / "lines"}"), print)')
    assert (result.stdout, result.exit_code) == ('"Simple\\n"\n"is\\n"\n2\n', 0)


def test_help_is_of_our_declaration_and_of_what_is_offered(script):
    result = script("?shop", "help(shop.add)", "shop.add?", "?shop.show", "?shop.hidden", "?open", "roots()")
    out = result.stdout
    assert "Shop of spiffe://test.example/server\n  Sells what there is.\n" in out
    assert "  On weekdays only." in out
    assert out.count("call add(a: int, b: int = 1) -> int  [read]") == 2
    assert "call show(text: str) -> str  [read]\n  Return the text as it is.\n" in out
    assert "hidden: declared by Shop, but not offered to you" in out
    assert '{\n  "shop": "Shop"\n}' in out
    assert "to be lent" in out


def test_text_of_a_peer_cannot_steer_the_terminal(script):
    result = script('shop.show("\\x1b[31m")')
    assert result.stdout == "\\x1b[31m\n"


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("shop.nothing()", 65, "Shop does not declare 'nothing'; you may use: add,"),
        ("nothing", 65, "nothing is called 'nothing'; roots() lists"),
        ("shop.add(", 65, "not understood"),
        ("shop.add()", 65, "needs a"),
        ('shop.add("x")', 65, "expected int"),
        ("shop.size = 13", 65, "does not declare 'size' as writable: it is read only"),
        (
            'shop.label({"color": "GREEN"})',
            65,
            "Label expected, and in Label.color Color, got 'GREEN'; there is RED, BLUE",
        ),
        ('shop.label({"price": 1.10})', 65, "Label expected, and it lacks color"),
        ("shop.fail()", 70, "RemoteError (internal): "),
        ("shop.buy()", 70, "OutOfStock: no more of these\n  answered at the peer's side, not here: call of Shop.buy"),
        ("shop.hidden()", 77, "does not offer this"),
        ('open("/nowhere/lines")', 66, "No such file"),
    ],
)
def test_every_mistake_has_a_message_and_an_exit_code(script, line, code, says):
    result = script(line, "shop.add(1, 1)")
    assert (result.exit_code, says in result.stderr) == (code, True), result.output
    assert "Traceback" not in result.output
    assert result.stdout == "", "a script stops at its first error"


def test_a_traceback_is_shown_only_when_asked_for(script):
    assert "Traceback" in script("shop.fail()", options=["--traceback"]).stderr


def test_time_is_said_when_asked_for(script):
    assert " ms" in script("shop.add(1, 2)", options=["--time"]).stderr
    assert " ms" not in script("shop.add(1, 2)").stderr


@pytest.fixture
def stranger(site):
    """Run lines in a shell that knows no declaration; returns the click result."""
    side = site["root"] / "alice"
    options = ["--identity", str(side / "identity"), "--policies", str(side / "policies")]

    def run(*lines):
        text = "".join(f"{line}\n" for line in lines)
        return CliRunner().invoke(main, ["shell", site["address"], *options], input=text, prog_name="caprpc")

    return run


@pytest.fixture
def bare(site):
    """A shell without declarations, on a connection of its own, without a prompt."""
    side = site["root"] / "alice"
    with (
        ExitStack() as opened,
        caprpc.connect(site["address"], identity=side / "identity", policies=side / "policies") as peer,
    ):
        yield Shell(peer, {}, 10.0, opened)


def test_without_declarations_members_are_called_with_plain_values(stranger):
    lines = ("shop.add(1, 2)", "shop.add(a=40, b=2)", 'shop.title = "new"', "shop.title", "shop.size")
    result = stranger(*lines)
    assert (result.output, result.exit_code) == ("3\n42\nnew\n12\n", 0)


def test_without_declarations_the_facet_says_what_there_is(bare):
    said = [bare.help("shop"), bare.help("shop.add"), bare.language.run("describe(shop)")]
    assert all("add(...)  [unknown]" in text for text in said)
    assert "hidden" not in "".join(said)
    assert "--interface MODULE:Shop adds types and documentation" in said[0]
    complete = completer(bare.language, bare.words)
    assert complete("shop.a") == ["shop.add("]
    assert complete("shop.ti") == ["shop.title"]
    assert complete("shop.hid") == []


def test_without_declarations_references_are_kept_and_iterated(stranger):
    result = stranger("rows = shop.lines(3)", "next(rows)", "list(rows)", "shop.lines(2)")
    assert result.stdout.splitlines() == ["line 0", '["line 1\\n", "line 2\\n"]', "line 0", "line 1"]


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("shop.nothing()", 65, "Shop is not announced with 'nothing'; you may use: add,"),
        ("shop.hidden()", 65, "Shop is not announced with 'hidden'"),
        ("?shop.nothing", 65, "nothing is announced under 'nothing' there"),
        ('shop.add("x")', 65, "RemoteError (invalid-arguments)"),
        ("shop.fail()", 70, "RemoteError (internal): "),
        ("shop.buy()", 70, "no more of these"),
        ('shop.count(open("/dev/null"), print)', 65, "got TextIOWrapper; its declaration is not here, so only plain"),
    ],
)
def test_without_declarations_every_mistake_has_a_message(stranger, line, code, says):
    result = stranger(line)
    assert (result.exit_code, says in result.stderr) == (code, True), result.output
    assert "Traceback" not in result.output


def test_names_that_a_peer_announces_become_no_attributes(bare):
    stub = bare.language.lookup("shop")
    assert (OP_CALL, "add") in stub._caprpc_shape.members
    assert not hasattr(stub, "add")
    announced = {(OP_CALL, name) for name in ("__init__", "_caprpc_call", "b\x1b[31m", "", "good")}
    shape = Undeclared().of("Any", frozenset({*announced, (OP_ROOT, "x"), (OP_LENGTH, "x"), (OP_LENGTH, "")}))
    assert set(shape.members) == {(OP_CALL, "good"), (OP_LENGTH, "")}
    with pytest.raises(TypeError, match="a name"):
        Undeclared().of("b\x1b[31m", frozenset())


@pytest.mark.parametrize(
    "line",
    [
        "__import__('os')",
        "().__class__",
        "shop.__class__",
        "shop._caprpc_call",
        "shop.add.__func__",
        "(lambda: 1)()",
        "[x for x in (1,)]",
        "import os",
        "1 + 1",
        "f'{shop}'",
        "shop.add(*(1, 2))",
        "shop.add(**{'a': 1})",
        "x = y = 1",
        "del shop",
        "with shop: 1",
        "for x in shop: x",
        "1; 2",
        "'a'.upper()",
        "print = 1",
        "open('x', 'a')",
        "(" * 300 + ")" * 300,
        "-" * 60_000 + "1",
        "x" * 70_000,
        "\0",
    ],
)
def test_nothing_but_the_language_is_understood(shell, line):
    with pytest.raises(ShellError):
        shell.language.run(line)


def test_a_comment_and_an_empty_line_do_nothing(script):
    assert script("", "# a comment", "   ").output == ""


def test_what_a_peer_returns_is_data_and_never_a_line(script):
    assert script("line = shop.show('shop.add(1, 2)')", "line").stdout == "shop.add(1, 2)\n"


def test_completion_is_of_roots_names_and_the_members_of_the_facet(shell):
    complete = completer(shell.language, shell.words)
    assert complete("sh") == ["shop"]
    assert "roots" in complete("")
    assert complete("shop.a") == ["shop.add("]
    assert complete("shop.ti") == ["shop.title"]
    assert complete("?shop.ad") == ["?shop.add"]
    assert complete("shop.hid") == [], "declared, but not offered"
    assert complete("nothing.a") == complete("1.") == complete("shop.add(1).") == []
    shell.language.run("books = shop")
    assert complete("boo") == ["books"]
    assert complete("books.ad") == ["books.add("]


def refusals(site):
    logs = (site["root"] / "server" / "audit").rglob("*.jsonl")
    return sum(log.read_text(encoding="utf-8").count('"decision":"deny"') for log in logs)


def test_completion_asks_the_peer_for_nothing_that_it_has_not_offered(shell, site):
    before = refusals(site)
    complete = completer(shell.language, shell.words)
    for word in ("nothing.x", "shop.hidden", "shop.__cl", "secret"):
        assert complete(word) == []
    with pytest.raises(ShellError):
        shell.language.run("nothing.x()")
    assert refusals(site) == before
    with pytest.raises(caprpc.Denied):
        shell._peer.root("nothing", _interfaces(["shop_service"])["Shop"])
    assert refusals(site) == before + 1, "the count sees a refusal"


def test_variables_hide_no_function_of_the_shell():
    language = Language(lambda *_: None, lambda _name: None, {"f": lambda: 3})
    with pytest.raises(ShellError, match="is a function of the shell"):
        language.run("f = 1")
    assert language.run("f()") == 3


def test_the_session_on_the_how_to_page_is_what_happens(script, repository_root):
    page = (repository_root / "docs" / "how-to" / "use-the-shell.md").read_text(encoding="utf-8")
    _, _, session = page.partition("Ctrl-D leaves\n")
    lines = session.partition("```")[0].splitlines()
    typed = [line.removeprefix("caprpc> ") for line in lines if line.startswith("caprpc> ")]
    shown = [line for line in lines if not line.startswith("caprpc> ") and not line.endswith(" ms")]
    assert len(typed) == 3
    assert script(*typed).stdout.splitlines() == shown


@pytest.fixture
def told_to_stop(site):
    """An event that is set when the service's ``wait`` sees that it was cancelled."""
    event = sys.modules["shop_service"].TOLD_TO_STOP
    event.clear()
    return event


def test_an_answer_that_takes_too_long_is_cancelled(shell, told_to_stop):
    shell._timeout_s = 0.3
    with pytest.raises(caprpc.DeadlineExceeded, match="--timeout"):
        shell.language.run("shop.wait(20, print)")
    assert told_to_stop.wait(60), "the method was told, over a connection that goes on"


def test_a_script_whose_answer_takes_too_long_may_be_run_again(script):
    assert script("shop.wait(20, print)", options=["--timeout", "0.3"]).exit_code == 75


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, command, **options):
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True, **options)
        os.close(theirs)
        self.seen = ""

    def type(self, text):
        os.write(self._ours, text.encode())

    def wait_for(self, text):
        """Read until a text comes; what was read before it is passed over."""
        while text not in self.seen:
            assert select.select([self._ours], [], [], 60)[0], f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self._ours, 4096).decode(errors="replace")
        _, _, self.seen = self.seen.partition(text)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(site, repository_root):
    environment = {**os.environ, "PYTHONPATH": str(repository_root), "TERM": "dumb"}
    opened = Terminal([sys.executable, "-m", "caprpc", *words(site)], cwd=HERE, env=environment, start_new_session=True)
    yield opened
    opened.close()


def test_ctrl_c_cancels_the_running_call_and_ctrl_d_leaves(terminal, told_to_stop):
    terminal.wait_for("caprpc> ")
    terminal.type("shop.wait(20, print)\n")
    terminal.wait_for('"waiting"')
    terminal.process.send_signal(2)
    terminal.wait_for("cancelled")
    assert told_to_stop.wait(60), "the method was told"
    terminal.wait_for("caprpc> ")
    terminal.type("shop.add(20, 22)\n")
    terminal.wait_for("42")
    terminal.wait_for(" ms")
    terminal.wait_for("caprpc> ")
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0
