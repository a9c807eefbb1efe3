"""The envelope: every kind survives the way there and back, and nothing but its one canonical form is taken."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprpc.errors import RemoteProtocolError
from caprpc.wire.codec import decode_message, encode_message
from caprpc.wire.messages import (
    MAX_ID,
    AnyMessage,
    Batch,
    BatchReturn,
    Call,
    Cancel,
    Checkpoint,
    Cosigned,
    Facet,
    Failure,
    Finish,
    GoAway,
    Hello,
    Meta,
    PeerLimits,
    Ping,
    Pong,
    Raise,
    Release,
    Return,
    Revoked,
    Run,
    Welcome,
)

NONCE = bytes(32)
EVERY_KIND = [
    Welcome([1], NONCE, PeerLimits(1_114_112, 64, 4_096, 32), []),
    Hello([1], NONCE, PeerLimits(1_114_112, 64, 4_096, 32), []),
    Facet(1, "TextLines", [(1, "readlines"), (5, "")], 1),
    Call(1, 0, 0, "counter", None, b"\x92\x90\x80"),
    Call(2, -3, 1, "line_counter", Meta(7, 30_000, True, b"trace"), b""),
    Return(1, b"\xc0"),
    Raise(2, False, "denied", "", "", "R-ABCDEFGHJKLM"),
    Cancel(3),
    Release([(1, 2), (MAX_ID, 1)]),
    Finish(4),
    Revoked([1, 2, 3]),
    Ping(5),
    Pong(5),
    GoAway("drain", "", ""),
    Batch(6, None, [Run(1, 1, "add", 2, b"\x92\x92\x90\x80\x92\x90\x80")]),
    BatchReturn(6, [Failure(1, True, "internal", "", "", "R-ABCDEFGHJKLM")], b"\x92\x01\xc0"),
    Checkpoint(b"note", 7, [bytes(32)], ["key"]),
    Cosigned("origin", 7, "signature", "key"),
]


def body_of(message):
    return encode_message(message)[4:]


def raw_body(*fields):
    """Return an envelope as an attacker would write it."""
    return msgspec.msgpack.encode(list(fields))


@pytest.mark.parametrize("message", EVERY_KIND, ids=lambda m: type(m).__name__)
def test_every_kind_survives_the_way_there_and_back(message):
    decoded = decode_message(body_of(message))
    assert type(decoded) is type(message)
    assert decoded == message


def test_every_kind_is_listed_here():
    assert {type(message) for message in EVERY_KIND} == set(AnyMessage.__args__)


def test_frame_of_a_message_carries_its_length():
    encoded = encode_message(Ping(1))
    assert int.from_bytes(encoded[:4], "big") == len(encoded) - 4


@pytest.mark.parametrize("kind", [*range(256), -1, 2**32])
def test_unknown_kinds_and_missing_fields_are_protocol_errors(kind):
    with pytest.raises(RemoteProtocolError):
        decode_message(raw_body(kind))


@pytest.mark.parametrize("message", EVERY_KIND, ids=lambda m: type(m).__name__)
def test_extra_and_missing_elements_are_protocol_errors(message):
    fields = msgspec.msgpack.decode(body_of(message))
    with pytest.raises(RemoteProtocolError):
        decode_message(raw_body(*fields, None))
    with pytest.raises(RemoteProtocolError):
        decode_message(raw_body(*fields[:-1]))


@pytest.mark.parametrize("message", EVERY_KIND, ids=lambda m: type(m).__name__)
def test_truncated_and_extended_messages_are_protocol_errors(message):
    body = body_of(message)
    for cut in range(len(body)):
        with pytest.raises(RemoteProtocolError):
            decode_message(body[:cut])
    with pytest.raises(RemoteProtocolError):
        decode_message(body + b"\xc0")


def test_a_shorter_meta_is_not_canonical():
    full = body_of(Call(1, 1, 1, "m", Meta(3), b""))
    assert decode_message(full).meta == Meta(3)
    with pytest.raises(RemoteProtocolError, match="canonical"):
        decode_message(full.replace(b"\x94\x03\xc0\xc2\xc0", b"\x91\x03"))


@pytest.mark.parametrize(
    "body",
    [
        b"\x92\x0b\xcc\x05",  # PING with a number that is too long
        b"\xdc\x00\x02\x0b\x05",  # with an array header that is too long
        b"\x92\xcc\x0b\x05",  # with a kind that is too long
        b"\x93\x05\x01\xc5\x00\x01\xc0",  # RETURN with a payload header that is too long
        b"\x93\x05\x01\xa1\xc0",  # with a text for a payload
        b"\x92\x0b\xcb\x40\x14\x00\x00\x00\x00\x00\x00",  # PING 5.0
        b"\x82\x00\x0b\x01\x05",  # a map
        b"\xc0",
        b"",
    ],
)
def test_other_encodings_of_a_message_are_protocol_errors(body):
    with pytest.raises(RemoteProtocolError):
        decode_message(body)


@pytest.mark.parametrize(
    "fields",
    [
        (11, MAX_ID + 1),
        (11, -1),
        (11, True),
        (11, "1"),
        (7, -1),
        (4, 1, MAX_ID + 1, 1, "m", None, b""),
        (4, 1, -MAX_ID - 2, 1, "m", None, b""),
        (4, 1, 1, 256, "m", None, b""),
        (4, 1, 1, 1, "m" * 129, None, b""),
        (4, 1, 1, 1, "m", [None, None, 1, None], b""),
        (4, 1, 1, 1, "m", [None, None, False, b"t" * 65], b""),
        (6, 1, False, "c" * 33, "", "", ""),
        (6, 1, False, "denied", "t" * 129, "", ""),
        (6, 1, False, "denied", "", "t" * 257, ""),
        (6, 1, False, "denied", "", "", "r" * 33),
        (6, 1, 0, "denied", "", "", ""),
        (8, []),
        (8, [[1, 0]]),
        (8, [[-1, 1]]),
        (8, [[1]]),
        (8, [[1, 1, 1]]),
        (10, []),
        (3, 1, "I", [], 2),
        (3, 1, "I" * 129, [], 0),
        (1, [], NONCE, [1, 1, 1, 1], []),
        (1, [0], NONCE, [1, 1, 1, 1], []),
        (1, [1] * 17, NONCE, [1, 1, 1, 1], []),
        (1, [1], NONCE[1:], [1, 1, 1, 1], []),
        (1, [1], NONCE + b"x", [1, 1, 1, 1], []),
        (1, [1], NONCE, [1, 1, 1], []),
        (1, [1], NONCE, [1, 1, 1, 1], ["f"] * 33),
        (14, 1, None, []),
        (14, 1, None, [[1, 1, "m", 0, b""]]),
    ],
)
def test_fields_out_of_bounds_are_protocol_errors(fields):
    with pytest.raises(RemoteProtocolError):
        decode_message(raw_body(*fields))


@pytest.mark.parametrize("size", [65_000, 65_535, 65_536, 70_000, 200_000])
@pytest.mark.parametrize("make", [lambda p: Call(1, 2, 1, "m", Meta(3), p), lambda p: Return(9, p)])
def test_large_payloads_survive_and_only_their_canonical_header_is_taken(make, size):
    message = make(b"\xc6" * size)
    body = body_of(message)
    assert decode_message(body) == message
    assert decode_message(bytearray(body)) == message
    head = len(body) - size
    with pytest.raises(RemoteProtocolError):
        decode_message(body + b"x")
    with pytest.raises(RemoteProtocolError):
        decode_message(body[:-1])
    if size < 65_536:
        longer = body[: head - 3] + b"\xc6\x00\x00" + body[head - 2 :]
    else:
        longer = b"\xdc\x00" + bytes([body[0] - 0x90]) + body[1:]
    with pytest.raises(RemoteProtocolError):
        decode_message(longer)
    with pytest.raises(RemoteProtocolError):
        decode_message(body[:1] + b"\xcc" + body[1:])


def test_deeply_nested_envelope_is_refused_without_recursion(small_stack):
    bomb = b"\x91" * 1_000_000
    for body in (bomb, b"\x97\x04\x01\x01\x01\xa1m" + bomb, b"\x92\x0b" + bomb, b"\x93\x0b\x01" + bomb):
        with pytest.raises(RemoteProtocolError):
            small_stack(decode_message, body)


def test_what_a_peer_wrote_stays_escaped_in_the_error():
    with pytest.raises(RemoteProtocolError) as caught:
        decode_message(b"\x92\xa4\x1b[2J\x05")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) <= 512


@given(st.binary(max_size=200))
def test_random_bytes_end_in_a_message_or_a_protocol_error(body):
    try:
        message = decode_message(body)
    except RemoteProtocolError:
        return
    assert body_of(message) == body


@given(st.sampled_from(EVERY_KIND), st.integers(0, 100), st.integers(0, 255))
def test_mutated_messages_end_in_a_message_or_a_protocol_error(message, position, byte):
    body = bytearray(body_of(message))
    body[position % len(body)] = byte
    try:
        decoded = decode_message(bytes(body))
    except RemoteProtocolError:
        return
    assert body_of(decoded) == body
