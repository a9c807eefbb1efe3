"""The scanner of large values and the check of small ones are two ways to one verdict."""

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from caprpc.errors import RemoteProtocolError
from caprpc.limits import DEFAULT_LIMITS
from caprpc.wire import codec
from caprpc.wire.codec import pack
from caprpc.wire.scan import _Scanner, scan
from caprpc.wire.trees import Builder

SHALLOW = DEFAULT_LIMITS.__class__(max_depth=3)

trees = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.integers(-300, 300),
        st.floats(),
        st.text(max_size=40),
        st.text(min_size=250, max_size=260, alphabet="ab"),
        st.binary(max_size=40),
        st.tuples(st.integers(0, 9)),
    ),
    lambda v: st.one_of(st.lists(v, max_size=20), st.dictionaries(st.text(max_size=40), v, max_size=18)),
    max_leaves=40,
)


def build(flat, size, limits):
    """Decode the extensions, which is the same for both ways."""
    Builder(limits, size, codec._encode, lambda data: codec._flat(data, limits, Ext)).build(flat, limits.max_depth)


def accepted_small(blob, limits):
    """Return whether the check by encoding again takes the blob."""
    try:
        build(codec._flat(blob, limits, Ext), len(blob), limits)
    except (RemoteProtocolError, *codec._DECODE_ERRORS):
        return False
    return True


def accepted_large(blob, limits):
    """Return whether the scanner, and the C decoder behind it, take the blob."""
    try:
        scan(blob, limits)
        build(msgpack.unpackb(blob, ext_hook=Ext), len(blob), limits)
    except (RemoteProtocolError, *codec._DECODE_ERRORS):
        return False
    return True


@given(trees, st.integers(0, 5_000), st.integers(0, 255), st.sampled_from([DEFAULT_LIMITS, SHALLOW]))
@example([{"a": 1}], 3, 0xD4, DEFAULT_LIMITS)
@example([-200], 1, 0xD1, DEFAULT_LIMITS)
def test_both_ways_give_the_same_verdict(tree, position, byte, limits):
    blob = bytearray(pack(tree))
    whole = bytes(blob)
    blob[position % len(blob)] = byte
    changed = bytes(blob)
    for candidate in (whole, changed, changed[:-1], changed + b"\xc0"):
        assert accepted_small(candidate, limits) == accepted_large(candidate, limits)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=8).map(bytes))
def test_both_ways_give_the_same_verdict_on_random_bytes(blob):
    assert accepted_small(blob, DEFAULT_LIMITS) == accepted_large(blob, DEFAULT_LIMITS)


@pytest.mark.parametrize(
    ("value", "items"),
    [(None, 1), ([], 1), ([1, 2], 3), ({"a": 1}, 3), ({"a": [1, {}], "b": 2.5}, 7), ("x" * 300, 1), ([b"", "", -5], 4)],
)
def test_scanner_counts_values_and_keys(value, items):
    assert scan(pack(value), DEFAULT_LIMITS) == items


@pytest.mark.parametrize(
    "blob", [b"\xc0\xc0", b"\xa2a", b"\xc4\x05a", b"\x92\xc0", b"\x90\x90", b"\xd4\x0a", b"\xcb\x00", b""]
)
def test_scanner_alone_refuses_what_ends_too_early_or_goes_on(blob):
    with pytest.raises(RemoteProtocolError, match=r"ends too early|after the value"):
        scan(blob, DEFAULT_LIMITS)


def test_a_view_of_a_buffer_is_scanned_like_bytes():
    """A large payload stays in the buffer that it was received into."""
    blob = pack([{"words": ["x" * 100], "number": n} for n in range(2000)])
    view = memoryview(bytearray(blob))
    assert scan(view, DEFAULT_LIMITS) == scan(blob, DEFAULT_LIMITS)
    assert codec.unpack(view) == codec.unpack(blob)


EDGES = sorted(
    {sign * 2**bits + step for bits in (5, 7, 8, 15, 16, 31, 32, 62) for sign in (1, -1) for step in (-1, 0, 1)}
)
WIDTHS = {0xCC: (1, False), 0xCD: (2, False), 0xCE: (4, False), 0xCF: (8, False)}
WIDTHS |= {0xD0: (1, True), 0xD1: (2, True), 0xD2: (4, True), 0xD3: (8, True)}


def spellings(number):
    """Return an integer in every width that holds it; one of them at most is canonical."""
    for head, (width, signed) in WIDTHS.items():
        try:
            yield bytes((head,)) + number.to_bytes(width, "big", signed=signed)
        except OverflowError:
            pass


TOKENS = [one for number in EDGES for one in spellings(number)]
TOKENS += [
    pack(value) for value in (None, True, False, 0, 127, -1, -32, 1.5, "", "a", "ab", "a" * 31, b"", b"a", b"ab")
]
TOKENS += [pack("b" * size) for size in (32, 33, 255, 256)] + [pack(b"c" * size) for size in (2, 31, 255, 256)]
TOKENS += [
    b"\x90",
    b"\x80",
    b"\x91\xc0",
    b"\x81\xa1a\x01",
    pack((1,)),
    b"\xd9\x1f" + b"a" * 31,
    b"\xc5\x00\x01a",
    b"\xc1",
]


def verdict(blob, *, runs):
    scanner = _Scanner(blob, DEFAULT_LIMITS)
    try:
        found = scanner.run(runs=runs)
    except (RemoteProtocolError, IndexError):
        return "refused"
    return found or verdict(blob, runs=False)


def listed(tokens):
    return b"\xdc" + len(tokens).to_bytes(2, "big") + b"".join(tokens)


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token[:9].hex())
def test_a_run_has_the_verdict_of_its_values(token):
    for count in (31, 32, 33, 64, 65):
        for blob in (listed([token] * count), listed([b"\xc0"] * 31 + [token] * count), listed([token] * count)[:-1]):
            assert verdict(blob, runs=True) == verdict(blob, runs=False), (token, count)


@given(st.lists(st.sampled_from(TOKENS), min_size=20, max_size=300), st.integers(0, 3), st.booleans())
def test_runs_between_other_values_have_the_verdict_of_the_values(tokens, cut, inner):
    blob = listed([listed(tokens), *tokens] if inner else tokens)
    blob = blob[: len(blob) - cut]
    assert verdict(blob, runs=True) == verdict(blob, runs=False)
    assert verdict(b"\xdf" + blob[1:], runs=True) == verdict(b"\xdf" + blob[1:], runs=False)
