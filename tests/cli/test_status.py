"""``caprpc serve --status`` and ``caprpc status``: the operator's answer, and nothing for anybody else."""

import importlib
import json
import os
import signal
import socket
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

import caprpc
from caprpc.cli import main
from caprpc.cli.status import StatusSocket
from caprpc.errors import ConfigurationError
from caprpc.objects.health import AuditHealth, Health, PolicyHealth
from tests.cli.test_serve import DRIVERS, Process, connect, words

HERE = Path(__file__).resolve().parent
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def some_health(state="ok", problems=()):
    policy = PolicyHealth("policies", 7, "sha256:x", 2, NOW, None)
    return Health(state, problems, NOW, ("caprpc://a:1",), 3, 2, policy, AuditHealth("audit", ()), ())


@pytest.fixture
def shop(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("shop_service")


@pytest.fixture
def site(tmp_path, shop):
    shop.deploy(tmp_path)
    return tmp_path


@pytest.fixture
def server(site, repository_root):
    started = []

    def start(*arguments):
        started.append(Process(repository_root, *words(site, *arguments)))
        return started[-1]

    yield start
    for process in started:
        process.popen.kill()
        process.popen.communicate()


@pytest.fixture
def ask():
    runner = CliRunner()
    return lambda *words: runner.invoke(main, ["status", *map(str, words)])


@pytest.fixture
def give(tmp_path):
    """Serve fixed bytes, as a program that is no server of ours might."""
    path = tmp_path / "other"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer(content):
            def run():
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(content)

            thread = threading.Thread(target=run)
            thread.start()
            return path, thread

        yield answer


@DRIVERS
def test_it_tells_what_is_in_force_and_who_is_there(server, site, shop, ask, tmp_path, driver):
    path = tmp_path / "status"
    process = server(*driver, "--status", path)
    with connect(site, process) as peer:
        peer.root("shop", shop.Shop).add(1, 2)
        text = ask(path)
        assert text.exit_code == 0
        assert text.stdout.startswith("ok\n")
        assert "1, 1 of them of known peers" in text.stdout
        found = json.loads(ask(path, "--format", "json").stdout)
    assert found["addresses"] == [process.address]
    assert found["policy"]["version"] == 1
    assert found["audit"]["faults"] == []


@DRIVERS
def test_a_bad_reload_is_told_and_the_old_policy_with_it(server, site, ask, tmp_path, driver):
    path = tmp_path / "status"
    process = server(*driver, "--status", path)
    before = json.loads(ask(path, "--format", "json").stdout)["policy"]
    index = site / "server" / "policies" / "caprpc.toml"
    good = index.read_text()
    index.write_text(good + "\nnonsense = 1\n")
    process.popen.send_signal(signal.SIGHUP)
    process.errors_until("NOT reloaded")
    told = ask(path)
    assert told.exit_code == 1
    assert "last reload:  refused at " in told.stdout
    assert "unknown key 'nonsense'" in told.stdout
    assert before["digest"] in told.stdout
    index.write_text(good)
    process.popen.send_signal(signal.SIGHUP)
    process.errors_until("reloaded:")
    assert ask(path).exit_code == 0


@DRIVERS
def test_none_but_its_user_may_connect_and_it_is_gone_with_the_server(server, ask, tmp_path, driver):
    path = tmp_path / "status"
    process = server(*driver, "--status", path)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert process.end()[0] == 0
    assert not path.exists()
    gone = ask(path)
    assert (gone.exit_code, gone.stdout) == (69, "")
    assert f"no server answers at {path}" in gone.stderr


def test_another_user_is_told_nothing(tmp_path, monkeypatch):
    path = tmp_path / "status"
    with StatusSocket(path, some_health):
        monkeypatch.setattr("caprpc.cli.status._user", lambda _connection: os.geteuid() + 1)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(path))
            assert sock.recv(100) == b""


def test_one_that_hangs_or_leaves_does_not_keep_others_out(tmp_path, ask):
    path = tmp_path / "status"
    with StatusSocket(path, lambda: some_health(problems=("x" * 900_000,))), socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(path))
        with socket.socket(socket.AF_UNIX) as leaver:
            leaver.connect(str(path))
        assert ask(path, "--format", "json").exit_code == 0


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("attention", 1), ("failing", 2)])
def test_the_code_is_that_of_monitoring_plugins(tmp_path, ask, state, code):
    path = tmp_path / "status"
    with StatusSocket(path, lambda: some_health(state, ("a problem\x1b[2J",))):
        told = ask(path)
        assert (told.exit_code, ask(path, "--format", "json").exit_code) == (code, code)
    assert told.stdout.startswith(f"{state}\n  a problem")
    assert "\x1b" not in told.stdout


@pytest.mark.parametrize("content", [b"", b"hello\n", b"[]", b"{}", b'{"state": "ok"}', b"[" * 100_000, b"\xff\xfe"])
def test_what_is_no_status_is_not_taken_for_one(give, ask, content):
    path, thread = give(content)
    told = ask(path)
    thread.join()
    assert (told.exit_code, told.stdout) == (76, "")
    assert "is not the status of a server" in told.stderr


def test_a_path_that_is_taken_stops_the_start(tmp_path):
    path = tmp_path / "status"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="no status under"):
        StatusSocket(path, some_health)
    assert path.read_text() == "mine"
    live = tmp_path / "live"
    with StatusSocket(live, some_health), pytest.raises(ConfigurationError):
        StatusSocket(live, some_health)


def test_a_server_whose_status_path_is_taken_does_not_start(site, tmp_path):
    path = tmp_path / "status"
    path.write_text("mine")
    result = CliRunner().invoke(main, words(site, "--status", path))
    assert result.exit_code == 78
    assert f"no status under {path}" in result.stderr


def test_the_api_gives_the_same_type():
    assert caprpc.Health is Health
