"""Large payloads: not copied on their way out, read where they belong on their way in, and the same bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprpc.limits import KIB, MIB
from caprpc.wire.codec import Split, encode_frames, encode_message, pack, pack_payload, pack_scalars
from caprpc.wire.frame import FrameBuffer, frame
from caprpc.wire.messages import Call, Return

MAX = MIB + 64 * KIB
LARGE = b"x" * (64 * KIB + 1)
BODY = bytes(range(256)) * 300


def joined(payload):
    return payload.head + payload.data + payload.tail if type(payload) is Split else payload


@pytest.mark.parametrize(
    "value",
    [LARGE, ((LARGE,), {}), ((1, "a", LARGE), {}), ((LARGE, 1), {}), ((), {}), (("a", 1 << 80, LARGE), {}), b"small"],
)
def test_split_scalars_are_what_pack_gives(value):
    as_lists = [list(value[0]), value[1]] if type(value) is tuple else value
    payload = pack_scalars(value)
    assert joined(payload) == pack(as_lists)
    assert len(payload) == len(joined(payload))


@pytest.mark.parametrize(
    "value",
    [
        [True, [LARGE]],
        [False, [b"", LARGE]],
        [False, [LARGE, 1]],
        [False, []],
        [False, [[1, "a"], LARGE]],
        [[LARGE], True],
        [[LARGE], {}],
        [[{"a": [1, None]}, LARGE], {"key": 0.5}],
        [[LARGE, LARGE], False],
        [[LARGE, 1], {}],
        [["a", 1 << 80, LARGE], {}],
        [LARGE, LARGE],
        [[], {}],
        [[(1, 2), LARGE], {}],
    ],
)
def test_split_payloads_are_what_pack_gives(value):
    payload = pack_payload(value)
    assert joined(payload) == pack(value)
    assert len(payload) == len(joined(payload))


def test_large_byte_string_is_sent_as_it_is():
    for payload in (
        pack_scalars(LARGE),
        pack_scalars(((1, LARGE), {})),
        pack_payload([[LARGE], {}]),
        pack_payload([False, [1, LARGE]]),
    ):
        assert payload.data is LARGE


def test_what_pack_refuses_is_refused_in_front_of_a_large_byte_string_too():
    with pytest.raises(ValueError, match="UTF-8"):
        pack_payload([["\ud800", LARGE], {}])
    with pytest.raises(ValueError, match="UTF-8"):
        pack_scalars((("\ud800", LARGE), {}))
    with pytest.raises(TypeError):
        pack_payload([[object(), LARGE], {}])
    with pytest.raises(TypeError):
        pack_payload([True, [object(), LARGE]])


@pytest.mark.parametrize("payload", [pack_scalars(LARGE), pack_payload([True, [LARGE]]), pack_scalars(((LARGE,), {}))])
def test_frames_of_a_split_payload_are_those_of_the_whole(payload):
    for message in (Call(7, 3, 0, "m", None, payload), Return(7, payload)):
        pieces = encode_frames(message)
        message.payload = joined(payload)
        assert b"".join(pieces) == encode_message(message)


@given(st.lists(st.integers(0, 3 * len(BODY)), max_size=9), st.integers(1, 90_000))
def test_filling_gives_what_feeding_gives(behind, step):
    """What comes behind a large body is not taken into it, and the body may come in any pieces."""
    rest = b"".join(frame(b"%d" % number) for number in behind)
    stream = memoryview(frame(BODY) + rest)
    buffer, got, position = FrameBuffer(MAX), [], 0

    def read_into(view):
        nonlocal position
        count = min(len(view), end - position)
        view[:count] = stream[position : position + count]
        position += count
        return count

    while position < len(stream):
        end = min(len(stream), position + step)
        if buffer.awaits_bulk:
            body = buffer.fill(read_into)
            got += [bytes(body)] if body is not None else []
        got += [bytes(body) for body in buffer.feed(bytes(stream[position:end]))] if position < end else []
        position = end
    assert got == [BODY, *(b"%d" % number for number in behind)]


def large(buffer, body):
    (whole,) = [*buffer.feed(frame(body)[:1000]), *buffer.feed(frame(body)[1000:])]
    return whole


def test_memory_of_a_large_body_serves_the_next_one_of_its_length():
    buffer = FrameBuffer(MAX)
    first = large(buffer, BODY)
    where = id(first)
    del first
    second = large(buffer, BODY[::-1])
    assert id(second) == where
    assert second == BODY[::-1]


@pytest.mark.parametrize("holder", [lambda body: body, memoryview, lambda body: memoryview(body)[5:]])
def test_body_that_somebody_refers_to_is_not_written_over(holder):
    buffer = FrameBuffer(MAX)
    held = holder(large(buffer, BODY))
    before = bytes(held)
    assert large(buffer, BODY[::-1]) == BODY[::-1]
    assert bytes(held) == before


def test_body_of_another_length_gets_memory_of_its_own():
    buffer = FrameBuffer(MAX)
    large(buffer, BODY)
    assert large(buffer, BODY + b"more") == BODY + b"more"
