"""Values that change while they are encoded: as they were at some moment or a clear error, never a broken frame."""

import sys
import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import caprpc
from caprpc import Interface, RemoteError, method
from caprpc.testing import aio_connected, connected

CALLS = 150


@dataclass
class Pair:
    first: list[int]
    second: list[int]


class Board(Interface):
    @method(effect="read")
    def numbers(self) -> list[int]: ...

    @method(effect="read")
    def table(self) -> dict[str, Any]: ...

    @method(effect="read")
    def anything(self) -> Any: ...

    @method(effect="read")
    def pair(self) -> Pair: ...

    @method(effect="read")
    def rows(self) -> Iterator[list[int]]: ...

    @method(effect="read")
    def total(self, numbers: list[int]) -> int: ...

    @method(effect="read")
    def look(self, anything: Any) -> int: ...

    @method(effect="read")
    def ping(self) -> int: ...


class Shared(Board):
    """Everything that it returns is changed by another thread all the time."""

    def __init__(self):
        self.list = [0] * 200
        self.dict = {str(n): [n] for n in range(50)}
        self.deep = [self.list, {"a": self.list, "b": (1, [2.5, "x"])}]

    def numbers(self):
        return self.list

    def table(self):
        return self.dict

    def anything(self):
        return self.deep

    def pair(self):
        return Pair(self.list, self.list)

    def rows(self):
        return iter([self.list] * 3)

    def total(self, numbers):
        return sum(numbers)

    def look(self, anything):
        return len(anything)

    def ping(self):
        return 1

    def change(self):
        """Make it longer, shorter, of other types, deeper, and what no form has."""
        self.list.append(1 << 40)
        self.list[0] = "text"
        self.list[0] = object()
        self.list[0] = 0
        del self.list[150:]
        self.list.extend([7] * 60)
        self.dict["more"] = {"x": object()}
        self.dict["more"] = {"x": 1}
        self.dict.pop("more")
        self.dict[5] = "no text for a key"
        del self.dict[5]
        self.deep[1]["b"] = (1, [self.deep])
        self.deep[1]["b"] = (1, [2.5, "x"])


@contextmanager
def changing(shared):
    """Have a thread change it until the end of the block; it gets its turn often."""
    stop, interval = threading.Event(), sys.getswitchinterval()

    def change():
        while not stop.is_set():
            shared.change()

    thread = threading.Thread(target=change)
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


def is_sound(name, value):
    if name == "numbers":
        return type(value) is list and {*map(type, value)} <= {int}
    if name == "pair":
        return {*map(type, value.first + value.second)} <= {int}
    if name == "table":
        return type(value) is dict and {*map(type, value)} <= {str}
    return type(value) is list


REFUSED = (RemoteError, TypeError, ValueError)
"""An answer that says so, or an argument that was refused before anything was sent."""
REASONS = {"invalid-result", "invalid-arguments", "limit"}
NAMES = ["numbers", "table", "anything", "pair"]


def test_results_that_change_are_sound_or_refused(caprpc_peer):
    shared = Shared()
    board = caprpc_peer({"board": shared}).root("board", Board)
    got, codes = 0, set()
    with changing(shared):
        for number in range(CALLS):
            name = NAMES[number % len(NAMES)]
            try:
                value = getattr(board, name)()
            except RemoteError as exc:
                codes.add(exc.code)
            else:
                got += 1
                assert is_sound(name, value), (name, value)
        for _ in range(CALLS // 10):
            try:
                assert all({*map(type, row)} <= {int} for row in board.rows())
            except RemoteError as exc:
                codes.add(exc.code)
    assert got
    assert codes <= REASONS
    assert board.ping() == 1


def test_arguments_that_change_are_sound_or_refused(caprpc_peer):
    shared, ours = Shared(), Shared()
    board = caprpc_peer({"board": shared}).root("board", Board)
    passed, codes = 0, set()
    with changing(ours):
        for _ in range(CALLS):
            for function, value in ((board.total, ours.list), (board.look, ours.deep), (board.look, ours.dict)):
                try:
                    assert type(function(value)) is int
                except REFUSED as exc:
                    codes.add(getattr(exc, "code", "invalid-arguments"))
                else:
                    passed += 1
    assert passed
    assert codes <= REASONS
    assert board.ping() == 1


async def test_results_and_arguments_that_change_are_sound_or_refused_on_a_loop(caprpc_sides):
    shared, ours = Shared(), Shared()
    roots = {"board": shared}
    passed, codes = 0, set()
    async with aio_connected(roots, *caprpc_sides(roots)) as peer:
        board = await peer.root("board", Board)
        with changing(shared), changing(ours):
            for number in range(CALLS):
                name = NAMES[number % len(NAMES)]
                try:
                    assert is_sound(name, await getattr(board, name)())
                    passed += 1
                except RemoteError as exc:
                    codes.add(exc.code)
                for function, value in ((board.total, ours.list), (board.look, ours.deep)):
                    try:
                        assert type(await function(value)) is int
                        passed += 1
                    except REFUSED as exc:
                        codes.add(getattr(exc, "code", "invalid-arguments"))
        assert await board.ping() == 1
    assert passed
    assert codes <= REASONS


class Lying(list):
    """Says one length, and gives another."""

    def __len__(self):
        return 1_000_000

    def __iter__(self):
        self.append(1)
        return super().__iter__()


class Growing(dict):
    def items(self):
        self["new"] = object()
        return super().items()


@dataclass
class Shifting(Pair):
    """Changes its second list when its first is looked at."""

    @property
    def first(self):
        self.second.append("not a number")
        return [1]

    @first.setter
    def first(self, value):
        pass


@pytest.mark.parametrize("value", [Lying([1]), Growing(a=1), [Lying([1])], {"a": Growing(a=1)}], ids=repr)
def test_containers_with_code_of_their_own_are_refused_and_their_code_never_runs(caprpc_peer, value):
    board = caprpc_peer({"board": Shared()}).root("board", Board)
    with pytest.raises(TypeError):
        board.look(value)
    with pytest.raises(TypeError):
        board.total(value)
    assert board.ping() == 1


@pytest.mark.parametrize("driver", ["blocking", "aio"])
async def test_property_that_changes_the_record_it_is_of_is_refused(caprpc_sides, driver):
    class Odd(Shared):
        def pair(self):
            made = Pair([1], [2])
            made.__class__ = Shifting
            return made

    roots = {"board": Odd()}
    if driver == "blocking":
        with connected(roots, *caprpc_sides(roots)) as peer:
            board = peer.root("board", Board)
            with pytest.raises(RemoteError) as caught:
                board.pair()
            assert board.ping() == 1
    else:
        async with aio_connected(roots, *caprpc_sides(roots)) as peer:
            board = await peer.root("board", Board)
            with pytest.raises(RemoteError) as caught:
                await board.pair()
            assert await board.ping() == 1
    assert caught.value.code == "invalid-result"


class Reuser(Interface):
    @method(effect="read")
    def numbers(self) -> list[int]: ...

    @method(effect="read")
    def sequence(self) -> Sequence[int]: ...

    @method(effect="read")
    def table(self) -> dict[str, int]: ...

    @method(effect="read")
    def anything(self) -> Any: ...

    @method(effect="read")
    def buffer(self) -> memoryview: ...

    @method(effect="write")
    def change(self) -> None: ...


class ReuserOfOneList(Reuser):
    """Returns the same objects each time, and fills them anew in between, as a reader with one buffer does."""

    def __init__(self):
        self.list = [1, 2]
        self.dict = {"a": 1}
        self.array = array("q", [1, 2])

    def numbers(self):
        return self.list

    def sequence(self):
        return self.list

    def table(self):
        return self.dict

    def anything(self):
        return [self.list, self.array]

    def buffer(self):
        return self.array

    def change(self):
        self.list[0] = object()
        self.dict["a"] = object()
        self.array[0] = 9


RETURNED = ["numbers", "sequence", "table", "anything", "buffer"]
AS_RETURNED = [[1, 2], (1, 2), {"a": 1}, [[1, 2], [1, 2]], [1, 2]]


def shown(values):
    """Return results with buffers as lists."""
    if type(values) is list:
        return [shown(value) for value in values]
    return values.tolist() if type(values) is memoryview else values


def test_results_of_a_batch_are_as_they_were_when_each_method_returned(caprpc_peer):
    reuser = caprpc_peer({"reuser": ReuserOfOneList()}).root("reuser", Reuser)
    results = caprpc.batch([*((getattr(reuser, name), ()) for name in RETURNED), (reuser.change, ())])
    assert shown(results) == [*AS_RETURNED, None]


async def test_results_of_a_batch_on_a_loop_are_as_they_were_when_each_method_returned(caprpc_sides):
    roots = {"reuser": ReuserOfOneList()}
    async with aio_connected(roots, *caprpc_sides(roots)) as peer:
        reuser = await peer.root("reuser", Reuser)
        results = await caprpc.aio.batch([*((getattr(reuser, name), ()) for name in RETURNED), (reuser.change, ())])
        assert shown(results) == [*AS_RETURNED, None]
