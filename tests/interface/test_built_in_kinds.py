"""Functions and context managers by reference: a closed list of types, one operation each."""

import contextlib
import functools
import sys
import types
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from caprpc.ids import OP_ENTER, OP_EXIT, OP_INVOKE
from caprpc.interface import ArgumentError, Interface, Mismatch, NoReferences, ResultError, method, shape_of
from caprpc.interface.contexts import AsyncContextServer, ContextMisused, ContextServer, PeerBlockFailed

NOWHERE = NoReferences()
NOISY = shape_of(Callable[[str], None])


class Widget:
    def press(self, text):
        return text

    @classmethod
    def make(cls, text):
        return text

    def __call__(self, text):
        return text


def function(text):
    return text


@pytest.mark.parametrize(
    "target",
    [function, lambda t: t, Widget().press, Widget.make, Widget.press, functools.partial(function), print, [].append],
)
def test_functions_are_adapted_to_themselves(target):
    assert NOISY.adapt(target) is target
    assert NOISY.members[OP_INVOKE, ""].resolve(target) is target


@pytest.mark.parametrize(
    "target",
    [
        Widget,
        Widget(),
        type,
        int,
        sys,
        sys._getframe(),
        function.__code__,
        None,
        "function",
        types.SimpleNamespace(),
        functools.partialmethod(function),
        staticmethod(function),
        property(function),
    ],
)
def test_nothing_else_is_callable_from_afar(target):
    with pytest.raises(Mismatch, match="pass a function, a bound method or a functools"):
        NOISY.adapt(target)


def test_invoking_is_the_only_operation_on_a_function():
    assert list(NOISY.members) == [(OP_INVOKE, "")]
    assert NOISY.name == "Callable"
    assert NOISY.text == "Callable[[str], None]"


def test_arguments_and_result_of_a_function_are_checked():
    signature = NOISY.members[OP_INVOKE, ""].signature
    assert signature.encode_args(("x",), {}, NOWHERE) == [["x"], {}]
    for raw in ([[1], {}], [[], {}], [["x"], {"argument1": "x"}], [["x", "y"], {}]):
        with pytest.raises(ArgumentError):
            signature.decode_args(raw, NOWHERE)
    for raw in (0, "x", float("nan"), True, [None]):
        with pytest.raises(ResultError):
            signature.decode_result(raw, NOWHERE)


def test_coroutine_function_is_recognised_behind_partial_and_method():
    async def slow(text):
        return None

    class Owner:
        async def slow(self, text):
            return None

    member = NOISY.members[OP_INVOKE, ""]
    assert all(map(member.is_async, (slow, functools.partial(slow), Owner().slow)))
    assert not member.is_async(function)


@contextlib.contextmanager
def context(log):
    log.append("enter")
    try:
        yield 7
    except BaseException as error:
        log.append(type(error))
        raise
    finally:
        log.append("exit")


CONTEXT = shape_of(AbstractContextManager[int])


def test_context_is_entered_and_left_once():
    log = []
    server = CONTEXT.adapt(context(log))
    assert CONTEXT.members[OP_ENTER, ""].resolve(server)() == 7
    with pytest.raises(ContextMisused):
        server.enter()
    CONTEXT.members[OP_EXIT, ""].resolve(server)(False)
    for attempt in (lambda: server.exit(False), server.enter):
        with pytest.raises(ContextMisused):
            attempt()
    assert log == ["enter", "exit"]


def test_context_is_not_left_before_it_is_entered():
    log = []
    server = CONTEXT.adapt(context(log))
    with pytest.raises(ContextMisused):
        server.exit(False)
    server.abandon(LookupError())
    assert log == []


def test_failed_block_of_the_peer_arrives_as_our_own_exception():
    log = []
    server = ContextServer(context(log))
    server.enter()
    server.exit(True)
    assert log == ["enter", PeerBlockFailed, "exit"]


def test_vanished_peer_leaves_exactly_once():
    log = []
    server = ContextServer(context(log))
    server.enter()
    server.abandon(ConnectionError("lost"))
    server.abandon(ConnectionError("lost"))
    with pytest.raises(ContextMisused):
        server.exit(False)
    assert log == ["enter", ConnectionError, "exit"]


def test_context_whose_enter_failed_is_never_left():
    def broken():
        raise LookupError
        yield

    server = ContextServer(contextlib.contextmanager(broken)())
    with pytest.raises(LookupError):
        server.enter()
    with pytest.raises(ContextMisused):
        server.exit(False)


async def test_async_context_is_entered_and_left_once():
    log = []

    @contextlib.asynccontextmanager
    async def make():
        log.append("enter")
        try:
            yield 1
        finally:
            log.append("exit")

    server = CONTEXT.adapt(make())
    assert type(server) is AsyncContextServer
    assert CONTEXT.members[OP_ENTER, ""].is_async(server)
    assert await server.enter() == 1
    await server.exit(False)
    with pytest.raises(ContextMisused):
        await server.enter()
    assert server.abandon(LookupError()) is None
    assert log == ["enter", "exit"]


async def test_abandoned_async_context_is_left_with_the_error():
    log = []

    @contextlib.asynccontextmanager
    async def make():
        try:
            yield 1
        except ConnectionError:
            log.append("lost")

    server = AsyncContextServer(make())
    await server.enter()
    await server.abandon(ConnectionError("lost"))
    assert log == ["lost"]


@pytest.mark.parametrize("wrong", [Widget(), open, function, None, Widget, contextlib.ExitStack])
def test_object_that_merely_has_enter_and_exit_is_no_context(wrong):
    with pytest.raises(Mismatch, match="@contextmanager"):
        CONTEXT.adapt(wrong)


def test_annotations_of_values_have_no_shape():
    for annotation in (int, list[int], None, Widget):
        with pytest.raises(TypeError, match="is no reference"):
            shape_of(annotation)


def test_member_may_take_a_callable_that_takes_a_callable(table):
    class Nested(Interface):
        @method(effect="read")
        def each(self, visit: Callable[[Callable[[int], int]], None]) -> None: ...

    inner = shape_of(Nested).members[1, "each"].signature.parameters[0].form.shapes[0]
    raw = inner.members[OP_INVOKE, ""].signature.encode_args((function,), {}, table)
    assert table.shapes == [("Callable", "argument1")]
    assert inner.members[OP_INVOKE, ""].signature.decode_args(raw, table) == ([function], {})
