"""Every declared value type: what goes in comes out with its exact type; everything else is refused."""

import os
import threading
from array import array
from collections import ChainMap, UserDict
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal, NewType, Optional
from uuid import UUID

import msgspec
import pytest

from caprpc.interface import Mismatch, NoReferences
from caprpc.interface.compile import Compiler
from caprpc.wire.codec import pack, unpack
from caprpc.wire.values import OwnReference, RemoteReference

NOWHERE = NoReferences()
Account = NewType("Account", str)


class Color(Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796
    BLUE = "b"


class Level(IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Tree:
    name: str
    children: "tuple[Tree, ...]" = ()


@dataclass
class Positive:
    amount: int

    def __post_init__(self) -> None:
        if self.amount <= 0:
            raise ValueError("not positive")


class Order(msgspec.Struct):
    item: str
    price: Decimal
    where: Point | None = None


def form(annotation):
    return Compiler("Test", lambda _annotation: None).form(annotation)


def round_trip(annotation, value):
    compiled = form(annotation)
    raw = compiled.encode(value, NOWHERE, "value")
    return compiled.decode(unpack(pack(raw)), NOWHERE)


def types_within(value):
    """Return the exact types all through a value."""
    if type(value) is dict:
        return [dict, *((types_within(k), types_within(v)) for k, v in value.items())]
    if type(value) in (list, tuple):
        return [type(value), *map(types_within, value)]
    return type(value)


SAMPLES = [
    (type(None), None),
    (bool, True),
    (int, -(1 << 100)),
    (float, 1.5),
    (complex, 1 + 2j),
    (str, "ünï"),
    (bytes, b"\0\xff"),
    (Decimal, Decimal("1.50")),
    (UUID, UUID(int=7)),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    (date, date(2026, 1, 2)),
    (time, time(1, 2, 3)),
    (timedelta, timedelta(days=-1, microseconds=3)),
    (timezone, timezone(timedelta(hours=2))),
    (Account, "acme"),
    (Annotated[int, "cents"], 3),
    (list[int], [1, 2]),
    (list[list[str]], [["a"], []]),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[()], ()),
    (dict[str, int], {"a": 1}),
    (dict[int, list[float]], {1: [1.0]}),
    (dict[Color, int], {Color.BLUE: 2}),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (Literal["a", 1, None], 1),
    (Optional[int], None),  # noqa: UP045
    (int | str | None, "x"),
    (int | float, 1),
    (list[int | str], [1, "a"]),
    (Color, Color.CRIMSON),
    (Level, Level.LOW),
    (Point, Point(1, 2.0)),
    (list[Point], [Point(1, 2.0)]),
    (Tree, Tree("root", (Tree("leaf"),))),
    (Order, Order("tea", Decimal("2.10"), Point(1, 1.0))),
    (Any, {"a": [1, (2, {3}, frozenset({"x"}))], "b": {1: Decimal(2), (1, "k"): UUID(int=1)}, "c": None}),
    (Any, 1 + 1j),
    (list[Any], [[1], (2,), None, True]),
    (dict[str, Any], {"a": {"b": [datetime(2026, 1, 1)]}}),
]


@pytest.mark.parametrize(("annotation", "value"), SAMPLES, ids=[str(i) for i in range(len(SAMPLES))])
def test_value_comes_back_equal_and_of_the_same_type(annotation, value):
    back = round_trip(annotation, value)
    assert back == value
    assert types_within(back) == types_within(value)


REFUSED = [
    (int, True),
    (int, Level.LOW),
    (bool, 1),
    (float, True),
    (float, Decimal(1)),
    (str, b"x"),
    (bytes, bytearray(b"x")),
    (date, datetime(2026, 1, 1)),
    (list[int], (1,)),
    (list[int], [1, True]),
    (list[int], [1, "a"]),
    (tuple[int, str], (1,)),
    (tuple[int, str], (1, "a", 2)),
    (tuple[int, ...], [1]),
    (dict[str, int], {1: 1}),
    (dict[str, int], {"a": True}),
    (set[int], frozenset({1})),
    (set[int], {"a"}),
    (Literal["a", 1], True),
    (Literal["a", 1], "b"),
    (int | None, "x"),
    (int | str, 1.0),
    (Color, "RED"),
    (Color, 1),
    (Color, Level.LOW),
    (Point, {"x": 1, "y": 1.0}),
    (Point, Point("no", 1.0)),
    (Any, object()),
    (Any, [object]),
    (Any, {"a": {"b": print}}),
    (Any, RemoteReference(0, 0)),
    (Any, [OwnReference(1)]),
    (Any, Color.RED),
    (Any, Point(1, 1.0)),
    (list[Any], [RemoteReference(0, 0)]),
]


@pytest.mark.parametrize(("annotation", "value"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_other_values_are_refused_by_the_sender(annotation, value):
    with pytest.raises(Mismatch):
        form(annotation).encode(value, NOWHERE, "value")


RAW_REFUSED = [
    (float, 1),
    (int, True),
    (Color, "PURPLE"),
    (Color, "CRIMSON"),
    (Color, 1),
    (Color, ["RED"]),
    (Point, {"x": 1}),
    (Point, {"x": 1, "y": 1.0, "z": 1}),
    (Point, {"x": 1, "__class__": 1.0}),
    (Point, [1, 1.0]),
    (Point, {"x": True, "y": 1.0}),
    (Positive, {"amount": -1}),
    (Order, {"item": "tea"}),
    (Any, RemoteReference(1, 1)),
    (Any, [1, [OwnReference(1)]]),
    (Any, {"a": {"b": RemoteReference(1, 1)}}),
    (Any, {(1, RemoteReference(1, 1)): 1}),
    (dict[str, Any], {"a": RemoteReference(1, 1)}),
    (tuple[int, ...], [1]),
    (tuple[int, str], [1, "a"]),
    (tuple[int, int], RemoteReference(1, 1)),
    (tuple[int, ...], RemoteReference(1, 1)),
    (list[tuple[int, int]], [RemoteReference(1, 1)]),
    (Sequence[int], (1,)),
    (Literal[1], True),
]


@pytest.mark.parametrize(("annotation", "raw"), RAW_REFUSED, ids=[str(i) for i in range(len(RAW_REFUSED))])
def test_other_raw_trees_are_refused_by_the_receiver(annotation, raw):
    with pytest.raises(Mismatch):
        form(annotation).decode(raw, NOWHERE)


def test_integer_becomes_a_float_at_the_sender_only():
    assert type(form(float).encode(3, NOWHERE, "x")) is float
    assert form(list[float]).encode([1, 2.5], NOWHERE, "x") == [1.0, 2.5]
    with pytest.raises(Mismatch, match="too large"):
        form(float).encode(10**400, NOWHERE, "x")


def test_enumeration_travels_by_name():
    assert form(Color).encode(Color.CRIMSON, NOWHERE, "x") == "RED"


def test_sequence_arrives_as_a_tuple_and_mapping_as_a_view():
    assert round_trip(Sequence[int], [1, 2]) == (1, 2)
    assert round_trip(Sequence[int], (1, 2)) == (1, 2)
    arrived = round_trip(Mapping[str, int], {"a": 1})
    assert type(arrived) is MappingProxyType
    assert arrived == {"a": 1}
    assert form(Mapping[str, int]).encode(arrived, NOWHERE, "x") == {"a": 1}


def test_view_of_something_else_than_a_dict_is_refused():
    for other in (UserDict(a=1), ChainMap({"a": 1}), os.environ):
        with pytest.raises(Mismatch):
            form(Mapping[str, int]).encode(MappingProxyType(other), NOWHERE, "x")


def test_array_arrives_as_a_read_only_view():
    back = round_trip(memoryview, array("d", [1.0, 2.0]))
    assert back.tolist() == [1.0, 2.0]
    assert back.readonly


@pytest.mark.parametrize("annotation", [list[int], list[Any], Any, list[list[int]], list[int | None], Sequence[int]])
def test_list_is_copied_before_it_is_checked(annotation):
    value = [[1]] if annotation == list[list[int]] else [1]
    raw = form(annotation).encode(value, NOWHERE, "x")
    value.append(object())
    if type(value[0]) is list:
        value[0].append(object())
    assert raw in ([1], [[1]])


@pytest.mark.parametrize("annotation", [dict[str, int], dict[str, Any], Any, Mapping[str, int]])
def test_dict_is_copied_before_it_is_checked(annotation):
    value = {"a": 1}
    raw = form(annotation).encode(value, NOWHERE, "x")
    value["a"] = object()
    assert raw == {"a": 1}


def test_mutation_by_another_thread_never_slips_past_the_check():
    shared = [1] * 1000
    stop = threading.Event()

    def mutate():
        while not stop.is_set():
            shared[-1] = "bad"
            shared[-1] = 1

    thread = threading.Thread(target=mutate)
    thread.start()
    try:
        compiled = form(list[int])
        for _ in range(300):
            try:
                raw = compiled.encode(shared, NOWHERE, "x")
            except Mismatch:
                continue
            assert set(map(type, raw)) == {int}
    finally:
        stop.set()
        thread.join()


def test_record_without_an_attribute_is_refused():
    point = Point(1, 1.0)
    del point.x
    with pytest.raises(Mismatch, match="without it"):
        form(Point).encode(point, NOWHERE, "x")


def test_subclass_of_a_record_does_not_pass():
    @dataclass
    class Point3(Point):
        z: int = 0

    with pytest.raises(Mismatch):
        form(Point).encode(Point3(1), NOWHERE, "x")


def test_post_init_runs_and_its_error_is_a_mismatch():
    assert form(Positive).decode({"amount": 1}, NOWHERE) == Positive(1)
    with pytest.raises(Mismatch, match="a valid Positive") as caught:
        form(Positive).decode({"amount": 0}, NOWHERE)
    assert "not positive" not in str(caught.value)


def test_hostile_value_runs_no_code_of_its_own():
    class Hostile:
        @property
        def __class__(self):
            raise AssertionError("__class__ was asked")

        def __eq__(self, other):
            raise AssertionError("compared")

        def __hash__(self):
            raise AssertionError("hashed")

        def __repr__(self):
            raise AssertionError("shown")

    for annotation in (int, Any, Literal[1], int | None, list[int], Color, Point, float):
        value = [Hostile()] if annotation == list[int] else Hostile()
        with pytest.raises(Mismatch):
            form(annotation).encode(value, NOWHERE, "x")


def test_any_is_bounded_in_depth():
    deep: list = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(Mismatch, match="nested too deep"):
        form(Any).encode(deep, NOWHERE, "x")


class Mask(Flag):
    A = 1


@dataclass
class WithInitVar:
    a: InitVar[int]


@dataclass
class WithoutInit:
    a: int = field(init=False)


@dataclass
class WithPrivate:
    _a: int


@dataclass
class WithObject:
    a: threading.Thread


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Mask, "Flag"),
        (WithInitVar, "InitVar"),
        (WithoutInit, "init=False"),
        (WithPrivate, "leading underscore"),
        (WithObject, "Thread cannot cross"),
        (Point | Order, "look alike"),
        (Color | str, "look alike"),
        (Literal["a"] | str, "look alike"),
        (Literal[Color.RED], "str, int, bool, bytes and None only"),
        (dict[memoryview, int], "cannot be a key"),
        (dict[tuple[int, ...], int], "cannot be a key"),
        (type, "classes never cross"),
        (type[int], "cannot cross"),
        (bytearray, "write bytes"),
    ],
)
def test_annotation_that_cannot_cross_says_why(annotation, message):
    with pytest.raises(TypeError, match=message):
        form(annotation)
