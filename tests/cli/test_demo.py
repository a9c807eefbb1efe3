"""``caprpc demo``: it counts, its attacks are refused and would be seen if they were not, and it leaves nothing."""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import caprpc
from caprpc.cli import demo as command
from caprpc.cli import main
from caprpc.demo import service
from caprpc.demo.forge import forge
from caprpc.demo.interfaces import LineCounter
from caprpc.ids import OP_CALL
from caprpc.testing.deployment import Deployment

PAIRINGS = ["blocking-blocking", "blocking-aio", "aio-blocking", "aio-aio"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the demonstration makes its temporary directory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def run(*arguments, pairing="aio-aio"):
    words = ["demo", "--pairing", pairing, *map(str, arguments)]
    return CliRunner().invoke(main, words, prog_name="caprpc", catch_exceptions=False)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_every_pairing_counts_refuses_and_verifies(place, pairing):
    result = run(pairing=pairing)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    said = result.stdout
    assert said.count("  Noisy: ") == 8
    assert "  Noisy: 'Simple\\n'\n" in said
    assert "The call returned 8." in said
    assert len(re.findall(r"attacker saw  Denied: code denied, reference number R-[A-Z2-9]{12}\n", said)) == 6
    assert "the peer ended the connection: refused (reference number R-" in said
    assert "TLS alert: TLSV13_ALERT_CERTIFICATE_REQUIRED" in said
    assert said.count("   audit record  audit/") == said.count("   decided by    ") == 8
    assert "8 of 8 attacks were refused, each with an audit record." in said
    assert said.count("\nintact: ") == 2
    assert list(place.iterdir()) == []
    assert "\x1b" not in said


def test_what_is_tried_is_what_was_promised():
    tried = " ".join(attempt.tried for attempt in service.ATTEMPTS)
    for name in ("fileobj.write", "fileobj.close", "fileobj.buffer", "function.__globals__", "call that has ended"):
        assert name in tried


def test_the_lines_that_decided_are_shown(place):
    said = run().stdout
    assert re.search(r"rule=server\.toml:\d+", said)
    for line in (
        "[offer.LinesOnly]",
        "[offer.InvokeOnly]",
        'lifetime = "call"',
        'spiffe = ["spiffe://demo.example/alice"]',
    ):
        assert re.search(rf"\.toml:\d+:  {re.escape(line)}\n", said), line


def test_a_long_file_shows_progress(place, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_PROGRESS_S", 0.0)
    text = tmp_path / "long.txt"
    text.write_text("".join(f"line {number}\n" for number in range(200)), encoding="utf-8")
    said = run(text).stdout
    assert said.count("  Noisy: ") == 20
    assert "  180 lines so far" in said
    assert "The call returned 200." in said
    assert f"demo --keep {shlex.quote(str(text))}" in said


def test_a_long_line_and_control_characters_do_not_reach_the_terminal(place, tmp_path):
    text = tmp_path / "odd.txt"
    text.write_text("\x1b[31mred\n" + "x" * 5000 + "\n", encoding="utf-8")
    said = run(text).stdout
    assert "\x1b" not in said
    assert "  Noisy: '\\x1b[31mred\\n'\n" in said
    assert max(map(len, said.splitlines())) < 500


def test_a_file_that_is_not_utf_8_is_named_with_byte_and_line(place, tmp_path):
    text = tmp_path / "bad.txt"
    text.write_bytes(b"ok\nbad \xff\n")
    result = run(text)
    assert result.exit_code == 65
    assert "bad.txt is not valid utf-8 at byte 7, line 2" in result.stderr
    assert re.search(r"reference number R-[A-Z2-9]{12}", result.stderr)
    assert "Traceback" not in result.output
    assert list(place.glob("caprpc-demo-*")) == []


@pytest.mark.parametrize("name", ["nothing.txt", "."])
def test_a_file_that_is_not_there_starts_nothing(place, tmp_path, name):
    result = run(tmp_path / name)
    assert result.exit_code == 66
    assert result.stdout == ""
    assert list(place.iterdir()) == []


def test_an_attack_that_works_is_reported_and_fails_the_demonstration(place, monkeypatch):
    monkeypatch.setattr(command, "count_lines", _with_a_success(command.count_lines))
    result = run()
    assert result.exit_code == 70
    assert "attacker saw  NO ERROR: IT WORKED" in result.stdout
    assert "7 of 8 attacks were refused" in result.stdout


class Prober(service.Counter):
    """Forges a call that its own policy does not let it make."""

    def misbehave(self, fileobj, function):
        return [{"honest": _refusal(fileobj.readline), "forged": forge(fileobj, OP_CALL, "readline", (-1,))}]


def _refusal(call):
    try:
        return call()
    except caprpc.CapRPCError as error:
        return type(error).__name__


SERVER = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/alice"]
[roots]
counter = "Counting"
[offer.Counting]
interface = "LineCounter"
call = ["misbehave"]
[accept.TextLines]
call = ["readlines"]
[accept.Callable]
invoke = true
"""
CLIENT = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.LineCounter]
call = ["misbehave"]
[offer.Lines]
interface = "TextLines"
call = ["readline", "readlines"]
iterate = true
[offer.InvokeOnly]
interface = "Callable"
invoke = true
[[lend]]
to = "LineCounter.misbehave"
param = "fileobj"
as = "Lines"
lifetime = "call"
[[lend]]
to = "LineCounter.misbehave"
param = "function"
as = "InvokeOnly"
lifetime = "call"
"""


def test_a_forged_call_is_decided_by_the_other_side_alone(tmp_path):
    """What the demonstration shows as refused would work if the client had granted it."""
    deployment = Deployment(tmp_path)
    server_side = deployment.side("server", {"alice": SERVER}, [LineCounter])
    client_side = deployment.side("alice", {"server": CLIENT}, [LineCounter])
    server = caprpc.Server({"counter": Prober}, **server_side.directories)
    address = server.listen("127.0.0.1:0")
    with server, caprpc.connect(address, **client_side.directories) as peer:
        counter = peer.root("counter", LineCounter)
        found = counter.misbehave(io.StringIO("Simple\nis\n"), print)
    assert found == [{"honest": "CallRefused", "forged": "Simple\n"}]


def _with_a_success(real):
    def count_lines(*arguments, **options):
        outcome = real(*arguments, **options)
        outcome.attempts[0].update(error="", code="", reference="")
        return outcome

    return count_lines


def test_contracts_of_the_demonstration_are_those_of_its_code(repository_root):
    words = ["policy", "contracts", "caprpc.demo.interfaces"]
    generated = CliRunner().invoke(main, words, prog_name="caprpc").stdout
    for name in ("demo-server", "demo-client"):
        assert (repository_root / "policies" / name / "contracts.toml").read_text(encoding="utf-8") == generated


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_its_server_and_removes_its_directory(tmp_path, repository_root, number):
    place = tmp_path / "place"
    place.mkdir()
    text = tmp_path / "long.txt"
    text.write_bytes(b"Simple\n" * 2_000_000)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "caprpc", "demo", str(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=repository_root,
        env=os.environ | {"TMPDIR": str(place)},
    )
    said = [process.stdout.readline()]
    while "more lines" not in said[-1]:
        said.append(process.stdout.readline())
        assert said[-1], process.stderr.read()
    server = int(re.search(r"Server: process (\d+)", "".join(said)).group(1))
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.strip() == "caprpc: interrupted"
    assert list(place.iterdir()) == []
    assert not Path(f"/proc/{server}").exists()


def test_killed_it_leaves_no_server_behind(tmp_path, repository_root):
    text = tmp_path / "long.txt"
    text.write_bytes(b"Simple\n" * 2_000_000)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "caprpc", "demo", str(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=repository_root,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    said = ""
    while not (found := re.search(r"Server: process (\d+)", said)):
        line = process.stdout.readline()
        assert line
        said += line
    process.kill()
    process.communicate(timeout=20)
    server = Path(f"/proc/{found.group(1)}/cmdline")
    end = time.monotonic() + 20
    while server.exists() and server.read_bytes() and time.monotonic() < end:
        time.sleep(0.05)
    assert not (server.exists() and server.read_bytes())
