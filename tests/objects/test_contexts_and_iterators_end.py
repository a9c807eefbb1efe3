"""What a peer entered is left once, what it began to iterate is closed, whatever becomes of the peer. CAP-CB-05."""

import contextlib
import gc
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from caprpc import ConnectionLost, Interface, RemoteError, method
from caprpc.ids import OP_ENTER, OP_EXIT
from caprpc.interface.contexts import ContextMisused, ContextServer
from caprpc.interface.iteration import IteratorServer
from caprpc.objects.closing import close_now
from caprpc.testing.deployment import Deployment
from caprpc.testing.pair import Pair


class Room(Interface):
    @method(effect="write")
    def __enter__(self) -> int: ...

    @method(effect="write")
    def __exit__(self, kind: Any, value: Any, trace: Any) -> None: ...

    @method(effect="read")
    def numbers(self) -> Iterator[int]: ...

    @method(effect="write")
    def inner(self) -> AbstractContextManager[int]: ...


class RoomImpl(Room):
    def __init__(self):
        self.log = []

    def __enter__(self):
        self.log.append("in")
        return 5

    def __exit__(self, kind, value, trace):
        self.log.append("out" if kind is None else kind.__name__)

    def numbers(self):
        def generate():
            try:
                yield from range(10_000)
            finally:
                self.log.append("generator closed")

        return generate()

    def inner(self):
        @contextlib.contextmanager
        def context():
            self.log.append("inner in")
            try:
                yield 6
            except BaseException as exc:
                self.log.append(type(exc).__name__)
                raise
            else:
                self.log.append("inner out")

        return context()


SERVER = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/client"]
[roots]
room = "Room"
[offer.Room]
interface = "Room"
call = ["numbers", "inner"]
context = true
iterate = true
[offer.Room.returns]
inner = "Inner"
[offer.Inner]
interface = "ContextManager"
context = true
"""
CLIENT = """
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Room]
call = ["numbers", "inner"]
context = true
iterate = true
[accept.ContextManager]
context = true
"""


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    deployment = Deployment(tmp_path_factory.mktemp("rooms"))
    return deployment.side("server", {"client": SERVER}, [Room]), deployment.side("client", {"server": CLIENT}, [Room])


@pytest.fixture
def pair(sides, tmp_path):
    server, client = sides
    impl = RoomImpl()
    with Pair(server, client, {"room": impl}, audit=tmp_path) as made:
        made.log = impl.log
        made.room = made.client.root("room", Room)
        yield made


def operate(pair, stub, operation, *args):
    return pair.client.call(stub._caprpc_import, stub._caprpc_shape.members[operation, ""], args, {})


def vanish(pair):
    """Have the server lose its client."""
    pair.server.take(pair.server.link.lost("the client vanished"))


def test_object_that_declares_a_context_is_entered_and_left(pair):
    for _ in range(2):
        with pair.room as given:
            assert given == 5
    assert pair.log == ["in", "out"] * 2


def test_entering_twice_is_refused(pair):
    operate(pair, pair.room, OP_ENTER)
    with pytest.raises(RemoteError):
        operate(pair, pair.room, OP_ENTER)
    assert pair.log == ["in"]


def test_leaving_what_was_not_entered_is_refused(pair):
    with pytest.raises(RemoteError):
        operate(pair, pair.room, OP_EXIT, False)
    operate(pair, pair.room, OP_ENTER)
    operate(pair, pair.room, OP_EXIT, False)
    with pytest.raises(RemoteError):
        operate(pair, pair.room, OP_EXIT, False)
    assert pair.log == ["in", "out"]


def test_object_that_a_vanished_peer_is_in_is_left_once(pair):
    operate(pair, pair.room, OP_ENTER)
    vanish(pair)
    vanish(pair)
    assert pair.log == ["in", "ConnectionLost"]


def test_object_that_a_vanished_peer_has_left_is_not_left_again(pair):
    with pair.room:
        pass
    vanish(pair)
    assert pair.log == ["in", "out"]


def test_object_that_a_peer_lets_go_of_is_left(pair):
    operate(pair, pair.room, OP_ENTER)
    pair.room = None
    gc.collect()
    pair.run()
    assert pair.log == ["in", "ConnectionLost"]


def test_context_that_a_vanished_peer_is_in_is_left_once(pair):
    inner = pair.room.inner()
    assert operate(pair, inner, OP_ENTER) == 6
    vanish(pair)
    assert pair.log == ["inner in", "ConnectionLost"]


def test_enter_and_exit_are_not_for_batches(pair):
    enter = pair.room._caprpc_shape.members[OP_ENTER, ""]
    results = pair.client.batch([(pair.room._caprpc_import, enter, (), {})] * 2)
    assert [result.code for result in results] == ["limit", "limit"]
    assert pair.log == []


def test_generator_of_a_vanished_peer_is_closed(pair):
    numbers = pair.room.numbers()
    assert next(numbers) == 0
    assert pair.log == []
    vanish(pair)
    assert pair.log == ["generator closed"]


def test_generator_that_a_peer_lets_go_of_is_closed_by_the_driver(pair):
    numbers = pair.room.numbers()
    assert next(numbers) == 0
    pair.run()
    del numbers
    gc.collect()
    for data in pair.client.link.data_to_send():
        pair.server.link.receive(data, pair.now)
    closers = pair.server.link.closing()
    assert pair.log == []
    close_now(closers)
    assert pair.log == ["generator closed"]
    assert pair.server.link.closing() == []


class Slow:
    """A context whose entering and iterator whose pulling lasts until a test lets it end."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()
        self.log = []

    def __enter__(self):
        self.begun.set()
        self.go.wait(10)
        self.log.append("in")

    def __exit__(self, kind, value, trace):
        self.log.append(kind.__name__)

    def items(self):
        try:
            yield 1
            self.begun.set()
            self.go.wait(10)
            yield 2
        finally:
            self.log.append("closed")


def during(slow, function, meanwhile):
    """Run ``meanwhile`` while ``function`` is under way on another thread."""
    thread = threading.Thread(target=function)
    thread.start()
    assert slow.begun.wait(10)
    meanwhile()
    slow.go.set()
    thread.join(10)


def test_peer_that_vanishes_while_it_enters_is_led_out_again():
    slow = Slow()
    server = ContextServer(slow)
    during(slow, server.enter, lambda: server.abandon(ConnectionLost("gone")))
    assert slow.log == ["in", "ConnectionLost"]
    with pytest.raises(ContextMisused):
        server.enter()


def test_peer_that_vanished_before_does_not_enter():
    slow = Slow()
    server = ContextServer(slow, again=True)
    server.abandon(ConnectionLost("gone"))
    with pytest.raises(ContextMisused):
        server.enter()
    assert slow.log == []


def test_iterator_let_go_of_while_it_is_pulled_is_closed_when_the_pull_ends():
    slow = Slow()
    server = IteratorServer(slow.items())
    during(slow, lambda: server.pull(10, 1000), lambda: server.abandon(ConnectionLost("gone")))
    assert slow.log == ["closed"]


def test_iterator_that_nobody_has_pulled_from_is_left_to_its_owner():
    items = iter([1])
    generator = (item for item in items)
    IteratorServer(generator).abandon(ConnectionLost("gone"))
    assert list(generator) == [1]


def test_failure_of_one_does_not_keep_the_others_open(caplog):
    class Failing(Slow):
        def __exit__(self, kind, value, trace):
            raise LookupError("cannot leave")

    good, bad = Slow(), Failing()
    servers = [ContextServer(bad), ContextServer(good)]
    for slow, server in zip((bad, good), servers, strict=True):
        slow.go.set()
        server.enter()
    assert close_now(servers) == []
    assert good.log == ["in", "ConnectionLost"]
    assert "cannot leave" in caplog.text
