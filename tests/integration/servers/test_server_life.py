"""The life of servers: methods that wait, graceful stop, signals, ports, sockets, reload, and ended certificates."""

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
from hostile_peer import connect_socket
from vault_service import SERVER, Safe, Vault

import caprpc
import caprpc.aio
from caprpc.limits import ServerLimits
from caprpc.objects.listening import Listening
from caprpc.tls import TlsRefused
from caprpc.wire import messages as m
from caprpc.wire.codec import unpack


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def slowest_noop(peer, vault, seconds):
    """Return the longest that a no-op took in some time."""
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        peer.value(vault, "noop")
        longest = max(longest, time.monotonic() - started)
    return longest


def test_a_method_that_sleeps_delays_no_other_connection(world, driver):
    running = world.serve(driver)
    slow, quick = world.open(running), world.open(running, "alice")
    vaults = slow.root(), quick.root()
    delays = []
    for _ in range(3):
        call = slow.call(vaults[0], "nap", [200])
        slow.send(call)
        delays.append(slowest_noop(quick, vaults[1], 0.15))
        assert isinstance(slow.answer(call.question), m.Return)
    assert min(delays) < 0.06


def test_a_method_that_sleeps_stops_neither_pings_nor_calls_of_its_own_connection(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    for _ in range(2):
        nap = peer.call(vault, "nap", [400])
        peer.send(nap)
        time.sleep(0.02)
        started = time.monotonic()
        add = peer.call(vault, "add", [1, 2])
        peer.send(m.Ping(5), add)
        assert peer.receive() == m.Pong(5)
        assert unpack(peer.answer(add.question).payload) == 3
        assert time.monotonic() - started < 0.3
        assert isinstance(peer.answer(nap.question), m.Return)


def test_idle_connections_cost_no_threads(world, driver):
    limits = ServerLimits(
        accept_per_s=1e6,
        accept_burst=10**6,
        connections_per_principal=10_000,
        max_unauthenticated=10_000,
        unauthenticated_per_address=10_000,
    )
    running = world.serve(driver, limits=limits)
    before = threading.active_count()
    silent = [connect_socket(running.address) for _ in range(250)]
    peers = [world.open(running) for _ in range(50)]
    vaults = [peer.root() for peer in peers]
    assert threading.active_count() <= before + 4
    assert all(peer.value(vault, "noop") is None for peer, vault in zip(peers, vaults, strict=True))
    for sock in silent:
        sock.close()


def test_what_looks_at_the_time_outlives_a_defect(world, driver, monkeypatch, caplog):
    looks = []

    def tick(_door, now):
        looks.append(now)
        if len(looks) == 1:
            raise MemoryError

    monkeypatch.setattr(Listening, "tick", tick)
    world.serve(driver)
    until(lambda: len(looks) > 1)
    assert "internal error" in caplog.text


def test_more_blocking_calls_than_workers_wait_in_order(world):
    running = world.serve("blocking", limits=ServerLimits(workers=2, accept_per_s=1000))
    peer = world.open(running)
    vault = peer.root()
    calls = [peer.call(vault, "wait") for _ in range(6)]
    peer.send(*calls)
    until(lambda: world.service.running >= 1)
    world.service.gate.set()
    assert all(isinstance(peer.answer(call.question), m.Return) for call in calls)
    assert world.service.most_running <= 2


def test_stop_lets_running_calls_end_and_starts_no_others(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    call = peer.call(vault, "wait")
    peer.send(call)
    until(lambda: world.service.running == 1)
    stopper = threading.Thread(target=running.stop, args=(5.0,))
    stopper.start()
    assert peer.receive() == m.GoAway("drain", "", "")
    late = peer.call(vault, "noop")
    peer.send(late)
    assert peer.answer(late.question).code == "unavailable"
    world.service.gate.set()
    assert isinstance(peer.answer(call.question), m.Return)
    stopper.join(10)
    assert not stopper.is_alive()
    assert "noop" not in world.service.ran


def test_stop_does_not_wait_longer_than_its_grace(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    peer.send(peer.call(peer.root(), "wait"))
    until(lambda: world.service.running == 1)
    started = time.monotonic()
    stopper = threading.Thread(target=running.stop, args=(0.2,))
    stopper.start()
    assert isinstance(peer.rest(4)[-1], m.GoAway)
    world.service.gate.set()
    stopper.join(10)
    assert time.monotonic() - started < 5


def test_stop_with_a_peer_that_reads_nothing(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    peer.send(*(peer.call(vault, "blob", [1_000_000]) for _ in range(20)))
    time.sleep(0.2)
    started = time.monotonic()
    running.stop(0.2)
    assert time.monotonic() - started < 5


def test_a_port_in_use_says_so(world, driver):
    running = world.serve(driver)
    taken = running.address.removeprefix("caprpc://")
    with pytest.raises(caprpc.ConfigurationError, match="cannot listen on"):
        world.serve(driver, listen=taken)


def test_unix_sockets(world, driver, tmp_path):
    path = tmp_path / "s"
    running = world.serve(driver, listen=f"unix:{path}")
    peer = world.open(running)
    assert peer.value(peer.root(), "noop") is None
    with caprpc.connect(f"unix:{path}", **world.side("alice").directories) as good:
        assert good.root("vault", Vault).add(1, 2) == 3
    running.stop()
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(world, driver, tmp_path):
    path = tmp_path / "s"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    running = world.serve(driver, listen=f"unix:{path}")
    with pytest.raises(caprpc.ConfigurationError):
        world.serve(driver, listen=f"unix:{path}")
    peer = world.open(running)
    assert peer.value(peer.root(), "noop") is None


def rewrite(world, running, text, version):
    """Write another version of the policy of a running server."""
    world.deployment.write_policy(running.side, "peers", text)
    world.deployment.write_index(running.side, ['"peers.toml"'], version)


def policy(*names, without=""):
    text = SERVER.replace("@WHO@", ", ".join(f'"spiffe://@DOMAIN@/{name}"' for name in names)).replace("@ROOTS@", "")
    return text.replace(f'"{without}", ', "") if without else text


def test_a_narrower_policy_acts_on_live_references_at_once(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    assert peer.value(vault, "add", [1, 2]) == 3
    rewrite(world, running, policy("mallory", "alice", without="add"), 2)
    running.reload()
    assert peer.ask(vault, "add", [1, 2]).code == "denied"
    assert peer.value(vault, "noop") is None


def test_a_peer_that_no_policy_names_any_more_is_ended(world, driver):
    running = world.serve(driver)
    peer, other = world.open(running), world.open(running, "alice")
    vault = other.root()
    rewrite(world, running, policy("alice"), 2)
    running.reload()
    assert peer.rest()[-1].code == "revoked"
    assert other.value(vault, "noop") is None


def test_a_bad_policy_leaves_everything_as_it_was(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    rewrite(world, running, "nonsense = true", 2)
    with pytest.raises(caprpc.ConfigurationError):
        running.reload()
    assert peer.value(vault, "add", [1, 2]) == 3
    rewrite(world, running, policy("mallory", "alice"), 1)
    running.reload()
    assert peer.value(vault, "add", [1, 2]) == 3


def test_a_revoked_certificate_ends_its_connection_at_reload(world, driver):
    running = world.serve(driver)
    leaf = world.deployment.ca.leaf(f"spiffe://{world.deployment.trust_domain}/mallory")
    world.deployment.pki.write_identity(world.side("mallory").identity, leaf, trust=[world.deployment.ca])
    peer, other = world.open(running), world.open(running, "alice")
    vault = other.root()
    world.deployment.ca.revoke(leaf.certificate)
    (running.side.identity / "crl.pem").write_bytes(world.deployment.ca.crl_pem())
    running.reload()
    assert peer.rest(3)[-1].code == "revoked"
    assert other.value(vault, "noop") is None
    refused = world.dial(running)
    with suppress(TlsRefused):
        assert not any(isinstance(message, m.Welcome) for message in refused.shake_hands().rest())


def test_a_fresh_certificate_of_the_server_is_used_without_restart(world, driver):
    running = world.serve(driver)
    before = world.open(running)
    leaf = world.deployment.ca.leaf(world.server_id, dns_names=("localhost",))
    world.deployment.pki.write_identity(running.side.identity, leaf, trust=[world.deployment.ca])
    running.reload()
    after = world.open(running, "alice")
    assert after.channel.verified_chain()[0] != before.channel.verified_chain()[0]
    assert before.value(before.root(), "noop") is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_the_process(world, driver, number):
    running = world.serve(driver)
    side = running.side
    running.stop()
    program = f"""
import sys, asyncio
sys.path[:0] = {[str(path) for path in sys.path if path]!r}
import caprpc, caprpc.aio
from vault_service import Safe
where = dict(identity={str(side.identity)!r}, policies={str(side.policies)!r})
async def main():
    server = caprpc.aio.Server({{"vault": Safe()}}, **where)
    print(server.listen("127.0.0.1:0"), flush=True)
    await server.serve_forever()
if {driver!r} == "aio":
    asyncio.run(main())
else:
    server = caprpc.Server({{"vault": Safe()}}, **where)
    print(server.listen("127.0.0.1:0"), flush=True)
    server.serve_forever()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:

        class There:
            address = process.stdout.readline().strip()

        peer = world.open(There)
        call = peer.call(peer.root(), "nap", [400])
        peer.send(call)
        time.sleep(0.1)
        os.kill(process.pid, number)
        assert isinstance(peer.answer(call.question), m.Return)
        assert process.wait(10) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_collections_pass_over_what_was_made_to_come_up(world, driver):
    running = world.serve(driver)
    running.stop()
    where = {"identity": running.side.identity, "policies": running.side.policies}
    seen = []

    def stop():
        until(lambda: gc.get_freeze_count() > 1_000)
        seen.append(gc.get_freeze_count())
        os.kill(os.getpid(), signal.SIGTERM)

    async def serve():
        server = caprpc.aio.Server({"vault": Safe()}, **where)
        server.listen("127.0.0.1:0")
        await server.serve_forever()

    thread = threading.Thread(target=stop)
    thread.start()
    if driver == "aio":
        asyncio.run(serve())
    else:
        server = caprpc.Server({"vault": Safe()}, **where)
        server.listen("127.0.0.1:0")
        server.serve_forever()
    thread.join()
    assert seen[0] > 10_000
    assert gc.get_freeze_count() == 0


def test_two_servers_of_one_process_live_side_by_side(world, driver):
    one, other = world.serve(driver), world.serve(driver)
    peers = [world.open(running) for running in (one, other)]
    assert [peer.value(peer.root(), "noop") for peer in peers] == [None, None]


def test_a_reference_number_of_a_peer_is_not_taken_for_one_of_ours(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    peer.root()
    peer.send(m.GoAway("internal", "it broke", "R-THEIRS"))
    peer.rest()
    (close,) = running.records(kind="close")
    assert "reference" not in close or not close["reference"]
    assert "reference number of the peer: R-THEIRS" in close["detail"]
