"""Python walks what has only an index by trying one after the other: a reference has no such way."""

import pytest

import caprpc.aio
from caprpc import Interface, method, pipe
from caprpc.testing import aio_connected


class Shelf(Interface):
    @method(effect="read")
    def __getitem__(self, index: int) -> "Shelf": ...

    @method(effect="read")
    def shelf(self) -> "Shelf": ...


class Countable(Interface):
    @method(effect="read")
    def __len__(self) -> int: ...

    @method(effect="read")
    def __contains__(self, item: int) -> bool: ...

    @method(effect="read")
    def __getitem__(self, index: int) -> int: ...

    @method(effect="write")
    def __setitem__(self, index: int, value: int) -> None: ...


class Endless(Shelf):
    def __init__(self):
        self.asked = []

    def __getitem__(self, index):
        self.asked.append(index)
        if len(self.asked) > 5:
            raise AssertionError("it is walked")
        return self

    def shelf(self):
        return self


class Numbers(Countable):
    def __init__(self):
        self.values = [5]

    def __len__(self):
        return len(self.values)

    def __contains__(self, item):
        return item in self.values

    def __getitem__(self, index):
        return self.values[index]

    def __setitem__(self, index, value):
        self.values[index] = value


WALKS = {"for": iter, "list": list, "in": lambda ref: 5 in ref, "reversed": reversed, "unpack": lambda ref: [*ref]}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_index_alone_is_no_right_to_walk(caprpc_pair, walk):
    endless = Endless()
    ref = caprpc_pair({"shelf": endless}).client.root("shelf", Shelf)
    for one in (ref, pipe(ref), pipe(ref).shelf()):
        with pytest.raises(TypeError, match="not iterable|not reversible"):
            walk(one)
    assert endless.asked == []
    assert ref[3] is ref
    assert endless.asked == [3]


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
async def test_index_alone_is_no_right_to_walk_on_a_loop(caprpc_sides, walk):
    endless = Endless()
    roots = {"shelf": endless}
    async with aio_connected(roots, *caprpc_sides(roots)) as peer:
        ref = await peer.root("shelf", Shelf)
        for one in (ref, caprpc.aio.pipe(ref)):
            with pytest.raises(TypeError, match="not iterable|not reversible"):
                walk(one)
        assert await ref[3] is ref
    assert endless.asked == [3]


async def test_operators_that_cannot_be_awaited_say_what_to_write(caprpc_sides):
    numbers = Numbers()
    roots = {"numbers": numbers}
    async with aio_connected(roots, *caprpc_sides(roots)) as peer:
        ref = await peer.root("numbers", Countable)
        with pytest.raises(TypeError, match=r"use await caprpc.aio.length\(ref\)"):
            len(ref)
        with pytest.raises(TypeError, match=r"use await caprpc.aio.contains\(ref, item\)"):
            assert 5 in ref
        with pytest.raises(TypeError, match=r"use await caprpc.aio.set_item\(ref, key, value\)"):
            ref[0] = 6
        with pytest.raises(TypeError, match="not iterable"):
            iter(ref)
        assert await caprpc.aio.length(ref) == 1
        assert await caprpc.aio.contains(ref, 5)
        await caprpc.aio.set_item(ref, 0, 6)
        assert await ref[0] == 6
    assert numbers.values == [6]
