"""Errors that may be declared, and how they are made again without running code of their class."""

import pytest

from caprpc import ConnectionLost, Interface, RemoteError, method
from caprpc.errors import rebuilt
from caprpc.ids import OP_COMPARE
from caprpc.interface import shape_of


class Weird(Exception):
    def __new__(cls, *args, **kwargs):
        raise AssertionError("the constructor ran")

    def __init__(self, one, two, *, three):
        raise AssertionError("the constructor ran")

    def __setattr__(self, name, value):
        raise AssertionError("an attribute was set")


class WeirdFile(OSError):
    def __init__(self, path):
        raise AssertionError("the constructor ran")


@pytest.mark.parametrize("kind", [Weird, WeirdFile, KeyError, OSError, UnicodeDecodeError, ValueError, SyntaxError])
def test_an_error_is_made_again_without_running_its_constructor(kind):
    error = rebuilt(kind, "the text")
    assert type(error) is kind
    assert error.args == ("the text",)


class Broken(ConnectionLost):
    pass


@pytest.mark.parametrize(
    "kind", [StopIteration, StopAsyncIteration, ExceptionGroup, RemoteError, ConnectionLost, Broken]
)
def test_what_means_something_here_cannot_be_declared(kind):
    with pytest.raises(TypeError, match="a peer must not raise"):
        method(effect="read", errors=(kind,))


def test_comparisons_take_one_thing_and_return_whether():
    with pytest.raises(TypeError, match="is a comparison"):

        class NoOther(Interface):
            @method(effect="read")
            def __lt__(self) -> bool: ...  # noqa: PLE0302 - what is refused

    with pytest.raises(TypeError, match="is a comparison"):

        class NoTruth(Interface):
            @method(effect="read")
            def __eq__(self, other: int) -> int: ...

    with pytest.raises(TypeError, match="is not declared"):

        class Plain(Interface):
            def __eq__(self, other: int) -> bool: ...


def test_a_comparison_that_is_not_implemented_is_found_at_once():
    class Sized(Interface):
        @method(effect="read")
        def __eq__(self, other: int) -> bool: ...

    class Nothing(Sized):
        pass

    assert set(shape_of(Sized).members) == {(OP_COMPARE, "eq")}
    with pytest.raises(TypeError, match="does not implement __eq__"):
        shape_of(Sized).adapt(Nothing())
