"""Whatever a peer sends as arguments or result: it fits the declaration exactly, or it is refused with our error."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from caprpc.ids import OP_CALL
from caprpc.interface import ArgumentError, Interface, ResultError, method, shape_of
from caprpc.interfaces import TextLines
from caprpc.wire.values import OwnReference, RemoteReference


class Color(Enum):
    RED = "r"


@dataclass
class Point:
    x: int
    color: Color = Color.RED


class Service(Interface):
    @method(effect="read")
    def scalars(self, a: int, b: str = "x", *, c: float = 1.0) -> bool | None: ...

    @method(effect="read")
    def containers(self, a: list[int], b: dict[str, set[int]], c: tuple[int, str] | None = None) -> dict[str, Any]: ...

    @method(effect="read")
    def records(self, a: Point, b: Sequence[Color], c: Mapping[int, Decimal]) -> list[Point]: ...

    @method(effect="read")
    def dynamic(self, a: Any, b: Literal["a", 1] = 1) -> Any: ...

    @method(effect="read")
    def references(self, a: TextLines | None, b: list[Callable[[], None]]) -> TextLines: ...


class AnyTable:
    """A table in which every reference is of every shape."""

    def read(self, reference, shape):
        return object()

    def write(self, obj, shape, parameter):
        return RemoteReference(1, 1)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "a", "b", "c", "x", "color", "RED", "self", "__class__"]),
    st.binary(max_size=3),
    st.decimals(allow_nan=False),
    st.builds(RemoteReference, st.integers(0, 3), st.integers(0, 3)),
    st.builds(OwnReference, st.integers(0, 3)),
)
HASHABLE = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["a", "x"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from(["a", "b", "c", "x", "color", "self"]), inner, max_size=4),
        st.dictionaries(HASHABLE, inner, max_size=3),
        st.sets(HASHABLE, max_size=3),
    ),
    max_leaves=8,
)
RAW = st.one_of(VALUES, st.tuples(st.lists(VALUES, max_size=4), st.dictionaries(st.text(max_size=2), VALUES)).map(list))
MEMBERS = st.sampled_from(["scalars", "containers", "records", "dynamic", "references"])


def signature(name):
    return shape_of(Service).members[OP_CALL, name].signature


@settings(max_examples=150, deadline=None)
@given(name=MEMBERS, raw=RAW)
def test_arguments_fit_or_are_refused_with_an_argument_error(name, raw):
    try:
        args, kwargs = signature(name).decode_args(raw, AnyTable())
    except ArgumentError:
        return
    assert set(signature(name).named(args, kwargs)) == {p.name for p in signature(name).parameters}


@settings(max_examples=75, deadline=None)
@given(name=MEMBERS, raw=VALUES)
def test_result_fits_or_is_refused_with_a_result_error(name, raw):
    try:
        value = signature(name).decode_result(raw, AnyTable())
    except ResultError:
        return
    # What fits is a value of the declared type: a method of ours could return it.
    again = signature(name).decode_result(signature(name).encode_result(value, AnyTable()), AnyTable())
    assert type(again) is type(value)


@settings(max_examples=75, deadline=None)
@given(name=MEMBERS, args=st.lists(VALUES, max_size=4))
def test_what_the_sender_accepts_the_receiver_accepts(name, args):
    class Refusing(AnyTable):
        def write(self, obj, shape, parameter):
            raise TypeError("no references")

    try:
        raw = signature(name).encode_args(tuple(args), {}, Refusing())
    except TypeError:
        return
    decoded, kwargs = signature(name).decode_args(raw, AnyTable())
    assert len(decoded) + len(kwargs) == len(signature(name).parameters)
