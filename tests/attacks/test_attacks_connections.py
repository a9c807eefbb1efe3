"""What a peer can put into the tables of a connection with one message."""

from dataclasses import replace

import pytest

from caprpc import Interface, RemoteError, method
from caprpc.limits import DEFAULT_LIMITS
from caprpc.testing import Pair


class Item(Interface):
    @method(effect="read")
    def name(self) -> str: ...


class Box(Interface):
    @method(effect="write")
    def take(self, items: list[Item]) -> int: ...


class ItemImpl(Item):
    def name(self):
        return "item"


class BoxImpl(Box):
    def take(self, items):
        return len(items)


@pytest.fixture
def pair(caprpc_sides, caprpc_clock):
    roots = {"box": BoxImpl()}
    with Pair(*caprpc_sides(roots), roots, clock=caprpc_clock) as made:
        yield made


@pytest.mark.parametrize("lenient", [False, True], ids=["message_references", "imports"])
def test_more_objects_in_one_list_than_a_connection_may_hold_are_refused_and_leave_nothing(pair, lenient):
    box = pair.client.root("box", Box)
    # A hostile side keeps to no limit of its own.
    pair.client.session.exports.limit = 1 << 20
    for session in (pair.client.session, pair.server.session)[: 2 if lenient else 1]:
        session.limits = replace(session.limits, message_references=1 << 20)
    held = len(pair.server.session.imports)
    with pytest.raises(RemoteError) as caught:
        box.take([ItemImpl() for _ in range(DEFAULT_LIMITS.imports + 1)])
    assert caught.value.code == "limit"
    pair.run()
    assert len(pair.server.session.imports) == held
    assert len(pair.client.session.exports) == 0
    assert box.take([ItemImpl() for _ in range(10)]) == 10
