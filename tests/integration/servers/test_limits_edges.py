"""Each limit of a connection at its edge, over sockets: allowed at N, refused at N + 1."""

import time

import pytest
from hostile_peer import reference
from vault_service import CLIENT, Vault

import caprpc
from caprpc.ids import OP_INVOKE
from caprpc.wire import messages as m
from caprpc.wire.codec import encode_message, pack


def said(running):
    """Return what is on record about the ends of connections: the operator reads which limit it was."""
    return " ".join(str(fields.get("detail", "")) for fields in running.records(kind="close"))


def ends(peer):
    return all(
        message.code in ("protocol-error", "idle", "limit") for message in peer.rest() if isinstance(message, m.GoAway)
    )


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


VALUES = {
    # A call's payload is [args, kwargs]: the value stands two levels deep, and there are five values around it.
    "max_depth": ("max_depth = 6", lambda: nested(4), lambda: nested(5)),
    "max_items": ("max_items = 104", lambda: list(range(99)), lambda: list(range(105))),
    "max_int_bits": ("max_int_bits = 128", lambda: 2**128 - 1, lambda: 2**128),
    "max_key_bytes": ("max_key_bytes = 32", lambda: {"k" * 32: 1}, lambda: {"k" * 33: 1}),
    "max_pair_keys": ("max_pair_keys = 5", lambda: {n: n for n in range(5)}, lambda: {n: n for n in range(6)}),
}


@pytest.mark.parametrize("knob", list(VALUES))
def test_values_at_the_edge_of_their_limits(world, driver, knob):
    connection, allowed, refused = VALUES[knob]
    running = world.serve(driver, connection=connection)
    peer = world.open(running)
    assert isinstance(peer.ask(peer.root(), "echo", [allowed()]), m.Return)
    peer.send(peer.call(1, "echo", [refused()]))
    assert ends(peer)
    assert f"limits.{knob}" in said(running)


def test_max_frame_bytes(world, driver):
    running = world.serve(driver, connection="max_frame_bytes = 16384")
    for size, fits in ((16_384, True), (16_385, False)):
        peer = world.open(running)
        assert peer.welcome.limits.max_frame_bytes == 16_384
        vault = peer.root()
        probe = m.Call(9, vault, 1, "echo", None, pack([["x" * 10_000], {}]))
        filler = 10_000 + size - (len(encode_message(probe)) - 4)
        peer.send(m.Call(9, vault, 1, "echo", None, pack([["x" * filler], {}])))
        answer = peer.answer(9)
        assert isinstance(answer, m.Return) is fits
    assert "limits.max_frame_bytes" in said(running)


def test_a_result_that_the_peer_cannot_take_is_no_result(world, driver):
    running = world.serve(driver)
    peer = world.dial(running).open(m.PeerLimits(2048, 64, 64, 32))
    vault = peer.root()
    assert len(peer.value(vault, "blob", [900])) == 900
    assert peer.ask(vault, "blob", [2100]).code == "limit"


def test_max_error_text_bytes(world, driver):
    running = world.serve(driver, connection="max_error_text_bytes = 5")
    peer = world.open(running)
    assert peer.ask(peer.root(), "fail", ["declared"]).text == "out o"
    assert len(peer.ask(1, "add", ["x"]).text.encode()) <= 5


def test_in_flight(world, driver):
    running = world.serve(driver, connection="in_flight = 3")
    peer = world.open(running)
    assert peer.welcome.limits.max_in_flight == 3
    vault = peer.root()
    calls = [peer.call(vault, "wait") for _ in range(4)]
    peer.send(*calls)
    assert peer.answer(calls[3].question).code == "limit"
    world.service.gate.set()
    assert all(isinstance(peer.answer(call.question), m.Return) for call in calls[:3])
    refused = running.records(decision="deny")
    assert [fields["rule"] for fields in refused] == ["limits.in_flight"]


def test_a_batch_of_in_flight_calls(world, driver):
    running = world.serve(driver, connection="in_flight = 3")
    for count, fits in ((3, True), (4, False)):
        peer = world.open(running)
        vault = peer.root()
        peer.send(m.Batch(9, None, [m.Run(vault, 1, "noop", count, pack([[[], {}]] * count))]))
        assert isinstance(peer.answer(9), m.BatchReturn) is fits
    assert "limits.in_flight" in said(running)


def test_exports(world, driver):
    running = world.serve(driver, connection="exports = 3")
    peer = world.open(running)
    vault = peer.root()
    answers = [peer.ask(vault, "slip") for _ in range(3)]
    assert [isinstance(answer, m.Return) for answer in answers] == [True, True, False]
    failed = [str(fields) for fields in running.records(kind="outcome")]
    assert any("limits.exports" in text for text in failed)


def test_imports(world, driver):
    running = world.serve(driver, connection="imports = 2")
    kept = []
    world.service.__class__ = type(
        "Keeps", (type(world.service),), {"take": lambda _self, slip: kept.append(slip) or ""}
    )
    peer = world.open(running)
    vault = peer.root()
    peer.send(m.Facet(1, "Slip", [(1, "text")], 0))
    answers = [peer.ask(vault, "take", [reference(50 + n, 1)]) for n in range(3)]
    assert [isinstance(answer, m.Return) for answer in answers] == [True, True, False]
    assert [fields["rule"] for fields in running.records(decision="deny")] == ["limits.imports"]
    kept.clear()


def test_callback_depth(world, driver):
    running = world.serve(driver, connection="callback_depth = 0")
    peer = world.open(running)
    vault = peer.root()
    peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
    answer = peer.ask(vault, "call_back", [reference(1, 1)])
    assert answer.code == "internal"
    assert any("limits.callback_depth" in str(fields) for fields in running.records(kind="outcome"))


def test_hello_timeout(world, driver):
    running = world.serve(driver, connection="hello_timeout_s = 0.1")
    peer = world.dial(running).shake_hands()
    started = time.monotonic()
    assert ends(peer)
    assert time.monotonic() - started < 3
    assert "limits.hello_timeout_s" in said(running)


def test_idle(world, driver):
    running = world.serve(driver, connection="idle_s = 1")
    lively, silent = world.open(running), world.open(running)
    started = time.monotonic()
    while time.monotonic() - started < 3.5:
        assert lively.value(0, "vault", operation=0)
        time.sleep(0.2)
    assert ends(silent)
    assert lively.value(0, "vault", operation=0)
    assert "limits.idle_s" in said(running)


def test_frame_progress(world, driver):
    running = world.serve(driver, connection="frame_grace_s = 0.1\nframe_bytes_per_s = 1000000")
    peer = world.open(running)
    peer.root()
    peer.send((100_000).to_bytes(4, "big") + b"\x97")
    assert ends(peer)
    assert "limits.frame_bytes_per_s" in said(running)


def test_glitch_burst_and_refill(world, driver):
    running = world.serve(driver, connection="glitch_burst = 10\nglitch_per_s = 20")
    peer = world.open(running)
    peer.send(*(m.Ping(n) for n in range(10)))
    assert [peer.receive() for _ in range(10)] == [m.Pong(n) for n in range(10)]
    time.sleep(0.3)
    peer.send(*(m.Ping(n) for n in range(4)))
    assert [peer.receive() for _ in range(4)] == [m.Pong(n) for n in range(4)]
    peer.send(*(m.Ping(n) for n in range(30)))
    assert ends(peer)
    assert "limits.glitch_burst" in said(running)


def test_every_number_at_the_end_of_its_range_is_taken(world, driver):
    least = {
        "max_depth": 2,
        "max_int_bits": 64,
        "max_key_bytes": 32,
        "max_error_text_bytes": 0,
        "max_pair_keys": 0,
        "callback_depth": 0,
        "hello_timeout_s": 0.1,
        "max_frame_bytes": 16384,
        "max_items": 16,
        "in_flight": 1,
        "exports": 1,
        "imports": 1,
        "call_timeout_s": 0.001,
        "idle_s": 1,
        "frame_grace_s": 0.1,
        "connections": 1,
        "frame_bytes_per_s": 64,
        "write_high_water_bytes": 16384,
        "write_timeout_s": 0.1,
        "glitch_burst": 1,
        "glitch_per_s": 0.1,
    }
    connection = "\n".join(f"{key} = {value}" for key, value in least.items())
    running = world.serve(driver, connection=connection)
    peer = world.open(running)
    assert peer.value(peer.root(), "noop") is None


def test_call_timeout_of_a_client(world):
    running = world.serve("blocking")
    world.side("alice", policies={"server": CLIENT + "[limits]\ncall_timeout_s = 0.2\n"})
    with caprpc.connect(running.address, **world.side("alice").directories) as peer:
        vault = peer.root("vault", Vault)
        with pytest.raises(caprpc.DeadlineExceeded, match="call_timeout_s"):
            vault.wait()
        assert vault.add(1, 2) == 3
