"""Exhaustion: what one peer can make a server hold, run or wait for. CAP-RE, CAP-RU, CAP-CR-07, CAP-SC."""

import os
import socket
import subprocess
import sys
import textwrap
import time
import warnings

import pytest
from hostile_peer import connect_socket, reference, until
from vault_service import QUICK, Running, Vault

import caprpc
from caprpc.ids import OP_INVOKE
from caprpc.limits import ServerLimits
from caprpc.wire import messages as m
from caprpc.wire.codec import pack


def served(world, running, name="alice"):
    peer = world.open(running, name)
    assert peer.value(peer.root(), "noop") is None
    peer.close()


def closed_within(sock, seconds):
    """Return whether the other end closes a plain socket in time."""
    sock.settimeout(seconds)
    try:
        while sock.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def test_silent_connections_are_capped_and_closed(world, driver):
    limits = ServerLimits(
        handshake_timeout_s=0.5,
        max_unauthenticated=50,
        accept_per_s=10_000,
        accept_burst=10_000,
        connections_per_principal=99,
    )
    running = world.serve(driver, limits=limits)
    peer = world.open(running)
    vault = peer.root()
    silent = [connect_socket(running.address) for _ in range(300)]
    for _ in range(20):
        started = time.monotonic()
        assert peer.value(vault, "noop") is None
        assert time.monotonic() - started < 0.5
    assert len(os.listdir("/proc/self/fd")) < 300 + 50 + 60
    assert all(closed_within(sock, 10) for sock in silent[:50])
    for sock in silent:
        sock.close()
    served(world, running)


@pytest.mark.parametrize("start", [b"", b"\x16", b"\x16\x03\x01\x02\x00"])
def test_a_handshake_that_does_not_go_on_is_ended(world, driver, start):
    limits = ServerLimits(handshake_timeout_s=0.3, accept_per_s=1000)
    running = world.serve(driver, limits=limits)
    sock = connect_socket(running.address)
    sock.sendall(start)
    assert closed_within(sock, 4)
    sock.close()


def test_a_peer_that_proves_itself_and_says_nothing_is_ended(world, driver):
    running = world.serve(driver, connection="hello_timeout_s = 0.2")
    peer = world.dial(running).shake_hands()
    assert isinstance(peer.receive(), m.Welcome)
    assert peer.rest(4)[-1].code == "idle"


def test_one_principal_cannot_take_the_places_of_others(world, driver):
    running = world.serve(driver, connection="connections = 3")
    held = [world.open(running) for _ in range(3)]
    refused = world.dial(running).shake_hands()
    messages = refused.rest()
    assert messages[-1].code == "refused"
    assert not any(isinstance(message, m.Welcome) for message in messages)
    served(world, running)
    held[0].close()
    until(lambda: _admitted(world, running))


def _admitted(world, running):
    peer = world.dial(running).shake_hands()
    first = peer.receive()
    peer.close()
    return isinstance(first, m.Welcome)


def test_calls_in_flight_end_at_their_limit(world, driver):
    running = world.serve(driver, connection="in_flight = 4\nglitch_burst = 2000")
    peer = world.open(running)
    vault = peer.root()
    calls = [peer.call(vault, "wait") for _ in range(4)]
    peer.send(*calls)
    until(lambda: world.service.running == 4)
    flood = [peer.call(vault, "wait") for _ in range(500)]
    peer.send(*flood)
    answers = {peer.answer(call.question).code for call in flood}
    assert answers == {"limit"}
    assert world.service.most_running == 4
    world.service.gate.set()
    assert all(isinstance(peer.answer(call.question), m.Return) for call in calls)
    assert peer.value(vault, "noop") is None


def test_calls_that_were_cancelled_still_count_while_they_run(world, driver):
    running = world.serve(driver, connection="in_flight = 4\nglitch_burst = 2000")
    peer = world.open(running)
    vault = peer.root()
    for _ in range(300):
        call = peer.call(vault, "wait")
        peer.send(call, m.Cancel(call.question))
    peer.send(m.Ping(1))
    until(lambda: m.Pong(1) in peer.silence(0.05))
    assert world.service.most_running <= 4
    served(world, running)


def test_rapid_cancels_spend_the_budget(world, driver):
    running = world.serve(driver, connection="glitch_burst = 50\nglitch_per_s = 0.1")
    peer = world.open(running)
    vault = peer.root()
    for _ in range(200):
        call = peer.call(vault, "noop")
        peer.try_to_send(call, m.Cancel(call.question))
    # The end of the stream may overtake GOAWAY: what we sent after it was read by nobody.
    assert all(message.code == "protocol-error" for message in peer.rest() if isinstance(message, m.GoAway))
    assert world.service.ran.count("noop") <= 60
    served(world, running)


REFUSED = {
    "denied": lambda peer, vault: peer.call(vault, "hidden"),
    "no such handle": lambda peer, _vault: peer.call(10**6, "noop"),
    "arguments": lambda peer, vault: peer.call(vault, "add", ["x"]),
    "rule": lambda peer, vault: peer.call(vault, "pay", [1e9]),
    "batch": lambda peer, vault: m.Batch(
        peer.next_question(), None, [m.Run(vault, 1, "add", 2, pack([[["x"], {}]] * 2))]
    ),
}


@pytest.mark.parametrize("kind", list(REFUSED))
def test_every_kind_of_refusal_spends_the_budget(world, driver, kind):
    running = world.serve(driver, connection="glitch_burst = 30\nglitch_per_s = 0.1")
    peer = world.open(running)
    vault = peer.root()
    for _ in range(100):
        peer.try_to_send(REFUSED[kind](peer, vault))
    messages = peer.rest()
    assert all(message.code == "protocol-error" for message in messages if isinstance(message, m.GoAway))
    assert sum(isinstance(message, m.Raise) for message in messages) <= 32
    assert world.service.ran == []
    served(world, running)


def test_a_peer_that_reads_nothing_is_ended_and_costs_others_nothing(world, driver):
    running = world.serve(driver, connection="write_timeout_s = 0.5\nwrite_high_water_bytes = 65536\nin_flight = 8")
    peer = world.open(running)
    vault = peer.root()
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    descriptors = len(os.listdir("/proc/self/fd"))
    peer.sock.settimeout(1)
    for _ in range(60):
        try:
            peer.send(peer.call(vault, "blob", [1_000_000]))
        except OSError:
            break
    served(world, running)
    until(lambda: len(os.listdir("/proc/self/fd")) < descriptors, 8)
    peer.close()


def test_a_trickled_frame_is_ended(world, driver):
    running = world.serve(driver, connection="frame_grace_s = 0.2\nframe_bytes_per_s = 65536")
    peer = world.open(running)
    peer.root()
    peer.send((1_000_000).to_bytes(4, "big") + b"\x97")
    end = time.monotonic() + 5
    while not peer.closed and time.monotonic() < end:
        peer.try_to_send(b"\x00")
        for _ in range(5):
            if peer.closed:
                break
            try:
                peer.receive(0.02)
            except TimeoutError:
                continue
    assert peer.closed
    served(world, running)


def test_a_silent_connection_is_asked_for_a_sign_of_life_and_then_ended(world, driver):
    running = world.serve(driver, connection="idle_s = 1")
    peer = world.open(running)
    peer.root()
    peer.mute = True
    messages = peer.rest(8)
    assert isinstance(messages[0], m.Ping)
    assert messages[-1].code == "idle"


def test_references_that_a_peer_hands_over_are_let_go_with_its_connection(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    peer.send(m.Facet(1, "Slip", [(1, "text")], 0), m.Facet(2, "Callable", [(OP_INVOKE, "")], 1))
    for number in range(200):
        assert peer.value(vault, "take", [reference(1000 + number, 1)]) == "taken"
    peer.close()
    served(world, running)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_connection_is_dead_in_a_forked_child(world):
    running = world.serve("blocking")
    with caprpc.connect(running.address, **world.side("alice").directories) as peer:
        vault = peer.root("vault", Vault)
        assert vault.add(1, 2) == 3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                vault.add(3, 4)
            except caprpc.ConnectionLost:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert vault.add(5, 6) == 11
    running.stop()
    assert world.service.ran.count("add") == 2


def script(world, running, body):
    """Run a client program in a process of its own; return code and standard error."""
    side = world.side("alice")
    program = f"""
import sys, threading, atexit, resource, os, socket, time
sys.path[:0] = {[str(path) for path in sys.path if path]!r}
import caprpc
from vault_service import Vault
peer = caprpc.connect({running.address!r}, identity={str(side.identity)!r}, policies={str(side.policies)!r})
vault = peer.root("vault", Vault)
""" + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    # The throw-away certificates are good for a day, which is worth a line.
    return done.returncode, [line for line in done.stderr.splitlines() if " expires on " not in line]


@pytest.mark.parametrize(
    "body",
    [
        "assert vault.add(1, 2) == 3",
        "threading.Thread(target=vault.wait, daemon=True).start(); time.sleep(0.1)",
        "atexit.register(lambda: vault.add(1, 2))",
        "caprpc.submit(vault.wait); sys.exit(0)",
        "slip = vault.slip(); numbers = vault.numbers(10); next(numbers)",
        "peer.close(); peer.close()",
    ],
)
def test_an_interpreter_ends_cleanly_with_open_connections(world, body):
    running = world.serve("blocking")
    started = time.monotonic()
    code, error = script(world, running, body)
    assert (code, error) == (0, [])
    assert time.monotonic() - started < 10


def test_a_server_without_descriptors_neither_spins_nor_dies(world, driver, tmp_path):
    side = world.serve(driver)
    address, directories = side.address, side.side
    side.stop()
    program = f"""
import sys, resource, os, time, threading
sys.path[:0] = {[str(path) for path in sys.path if path]!r}
from vault_service import Running, Safe, QUICK
class Side: pass
side = Side()
from pathlib import Path
side.directories = dict(
    identity=Path({str(directories.identity)!r}),
    policies=Path({str(directories.policies)!r}),
    audit=Path({str(tmp_path / "audit")!r}),
)
running = Running({driver!r}, {{"vault": Safe()}}, side, QUICK)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 6, 4096))
print(running.address, flush=True)
sys.stdin.readline()
before = time.process_time()
time.sleep(1.0)
print(time.process_time() - before, flush=True)
sys.stdin.readline()
running.stop()
"""
    server = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = server.stdout.readline().strip()
        assert address, server.stderr.read()

        class There:
            pass

        There.address = address
        crowd = [connect_socket(address) for _ in range(30)]
        server.stdin.write("\n")
        server.stdin.flush()
        assert float(server.stdout.readline()) < 0.5
        for sock in crowd:
            sock.close()
        until(lambda: _welcomed(world, There), 6)
        server.stdin.write("\n")
        server.stdin.flush()
        assert server.wait(10) == 0
        assert "Traceback" not in server.stderr.read()
    finally:
        server.kill()
        server.wait()
        for stream in (server.stdin, server.stdout, server.stderr):
            stream.close()


def _welcomed(world, running):
    peer = world.dial(running, "alice")
    try:
        peer.timeout_s = 1.0
        return isinstance(peer.shake_hands().receive(1.0), m.Welcome)
    except (TimeoutError, OSError):
        return False
    finally:
        peer.close()


def test_a_second_server_on_the_same_state_is_refused(world, driver):
    running = world.serve(driver)
    with pytest.raises(caprpc.AuditError):
        Running(driver, {"vault": world.service}, running.side, QUICK)
    served(world, running)


@pytest.mark.parametrize(
    "missing", ["cert.pem", "key.pem", "anchors.pem", "crl.pem", "caprpc.toml", "contracts.toml", "peers.toml"]
)
def test_a_server_with_something_missing_does_not_start(world, driver, missing):
    running = world.serve(driver)
    side = running.side
    running.stop()
    for directory in (side.identity, side.policies):
        (directory / missing).unlink(missing_ok=True)
    with pytest.raises((caprpc.ConfigurationError, caprpc.AuditError)):
        Running(driver, {"vault": world.service}, side, QUICK)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(world, driver, mode):
    running = world.serve(driver)
    side = running.side
    running.stop()
    (side.identity / "key.pem").chmod(mode)
    with pytest.raises(caprpc.ConfigurationError, match=r"key\.pem"):
        Running(driver, {"vault": world.service}, side, QUICK)


def test_environment_variables_relax_nothing(world, driver, monkeypatch, tmp_path):
    for name in (
        "CAPRPC_INSECURE",
        "CAPRPC_DEBUG",
        "CAPRPC_POLICIES",
        "CAPRPC_NO_TLS",
        "PYTHONHTTPSVERIFY",
        "PYTHONASYNCIODEBUG",
    ):
        monkeypatch.setenv(name, "0" if name.startswith("PYTHON") else "1")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    running = world.serve(driver)
    peer = world.open(running)
    assert peer.ask(peer.root(), "hidden").code == "denied"
    assert not (tmp_path / "keys").exists()
