"""Arguments and results are checked exactly, on both sides, before anything runs."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from caprpc.errors import CapRPCError
from caprpc.ids import OP_CALL
from caprpc.interface import ArgumentError, Interface, NoReferences, ResultError, method, shape_of
from caprpc.interfaces import TextLines
from caprpc.wire.codec import pack, unpack, unpack_tree
from caprpc.wire.values import OwnReference, RemoteReference

NOWHERE = NoReferences()


class Service(Interface):
    @method(effect="read")
    def two(self, a: int, b: str) -> int: ...

    @method(effect="read")
    def mixed(self, a: int, /, b: str = "x", *, c: float = 1) -> None: ...

    @method(effect="read")
    def needs_keyword(self, *, key: str) -> None: ...

    @method(effect="read")
    def nothing(self) -> None: ...

    @method(effect="read")
    def table(self, rows: dict[str, list[int]]) -> dict[str, Any]: ...

    @method(effect="read")
    def lend(
        self, lines: TextLines, function: Callable[[str], None], *, again: TextLines | None = None
    ) -> TextLines: ...


def signature(name):
    return shape_of(Service).members[OP_CALL, name].signature


@pytest.mark.parametrize(
    ("args", "kwargs", "raw"),
    [
        ((1,), {}, [[1], {}]),
        ((1, "y"), {}, [[1, "y"], {}]),
        ((1,), {"b": "y", "c": 2.5}, [[1], {"b": "y", "c": 2.5}]),
        ((1,), {"c": 2}, [[1], {"c": 2.0}]),
    ],
)
def test_arguments_travel_as_they_were_passed(args, kwargs, raw):
    assert signature("mixed").encode_args(args, kwargs, NOWHERE) == raw


@pytest.mark.parametrize(
    ("raw", "args", "kwargs"),
    [
        ([[1], {}], [1, "x"], {"c": 1.0}),
        ([[1, "y"], {"c": 3.0}], [1, "y"], {"c": 3.0}),
        ([[1], {"b": "y"}], [1, "y"], {"c": 1.0}),
    ],
)
def test_receiver_fills_in_the_declared_defaults(raw, args, kwargs):
    decoded = signature("mixed").decode_args(raw, NOWHERE)
    assert decoded == (args, kwargs)
    assert type(decoded[1]["c"]) is float


def test_named_gives_every_parameter_for_argument_rules():
    args, kwargs = signature("mixed").decode_args([[1], {}], NOWHERE)
    assert signature("mixed").named(args, kwargs) == {"a": 1, "b": "x", "c": 1.0}


class Sub(int):
    pass


class SubStr(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((True, "x"), {}, r"Service\.two, parameter 'a': expected int, got bool"),
        ((Sub(1), "x"), {}, "expected int, got Sub"),
        ((1, SubStr("x")), {}, "parameter 'b': expected str, got SubStr"),
        ((1, b"x"), {}, "expected str, got bytes"),
        ((1.0, "x"), {}, "expected int, got float"),
        ((None, "x"), {}, "expected int, got NoneType"),
        ((1,), {}, "needs b"),
        ((), {}, "needs a, b"),
        ((1, "x", 3), {}, "takes 2 positional arguments, got 3"),
        ((1, "x"), {"b": "y"}, "b is passed twice"),
        ((1,), {"c": "y"}, "has no parameter 'c'"),
        ((1,), {"self": 1, "b": "x"}, "has no parameter 'self'"),
    ],
)
def test_caller_is_told_which_parameter_and_what_is_expected(args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        signature("two").encode_args(args, kwargs, NOWHERE)


def test_messages_never_hold_the_value():
    with pytest.raises(TypeError) as caught:
        signature("two").encode_args(("top-secret", "x"), {}, NOWHERE)
    assert "top-secret" not in str(caught.value)
    with pytest.raises(ArgumentError) as refused:
        signature("two").decode_args([["top-secret", "x"], {}], NOWHERE)
    assert str(refused.value) == "parameter 'a': expected int"
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_positional_only_parameter_has_no_name():
    with pytest.raises(TypeError, match="no parameter 'a'"):
        signature("mixed").encode_args((), {"a": 1}, NOWHERE)
    with pytest.raises(ArgumentError):
        signature("mixed").decode_args([[], {"a": 1}], NOWHERE)


WIRE_VALUES = [None, True, 1, 1.5, float("nan"), "x", b"x", [], [1], {}, {"a": 1}, (1,), {1}, frozenset(), 1 << 80]
REFERENCES = [RemoteReference(1, 1), OwnReference(1)]


@pytest.mark.parametrize("value", [*WIRE_VALUES, *REFERENCES])
def test_every_other_wire_type_is_refused_for_every_parameter(value):
    for position, expected in enumerate((int, str)):
        if type(value) is expected:
            continue
        raw = [1, "x"]
        raw[position] = value
        with pytest.raises(ArgumentError) as refused:
            signature("two").decode_args([raw, {}], NOWHERE)
        assert (refused.value.parameter, refused.value.expected) == ("ab"[position], expected.__name__)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        [[1, "x"]],
        [[1, "x"], {}, {}],
        ((1, "x"), {}),
        [(1, "x"), {}],
        [[1, "x"], []],
        [[1, "x"], None],
        {"args": [1, "x"]},
        [[], {}],
        [[1], {}],
        [[1, "x", 1], {}],
        [[1, "x"], {"b": "x"}],
        [[1], {"a": 1, "b": "x"}],
        [[1], {"c": "x"}],
        [[1], {"b": "x", "__class__": 1}],
        [[], {"a": 1, "b": "x", "_caller": 1}],
        [[1], {"self": 1}],
        [[1], {"cls": 1}],
        [[1], {"": 1}],
        [[1], {"b\0": "x"}],
        [[1], {"\uff42": "x"}],
    ],
)
def test_arguments_that_do_not_fit_the_signature_are_refused(raw):
    with pytest.raises(ArgumentError):
        signature("two").decode_args(raw, NOWHERE)


@pytest.mark.parametrize("extra", ["zzz", "self", "cls", "__class__", "_policy", "a", "B", "b "])
def test_undeclared_keyword_is_refused_where_everything_needed_is_there(extra):
    with pytest.raises(ArgumentError, match="only the declared parameters"):
        signature("mixed").decode_args([[1], {extra: "x"}], NOWHERE)


def test_keyword_only_parameter_must_come_by_name():
    check = signature("needs_keyword")
    assert check.decode_args([[], {"key": "k"}], NOWHERE) == ([], {"key": "k"})
    for raw in ([[], {}], [["k"], {}], [[], {"key": 1}]):
        with pytest.raises(ArgumentError):
            check.decode_args(raw, NOWHERE)
    with pytest.raises(TypeError, match="needs key"):
        check.encode_args((), {}, NOWHERE)


def test_flood_of_keywords_is_refused_without_looking_at_it():
    flood = {f"k{i}": object() for i in range(100_000)}
    with pytest.raises(ArgumentError, match="at most 2 arguments"):
        signature("two").decode_args([[], flood], NOWHERE)


def test_argument_error_is_ours_and_a_value_error():
    assert issubclass(ArgumentError, CapRPCError)
    assert issubclass(ArgumentError, ValueError)
    assert issubclass(ResultError, TypeError)


def test_wrong_result_of_an_implementation_is_a_local_type_error():
    with pytest.raises(TypeError, match=r"Service\.two does not return int: expected int, got str"):
        signature("two").encode_result("x", NOWHERE)
    with pytest.raises(TypeError, match="does not return None"):
        signature("nothing").encode_result(0, NOWHERE)


@pytest.mark.parametrize("value", [v for v in [*WIRE_VALUES, *REFERENCES] if type(v) is not int])
def test_wrong_answer_of_a_peer_never_reaches_the_caller(value):
    with pytest.raises(ResultError, match=r"answer to .* is not the declared int"):
        signature("two").decode_result(value, NOWHERE)


def test_wrong_answer_of_a_peer_is_told_with_expected_and_received_type():
    with pytest.raises(ResultError, match=r"is not the declared int: expected int, got str$"):
        signature("two").decode_result("a value of the peer", NOWHERE)


def test_references_are_written_with_shape_and_parameter_name(table):
    def function(line: str) -> None:
        """Do nothing."""

    raw = signature("lend").encode_args((_open_lines(), function), {"again": _open_lines()}, table)
    assert raw == [[RemoteReference(1, 1), RemoteReference(2, 1)], {"again": RemoteReference(3, 1)}]
    assert table.shapes == [("TextLines", "lines"), ("Callable", "function"), ("TextLines", "again")]
    args, kwargs = signature("lend").decode_args(unpack(pack(raw)), table)
    assert args[1] is function
    assert list(args[0].readlines()) == ["a\n", "b"]
    assert list(kwargs["again"].readlines()) == ["a\n", "b"]


def _open_lines():
    import io

    return io.StringIO("a\nb")


def test_value_where_a_reference_is_declared_is_refused(table):
    signature("lend").encode_args((_open_lines(), print), {}, table)
    for wrong in WIRE_VALUES:
        with pytest.raises(ArgumentError) as refused:
            signature("lend").decode_args([[wrong, RemoteReference(2, 1)], {}], table)
        assert (refused.value.parameter, refused.value.expected) == ("lines", "TextLines")
        with pytest.raises(ResultError, match="TextLines"):
            signature("lend").decode_result(wrong, table)


def test_reference_of_another_interface_is_refused(table):
    signature("lend").encode_args((_open_lines(), print), {}, table)
    with pytest.raises(ArgumentError) as refused:
        signature("lend").decode_args([[RemoteReference(2, 1), RemoteReference(2, 1)], {}], table)
    assert refused.value.parameter == "lines"


@pytest.mark.parametrize("wrong", [3, "lines", None, object(), int, time, [1], (lambda: None).__code__])
def test_object_that_cannot_stand_for_the_reference_names_the_parameter(wrong, table):
    with pytest.raises(
        TypeError, match=r"Service\.lend, parameter 'lines': expected TextLines, got .*StringIO, TextIOWrapper"
    ):
        signature("lend").encode_args((wrong, print), {}, table)
    assert table.written == []


def test_nothing_is_written_where_an_argument_is_missing_or_unknown(table):
    for args, kwargs in (((_open_lines(),), {}), ((_open_lines(), print), {"unknown": 1})):
        with pytest.raises(TypeError, match="needs function|no parameter 'unknown'"):
            signature("lend").encode_args(args, kwargs, table)
    assert table.written == []


def test_undeclared_object_in_a_result_is_refused():
    for wrong in (object(), Service, time, {"inner": object()}, {"inner": {"deep": [Service]}}, {"f": print}):
        with pytest.raises(TypeError, match=r"Service\.table does not return"):
            signature("table").encode_result(wrong, NOWHERE)


def test_encoded_argument_is_a_snapshot():
    rows = {"a": [1]}
    raw = signature("table").encode_args((rows,), {}, NOWHERE)
    rows["a"].append("not an int")
    rows["b"] = object()
    assert raw == [[{"a": [1]}], {}]


def test_value_that_holds_itself_is_a_type_error():
    loop: dict = {}
    loop["x"] = loop
    with pytest.raises(TypeError, match="holds itself"):
        signature("table").encode_result(loop, NOWHERE)


def test_member_that_takes_references_says_so():
    members = shape_of(Service).members
    assert members[OP_CALL, "lend"].takes_references
    assert not members[OP_CALL, "two"].takes_references
    assert members[OP_CALL, "lend"].signature.returns_references


def test_signature_says_what_travels_as_it_is():
    assert signature("two").scalars == (int, str)
    assert signature("two").scalar_result is int
    assert signature("nothing").scalars == ()
    assert signature("mixed").scalars is None
    assert signature("table").scalars is None
    assert signature("table").scalar_result is None
    assert signature("lend").scalars is None


class Loose(Interface):
    @method(effect="read")
    def take(self, anything: Any, table: dict[str, Any], rows: list[Any], note: str | None) -> dict[str, Any]: ...

    @method(effect="read")
    def strict(self, rows: list[int]) -> list[int]: ...

    @method(effect="read")
    def ordered(self, rows: dict[int, Any], /, *, more: Any) -> float: ...


def loose(name):
    return shape_of(Loose).members[OP_CALL, name].signature


FITTING = [[1, {"x": [2]}], {"a": {"b": None}}, [[], "y"], None]


def test_plain_values_of_open_types_pass_as_they_are():
    take = loose("take")
    assert take.passes(FITTING)
    args, kwargs = take.decode_args([FITTING, {}], NOWHERE, plain=True)
    assert args is FITTING
    assert kwargs == {}
    result = {"a": [{"b": 1}]}
    assert take.decode_result(result, NOWHERE, plain=True) is result
    assert take.decode_args([FITTING, {}], NOWHERE) == take.decode_args([FITTING, {}], NOWHERE, plain=True)


@pytest.mark.parametrize(
    "args",
    [
        [1, [], [], None],
        [1, {}, {}, None],
        [1, {}, [], 1],
        [1, {}, []],
        [1, {}, [], None, None],
        [(1,), {}, [], None],
    ],
)
def test_plain_values_of_other_types_are_looked_at(args):
    assert not loose("take").passes(args)


def test_types_that_say_what_is_in_them_are_looked_at():
    for name in ("strict", "ordered"):
        assert not loose(name).passes([[1]])
        assert not loose(name).passes([{1: 2}])
    with pytest.raises(ArgumentError):
        loose("strict").decode_args([[["x"]], {}], NOWHERE, plain=True)
    with pytest.raises(ResultError):
        loose("strict").decode_result(["x"], NOWHERE, plain=True)
    with pytest.raises(ResultError):
        loose("take").decode_result([], NOWHERE, plain=True)


@pytest.mark.parametrize("reference", [RemoteReference(1, 1), OwnReference(1)])
def test_references_in_open_types_are_refused(reference):
    for holder in (reference, [reference], {"a": [reference]}):
        raw, plain = unpack_tree(pack([[holder, {}, [], None], {}]))
        with pytest.raises(ArgumentError):
            loose("take").decode_args(raw, NOWHERE, plain=plain)
        raw, plain = unpack_tree(pack({"a": holder}))
        with pytest.raises(ResultError):
            loose("take").decode_result(raw, NOWHERE, plain=plain)
