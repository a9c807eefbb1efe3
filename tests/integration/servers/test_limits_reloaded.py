"""Limits that a reload narrows reach connections that live; what was announced to a peer stays its right."""

import asyncio

import pytest
from hostile_peer import reference
from vault_service import CLIENT, SERVER, Vault

import caprpc
import caprpc.aio
from caprpc.ids import OP_INVOKE
from caprpc.wire import messages as m

WIDE = {"in_flight": 5, "exports": 8, "imports": 8, "callback_depth": 4, "glitch_burst": 50, "glitch_per_s": 0.1}


def lines(limits):
    return "\n".join(f"{key} = {value}" for key, value in limits.items())


@pytest.fixture
def reload_with(world, driver):
    """Serve under wide limits; return the server, and what reloads it under others."""
    running = world.serve(driver, connection=lines(WIDE))

    def again(**changed):
        names = '"spiffe://@DOMAIN@/mallory", "spiffe://@DOMAIN@/alice"'
        text = SERVER.replace("@WHO@", names).replace("@ROOTS@", "")
        text += f"[limits]\n{lines({**WIDE, **changed})}\n"
        world.deployment.rewrite(running.side, {"peers": text}, 2)
        running.reload()

    return running, again


def test_in_flight_that_is_narrowed_refuses_new_calls_and_cuts_none(world, reload_with):
    running, again = reload_with
    peer = world.open(running)
    vault = peer.root()
    held = [peer.call(vault, "wait") for _ in range(3)]
    peer.send(*held)
    peer.send(m.Ping(1))
    assert peer.receive() == m.Pong(1)
    again(in_flight=2)
    assert peer.ask(vault, "noop").code == "limit"
    world.service.gate.set()
    assert all(isinstance(peer.answer(call.question), m.Return) for call in held)
    assert peer.value(vault, "noop") is None


def test_exports_that_are_narrowed_refuse_new_ones_and_keep_the_old(world, reload_with):
    running, again = reload_with
    peer = world.open(running)
    vault = peer.root()
    slips = [peer.value(vault, "slip").export for _ in range(4)]
    again(exports=3)
    assert not isinstance(peer.ask(vault, "slip"), m.Return)
    assert peer.value(slips[-1], "text") == "slip"


def test_depth_and_budget_that_are_narrowed_hold_at_once(world, reload_with):
    running, again = reload_with
    peer = world.open(running)
    vault = peer.root()
    peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
    again(callback_depth=0, glitch_burst=3)
    assert peer.ask(vault, "call_back", [reference(1, 1)]).code == "internal"
    peer.send(*(m.Ping(n) for n in range(4)))
    assert peer.rest()[-1].code == "protocol-error"


def test_what_was_announced_is_no_fault_after_a_reload(world, reload_with):
    running, again = reload_with
    peer = world.open(running)
    vault = peer.root()
    again(max_items=20, max_int_bits=64, max_key_bytes=32, max_pair_keys=0, max_depth=3, max_frame_bytes=16384)
    for value in ([1] * 100, 2**100, {"k" * 100: 1}, {1: 2}, [[[[1]]]], "x" * 20_000):
        assert isinstance(peer.ask(vault, "echo", [value]), m.Return)
    later = world.open(running)
    announced = later.welcome.limits
    assert (announced.max_items, announced.max_int_bits, announced.max_key_bytes) == (20, 64, 32)
    assert (announced.max_pair_keys, announced.max_depth, announced.max_frame_bytes) == (0, 3, 16384)


NARROW = {
    "max_items": (30, [1] * 40),
    "max_int_bits": (64, 2**100),
    "max_key_bytes": (32, {"k" * 40: 1}),
    "max_pair_keys": (1, {1: 1, 2: 2}),
    "max_depth": (4, [[[[1]]]]),
}


@pytest.mark.parametrize("client", ["blocking", "aio"])
@pytest.mark.parametrize("knob", NARROW)
def test_client_refuses_by_itself_what_the_server_would_not_take(world, client, knob):
    most, value = NARROW[knob]
    running = world.serve("blocking", connection=f"{knob} = {most}")
    directories = world.side("alice", policies={"server": CLIENT}).directories

    def blocking():
        with caprpc.connect(running.address, **directories) as peer:
            vault = peer.root("vault", Vault)
            with pytest.raises(ValueError, match=f"limits.{knob}") as caught:
                vault.echo(value)
            assert vault.add(1, 2) == 3
            return caught.value

    async def on_loop():
        async with caprpc.aio.connect(running.address, **directories) as peer:
            vault = await peer.root("vault", Vault)
            with pytest.raises(ValueError, match=f"limits.{knob}") as caught:
                await vault.echo(value)
            assert await vault.add(1, 2) == 3
            return caught.value

    error = blocking() if client == "blocking" else asyncio.run(on_loop())
    assert f"its limits.{knob} is {most}" in error.__notes__[0]
