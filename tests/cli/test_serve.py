"""``caprpc serve``: starting, stopping, reloading, and every way in which it does not start."""

import gc
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

import caprpc
from caprpc import errors
from caprpc.cli import main, serve
from caprpc.limits import ServerLimits

HERE = Path(__file__).resolve().parent
DRIVERS = pytest.mark.parametrize("driver", [[], ["--aio"]], ids=["blocking", "aio"])


@pytest.fixture
def shop(monkeypatch):
    """The module of the service, found as an operator's own module is found: by its name."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("shop_service")


@pytest.fixture
def site(tmp_path, shop):
    shop.deploy(tmp_path)
    return tmp_path


def words(site, *arguments, factory="shop_service:roots"):
    side = site / "server"
    fixed = ("--identity", side / "identity", "--policies", side / "policies", "--listen", "127.0.0.1:0")
    return ["serve", factory, *map(str, fixed), *map(str, arguments)]


@pytest.fixture
def stopped_once_frozen():
    """Have SIGTERM come once objects are frozen; return a function that says whether they were, and are no more."""
    seen = []

    def watch():
        end = time.monotonic() + 20.0
        while gc.get_freeze_count() < 1_000 and time.monotonic() < end:
            time.sleep(0.01)
        seen.append(gc.get_freeze_count())
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch)
    thread.start()
    yield lambda: seen[0] > 10_000 and gc.get_freeze_count() == 0
    thread.join()


class Process:
    """A server in a process of its own, with what it says."""

    def __init__(self, repository, *arguments):
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "caprpc", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=HERE,
            env=os.environ | {"PYTHONPATH": str(repository)},
        )
        self.said = self.popen.stdout.readline()
        self.address = self.said.removeprefix("listening on ").strip()

    def errors_until(self, text):
        """Read what it writes to standard error until a line has the text."""
        lines = []
        while not lines or text not in lines[-1]:
            lines.append(self.popen.stderr.readline())
            assert lines[-1], "".join(lines)
        return "".join(lines)

    def end(self, number=signal.SIGTERM):
        self.popen.send_signal(number)
        out, err = self.popen.communicate(timeout=15)
        return self.popen.returncode, out, err

    @property
    def descriptors(self):
        return len(os.listdir(f"/proc/{self.popen.pid}/fd"))


@pytest.fixture
def server(site, repository_root):
    """Start ``caprpc serve`` for the site; it is gone after the test."""
    started = []

    def start(*arguments):
        started.append(Process(repository_root, *words(site, *arguments)))
        return started[-1]

    yield start
    for process in started:
        process.popen.kill()
        process.popen.communicate()


def connect(site, server, name="alice"):
    side = site / name
    return caprpc.connect(server.address, identity=side / "identity", policies=side / "policies")


@DRIVERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_a_signal_stops_it(server, driver, number):
    process = server(*driver)
    assert re.fullmatch(r"listening on caprpc://127\.0\.0\.1:\d+\n", process.said)
    code, out, err = process.end(number)
    assert (code, out) == (0, "")
    assert err == "caprpc: stopping; running calls may take 5 s more\n"


@DRIVERS
def test_collections_pass_over_what_was_made_to_come_up(site, stopped_once_frozen, driver):
    result = CliRunner().invoke(main, words(site, *driver))
    assert (result.exit_code, stopped_once_frozen()) == (0, True)


@DRIVERS
def test_a_running_call_ends_before_the_server_does(server, site, shop, driver):
    process = server(*driver)
    with connect(site, process) as peer:
        remote = peer.root("shop", shop.Shop)
        assert remote.wait(0.3, lambda _text: process.popen.terminate()) == "waited"
        with pytest.raises(errors.CapRPCError):
            remote.add(1, 2)
    assert process.popen.wait(15) == 0


@DRIVERS
def test_without_grace_a_running_call_is_lost(server, site, shop, driver):
    process = server("--grace", "0", *driver)
    with connect(site, process) as peer, pytest.raises(errors.ConnectionLost):
        peer.root("shop", shop.Shop).wait(1.5, lambda _text: process.popen.terminate())
    assert process.popen.wait(15) == 0


@DRIVERS
def test_a_method_that_does_not_return_keeps_no_server_that_stops(server, site, shop, driver):
    process = server("--grace", "0.2", *driver)
    with connect(site, process) as peer, pytest.raises(errors.ConnectionLost):
        peer.root("shop", shop.Shop).sleep(60, lambda _text: process.popen.terminate())
    assert process.popen.wait(15) == 0


@DRIVERS
def test_what_cannot_be_closed_keeps_no_server_that_stops(server, site, shop, driver):
    process = server("--grace", "0.2", *driver)
    with connect(site, process) as peer:
        rows = peer.root("shop", shop.Shop).stuck()
        assert next(rows) == "stuck"
        process.popen.terminate()
        assert process.popen.wait(15) == 0


@DRIVERS
def test_sighup_reads_policies_again_and_a_wrong_one_changes_nothing(server, site, shop, driver):
    process = server(*driver)
    with connect(site, process) as peer:
        remote = peer.root("shop", shop.Shop)
        assert remote.add(1, 2) == 3
        policies = site / "server" / "policies"
        file, index = policies / "alice.toml", policies / "caprpc.toml"
        good = file.read_text(encoding="utf-8")
        file.write_text(good.replace('"add", ', "", 1) + "[nonsense]\n", encoding="utf-8")
        process.popen.send_signal(signal.SIGHUP)
        assert "NOT reloaded" in process.errors_until("hint")
        assert remote.add(1, 2) == 3
        file.write_text(good.replace('"add", ', "", 1), encoding="utf-8")
        index.write_text(index.read_text(encoding="utf-8").replace("version = 1", "version = 2"), encoding="utf-8")
        process.popen.send_signal(signal.SIGHUP)
        process.errors_until("reloaded: policies version 2")
        with pytest.raises(caprpc.Denied):
            remote.add(1, 2)
    assert process.end()[0] == 0


@DRIVERS
def test_a_failing_method_is_one_line_here_and_a_traceback_in_the_log(server, site, shop, tmp_path, driver):
    process = server("--log", tmp_path / "service.log", *driver)
    with connect(site, process) as peer, pytest.raises(caprpc.RemoteError) as caught:
        peer.root("shop", shop.Shop).fail()
    code, _, err = process.end()
    assert code == 0
    assert f"Shopping.fail (call) for spiffe://test.example/alice failed ({caught.value.reference})" in err
    assert "Traceback" not in err
    log = (tmp_path / "service.log").read_text(encoding="utf-8")
    assert caught.value.reference in log
    assert "Traceback" in log


@DRIVERS
def test_a_server_that_dies_in_mid_call_is_a_lost_connection(server, site, shop, driver):
    process = server(*driver)
    with connect(site, process) as peer, pytest.raises(errors.ConnectionLost) as caught:
        peer.root("shop", shop.Shop).die()
    assert caught.value.code == "lost"
    assert process.popen.wait(15) == 9


@DRIVERS
def test_silent_and_half_open_connections_leave_nothing_behind(server, site, shop, driver):
    process = server("--handshake-timeout-s", "1", *driver)
    host, _, port = process.address.removeprefix("caprpc://").rpartition(":")
    with connect(site, process) as peer:
        remote = peer.root("shop", shop.Shop)
        remote.add(1, 2)
        before = process.descriptors
        silent = socket.create_connection((host, int(port)), timeout=10)
        half_open = socket.create_connection((host, int(port)), timeout=10)
        # The first bytes of a handshake record that never comes.
        half_open.sendall(b"\x16\x03\x01\x02\x00\x01")
        socket.create_connection((host, int(port)), timeout=10).close()
        for sock in (silent, half_open):
            with sock:
                while sock.recv(100):
                    # An alert may come before the end.
                    pass
        end = time.monotonic() + 5
        # What ended the loop is what is judged: the server opens files for a moment when it looks for new policies.
        while (left := process.descriptors) > before and time.monotonic() < end:
            assert remote.add(1, 2) == 3
        assert left <= before
    code, _, err = process.end()
    assert (code, "Traceback" in err) == (0, False)


def run(*arguments):
    return CliRunner().invoke(main, [str(word) for word in arguments], prog_name="caprpc", catch_exceptions=False)


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("shop_service", "MODULE:FACTORY expected"),
        ("shop_service:", "MODULE:FACTORY expected"),
        ("no_such_module:roots", "cannot import"),
        ("not a name:roots", "not the dotted name"),
        ("shop_service:nothing", "the module has no 'nothing'"),
        ("shop_service:NOT_ROOTS", "gives a int; a mapping of root names"),
        ("shop_service:SERVER_POLICY", "gives a str; a mapping of root names"),
    ],
)
def test_what_cannot_be_served_is_a_usage_error(site, factory, says):
    result = run(*words(site, factory=factory))
    assert (result.exit_code, says in result.stderr) == (64, True), result.stderr


def test_a_factory_that_fails_is_no_usage_error(site):
    result = run(*words(site, factory="shop_service:broken"))
    assert result.exit_code == 70
    assert "fails when it is called: RuntimeError: no database" in result.stderr


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise RuntimeError('no database')", "RuntimeError: no database"),
    ],
)
@pytest.mark.parametrize("at", ["import", "call"])
def test_a_module_that_ends_the_process_says_so(site, tmp_path, monkeypatch, body, says, at):
    name = f"own_{abs(hash((body, at)))}"
    text = body if at == "import" else f"def roots():\n    {body}\n"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    result = run(*words(site, factory=f"{name}:roots"))
    assert (result.exit_code, says in result.stderr) == (70, True), result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupt_while_the_module_is_imported_is_no_traceback(site, tmp_path, repository_root):
    (tmp_path / "slow_module.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "caprpc", *words(site, factory="slow_module:roots")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(repository_root)},
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_a_factory_and_a_mapping_give_roots(shop):
    assert set(serve.load_roots("shop_service:roots")) == {"shop"}
    assert serve.load_roots("shop_service:MAPPING") is shop.MAPPING


@DRIVERS
def test_a_port_in_use_is_the_systems_refusal(site, driver):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run(*words(site, "--listen", address, *driver))
    assert result.exit_code == 71
    assert f"cannot listen on caprpc://{address}: Address already in use" in result.stderr
    assert "hint:" in result.stderr


@DRIVERS
def test_a_key_that_others_can_read_is_refused(site, driver):
    (site / "server" / "identity" / "key.pem").chmod(0o644)
    result = run(*words(site, *driver))
    assert result.exit_code == 78
    assert "readable or writable by others" in result.stderr
    assert "chmod" in result.stderr


def test_a_missing_identity_is_refused(site):
    (site / "server" / "identity" / "key.pem").unlink()
    assert run(*words(site)).exit_code == 78


@DRIVERS
def test_a_wrong_policy_is_refused_with_file_and_line(site, driver):
    file = site / "server" / "policies" / "alice.toml"
    file.write_text(file.read_text(encoding="utf-8").replace('"add"', '"*"'), encoding="utf-8")
    result = run(*words(site, *driver))
    assert result.exit_code == 78
    assert re.search(r"alice\.toml:\d+", result.stderr)


def test_an_address_that_is_none_is_refused(site):
    assert run(*words(site, "--listen", "http://127.0.0.1/")).exit_code == 78


@DRIVERS
def test_an_audit_log_that_another_process_has_is_refused(site, shop, driver):
    side = site / "server"
    other = caprpc.Server(shop.roots(), identity=side / "identity", policies=side / "policies")
    other.listen("127.0.0.1:0")
    with other:
        result = run(*words(site, *driver))
    assert result.exit_code == 74
    assert "writes to this audit log" in result.stderr


def test_every_limit_of_a_server_is_an_option_with_its_default():
    options = {option.name: option.default for option in serve.serve.params}
    for field in fields(ServerLimits):
        assert options[field.name] == field.default
        assert serve._LIMIT_HELP[field.name]
