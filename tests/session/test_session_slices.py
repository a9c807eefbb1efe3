"""What is received is handled in slices of bounded cost, in order, and nothing is forgotten between two of them."""

import pytest

from caprpc.errors import LocalProtocolError
from caprpc.session import Ended, State
from caprpc.session.costs import UNBOUNDED, cost_of
from caprpc.wire import messages as m
from caprpc.wire.codec import encode_message, pack
from caprpc.wire.values import RemoteReference

NOTHING = b"\x92\x90\x80"


def put(half, count):
    """Return calls that are permitted, encoded: asking for the root costs nothing else."""
    return b"".join(encode_message(half.call()) for _ in range(count))


def numbers(events):
    return [event.answer_id for event in events]


def test_what_costs_more_than_a_slice_is_left_for_the_next(half):
    peer = half()
    first = peer.session.receive_data(put(peer, 10), peer.now, 4)
    assert numbers(first) == [1, 2, 3, 4]
    assert numbers(peer.session.go_on(peer.now, 4)) == [5, 6, 7, 8]
    assert numbers(peer.session.go_on(peer.now, 4)) == [9, 10]
    assert peer.session.frames.rest is None
    assert peer.session.go_on(peer.now, 4) == []


def test_everything_is_handled_at_once_without_a_bound(half):
    peer = half()
    assert numbers(peer.session.receive_data(put(peer, 10), peer.now)) == list(range(1, 11))
    assert peer.session.frames.rest is None


def test_frame_that_is_cut_off_goes_on_behind_what_was_left(half):
    peer = half()
    data = put(peer, 6)
    events = peer.session.receive_data(data[:-5], peer.now, 2)
    events += peer.session.go_on(peer.now, UNBOUNDED)
    assert peer.session.frames.partial
    events += peer.session.receive_data(data[-5:], peer.now, 2)
    assert numbers(events) == [1, 2, 3, 4, 5, 6]


def test_more_cannot_be_received_before_what_was_left(half):
    peer = half()
    peer.session.receive_data(put(peer, 6), peer.now, 2)
    with pytest.raises(LocalProtocolError, match="not all taken"):
        peer.session.receive_data(put(peer, 1), peer.now, 2)


def test_protocol_error_behind_a_slice_ends_the_session_when_its_turn_comes(half):
    peer = half()
    data = put(peer, 3) + encode_message(m.Return(77, NOTHING)) + put(peer, 1)
    assert numbers(peer.session.receive_data(data, peer.now, 3)) == [1, 2, 3]
    assert peer.session.state is State.OPEN
    events = peer.session.go_on(peer.now, 3)
    assert type(events[-1]) is Ended
    assert peer.session.frames.rest is None


def test_peer_is_not_blamed_for_a_frame_that_waits_for_us(half):
    """The grace time of a frame under way runs from when it is the peer's turn to send the rest."""
    peer = half()
    peer.session.receive_data(put(peer, 6)[:-5], peer.now, 2)
    assert peer.session.liveness.frame_since is None
    peer.session.go_on(peer.now + 3, UNBOUNDED)
    assert peer.session.liveness.frame_since == peer.now + 3


def test_ping_behind_calls_is_answered_once_they_were_taken(half):
    peer = half()
    peer.session.receive_data(put(peer, 4) + encode_message(m.Ping(9)), peer.now, 4)
    assert peer.said() == []
    peer.session.go_on(peer.now, 4)
    assert peer.said() == [m.Pong(9)]


def test_large_messages_and_batches_cost_more():
    assert cost_of(m.Ping(1), 5) == 1
    payload = pack([["x" * 20_000], {}])
    assert cost_of(m.Call(1, 1, 1, "put", None, payload), len(payload)) == 1 + len(payload) // 1024
    batch = m.Batch(1, None, [m.Run(1, 1, "put", 40, NOTHING), m.Run(1, 1, "put", 24, NOTHING)])
    assert cost_of(batch, 100) == 33


def test_references_cost_more_than_bytes():
    """Each becomes an entry of a table; in so few bytes that nothing is counted there are none to speak of."""
    many = m.Call(1, 1, 1, "put", None, pack([[[RemoteReference(n, 1) for n in range(1, 201)]], {}]))
    assert 40 <= cost_of(many, len(many.payload)) <= 60
    plain = m.Call(1, 1, 1, "put", None, pack([["x" * 3600], {}]))
    assert cost_of(plain, len(plain.payload)) == 4


def test_all_of_it_is_left_if_there_is_no_room_now(half):
    peer = half()
    for count in (1, 3):
        assert peer.session.receive_data(put(peer, count), peer.now, 0) == []
        assert peer.session.frames.rest is not None
        assert len(peer.session.go_on(peer.now, 4)) == count
        assert peer.session.frames.rest is None


def test_frame_that_is_not_complete_keeps_its_time_without_room(half):
    """A peer must not be able to hold a buffer for ever by keeping its principal's turns used up."""
    peer = half()
    data = put(peer, 1)
    peer.session.receive_data(data[:6], peer.now, 0)
    assert peer.session.go_on(peer.now, 4) == []
    peer.session.receive_data(data[6:8], peer.now + 3, 0)
    assert peer.session.liveness.frame_since == peer.now
    assert peer.session.frames.rest is None
