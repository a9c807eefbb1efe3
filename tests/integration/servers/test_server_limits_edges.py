"""Limits over all connections of a server, at their edge, over sockets: N are served, N + 1 waits or is refused."""

import socket

import pytest
from hostile_peer import connect_socket

import caprpc
from caprpc.errors import ConnectRefused
from caprpc.limits import ServerLimits
from caprpc.wire import messages as m

QUICK = {"accept_per_s": 100_000.0, "accept_burst": 10_000, "connections_per_principal": 1_000}
A_WHILE_S = 0.4


def limits(**changed):
    return ServerLimits(**{**QUICK, **changed})


def welcomed(peer, seconds=5.0):
    """Whether a hostile client is let in within some time."""
    peer.timeout_s = seconds
    try:
        return isinstance(peer.shake_hands().receive(), m.Welcome)
    except TimeoutError:
        return False


def closed(sock, seconds=5.0):
    """Whether the other end closes within some time."""
    sock.settimeout(seconds)
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def connect_from(address, running):
    """Return a plain socket from another address of this machine."""
    port = int(running.address.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(address, 0))


def test_max_connections(world, driver):
    running = world.serve(driver, limits=limits(max_connections=2))
    served = [world.open(running) for _ in range(2)]
    waiting = world.dial(running)
    assert not welcomed(waiting, A_WHILE_S)
    served[0].close()
    assert welcomed(waiting)


def test_accept_burst(world, driver):
    running = world.serve(driver, limits=limits(accept_burst=2, accept_per_s=0.001))
    assert [welcomed(world.dial(running)) for _ in range(2)] == [True, True]
    assert not welcomed(world.dial(running), A_WHILE_S)


def test_max_unauthenticated(world, driver):
    running = world.serve(driver, limits=limits(max_unauthenticated=2))
    first, second = [connect_socket(running.address) for _ in range(2)]
    waiting = world.dial(running)
    assert not welcomed(waiting, A_WHILE_S)
    first.close()
    assert welcomed(waiting)
    second.close()


def test_connections_that_have_come_and_gone_take_no_place(world, driver):
    running = world.serve(driver, limits=limits(max_unauthenticated=2, max_connections=3))
    for _ in range(8):
        peer = world.open(running)
        assert peer.value(peer.root(), "noop") is None
        peer.close()
    silent = connect_socket(running.address)
    assert welcomed(world.dial(running))
    silent.close()


def test_connections_per_principal(world, driver):
    running = world.serve(driver, limits=limits(connections_per_principal=2))
    held = [world.open(running) for _ in range(2)]
    refused = world.dial(running).shake_hands().rest()
    assert [message.code for message in refused] == ["refused"]
    assert world.open(running, "alice").root()
    assert all(peer.value(0, "vault", operation=0) for peer in held)
    (reject,) = running.records(kind="reject")
    assert "has 2 connections already ([limits] connections" in reject["detail"]


def test_handshake_timeout(world, driver):
    running = world.serve(driver, limits=limits(handshake_timeout_s=0.5))
    silent = connect_socket(running.address)
    begun = connect_socket(running.address)
    begun.sendall(b"\x16")
    assert closed(silent)
    assert closed(begun)
    assert welcomed(world.dial(running))
    (reject,) = running.records(kind="reject")
    assert "handshake_timeout_s" in reject["detail"]
    silent.close()
    begun.close()


def test_silent_connections_of_one_address_leave_the_places_of_others(world, driver):
    running = world.serve(driver, limits=limits(max_unauthenticated=8, unauthenticated_per_address=3))
    crowd = [connect_from("127.0.0.2", running) for _ in range(30)]
    assert welcomed(world.dial(running))
    assert all(closed(sock) for sock in crowd[:27])
    assert not any(closed(sock, 0.05) for sock in crowd[27:])
    for sock in crowd:
        sock.close()


def test_an_honest_client_gets_in_beside_silent_ones_of_its_own_address(world, driver):
    running = world.serve(driver, limits=limits(max_unauthenticated=8, unauthenticated_per_address=3))
    crowd = [connect_socket(running.address) for _ in range(10)]
    assert welcomed(world.dial(running))
    for sock in crowd:
        sock.close()


def test_workers(world, driver):
    running = world.serve(driver, limits=limits(workers=4))
    peers = [world.open(running, name) for name in ("mallory", "alice")]
    calls = []
    for peer in peers:
        vault = peer.root()
        calls.append([peer.call(vault, "wait") for _ in range(4)])
        peer.send(*calls[-1])
    for peer, asked in zip(peers, calls, strict=True):
        with pytest.raises(TimeoutError):
            peer.receive(A_WHILE_S)
        assert len(asked) == 4
    # Two of each: half of them is the share of a principal.
    assert world.service.most_running == 4
    world.service.gate.set()
    for peer, asked in zip(peers, calls, strict=True):
        assert all(isinstance(peer.answer(call.question), m.Return) for call in asked)
    assert world.service.most_running == 4


def test_a_client_is_told_of_the_limit_it_has_met(world):
    running = world.serve("blocking", limits=limits(connections_per_principal=1))
    world.open(running)
    with pytest.raises(ConnectRefused) as caught:
        caprpc.connect(running.address, **world.side("mallory").directories)
    assert caught.value.reference


def test_one_worker_is_enough_to_serve(world, driver):
    running = world.serve(driver, limits=limits(workers=1))
    peer = world.open(running)
    vault = peer.root()
    world.service.gate.set()
    assert isinstance(peer.ask(vault, "wait"), m.Return)


def test_strangers_that_leave_without_a_word_cost_no_connection(world, driver):
    running = world.serve(driver, limits=limits())
    made = []
    admission = running.server._admission
    channel = type(admission.epoch).channel
    type(admission.epoch).channel = lambda *args, **more: made.append(1) or channel(*args, **more)
    try:
        for _ in range(20):
            connect_socket(running.address).close()
        assert world.open(running).root()
    finally:
        type(admission.epoch).channel = channel
    assert len(made) == 1
