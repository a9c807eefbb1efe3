"""Framing, session state and codec bombs, sent over the network to real servers. CAP-FR, CAP-CO."""

import pickle
import resource
import struct
import sys
import time

from hostile_peer import GENEROUS, NONCE, NOTHING, connect_socket

from caprpc.ids import OP_CALL, OP_ROOT
from caprpc.wire import messages as m
from caprpc.wire.codec import encode_message, pack, unpack
from caprpc.wire.frame import frame

HELLO = m.Hello([1], NONCE, GENEROUS, [])
KINDS = {
    1: m.Welcome([1], NONCE, GENEROUS, []),
    2: HELLO,
    3: m.Facet(1, "Slip", [], 0),
    4: m.Call(1, 0, OP_ROOT, "vault", None, NOTHING),
    5: m.Return(1, pack(None)),
    6: m.Raise(1, False, "denied", "", "", ""),
    7: m.Cancel(1),
    8: m.Release([(1, 1)]),
    9: m.Finish(1),
    10: m.Revoked([1]),
    11: m.Ping(1),
    12: m.Pong(1),
    14: m.Batch(1, None, [m.Run(0, 1, "noop", 1, pack([[[], {}]]))]),
    15: m.BatchReturn(1, [], pack([])),
}


def refused(peer, timeout_s=None):
    """Return whether the peer is told of a protocol error, and then the connection is closed."""
    last = peer.rest(timeout_s)[-1]
    return isinstance(last, m.GoAway) and last.code == "protocol-error" and last.text == ""


def served(world, running):
    """Return whether a fresh peer is served: nothing that another one did matters to it."""
    peer = world.open(running, "alice")
    return peer.value(peer.root(), "noop") is None


def test_a_giant_length_ends_the_connection_at_its_header(world, driver):
    running = world.serve(driver)
    for length in (0xFFFFFFFF, 0x80000000, 1_114_113, 0):
        peer = world.open(running)
        peer.root()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.monotonic()
        peer.send(struct.pack(">I", length))
        assert refused(peer)
        assert time.monotonic() - started < 1.0
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024
    assert served(world, running)


def test_a_large_frame_before_hello_ends_the_connection(world, driver):
    running = world.serve(driver)
    peer = world.dial(running).shake_hands()
    assert isinstance(peer.receive(), m.Welcome)
    peer.send(struct.pack(">I", 16_385))
    assert refused(peer)


def test_only_hello_may_come_first(world, driver):
    running = world.serve(driver)
    for kind, message in KINDS.items():
        if kind == 2:
            continue
        peer = world.dial(running).shake_hands()
        peer.receive()
        peer.send(message, HELLO, m.Call(2, 0, OP_ROOT, "vault", None, NOTHING))
        assert refused(peer), kind
    assert served(world, running)


def test_what_belongs_to_the_opening_or_to_nothing_ends_an_open_connection(world, driver):
    running = world.serve(driver)
    for kind in (1, 2, 5, 6, 8, 9, 15):
        peer = world.open(running)
        peer.send(KINDS[kind], m.Call(9, 0, OP_ROOT, "vault", None, NOTHING))
        assert refused(peer), kind


def test_unknown_kinds_end_the_connection_in_every_state(world, driver):
    running = world.serve(driver)
    unknown = [
        *range(16, 128, 16),
        0,
        *(bytes([0xCC, kind]) for kind in (128, 255)),
        b"\xff",
        b"\xcd\x01\x00",
        b"\xc0",
        b"\xa1x",
    ]
    for kind in unknown:
        body = b"\x92" + (bytes([kind]) if isinstance(kind, int) else kind) + b"\x01"
        for is_open in (True, False):
            peer = world.open(running) if is_open else world.dial(running).shake_hands()
            peer.send_body(body)
            assert refused(peer), kind


def test_bodies_that_are_no_message_end_the_connection(world, driver):
    running = world.serve(driver)
    ping = b"\x92\x0b\x01"
    odd = [
        b"\xc1",
        b"\x90",
        b"\x91\x0b",
        b"\x93\x0b\x01\x01",
        ping + b"\x00",
        b"\x92\x0b\xcc\x01",
        b"\xdc\x00\x02\x0b\x01",
        b"\x92\x0b\xff",
        b"\x92\x0b\xcf" + b"\xff" * 8,
        b"\x81\x0b\x01",
        b"\x92\x0b",
        b"\x91" * 5000,
        b"GET / HTTP/1.1\r\n\r\n",
        pickle.dumps({"a": 1}),
    ]
    for body in odd:
        peer = world.open(running)
        peer.send_body(body)
        assert refused(peer), body


def test_nothing_after_an_error_is_looked_at(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    good = encode_message(peer.call(vault, "noop"))
    peer.send(frame(b"\xc1"), good, good)
    assert refused(peer)
    assert world.service.ran == []


def test_two_errors_in_one_record_end_the_connection(world, driver):
    running = world.serve(driver)
    for second in (b"\xc1", b"\x92\x0b\xff", b"\x92\x09\x01"):
        peer = world.open(running)
        vault = peer.root()
        peer.send(peer.call(vault, "echo", payload=b"\xc1"), frame(second))
        assert refused(peer)


def test_a_second_hello_ends_the_connection(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    peer.send(HELLO, peer.call(0, "vault", operation=OP_ROOT))
    assert refused(peer)


def test_other_versions_and_features_are_refused(world, driver):
    running = world.serve(driver)
    tiny = m.PeerLimits(100, 0, 0, 0)
    for hello in (
        m.Hello([2], NONCE, GENEROUS, []),
        m.Hello([1, 2], NONCE, GENEROUS, []),
        m.Hello([1], NONCE, GENEROUS, ["compression"]),
        m.Hello([1], NONCE, GENEROUS, ["deadline", "deadline"]),
        m.Hello([1], NONCE, tiny, []),
    ):
        peer = world.dial(running).shake_hands()
        peer.receive()
        peer.send(hello, m.Call(1, 0, OP_ROOT, "vault", None, NOTHING))
        assert refused(peer)


def test_question_numbers_must_go_up(world, driver):
    running = world.serve(driver)
    for numbers in ((5, 5), (5, 4), (0,), (2**53 - 1, 1)):
        peer = world.open(running)
        peer.send(*(m.Call(number, 0, OP_ROOT, "vault", None, NOTHING) for number in numbers))
        assert refused(peer), numbers
    peer = world.open(running)
    peer.send(m.Call(2**53 - 1, 0, OP_ROOT, "vault", None, NOTHING))
    assert isinstance(peer.answer(2**53 - 1), m.Return)


def test_each_request_gets_its_own_answer(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    calls = [peer.call(vault, "echo", [number]) for number in range(60)]
    peer.send(*calls)
    assert [unpack(peer.answer(call.question).payload) for call in calls] == list(range(60))


def test_a_ping_flood_ends_the_connection_after_its_budget(world, driver):
    running = world.serve(driver, connection="glitch_burst = 50\nglitch_per_s = 0.2")
    peer = world.open(running)
    peer.send(*(m.Ping(number) for number in range(50)))
    assert [peer.receive() for _ in range(50)] == [m.Pong(number) for number in range(50)]
    peer.send(*(m.Ping(number) for number in range(500)))
    messages = peer.rest()
    assert messages[-1].code == "protocol-error"
    assert len(messages) <= 3
    assert served(world, running)


def test_saying_again_that_one_drains_spends_the_budget(world, driver):
    running = world.serve(driver, connection="glitch_burst = 50\nglitch_per_s = 0.2")
    peer = world.open(running)
    vault = peer.root()
    peer.send(*(m.GoAway("drain", "", "") for _ in range(50)))
    assert peer.value(vault, "add", [1, 2]) == 3
    peer.send(*(m.GoAway("drain", "", "") for _ in range(10)))
    assert peer.rest()[-1].code == "protocol-error"
    assert served(world, running)


def test_coalesced_frames_are_answered_at_once(world, driver):
    running = world.serve(driver)
    for count in (2, 3, 20, 50):
        peer = world.open(running)
        vault = peer.root()
        calls = [peer.call(vault, "add", [number]) for number in range(count)]
        started = time.monotonic()
        peer.send(*calls)
        assert [unpack(peer.answer(call.question).payload) for call in calls] == list(range(count))
        assert time.monotonic() - started < 0.6


def test_one_frame_in_fifty_records_is_answered_at_once(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    call = peer.call(vault, "echo", ["x" * 150])
    data = encode_message(call)
    step = len(data) // 50
    for start in range(0, len(data), step):
        peer.send(data[start : start + step])
    assert unpack(peer.answer(call.question).payload) == "x" * 150


OPENING = encode_message(HELLO) + encode_message(m.Call(1, 0, OP_ROOT, "vault", None, NOTHING))
CALLS = [m.Call(number, 1, OP_CALL, "add", None, pack([[number, number], {}])) for number in (2, 3)]
CALLING = b"".join(map(encode_message, CALLS))


def talk(peer, opening, calling):
    """Send a recorded session in pieces; return what its calls are answered with."""
    for piece in opening:
        peer.send(piece)
    assert unpack(peer.answer(1).payload).export == 1
    for piece in calling:
        peer.send(piece)
    return [unpack(peer.answer(call.question).payload) for call in CALLS]


def test_a_session_split_at_every_byte_is_the_same_session(world, driver):
    running = world.serve(driver)
    for position in range(1, max(len(OPENING), len(CALLING)), 2):
        peer = world.dial(running).shake_hands()
        pieces = [[data[:position], data[position:]] for data in (OPENING, CALLING)]
        assert talk(peer, *pieces) == [4, 6], position
        peer.close()
    peer = world.dial(running).shake_hands()
    assert talk(peer, *([data[n : n + 1] for n in range(len(data))] for data in (OPENING, CALLING))) == [4, 6]


def test_a_session_cut_at_every_byte_runs_complete_calls_only(world, driver):
    running = world.serve(driver)
    ends = [len(encode_message(CALLS[0])), len(CALLING)]
    most = 0
    for position in range(0, len(CALLING) + 1, 2):
        peer = world.open(running)
        peer.root()
        peer.send(CALLING[:position])
        most += sum(position >= end for end in ends)
        peer.sock.close()
    for position in range(0, len(OPENING), 4):
        peer = world.dial(running).shake_hands()
        peer.send(OPENING[:position])
        peer.sock.close()
    assert served(world, running)
    running.stop()
    assert world.service.ran.count("add") <= most


def test_a_cipher_stream_cut_at_any_place_leaves_nothing_behind(world, driver):
    running = world.serve(driver)
    for position in (0, 1, 4, 5, 6, 100, 200, 300):
        sock = connect_socket(running.address)
        peer = world.dial(running)
        sock.sendall(peer.channel.data_to_send()[:position])
        sock.close()
        peer.close()
    assert served(world, running)


def payload_bombs():
    yield b"\x91" * 200_000 + b"\xc0"
    yield b"\x92\x91" + b"\x81\x91\x01\x01" + b"\x80"  # an array as a map key
    yield b"\x92\x91\xdd\x00\x0f\x00\x00" + b"\x90" * 0xF0000 + b"\x80"
    yield b"\x92\x91\xdd\xff\xff\xff\xff\x80"
    yield b"\x92\x91\x82\xa1a\x01\xa1a\x02\x80"  # the same key twice
    yield b"\x92\x91\xc7\xff\x04" + b"\x7f" * 255 + b"\x80"[:0] + b"\x91\xc8\x04\x00\x04" + b"\x7f" * 1024
    yield b"\x92\x91\xa2\xc3\x28\x80"  # invalid UTF-8
    yield b"\x92\x91\xa3\xed\xa0\x80\x80"  # a surrogate
    yield b"\x92\x91\xd0\x01\x80"  # not the shortest form
    yield b"\x92\x91\xca\x00\x00\x00\x00\x80"  # a float of 32 bits
    yield b"\x92\x91\xd6\xff\x00\x00\x00\x00\x80"  # a timestamp
    yield b"\x92\x91\xd4\x63\x00\x80"  # an unknown extension
    yield b"\x92\x90\x80\x00"
    yield b""
    yield pickle.dumps([[], {}])
    colliding = b"".join(b"\xcf" + struct.pack(">Q", k * (2**61 - 1)) + b"\xc0" for k in range(1, 8))
    yield b"\x92\x91\xc8" + struct.pack(">H", 3 + 20_000 * 10 % 60_000) + b"\x09" + colliding


def test_payload_bombs_end_the_connection_and_nothing_else(world, driver):
    running = world.serve(driver)
    for bomb in payload_bombs():
        peer = world.open(running)
        vault = peer.root()
        started = time.process_time()
        peer.send(peer.call(vault, "echo", payload=bomb))
        assert refused(peer), bomb[:20]
        assert time.process_time() - started < 1.0
    assert world.service.ran == []
    assert served(world, running)
    assert "pickle" not in getattr(sys.modules.get("caprpc.wire.codec"), "__dict__", {})


def test_a_refused_call_never_gets_its_payload_parsed(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    for bomb in payload_bombs():
        assert peer.ask(vault, "hidden", payload=bomb).code == "denied"


def test_every_break_of_the_protocol_is_on_record_once(world, driver):
    running = world.serve(driver)
    for _ in range(5):
        peer = world.open(running)
        peer.send_body(b"\xc1")
        assert refused(peer)
    closed = [fields for fields in running.records(kind="close") if fields.get("reason") == "protocol-error"]
    assert len(closed) == 5
    assert {fields["peer"] for fields in closed} == {f"spiffe://{world.deployment.trust_domain}/mallory"}
