"""Frames: the same bytes give the same frames however they are cut, and an announced length costs nothing."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprpc.errors import LocalProtocolError, RemoteProtocolError
from caprpc.limits import KIB, MIB
from caprpc.wire.frame import FrameBuffer, frame

MAX = MIB + 64 * KIB
BODIES = [b"a", b"bc" * 40, b"\x00" * 5, b"x" * 300, b"last"]
STREAM = b"".join(map(frame, BODIES))


def taken(buffer, *pieces):
    return [bytes(body) for piece in pieces for body in buffer.feed(piece)]


def test_length_is_four_bytes_big_endian_and_does_not_count_itself():
    assert frame(b"abc") == b"\x00\x00\x00\x03abc"


def test_one_whole_frame_is_returned_at_once():
    assert taken(FrameBuffer(MAX), frame(b"abc")) == [b"abc"]


def test_coalesced_frames_are_all_returned_in_order():
    assert taken(FrameBuffer(MAX), STREAM) == BODIES


@pytest.mark.parametrize("cut", range(1, len(STREAM)))
def test_split_at_every_byte_gives_the_same_frames(cut):
    assert taken(FrameBuffer(MAX), STREAM[:cut], STREAM[cut:]) == BODIES


def test_one_byte_at_a_time_gives_the_same_frames():
    assert taken(FrameBuffer(MAX), *(STREAM[i : i + 1] for i in range(len(STREAM)))) == BODIES


def test_truncation_at_every_byte_gives_only_complete_frames():
    for cut in range(len(STREAM)):
        got = taken(FrameBuffer(MAX), STREAM[:cut])
        assert got == BODIES[: len(got)]
        assert len(b"".join(map(frame, got))) <= cut


@given(
    bodies=st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.just(b"L" * 70_000)), max_size=6),
    cuts=st.lists(st.integers(0, 300_000), max_size=8),
)
def test_any_cut_gives_the_same_frames(bodies, cuts):
    stream = b"".join(map(frame, bodies))
    marks = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    buffer = FrameBuffer(MAX)
    assert taken(buffer, *(stream[a:b] for a, b in pairwise(marks))) == bodies
    assert not buffer.partial


@pytest.mark.parametrize("length", [MAX + 1, 2**31, 2**32 - 1])
def test_giant_length_is_refused_at_header_time_and_named(length):
    buffer = FrameBuffer(MAX)
    with pytest.raises(RemoteProtocolError, match=rf"frame of {length} bytes, at most {MAX} .*max_frame_bytes"):
        taken(buffer, length.to_bytes(4, "big"))


def test_frame_of_exactly_the_limit_is_accepted():
    assert taken(FrameBuffer(10), frame(b"0123456789")) == [b"0123456789"]
    with pytest.raises(RemoteProtocolError):
        taken(FrameBuffer(10), frame(b"0123456789a"))


@pytest.mark.parametrize("stream", [b"\0\0\0\0", b"\0\0\0\0abc", frame(b"a") + b"\0\0\0\0"])
def test_empty_frame_is_a_protocol_error(stream):
    with pytest.raises(RemoteProtocolError, match="frame of 0 bytes"):
        taken(FrameBuffer(MAX), stream)


@pytest.mark.parametrize("cut", range(1, 12))
def test_frames_before_a_bad_header_are_returned_whatever_the_cut(cut):
    stream = frame(b"good") + b"\xff\xff\xff\xff" + frame(b"never")
    buffer = FrameBuffer(MAX)
    got = []

    def feed_both():
        for piece in (stream[:cut], stream[cut:]):
            got.extend(buffer.feed(piece))

    with pytest.raises(RemoteProtocolError):
        feed_both()
    assert got == [b"good"]


def test_nothing_is_accepted_after_a_bad_header():
    buffer = FrameBuffer(MAX)
    with pytest.raises(RemoteProtocolError):
        taken(buffer, b"\xff\xff\xff\xff")
    with pytest.raises(RemoteProtocolError):
        taken(buffer, frame(b"resynchronised"))


def test_limit_raised_by_one_frame_holds_for_the_next_in_the_same_bytes():
    buffer = FrameBuffer(5)
    got = []
    for body in buffer.feed(frame(b"hello") + frame(b"a longer body")):
        got.append(body)
        buffer.max_frame_bytes = 100
    assert got == [b"hello", b"a longer body"]


def test_frames_left_untaken_are_a_local_mistake():
    buffer = FrameBuffer(MAX)
    buffer.feed(STREAM)
    with pytest.raises(LocalProtocolError):
        buffer.feed(STREAM)


def test_progress_of_a_partial_frame_is_visible():
    buffer = FrameBuffer(MAX)
    assert (buffer.partial, buffer.partial_bytes) == (False, 0)
    taken(buffer, b"\0\0")
    assert (buffer.partial, buffer.partial_bytes) == (True, 2)
    taken(buffer, b"\0\x05abc")
    assert (buffer.partial, buffer.partial_bytes) == (True, 7)
    taken(buffer, b"de")
    assert (buffer.partial, buffer.partial_bytes) == (False, 0)
    taken(buffer, (100_000).to_bytes(4, "big") + b"x" * 50)
    assert (buffer.partial, buffer.partial_bytes) == (True, 54)


@pytest.mark.parametrize("step", [1_000, 16_384, 100_000])
def test_large_body_is_received_in_place(step):
    body = bytes(range(256)) * 1_024
    stream = frame(body)
    buffer = FrameBuffer(MAX)
    assert taken(buffer, stream[:4]) == []
    position = 4
    complete = None
    while complete is None:
        view = buffer.writable()
        count = min(len(view), step, len(stream) - position)
        view[:count] = stream[position : position + count]
        position += count
        complete = buffer.wrote(count)
    assert bytes(complete) == body
    assert not buffer.partial
    assert buffer.writable() is None


def test_small_frames_offer_no_buffer():
    buffer = FrameBuffer(MAX)
    taken(buffer, frame(b"x" * 1_000)[:500])
    assert buffer.writable() is None


def test_reporting_more_than_was_offered_is_a_local_mistake():
    buffer = FrameBuffer(MAX)
    with pytest.raises(LocalProtocolError):
        buffer.wrote(1)
    taken(buffer, (100_000).to_bytes(4, "big"))
    with pytest.raises(LocalProtocolError):
        buffer.wrote(len(buffer.writable()) + 1)


def test_memory_follows_what_was_received_not_what_was_announced():
    tracemalloc.start()
    try:
        buffers = [FrameBuffer(MAX) for _ in range(100)]
        before = tracemalloc.get_traced_memory()[0]
        for buffer in buffers:
            taken(buffer, MIB.to_bytes(4, "big"))
        announced = tracemalloc.get_traced_memory()[0] - before
        for buffer in buffers[:1]:
            taken(buffer, b"x" * 10_000)
            view = buffer.writable()
            assert len(view) <= 16 * KIB
    finally:
        tracemalloc.stop()
    assert announced / len(buffers) < 20 * KIB
