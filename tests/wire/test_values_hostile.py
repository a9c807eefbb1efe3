"""Codec bombs (attack group CAP-CO): what a peer sends ends in a bounded value or in a protocol error."""

import sys
import time
import tracemalloc
from dataclasses import replace

import pytest

from caprpc.errors import RemoteProtocolError
from caprpc.limits import DEFAULT_LIMITS, MIB
from caprpc.wire import values
from caprpc.wire.codec import pack, unpack
from caprpc.wire.scan import MAX_EXPANSION, scan


def ext(code, data):
    """Return an extension as an attacker would write it."""
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
    code &= 0xFF
    if len(data) in fixed:
        return bytes((fixed[len(data)], code)) + data
    if len(data) < 256:
        return bytes((0xC7, len(data), code)) + data
    return b"\xc8" + len(data).to_bytes(2, "big") + bytes((code,)) + data


def array_of(count, element):
    return b"\xdc" + count.to_bytes(2, "big") + element * count


def refuse(blob, limits=DEFAULT_LIMITS, match="."):
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        unpack(blob, limits)
    assert len(str(caught.value)) <= 400


# -- depth ---------------------------------------------------------------------------------------------------


def nested(depth, opening=b"\x91", core=b"\xc0"):
    return opening * depth + core


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k", b"\x92\xc0"])
def test_depth_is_accepted_up_to_the_limit_and_no_further(opening):
    unpack(nested(32, opening))
    refuse(nested(33, opening), match="max_depth|nested")


def test_depth_counts_empty_containers():
    for before in (b"", b"\x92" + pack("x" * 70_000)):
        inner = 31 if before else 32
        unpack(before + nested(inner))
        unpack(before + nested(inner - 1, core=b"\x90"))
        for core in (b"\x90", b"\x80", b"\x91\xc0"):
            refuse(before + nested(inner, core=core), match="max_depth")


def nested_tuples(depth):
    blob = b"\x90"
    for _ in range(depth):
        blob = ext(values.CODE_TUPLE, b"\x91" + blob)
    return blob


def test_depth_counts_through_extensions():
    unpack(nested_tuples(31))
    refuse(nested_tuples(32), match="max_depth")
    refuse(nested(16, core=nested_tuples(16)), match="max_depth")


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa0", b"\xdd\x00\x00\x00\x01", b"\x81"])
def test_a_mebibyte_of_openings_neither_recurses_nor_takes_time(opening, small_stack):
    for size in (500, 1_023, 1_025, 65_000, MIB):
        with pytest.raises(RemoteProtocolError):
            small_stack(unpack, opening * (size // len(opening)))


def test_deep_extensions_need_no_c_stack(small_stack):
    small_stack(unpack, nested_tuples(31))
    with pytest.raises(RemoteProtocolError):
        small_stack(unpack, nested_tuples(400))


# -- items and memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("element", [b"\xc0", b"\x01", b"\xa0", b"\xc2"])
def test_items_are_accepted_up_to_the_limit_and_no_further(element):
    assert len(unpack(array_of(65_535, element))) == 65_535
    refuse(b"\xdd\x00\x01\x00\x00" + element * 65_536, match="max_items")


def test_items_count_keys_and_every_level():
    limits = replace(DEFAULT_LIMITS, max_items=8)
    unpack(pack({"a": 1, "b": [2]}), limits)
    refuse(pack({"a": 1, "b": [2, 3, 4], "c": 5}), limits, match="max_items")


def test_items_of_extensions_share_the_budget_of_the_message():
    limits = replace(DEFAULT_LIMITS, max_items=1_000)
    unpack(pack([tuple(range(100))] * 9), limits)
    refuse(pack([tuple(range(100))] * 10), limits, match="max_items")
    refuse(pack([1j] * 300), limits, match="max_items")


def test_an_announced_count_allocates_nothing():
    tracemalloc.start()
    try:
        for blob in (
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xdd\x00\x00\xff\xff",
        ):
            refuse(blob)
            refuse(b"\x91" + blob + b"\xc0" * 70_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MIB


BOMBS = {
    "empty lists": array_of(60_000, b"\x90"),
    "empty maps": array_of(60_000, b"\x80"),
    "maps of nothing": array_of(21_000, b"\x81\xa0\xc0"),
    "maps of one": array_of(16_000, b"\x81\xa1a\xc0"),
    "lists of one": array_of(32_000, b"\x91\xc0"),
    "lists of two": array_of(21_000, b"\x92\x01\x02"),
    "negative integers": array_of(65_000, b"\xf0"),
    "short texts": array_of(65_000, b"\xa2\xc4\x80"),
    "empty tuples": array_of(15_000, ext(values.CODE_TUPLE, b"\x90")),
    "empty sets": array_of(15_000, ext(values.CODE_SET, b"\x90")),
    "decimals": array_of(15_000, ext(values.CODE_DECIMAL, b"1")),
    "sets in a tuple": ext(values.CODE_TUPLE, array_of(12_000, ext(values.CODE_SET, b"\x90"))),
    "empty lists in small tuples": array_of(60, ext(values.CODE_TUPLE, array_of(1_000, b"\x90"))),
    "empty maps in small tuples": array_of(60, ext(values.CODE_TUPLE, array_of(1_000, b"\x80"))),
    "nil": array_of(65_000, b"\xc0"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_heap_is_at_most_64_times_the_wire_even_while_decoding(name):
    blob = BOMBS[name]
    held = None
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        try:
            held = unpack(blob)
        except RemoteProtocolError:
            pass
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(blob) <= MAX_EXPANSION
    assert (peak - before) / len(blob) <= 2 * MAX_EXPANSION, "even with the flat tree beside the values"
    del held


def test_useful_shapes_are_no_bombs():
    unpack(pack([[n, n + 1] for n in range(20_000)]))
    unpack(pack([{"a": n} for n in range(15_000)]))
    unpack(pack(["Тихий океан " * 10] * 500))
    unpack(pack("太平洋" * 10_000))
    unpack(pack(bytes(range(256)) * 4_000))


def seconds(function, *args):
    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        function(*args)
        best = min(best, time.thread_time() - start)
    return best


@pytest.mark.parametrize(
    "make",
    [
        lambda n: pack([2**40 + k for k in range(n)]),
        lambda n: pack({f"key {k:05}": k for k in range(n)}),
        lambda n: pack({f"text {k}" for k in range(n)}),
    ],
)
def test_decode_time_is_linear(make):
    small, large = make(15_000), make(30_000)
    # Quadratic hashing of as many keys takes more than a second; the constant is the noise of a busy machine.
    assert seconds(unpack, large) <= 2.5 * seconds(unpack, small) + 0.05


# -- hashing -------------------------------------------------------------------------------------------------


def colliding(count):
    return [k * (2**61 - 1) for k in range(1, count + 1)]


def set_blob(members):
    encoded = sorted(map(pack, members))
    return ext(values.CODE_SET, array_of(len(encoded), b"")[:3] + b"".join(encoded))


def pairs_blob(keys):
    return ext(values.CODE_PAIRS, array_of(2 * len(keys), b"")[:3] + b"".join(pack(key) + b"\xc0" for key in keys))


@pytest.mark.parametrize("make", [set_blob, pairs_blob])
def test_colliding_keys_are_bounded_for_the_whole_message(make):
    assert len(unpack(make(colliding(1_024)))) == 1_024
    refuse(make(colliding(1_025)), match="max_pair_keys")
    refuse(b"\x92" + make(colliding(600)) + make(colliding(500)), match="max_pair_keys")


def test_most_colliding_keys_that_pass_cost_little():
    assert seconds(unpack, pairs_blob(colliding(1_024))) < 0.25


def test_sets_of_texts_are_not_bounded_as_python_hashes_them_with_a_secret():
    assert len(unpack(pack({f"text {k}" for k in range(5_000)}))) == 5_000


@pytest.mark.parametrize(
    "key", [[], {}, [[1]], {"a": 1}, set()], ids=["list", "map", "nested list", "filled map", "set"]
)
def test_keys_that_cannot_be_hashed_are_protocol_errors(key):
    refuse(ext(values.CODE_PAIRS, b"\x92" + pack(key) + b"\xc0"))
    refuse(ext(values.CODE_SET, b"\x91" + pack(key)))


@pytest.mark.parametrize(
    "blob",
    [
        b"\x81\x01\xc0",
        b"\x81\xc0\xc0",
        b"\x81\xc3\xc0",
        b"\x81\xc4\x01a\xc0",
        b"\x81\x91\x01\xc0",
        b"\x81\x80\xc0",
        b"\x81\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\xc0",
        b"\x81" + ext(values.CODE_TUPLE, b"\x90") + b"\xc0",
        b"\x81" + b"\x91" * 200 + b"\xc0",
    ],
)
def test_map_keys_are_texts_only(blob):
    refuse(blob)
    refuse(b"\x92" + pack("x" * 200) + blob)
    refuse(b"\x92" + pack("x" * 70_000) + blob)


def test_map_keys_are_short():
    assert unpack(b"\x81\xd9\x80" + b"k" * 128 + b"\xc0") == {"k" * 128: None}
    for long in (b"k" * 129, "é".encode() * 65, b"k" * 300):
        blob = b"\x81" + pack(long.decode()) + b"\xc0"
        refuse(blob, match="max_key_bytes")
        refuse(b"\x91" * 5 + blob, match="max_key_bytes")
        refuse(b"\x92" + pack("x" * 70_000) + blob, match="max_key_bytes")


def test_duplicate_keys_are_protocol_errors():
    for blob in (b"\x82\xa1a\x01\xa1a\x01", b"\x82\xa1a\x01\xa1a\x02"):
        refuse(blob)
        refuse(b"\x92" + pack("x" * 70_000) + blob, match="duplicate")


@pytest.mark.parametrize("one", [1, True, 1.0, (1,)])
@pytest.mark.parametrize("other", [1, True, 1.0, (1.0,)])
def test_equal_members_and_keys_are_protocol_errors(one, other):
    if one != other:
        return
    refuse(set_blob([one, other]))
    refuse(pairs_blob([one, other]))


def test_set_members_come_in_order_of_their_encodings():
    assert unpack(ext(values.CODE_SET, b"\x92\x01\x02")) == {1, 2}
    refuse(ext(values.CODE_SET, b"\x92\x02\x01"), match="order")
    refuse(ext(values.CODE_FROZENSET, b"\x92\x01\x01"), match="order")


def test_composed_and_decomposed_text_are_different_keys():
    assert len(unpack(pack({"\u00e9": 1, "e\u0301": 2}))) == 2


# -- scalars -------------------------------------------------------------------------------------------------


def test_huge_integers_are_refused_by_length():
    code = values.CODE_INTEGER
    assert unpack(pack(2**4_096 - 1)) == 2**4_096 - 1
    refuse(ext(code, b"\x01" + bytes(512)), match="max_int_bits")
    refuse(b"\xc9\x00\x10\x00\x00" + bytes((code,)) + b"\x7f" * MIB, match="max_int_bits")
    refuse(b"\xc9\x00\x10\x00\x00" + bytes((code,)) + b"\x80" + bytes(MIB - 1), match="max_int_bits")


@pytest.mark.parametrize(
    "number", [0, 1, -1, 2**63, 2**64 - 1, -(2**63)], ids=["0", "1", "-1", "2^63", "2^64-1", "-2^63"]
)
def test_small_integers_have_no_long_form(number):
    for length in (9, 10, 17):
        refuse(ext(values.CODE_INTEGER, number.to_bytes(length, "big", signed=True)), match="shortest")
    refuse(ext(values.CODE_INTEGER, b""), match="shortest")
    refuse(ext(values.CODE_INTEGER, (2**64).to_bytes(10, "big")), match="shortest")


@pytest.mark.parametrize(
    "text",
    ["", "+1", " 1", "1 ", "1_0", "01", "1.", ".5", "1e5", "1E5", "1E+05", "0E+0", "٣", "sNaN", "NaN1", "nan", "inf",
     "Inf", "+Infinity", "1E+6145", "1E-6145", "1E+999999999", "1" * 5_000, "0x10", "1\n", "1\x00", "100E-1"],
)  # fmt: skip
def test_decimals_have_one_text(text):
    refuse(ext(values.CODE_DECIMAL, text.encode()))


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\xca\x3f\x80\x00\x00",
        b"\xcc\x05",
        b"\xcd\x00\x80",
        b"\xce\x00\x00\xff\xff",
        b"\xcf\x00\x00\x00\x00\xff\xff\xff\xff",
        b"\xd0\x05",
        b"\xd0\xf0",
        b"\xd1\xff\x80",
        b"\xd2\xff\xff\x80\x00",
        b"\xd3\xff\xff\xff\xff\x80\x00\x00\x00",
        b"\xd9\x01a",
        b"\xda\x00\x20" + b"a" * 32,
        b"\xdb\x00\x00\x01\x00" + b"a" * 256,
        b"\xc5\x00\x01a",
        b"\xc6\x00\x00\x01\x00" + b"a" * 256,
        b"\xdc\x00\x01\xc0",
        b"\xdd\x00\x00\x00\x10" + b"\xc0" * 16,
        b"\xde\x00\x01\xa0\xc0",
        b"\xdf\x00\x00\x00\x01\xa0\xc0",
        b"\xc7\x01\x0a1",
        b"\xc7\x10\x10" + bytes(16),
        b"\xc8\x00\x02\x0a12",
        b"\xc9\x00\x00\x01\x00\x0a" + b"1" * 256,
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xd7\xff" + bytes(8),
        b"\xc7\x0c\xff" + bytes(12),
        b"\xc0\xc0",
        b"",
    ],
)
def test_other_encodings_are_protocol_errors_in_small_and_large_values(data):
    refuse(data)
    with pytest.raises(RemoteProtocolError):
        unpack(b"\x92" + pack("x" * 70_000) + data)
    if data[:1] not in (b"\xc0",):
        with pytest.raises(RemoteProtocolError):
            scan(data, DEFAULT_LIMITS)


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\xe2\x82"])
def test_bad_text_is_a_protocol_error_and_no_unicode_error(bad):
    refuse(bytes((0xA0 + len(bad),)) + bad)
    refuse(b"\x81" + bytes((0xA0 + len(bad),)) + bad + b"\xc0")
    refuse(b"\xdb\x00\x01\x11\x70" + bad * (70_000 // len(bad)))


def test_odd_text_is_data():
    for text in ("\x00", "\ufeff", "\u202e", "\U000e0001", "\u0378", "\x1b[2J"):
        assert unpack(pack(text)) == text


@pytest.mark.parametrize("code", [0, 3, 18, 100, 127, -1, -2, -128])
def test_unknown_and_reserved_extensions_are_protocol_errors(code):
    for data in (b"\x00", bytes(4), bytes(8), bytes(12), bytes(300)):
        refuse(ext(code, data))


@pytest.mark.parametrize("code", sorted(values.DECODERS))
def test_extension_payloads_of_wrong_length_are_protocol_errors(code):
    for length in (0, 1, 2, 3, 5, 7, 9, 13, 17, 21, 40):
        blob = ext(code, b"\xff" * length)
        try:
            value = unpack(blob)
        except RemoteProtocolError:
            continue
        assert pack(value) == blob


def test_extension_payloads_of_containers_hold_exactly_one_array():
    for code in (values.CODE_TUPLE, values.CODE_SET, values.CODE_FROZENSET, values.CODE_PAIRS):
        for data in (b"", b"\xc0", b"\x80", b"\x90\xc0", b"\x91", b"\xa1a", b"\xdc\x00\x00"):
            refuse(ext(code, data))
    refuse(ext(values.CODE_PAIRS, b"\x91\x01"), match="last value")
    refuse(ext(values.CODE_PAIRS, b"\x90"), match="map expected")
    refuse(ext(values.CODE_PAIRS, b"\x92\xa1a\x01"), match="map expected")


def test_fields_of_dates_and_times_are_checked():
    for code, blob in {
        values.CODE_DATE: bytes((0, 0, 1, 1)),
        values.CODE_DATETIME: bytes((7, 0xEA, 2, 30, 0, 0, 0, 0, 0, 0, 0, 0)),
        values.CODE_TIME: bytes((24, 0, 0, 0, 0, 0, 0, 0)),
        values.CODE_TIMEDELTA: (0).to_bytes(4, "big") + (86_400).to_bytes(4, "big") + bytes(4),
        values.CODE_TIMEZONE: (86_400_000_000).to_bytes(8, "big"),
        values.CODE_REFERENCE: (2**53).to_bytes(8, "big") + bytes(8),
        values.CODE_OWN_REFERENCE: (2**53).to_bytes(8, "big"),
    }.items():
        refuse(ext(code, blob))
    refuse(ext(values.CODE_TIME, bytes((2, 0, 0, 2, 0, 0, 0, 0))))
    refuse(ext(values.CODE_DATETIME, bytes((7, 0xEA, 2, 3, 0, 0, 0, 2, 0, 0, 0, 0))))


def test_shapes_of_buffers_are_checked():
    def buffer(format_, *shape, items=b""):
        return ext(
            values.CODE_BUFFER,
            bytes((ord(format_), len(shape))) + b"".join(n.to_bytes(8, "big") for n in shape) + items,
        )

    assert unpack(buffer("h", 2, items=b"\x01\x00\x02\x00")).tolist() == [1, 2]
    for blob in (
        buffer("x", 1, items=b"1"),
        buffer("l", 1, items=bytes(8)),
        buffer("P", 1, items=bytes(8)),
        buffer("B", 2, items=b"1"),
        buffer("B", 2**63, items=b""),
        buffer("B", 2**32, 2**32, items=b""),
        buffer("B", 0, 5),
        buffer("B"),
        buffer("B", *([1] * 9), items=b"1"),
        ext(values.CODE_BUFFER, b"B"),
        ext(values.CODE_BUFFER, b"B\x02" + bytes(8)),
    ):
        refuse(blob)


# -- no code -------------------------------------------------------------------------------------------------


def test_foreign_serialisers_payloads_are_refused_or_opaque():
    import marshal
    import pickle
    import plistlib

    payloads = [pickle.dumps(print, protocol) for protocol in range(6)]
    payloads += [
        marshal.dumps({"a": 1}),
        plistlib.dumps({"a": 1}),
        b"!!python/object/apply:os.system [id]",
        b"\x93NUMPY\x01\x00",
    ]
    events = []
    active = True

    def hook(event, _args):
        if active:
            events.append(event)

    sys.addaudithook(hook)
    for payload in payloads:
        assert unpack(pack(payload)) == payload
        try:
            unpack(payload)
        except RemoteProtocolError:
            pass
    unpack(pack([(1,), {2: 3}, {4}, 5j]))
    active = False
    assert [event for event in events if event not in {"object.__getattr__"}] == []
