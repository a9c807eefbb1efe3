"""Values: each type comes back as exactly that type, from exactly one encoding."""

import decimal
import math
from array import array
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprpc.errors import RemoteProtocolError
from caprpc.wire.codec import pack, unpack
from caprpc.wire.values import OwnReference, RemoteReference

ODD_ZONE = timezone(timedelta(hours=-3, seconds=7, microseconds=5))

VALUES = [
    None,
    True,
    False,
    *(
        sign * n + d
        for sign in (1, -1)
        for n in (0, 32, 127, 255, 65_535, 2**31, 2**32, 2**63, 2**64)
        for d in (-1, 0, 1)
    ),
    2**4_096 - 1,
    -(2**4_096) + 1,
    0.0,
    -0.0,
    1.5,
    5e-324,
    math.inf,
    -math.inf,
    complex(-0.0, math.inf),
    "",
    "é😀\x00\ufeff",
    "x" * 70_000,
    b"",
    b"\xff" * 70_000,
    (),
    ((), (1,)),
    [],
    [[], [()]],
    {},
    {"": None, "k" * 128: {}},
    {1: "int", "1": "str", (1, 2): [3], None: {}, b"1": 1, 2.5: 2, frozenset({1}): 3},
    set(),
    {1, 2, 3},
    {"a", b"b", 1, None, (1, ("x",))},
    {f"text {i}" for i in range(3_000)},
    frozenset(),
    frozenset({frozenset({1}), 2**70}),
    datetime(2026, 1, 2, 3, 4, 5, 6),
    datetime(2026, 10, 25, 2, 30, fold=1),
    datetime(1, 1, 1, tzinfo=ODD_ZONE),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    date(1, 1, 1),
    time(23, 59, 59, 999_999),
    time(2, fold=1, tzinfo=ODD_ZONE),
    timedelta(days=-999_999_999),
    timedelta(days=999_999_999, seconds=86_399, microseconds=999_999),
    UTC,
    ODD_ZONE,
    Decimal("1.50"),
    Decimal("-0"),
    Decimal("0.00"),
    Decimal("1E+5"),
    Decimal("1E-6144"),
    Decimal("1." + "0" * 1_000),
    Decimal("-Infinity"),
    UUID(int=0),
    UUID(int=2**128 - 1),
    RemoteReference(1, 2),
    RemoteReference(2**53 - 1, 2**53 - 1),
    OwnReference(0),
]


def same(one, other):
    """Say whether two values are of the same types throughout, and equal, the sign of zero included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return same(sorted(map(pack, one)), sorted(map(pack, other)))
    if isinstance(one, datetime | time):
        return repr(one) == repr(other)
    if isinstance(one, float | complex | Decimal):
        return repr(one) == repr(other)
    return one == other


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_value_comes_back_with_its_exact_type(value):
    encoded = pack(value)
    assert same(unpack(encoded), value)
    assert pack(unpack(encoded)) == encoded


def test_all_values_survive_in_one_list():
    assert same(unpack(pack(VALUES[:-3])), VALUES[:-3])


def test_bool_is_not_an_int_and_a_tuple_is_not_a_list():
    assert [type(v) for v in unpack(pack([True, 1, (1,), [1]]))] == [bool, int, tuple, list]


def test_nan_keeps_its_bits():
    nan = float("nan")
    assert pack(unpack(pack([nan, -nan]))) == pack([nan, -nan])
    assert math.isnan(unpack(pack(nan)))
    assert str(unpack(pack(Decimal("-NaN")))) == "-NaN"


def test_dict_order_is_kept():
    assert list(unpack(pack({"b": 1, "a": 2}))) == ["b", "a"]
    assert list(unpack(pack({2: 1, "a": 2, 1: 3}))) == [2, "a", 1]


def test_equal_sets_have_equal_encodings():
    assert pack({"a", "b", 1, (2,)}) == pack({(2,), 1, "b", "a"})


def test_only_the_offset_of_a_zone_travels():
    paris = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1)
    back = unpack(pack(paris))
    assert type(back.tzinfo) is timezone
    assert (back.utcoffset(), back.fold, back.hour) == (timedelta(hours=1), 1, 2)
    with pytest.raises(ValueError, match="offset"):
        pack(time(2, tzinfo=ZoneInfo("Europe/Paris")))


def test_decimal_text_does_not_depend_on_the_thread_context():
    with decimal.localcontext() as context:
        context.capitals = 0
        context.prec = 2
        encoded = pack(Decimal("1.2345E+30"))
        assert str(unpack(encoded)) == "1.2345e+30"
    assert encoded == pack(Decimal("1.2345E+30"))


@pytest.mark.parametrize(
    ("buffer", "format_", "shape"),
    [
        (memoryview(b"abc"), "B", (3,)),
        (memoryview(b""), "B", (0,)),
        (array("d", [1.5, -2.5]), "d", (2,)),
        (array("l", [1, -2]), "q", (2,)),
        (array("H"), "H", (0,)),
        (memoryview(array("f", range(24))).cast("B").cast("f", (2, 3, 4)), "f", (2, 3, 4)),
        (memoryview(b"\x00\x01").cast("?"), "?", (2,)),
    ],
)
def test_buffer_comes_back_as_a_read_only_view_of_its_format_and_shape(buffer, format_, shape):
    back = unpack(pack(buffer))
    assert type(back) is memoryview
    assert back.readonly
    assert (back.format, back.shape) == (format_, shape)
    assert back.tolist() == memoryview(buffer).tolist()
    assert pack(back) == pack(buffer)


def test_buffer_items_are_little_endian():
    assert pack(array("H", [0x0102])).endswith(b"\x02\x01")


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**4_000), 2**4_000),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.datetimes(timezones=st.one_of(st.none(), st.just(UTC), st.just(ODD_ZONE))),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False, places=None),
    st.uuids(),
)
keys = st.recursive(scalars, lambda k: st.one_of(st.tuples(k, k), st.frozensets(k, max_size=3)), max_leaves=4)
values = st.recursive(
    scalars,
    lambda v: st.one_of(
        st.lists(v, max_size=5),
        st.lists(v, max_size=5).map(tuple),
        st.dictionaries(st.text(max_size=20), v, max_size=5),
        st.dictionaries(keys, v, max_size=5),
        st.sets(keys, max_size=5),
        st.frozensets(keys, max_size=5),
    ),
    max_leaves=30,
)


@given(values)
def test_any_value_survives_in_one_form(value):
    encoded = pack(value)
    back = unpack(encoded)
    assert same(back, value)
    assert pack(back) == encoded


@given(values, st.integers(0, 10_000), st.integers(0, 255))
def test_mutated_bytes_end_in_a_value_of_that_form_or_a_protocol_error(value, position, byte):
    blob = bytearray(pack(value))
    blob[position % len(blob)] = byte
    blob = bytes(blob)
    try:
        back = unpack(blob)
    except RemoteProtocolError:
        return
    assert pack(back) == blob


@given(st.binary(max_size=100))
def test_random_bytes_end_in_a_value_of_that_form_or_a_protocol_error(blob):
    try:
        back = unpack(blob)
    except RemoteProtocolError:
        return
    assert pack(back) == blob
