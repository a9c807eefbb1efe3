"""Payloads of one message keep to its bounds together."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprpc.errors import RemoteProtocolError
from caprpc.limits import Limits
from caprpc.wire.codec import pack, unpack, unpack_tree
from caprpc.wire.pieces import Pieces, check_pieces
from caprpc.wire.values import RemoteReference
from caprpc.wire.weight import charged

LIMITS = Limits(max_items=100, max_pair_keys=10)

HALVES = {
    "numbers": [1] * 60,
    "lists": [[] for _ in range(60)],
    "entries": {str(i): i for i in range(30)},
    "decimals": [Decimal(1)] * 15,
    "dates": [date(2000, 1, 1)] * 15,
    "big integers": [2**100] * 15,
    "references": [RemoteReference(1, 1)] * 15,
    "tuples": [()] * 15,
    "hashed members": set(range(6)),
    "hashed keys": dict.fromkeys(range(6)),
}
"""More than half of what a message may hold."""


@pytest.mark.parametrize("half", HALVES)
def test_two_payloads_hold_no_more_than_one_message_may(half):
    blob = pack(HALVES[half], LIMITS)
    pieces = Pieces(LIMITS, [len(blob)] * 2 + [100])
    assert pieces.unpack(blob) == HALVES[half]
    with pytest.raises(RemoteProtocolError, match="less what stands before it in the message"):
        pieces.unpack(blob)


@pytest.mark.parametrize("half", HALVES)
def test_what_is_too_much_together_is_not_sent(half):
    blob = pack(HALVES[half], LIMITS)
    check_pieces([blob], LIMITS)
    with pytest.raises(ValueError, match="the receiver would refuse this"):
        check_pieces([blob, blob, pack(b"." * 100)], LIMITS)


def test_large_byte_strings_are_one_value_each():
    blob = pack(b"." * 1000)
    pieces = Pieces(LIMITS, [len(blob)] * 100)
    for _ in range(100):
        assert pieces.unpack(blob) == b"." * 1000
    with pytest.raises(RemoteProtocolError, match="all that may be in a message"):
        pieces.unpack(blob)


def test_one_payload_is_not_charged_to_itself():
    blob = pack([1] * 99)
    assert Pieces(LIMITS, [len(blob)]).unpack(blob) == [1] * 99


_KEYS = st.one_of(st.integers(), st.text(max_size=3), st.decimals(allow_nan=False, allow_infinity=False, places=2))
_ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=40), st.binary(max_size=40), st.dates()
)
_VALUES = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(_KEYS, inner, max_size=5),
        st.sets(_KEYS, max_size=5),
        st.frozensets(st.binary(max_size=4), max_size=5),
    ),
    max_leaves=30,
)


@given(_VALUES)
def test_a_value_is_charged_as_much_as_its_decoder_takes(value):
    blob = pack(value)
    read, plain = unpack_tree(blob)
    items, hashed = charged(read, plain=plain)
    unpack(blob, Limits(max_items=items, max_pair_keys=hashed))
    if items > 1:
        with pytest.raises(RemoteProtocolError, match="max_items"):
            unpack(blob, Limits(max_items=items - 1, max_pair_keys=hashed))
    if hashed:
        with pytest.raises(RemoteProtocolError, match="max_pair_keys"):
            unpack(blob, Limits(max_items=items, max_pair_keys=hashed - 1))
