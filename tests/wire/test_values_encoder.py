"""The encoder keeps the receiver's limits: what cannot travel ends here, in one helpful local error (CAP-CO-16)."""

import threading
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprpc.limits import DEFAULT_LIMITS
from caprpc.wire.codec import pack, pack_plain, pack_plain_call, pack_scalars, unpack, unpack_tree
from caprpc.wire.trees import plain_copy
from caprpc.wire.values import RemoteReference


class Text(str):
    pass


class Number(int):
    pass


class Level(IntEnum):
    HIGH = 1


Point = namedtuple("Point", "x y")


@dataclass
class Record:
    secret: str = "canary"


class Struct(msgspec.Struct):
    secret: str = "canary"


class Hostile:
    """Every hook of it is a trap."""

    def trap(self, *_args):
        raise AssertionError("the encoder called a hook of the value")

    __repr__ = __str__ = __hash__ = __eq__ = __iter__ = __len__ = __bool__ = __reduce_ex__ = __bytes__ = __index__ = (
        trap
    )
    keys = values = items = trap

    @property
    def __class__(self):
        return dict


def endless():
    while True:
        yield 1


@pytest.mark.parametrize(
    "value",
    [
        Text("a"),
        Number(1),
        Level.HIGH,
        Point(1, 2),
        Record(),
        Struct(),
        Hostile(),
        OrderedDict(a=1),
        UserDict(a=1),
        Fraction(1, 2),
        object(),
        object,
        len,
        endless(),
        iter([]),
        range(3),
        {}.keys(),
        bytearray(b"a"),
        NotImplemented,
        ...,
        ValueError("canary"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_other_types_do_not_travel_alone_or_inside(value):
    for holder in (value, [value], [[1], value], {"a": value}, (value,), {1: value}, [1, [{"k": (value,)}]]):
        with pytest.raises(TypeError, match="cannot be sent") as caught:
            pack(holder)
        assert len(str(caught.value)) < 200
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "key", [Text("a"), Number(1), Level.HIGH, Point(1, 2), object()], ids=lambda v: type(v).__name__
)
def test_other_types_do_not_travel_as_keys_or_members(key):
    for holder in ({key: 1}, {"b": 1, key: 2}, {key}, frozenset({key}), {(key,): 1}):
        with pytest.raises(TypeError, match="cannot be sent"):
            pack(holder)


@pytest.mark.parametrize("scalar", [None, True, 7, -(2**63), 2**64, -(2**100), 1.5, "text", b"bytes"])
def test_scalars_have_the_same_encoding_by_the_short_way(scalar):
    assert pack_scalars(scalar) == pack(scalar)
    assert pack_scalars(((scalar, 1), {})) == pack([[scalar, 1], {}])


def test_scalars_by_the_short_way_have_the_same_errors():
    with pytest.raises(ValueError, match="surrogate"):
        pack_scalars((("\ud800",), {}))
    with pytest.raises(ValueError, match="max_int_bits"):
        pack_scalars(((2**5_000,), {}))


PLAIN_TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
TREES = st.recursive(
    PLAIN_TREES | st.decimals() | st.dates(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.integers() | st.text(), inner),
)
NARROW = replace(DEFAULT_LIMITS, max_depth=4, max_items=24, max_key_bytes=8, max_int_bits=72)


def test_peer_that_takes_only_the_shortest_keys_gets_no_longer_ones_by_the_short_way():
    for key in ("12345678", "123456789", "0\U00010000\U00010000", "k" * 31):
        fits = len(key.encode()) <= NARROW.max_key_bytes
        assert (pack_plain({key: None}, NARROW) is not None) is fits
        assert (pack_plain_call(({key: None},), NARROW) is not None) is fits


@given(TREES)
@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, NARROW], ids=["default", "narrow"])
def test_plain_trees_have_the_same_encoding_by_the_short_way(limits, tree):
    for short, value in ((pack_plain(tree, limits), tree), (pack_plain_call((tree, 1), limits), [[tree, 1], {}])):
        if short is not None:
            assert short == pack(value, limits)


@pytest.mark.parametrize("tree", [[], {}, {"a": [1, {"b": None}], "c": "x" * 200}, [[["y"]]], [True, 1.5, b"z"], 7])
def test_the_short_way_is_taken_for_plain_trees(tree):
    assert pack_plain(tree) == pack(tree)
    assert pack_plain_call((tree,)) == pack([[tree], {}])


@pytest.mark.parametrize(
    "tree",
    [
        *(Text("a"), Number(1), Level.HIGH, Point(1, 2), Record(), Hostile(), OrderedDict(a=1), (1,), {1}),
        *(Decimal(1), object(), {1: 2}, {Text("a"): 1}, {b"a": 1}, {"k" * 129: 1}, {"a": {"k" * 129: "x" * 200}}),
        *(2**70, [2**70], "\ud800", {"\ud800": 1}),
    ],
    ids=lambda v: type(v).__name__,
)
def test_the_short_way_leaves_everything_else_to_the_long_one(tree):
    for holder in (tree, [tree], {"a": [tree]}):
        assert pack_plain(holder) is None
        assert pack_plain_call((1, holder)) is None


@pytest.mark.parametrize("most", range(1, 6))
def test_the_short_way_opens_no_more_containers_than_the_receiver_does(most):
    limits = replace(DEFAULT_LIMITS, max_depth=most)
    tree = 1
    for opened in range(1, 8):
        tree = {"a": tree} if opened % 2 else [tree]
        assert (pack_plain(tree, limits) is not None) == (opened <= most)
        assert (pack_plain_call((tree,), limits) is not None) == (opened + 2 <= most)
    assert (pack_plain_call((1,), limits) is not None) == (most >= 2)
    tree = []
    tree.append(tree)
    assert pack_plain(tree, limits) is None


def test_the_short_way_sends_no_more_than_the_receiver_takes():
    for value, limits in (
        ([1] * 30, replace(DEFAULT_LIMITS, max_items=29)),
        ({str(i): i for i in range(15)}, replace(DEFAULT_LIMITS, max_items=29)),
        ([{}] * 9_000, DEFAULT_LIMITS),
    ):
        with pytest.raises(ValueError, match=r"limits\.max_items|memory"):
            pack(value, limits)
        assert pack_plain(value, limits) is None
    assert unpack(pack_plain([1] * 30, replace(DEFAULT_LIMITS, max_items=31))) == [1] * 30


def test_the_short_way_encodes_a_copy():
    """What another thread does to a value in between changes nothing in what is sent."""
    inner = {"b": [1, {"c": 2}]}
    copy = plain_copy(inner, 8)
    inner["b"][1][7] = object()
    inner["b"].append(Text("x"))
    assert copy == {"b": [1, {"c": 2}]}


@given(TREES)
def test_a_value_is_plain_if_no_extension_is_in_it(tree):
    try:
        blob = pack(tree)
    except ValueError:
        return
    value, plain = unpack_tree(blob)
    assert plain == (pack_plain(value) is not None)


def test_a_reference_is_never_in_a_plain_value():
    reference = RemoteReference(1, 1)
    for holder in (reference, [reference], {"a": [reference]}, [[{"a": reference}], {}], (reference,)):
        assert unpack_tree(pack(holder)) == (holder, False)


def test_hint_says_what_to_pass_instead():
    with pytest.raises(TypeError, match=r"bytes\(value\)"):
        pack(bytearray(b"a"))
    with pytest.raises(TypeError, match="Iterator"):
        pack(endless())


def test_cyclic_values_end_in_a_bounded_error():
    cyclic_list = []
    cyclic_list.append(cyclic_list)
    cyclic_dict = {}
    cyclic_dict["a"] = cyclic_dict
    wide = []
    wide.extend([wide] * 1_000)
    through_tuple = []
    through_tuple.append((through_tuple,))
    through_pairs = {}
    through_pairs[1] = [through_pairs]
    for value in (cyclic_list, cyclic_dict, wide, through_tuple, through_pairs):
        with pytest.raises(ValueError, match=r"max_depth|max_items"):
            pack(value)


@pytest.mark.parametrize("container", [list, tuple], ids=["list", "tuple"])
def test_shared_references_are_charged_for_each_occurrence(container):
    value = container([1] * 10)
    for _ in range(25):
        value = container([value] * 10)
    with pytest.raises(ValueError, match="max_items"):
        pack(value)


def test_depth_is_bounded_as_in_the_decoder():
    value = None
    for _ in range(32):
        value = [value]
    assert unpack(pack(value)) == value
    mixed = None
    for depth in range(32):
        mixed = ([mixed], {"a": mixed}, (mixed,), {1: mixed})[depth % 4]
    assert unpack(pack(mixed)) == mixed
    for holder in ([value], {"a": value}, (value,), {1: value}, [mixed]):
        with pytest.raises(ValueError, match="max_depth"):
            pack(holder)


def test_items_are_bounded_as_in_the_decoder():
    assert len(unpack(pack([None] * 65_535))) == 65_535
    assert len(unpack(pack(dict.fromkeys(map(str, range(32_767)))))) == 32_767
    for value in ([None] * 65_536, dict.fromkeys(map(str, range(32_768))), [[None] * 40_000] * 2, [1j] * 16_384):
        with pytest.raises(ValueError, match="max_items"):
            pack(value)
    assert len(unpack(pack([1j] * 16_383))) == 16_383


@pytest.mark.parametrize("value", [[1, [2, {"a": 3}]], [(1, 2), {3}], {1: [2]}, [2**70, {"k": 1j}]])
def test_encoder_and_decoder_count_alike(value):
    encoded = pack(value)
    for most in range(1, 20):
        limits = replace(DEFAULT_LIMITS, max_items=most)
        try:
            pack(value, limits)
        except ValueError:
            with pytest.raises(Exception, match="max_items"):
                unpack(encoded, limits)
        else:
            assert unpack(encoded, limits) == value


@pytest.mark.parametrize(
    ("value", "knob"),
    [
        (2**4_096, "max_int_bits"),
        (-(2**4_096), "max_int_bits"),
        ([2**100_000], "max_int_bits"),
        (Decimal("1" * 5_000), "max_int_bits"),
        ({"k" * 129: 1}, "max_key_bytes"),
        ({"é" * 65: 1}, "max_key_bytes"),
        ({"a": {"k" * 200: 1}}, "max_key_bytes"),
        (dict.fromkeys(range(1_025)), "max_pair_keys"),
        (set(range(1_025)), "max_pair_keys"),
        ([Decimal("1E+7000")], "exponent"),
        ([Decimal("sNaN")], "quiet"),
        ([Decimal("NaN123")], "quiet"),
        ("\ud800", "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        ({1: "\ud800"}, "surrogate"),
        ({float("nan"), float("nan")}, "NaN"),
        (memoryview(b"abcdef")[::2], "contiguous"),
        (memoryview(bytes(8)).cast("P"), "formats"),
        (memoryview(b"a").cast("B", ()), "dimensions"),
    ],
)
def test_limits_are_named_in_the_error(value, knob):
    with pytest.raises(ValueError, match=knob) as caught:
        pack(value)
    assert len(str(caught.value)) < 200


def test_values_that_the_receiver_would_find_too_large_in_memory_are_refused_here():
    for value in ([[]] * 10_000, [{}] * 10_000, [set()] * 5_000):
        with pytest.raises(ValueError, match="memory"):
            pack(value)


def test_a_run_of_calls_without_arguments_is_no_bomb():
    assert len(unpack(pack([[[], {}]] * 2_000))) == 2_000


def test_huge_integers_are_refused_without_becoming_text():
    """``str()`` of more than 4,300 digits raises, also inside an error message."""
    with pytest.raises(ValueError, match="max_int_bits"):
        pack([1 << 1_000_000])


def test_what_is_encoded_is_a_snapshot():
    """The application's own containers are never changed."""
    inner = {"a": (1,), "b": 2**70}
    value = [inner, [datetime(2026, 1, 1)]]
    before = repr(value)
    pack(value)
    assert repr(value) == before


def test_encoding_while_others_change_the_value_never_corrupts():
    shared = [{f"k{n}": n for n in range(50)} for _ in range(20)]
    stop = threading.Event()

    def change():
        while not stop.is_set():
            shared[0]["new"] = 1
            del shared[0]["new"]
            shared.append((1, 2))
            shared.pop()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            try:
                encoded = pack([shared, (1,)])
            except ValueError:
                continue
            unpack(encoded)
    finally:
        stop.set()
        thread.join()


def test_many_threads_may_encode_at_once():
    wrong = []

    def work(number):
        value = [number, (number,), {"n": str(number) * 50}]
        for _ in range(300):
            if unpack(pack(value)) != value:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
