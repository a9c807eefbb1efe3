"""``caprpc call``: arguments, results, and an exit code for everything that can go wrong."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from caprpc.cli import main

HERE = Path(__file__).resolve().parent


def words(site, *arguments):
    side = site["root"] / "alice"
    fixed = ("--interface", "shop_service:Shop", "--identity", side / "identity", "--policies", side / "policies")
    return ["call", *map(str, arguments), *map(str, fixed)]


@pytest.fixture
def call(site):
    """Run ``caprpc call`` in this process; returns the click result."""
    runner = CliRunner()
    return lambda *arguments: runner.invoke(
        main, words(site, site["address"], *arguments), prog_name="caprpc", catch_exceptions=False
    )


def test_arguments_by_position_and_by_name(call):
    assert call("shop.add", "1", "2").output == "3\n"
    assert call("shop.add", "40", "b=2").output == "42\n"
    assert call("shop.add", "b=2", "a=1").output == "3\n"


def test_an_attribute_is_read_and_set(call):
    assert call("shop.title", '"the new shop"').exit_code == 0
    assert call("shop.title").output == "the new shop\n"
    assert call("shop.size", "--format", "json").output == "12\n"


def test_a_read_only_attribute_cannot_be_set(call):
    result = call("shop.size", "13")
    assert result.exit_code == 64
    assert "read only" in result.stderr


def test_a_text_needs_no_quotes_and_may_look_like_a_number(call):
    assert call("shop.show", "a b").output == "a b\n"
    assert call("shop.show", "42").output == "42\n"
    assert call("shop.show", '"quoted"').output == "quoted\n"


def test_a_text_may_come_from_a_file(call, tmp_path):
    (tmp_path / "text").write_text("from a file", encoding="utf-8")
    assert call("shop.show", f"@{tmp_path / 'text'}").output == "from a file\n"


def test_the_declaration_decides_what_json_cannot_say(call):
    points = '[{"x": 1, "y": 2, "day": "2026-01-02"}]'
    result = call("shop.take", "BLUE", "1.10", points, "1.5", '"AP8="', "fast", '{"a": [1.5]}', "--format", "json")
    assert json.loads(result.output) == [
        "<Color.BLUE: 2>",
        "Decimal('1.10')",
        "[Point(x=1, y=2.0, day=datetime.date(2026, 1, 2))]",
        "datetime.timedelta(seconds=1, microseconds=500000)",
        r"b'\x00\xff'",
        "'fast'",
        "{'a': [1.5]}",
    ]


def test_a_result_is_json_and_cannot_steer_the_terminal(call):
    result = call("shop.give", "--format", "json")
    assert json.loads(result.output) == {
        "day": "2026-01-02",
        "price": "1.10",
        "raw": "AP8=",
        "set": [1],
        "escape": "\x1b[31m",
    }
    assert "\x1b" not in result.output
    assert "\x1b" not in call("shop.give").output
    assert call("shop.show", '"\\u001b[31m"').output == "\\x1b[31m\n"


def test_an_iterator_is_printed_line_by_line(call):
    assert call("shop.lines", "3").output == "line 0\nline 1\nline 2\n"
    assert call("shop.lines", "2", "--format", "json").output == '"line 0\\n"\n"line 1\\n"\n'


def test_a_file_and_a_function_are_lent(call, tmp_path):
    (tmp_path / "lines").write_text("Simple\nis\n", encoding="utf-8")
    result = call("shop.count", f"@{tmp_path / 'lines'}", "@print")
    assert (result.output, result.exit_code) == ('"Simple\\n"\n"is\\n"\n2\n', 0)


def test_a_file_that_is_not_utf_8_is_named_with_byte_and_line(call, tmp_path):
    (tmp_path / "lines").write_bytes(b"ok\nbad \xff\n")
    result = call("shop.count", f"@{tmp_path / 'lines'}", "@print")
    assert result.exit_code == 65
    assert "not valid utf-8 at byte 7, line 2" in result.stderr
    assert "reference number R-" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["shop"], 64, "ROOT.MEMBER expected"),
        (["shop.nothing"], 64, "has no member 'nothing'; it has: add,"),
        (["shop.add"], 64, "needs a"),
        (["shop.add", "1", "2", "3"], 64, "takes 2 arguments: a, b"),
        (["shop.add", "a=1", "a=2"], 64, "given twice"),
        (["shop.add", '"x"'], 65, "argument a: int expected, got a text"),
        (["shop.add", "true"], 65, "argument a: int expected, got true or false"),
        (["shop.add", "{x"], 65, "is not JSON"),
        (["shop.add", "[" * 100_000], 65, "nested too deep"),
        (["shop.take", "GREEN", "1", "[]", "1", '""', "fast", "1"], 65, "argument color: Color expected, got 'GREEN'"),
        (["shop.take", "RED", "1", '[{"z": 1}]', "1", '""', "fast", "1"], 65, "Point has no z"),
        (["shop.take", "RED", "1", '[{"x": 1}]', "1", '""', "fast", "1"], 65, "list[Point] expected, and it lacks y"),
        (["shop.take", "RED", "1", '[{"x": "1"}]', "1", '""', "fast", "1"], 65, "in Point.x int, got a text"),
        (["shop.take", "GREEN", "1", "[]", "1", '""', "fast", "1"], 65, "got 'GREEN'; there is RED, BLUE"),
        (["shop.wait", "1", "print"], 65, "and none can be made on a command line but @print"),
        (["shop.take", "RED", "1", "[]", "1", '"%"', "fast", "1"], 65, "argument raw: bytes expected"),
        (["shop.take", "RED", "1", "[]", "1", '""', "later", "1"], 65, "argument mode"),
        (["shop.count", "lines", "@print"], 65, "write @PATH"),
        (["shop.count", "@/nowhere/lines", "@print"], 66, "No such file"),
        (["shop.fail"], 70, "reference number R-"),
        (
            ["shop.buy"],
            70,
            "buy: OutOfStock: no more of these\n  answered at the peer's side, not here: call of Shop.buy",
        ),
        (["shop.hidden"], 77, "does not offer this"),
        (["nothing.add", "1"], 77, "reference number R-"),
        (["shop.add", "1", "--peer", "spiffe://test.example/other"], 77, "other expected"),
    ],
)
def test_every_mistake_has_its_exit_code(call, arguments, code, says):
    result = call(*arguments)
    assert (result.exit_code, says in result.stderr) == (code, True), result.output
    assert "Traceback" not in result.output


def test_a_failing_method_tells_nothing_but_a_number(call):
    assert "secret" not in call("shop.fail").output


@pytest.mark.parametrize(
    "interface", ["shop_service", "shop_service:TheShop", "shop_service:Nothing", "no_module:Shop"]
)
def test_a_wrong_interface_is_a_usage_error(interface):
    arguments = ["call", "caprpc://127.0.0.1:1", "shop.add", "1", "--identity", "x", "--policies", "y"]
    assert CliRunner().invoke(main, [*arguments, "--interface", interface]).exit_code == 64


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["shop.add", "1", "2"], 0, "3\n"),
        (["shop.add", "a=40", "b=2"], 0, "42\n"),
        (["shop.show", "two words"], 0, "two words\n"),
        (["shop.title", "bought"], 0, ""),
        (["shop.lines", "2"], 0, "line 0\nline 1\n"),
        (["shop.add", "a=1", "a=2"], 64, "a is given twice"),
        (["shop.hidden"], 64, "Shop has no member 'hidden'; it has: add,"),
        (["shop.add", "x"], 65, "parameter 'a': expected int"),
    ],
)
def test_without_a_declaration_the_announcement_is_enough(site, arguments, code, says):
    side = site["root"] / "alice"
    options = ["--identity", str(side / "identity"), "--policies", str(side / "policies")]
    result = CliRunner().invoke(main, ["call", site["address"], *arguments, *options], prog_name="caprpc")
    assert (result.exit_code, says in result.output) == (code, True), result.output


def test_nobody_listens(call, site):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    result = CliRunner().invoke(main, words(site, f"caprpc://127.0.0.1:{port}", "shop.add", "1"))
    assert result.exit_code == 69
    assert "is the server running there?" in result.stderr


def test_a_silent_server_is_given_up_in_time(site):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"caprpc://127.0.0.1:{sock.getsockname()[1]}"
        result = CliRunner().invoke(main, words(site, url, "shop.add", "1", "--timeout", "0.3"))
    assert result.exit_code == 69
    assert "no answer" in result.stderr


def test_an_answer_that_takes_too_long_is_cancelled(call):
    result = call("shop.wait", "1", "@print", "--timeout", "0.2")
    assert result.exit_code == 75
    assert "(--timeout)" in result.stderr


def start(site, url, *arguments):
    command = [sys.executable, "-m", "caprpc", *words(site, url, *arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE)


def test_ctrl_c_ends_a_call_without_traceback(site, repository_root, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(repository_root))
    process = start(site, site["address"], "shop.wait", "5", "@print", "--timeout", "20")
    assert process.stdout.readline() == '"waiting"\n'
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 130
    assert errors.strip().endswith("caprpc: interrupted")
    assert "Traceback" not in errors
