"""Each limit of a connection at its edge, over sockets: allowed at N, refused at N + 1."""

import time

import pytest
from hostile_peer import reference
from vault_service import CLIENT, Vault

import caprpc
from caprpc.ids import OP_INVOKE
from caprpc.limits import FIRST_FRAME_BYTES
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


def test_first_frame_bytes(world, driver):
    running = world.serve(driver)
    for size, fits in ((FIRST_FRAME_BYTES, True), (FIRST_FRAME_BYTES + 1, False)):
        peer = world.dial(running).shake_hands()
        assert isinstance(peer.receive(), m.Welcome)
        peer.send(size.to_bytes(4, "big"))
        if fits:
            assert peer.silence(0.2) == []
        else:
            assert ends(peer)
    assert f"{FIRST_FRAME_BYTES} allowed" in said(running)


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


def heard(peer):
    """Wait until the server has taken what was sent."""
    peer.send(m.Ping(1))
    assert peer.receive() == m.Pong(1)


def test_principal_callbacks(world, driver):
    """Four calls within calls of ours, of both connections together; one of the two alone has three."""
    running = world.serve(driver, connection="connections = 2\nin_flight = 2\nprincipal_callbacks = 4")
    peers, begun, within = [], [], []
    for _ in range(2):
        peer = world.open(running)
        vault = peer.root()
        peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
        begun.append(peer.call(vault, "call_back", [reference(1, 1)]))
        peer.send(begun[-1])
        peers.append((peer, vault, peer.next_call()))
    for number, count in ((0, 3), (1, 1)):
        peer, vault, ours = peers[number]
        calls = [peer.call(vault, "wait", meta=m.Meta(ours.question)) for _ in range(count)]
        within += [(peer, call) for call in calls]
        peer.send(*calls)
        heard(peer)
    peer, vault, ours = peers[1]
    refused = peer.call(vault, "wait", meta=m.Meta(ours.question))
    peer.send(refused)
    assert peer.answer(refused.question).code == "limit"
    world.service.gate.set()
    assert [type(one.answer(call.question)) for one, call in within] == [m.Return] * 4
    assert peer.value(vault, "wait", meta=m.Meta(ours.question)) is None
    for (one, _, ours), call in zip(peers, begun, strict=True):
        one.send(m.Return(ours.question, pack(7)))
        assert isinstance(one.answer(call.question), m.Return)
    assert [fields["rule"] for fields in running.records(decision="deny")] == ["limits.principal_callbacks"]


def test_principal_pipelined(world, driver):
    """Eight calls that wait for answers, of three connections together; each alone may have three."""
    running = world.serve(driver, connection="connections = 3\nin_flight = 4\nprincipal_pipelined = 8")
    waiting = []
    for count in (3, 3, 2):
        peer = world.dial(running).open(features=("pipeline",))
        vault = peer.root()
        first = peer.call(vault, "wait", meta=m.Meta(None, None, True))
        peer.send(first)
        calls = [peer.call(~first.question, "text") for _ in range(count)]
        waiting += [(peer, call) for call in calls]
        peer.send(*calls)
        heard(peer)
    assert peer.ask(~first.question, "text").code == "limit"
    world.service.gate.set()
    # What they waited for gives no reference.
    assert {one.answer(call.question).code for one, call in waiting} == {"broken"}
    assert "limits.principal_pipelined" in {fields["rule"] for fields in running.records(decision="deny")}


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
        "message_references": 1,
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


LARGE = 200_000
MANY = 300


def count_blobs(world):
    """Have the service count how many large answers it has made."""
    made = []

    def blob(_self, size):
        made.append(size)
        return bytes(size)

    world.service.__class__ = type("Counts", (type(world.service),), {"blob": blob})
    return made


def settled(made, seconds=10.0):
    """Return how many were made once no more are."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = len(made)
        time.sleep(0.3)
        if before and len(made) == before:
            return before
    raise AssertionError("it never came to rest")


def ask_for_blobs(world, running, made):
    """Open, and ask for many large answers without reading one."""
    peer = world.open(running)
    vault = peer.root()
    for _ in range(12):
        # The asyncio server runs them on its loop, one by one, once they have proved fast.
        peer.value(vault, "blob", [1])
    made.clear()
    calls = [peer.call(vault, "blob", [LARGE]) for _ in range(MANY)]
    peer.send(*calls)
    return peer, vault, calls


def test_write_high_water_bytes(world, driver):
    made = count_blobs(world)
    running = world.serve(
        driver, connection=f"write_high_water_bytes = 65536\nin_flight = {MANY}\nprincipal_in_flight = {2 * MANY}"
    )
    peer, vault, calls = ask_for_blobs(world, running, made)
    # The kernel takes some of them; without the limit all of them would have been made.
    assert settled(made) < MANY / 2
    assert all(isinstance(peer.answer(call.question), m.Return) for call in calls)
    assert len(made) == MANY
    assert peer.value(vault, "noop") is None


def test_answers_below_the_high_water_are_made_although_the_peer_reads_none(world, driver):
    made = count_blobs(world)
    running = world.serve(
        driver,
        connection=f"connections = 1\nwrite_high_water_bytes = 67108864\nin_flight = {MANY}",
    )
    peer, _, calls = ask_for_blobs(world, running, made)
    assert settled(made) == MANY
    assert all(isinstance(peer.answer(call.question), m.Return) for call in calls)


def test_principal_buffered_bytes(world, driver):
    """Divided among the connections that a principal may have: one of 64 has half a megabyte of these 32."""
    made = count_blobs(world)
    running = world.serve(
        driver,
        connection=f"connections = 64\nprincipal_buffered_bytes = 33554432\nwrite_high_water_bytes = 33554432\n"
        f"in_flight = {MANY}\nprincipal_in_flight = {2 * MANY}",
    )
    peer, _, calls = ask_for_blobs(world, running, made)
    # By itself the connection might have as much as 160 of them hold, beside what the kernel takes.
    assert settled(made) < MANY / 3
    assert all(isinstance(peer.answer(call.question), m.Return) for call in calls)
    assert len(made) == MANY


def test_signs_of_life_are_answered_when_the_high_water_has_gone_down(world, driver):
    made = count_blobs(world)
    running = world.serve(
        driver, connection=f"write_high_water_bytes = 65536\nin_flight = {MANY}\nprincipal_in_flight = {2 * MANY}"
    )
    peer, vault, calls = ask_for_blobs(world, running, made)
    settled(made)
    peer.send(m.Ping(7))
    assert all(isinstance(peer.answer(call.question), m.Return) for call in calls)
    assert peer.value(vault, "noop") is None


def nest(peer, vault, depth):
    """Have the server call back and call it on behalf of that, until calls are nested so deep; return what answers."""
    cause = None
    for level in range(depth):
        call = peer.call(vault, "call_back", [reference(level + 1, 1)], meta=m.Meta(cause) if cause else None)
        peer.send(call)
        message = peer.receive()
        while not isinstance(message, m.Call | m.Raise):
            message = peer.receive()
        if isinstance(message, m.Raise):
            return message
        cause = message.question
    return message


@pytest.mark.parametrize("limit", [2, 4])
def test_callback_depth_is_counted_over_both_sides(world, driver, limit):
    # A call of the peer is at depth 0, 2, 4, what the server calls back inside of it at 1, 3, 5.
    running = world.serve(driver, connection=f"callback_depth = {limit - 1}")
    peer = world.open(running)
    vault = peer.root()
    peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
    assert isinstance(nest(peer, vault, limit // 2), m.Call)
    other = world.open(running)
    vault = other.root()
    other.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
    refused = nest(other, vault, limit // 2 + 1)
    assert (type(refused), refused.code) == (m.Raise, "limit")
    peer.close()
    other.close()
    assert [fields["rule"] for fields in running.records(decision="deny")] == ["limits.callback_depth"]


def test_glitch_burst(world, driver):
    running = world.serve(driver, connection="glitch_burst = 10\nglitch_per_s = 0.1")
    peer = world.open(running)
    peer.send(*(m.Ping(n) for n in range(10)))
    assert [peer.receive() for _ in range(10)] == [m.Pong(n) for n in range(10)]
    peer.send(m.Ping(10))
    assert ends(peer)
    assert "limits.glitch_burst" in said(running)


def test_write_timeout(world, driver):
    running = world.serve(driver, connection="write_timeout_s = 0.3\nwrite_high_water_bytes = 65536")
    peer, lively = world.open(running), world.open(running, "alice")
    vault = peer.root()
    peer.send(*(peer.call(vault, "blob", [5 * LARGE]) for _ in range(30)))
    end = time.monotonic() + 10
    while "limits.write_timeout_s" not in _closes(running) and time.monotonic() < end:
        time.sleep(0.05)
    assert lively.value(lively.root(), "noop") is None
    assert "limits.write_timeout_s" in said(running)


def _closes(running):
    return " ".join(path.read_text() for path in running.side.audit.rglob("*.jsonl"))
