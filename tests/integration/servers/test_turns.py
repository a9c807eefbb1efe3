"""Connections take turns: none keeps the others waiting for longer than one slice of its work; nothing is lost.

Everything runs on one thread of the server, in an order that is decided and not timed: what the peers send is put into
their sockets by a method that this very thread runs.
"""

import asyncio
import socket
import sys
import threading
import weakref
from itertools import groupby
from math import inf

import pytest
from hostile_peer import dial, reference

import caprpc
import caprpc.aio
import caprpc.aio.connection
import caprpc.aio.reading
import caprpc.aio.rounds
import caprpc.blocking.reactor
import caprpc.blocking.server
import caprpc.objects.turns
from caprpc import Interface, method
from caprpc.aio.defects import Guarded
from caprpc.aio.runner import MethodRunner
from caprpc.blocking.reactor import Reactor
from caprpc.objects.turns import Turns
from caprpc.testing import Deployment
from caprpc.wire import messages as m
from caprpc.wire.codec import encode_message, pack

POLICY = """[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/{}"]
[roots]
box = "Box"
[offer.Box]
interface = "Box"
call = ["put", "start", "keep", "use"]
[accept.Item]
call = ["name"]
"""
ALL = sys.maxsize


class Item(Interface):
    @method(effect="read")
    def name(self) -> str: ...


class Box(Interface):
    @method(effect="write")
    def put(self, tag: str) -> None: ...

    @method(effect="write")
    def start(self) -> None: ...

    @method(effect="write")
    def keep(self, item: Item) -> None: ...

    @method(effect="write")
    def use(self) -> str: ...


class BoxImpl(Box):
    def __init__(self):
        self.log = []
        self.on_start = None
        self.on_put = {}

    def put(self, tag):
        self.log.append(tag)
        if tag in self.on_put:
            self.on_put[tag]()

    def start(self):
        self.on_start()

    def keep(self, item):
        self.item = item

    def use(self):
        return self.item.name()


class World:
    """A server of one driver, and raw peers of three principals."""

    def __init__(self, driver, deployment, sides, connect):
        self.box = BoxImpl()
        self.sides = sides
        # What is sent over a Unix socket is there when ``send`` returns; over TCP that is up to the kernel.
        self.path = deployment.root / "socket"
        self._peers = []
        directories = deployment.side("server", {name: POLICY.format(name) for name in sides}, [Box, Item]).directories
        self._stop = connect(driver, self.box, directories, self)
        self.starter = self.peer("carol")

    def peer(self, name):
        peer = dial(self.address, self.sides[name]).open()
        peer.box = peer.root("box")
        self._peers.append(peer)
        return peer

    def start(self, *sent):
        """Have the server find everything at its next look at the sockets: ``(peer, messages…)``, in this order."""

        def send():
            for peer, *messages in sent:
                peer.send(*messages)

        self.box.on_start = send
        assert isinstance(self.starter.ask(self.starter.box, "start"), m.Return)

    def close(self):
        for peer in self._peers:
            peer.close()
        self._stop()


def serve_blocking(box, directories, world):
    server = caprpc.Server({"box": box}, **directories)
    world.address = server.listen(f"unix:{world.path}")
    server.start()
    return server.stop


def serve_aio(box, directories, world):
    ready, done = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def main():
        server = caprpc.aio.Server({"box": box}, **directories)
        world.address = server.listen(f"unix:{world.path}")
        async with server:
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert ready.wait(20)

    def stop():
        loop.call_soon_threadsafe(done.set)
        thread.join(20)
        loop.close()

    return stop


def connect(driver, *args):
    return {"blocking": serve_blocking, "aio": serve_aio}[driver](*args)


@pytest.fixture
def slices(monkeypatch):
    """Set how much a turn holds; time ends none, however slow the machine is."""

    def choose(*, messages=ALL, calls=ALL):
        for module in (caprpc.blocking.reactor, caprpc.blocking.server, caprpc.aio.reading, caprpc.aio.rounds):
            monkeypatch.setattr(module, "MESSAGES", messages)
        for module in (caprpc.blocking.reactor, caprpc.aio.connection):
            monkeypatch.setattr(module, "CALLS", calls)
        for module in (caprpc.blocking.reactor, caprpc.aio.connection, caprpc.objects.turns):
            monkeypatch.setattr(module, "TURN_S", inf)

    return choose


@pytest.fixture(params=["blocking", "aio"])
def driver(request):
    return request.param


@pytest.fixture
def world(driver, tmp_path, monkeypatch):
    # A machine that stalls would have methods moved to other threads, where their order is not ours to decide.
    monkeypatch.setattr(Reactor, "_take_over", lambda _reactor: None)
    monkeypatch.setattr(MethodRunner, "needs_thread", lambda _runner, _job: False)
    deployment = Deployment(tmp_path)
    sides = {name: deployment.side(name, {}) for name in ("alice", "bob", "carol")}
    made = World(driver, deployment, sides, connect)
    yield made
    made.close()


def puts(peer, tag, count):
    return [peer.call(peer.box, "put", [tag]) for _ in range(count)]


def answers(peer, count):
    """Return the numbers of the next answers, all of which must be results."""
    received = [peer.receive() for _ in range(count)]
    assert {type(message) for message in received} == {m.Return}
    return [message.question for message in received]


def test_call_of_another_connection_starts_after_one_slice_of_calls(world, slices):
    slices(calls=16)
    many, one = world.peer("bob"), world.peer("alice")
    sent = puts(many, "many", 64)
    world.start((many, *sent), (one, *puts(one, "one", 1)))
    answers(one, 1)
    assert answers(many, 64) == [call.question for call in sent]
    assert world.box.log.index("one") == 16
    assert len(world.box.log) == 65


def test_call_of_another_connection_starts_after_one_slice_of_messages(world, slices):
    """All messages of a read are handled before its first call starts, as if it had come in one piece."""
    slices(messages=16)
    many, one = world.peer("bob"), world.peer("alice")
    sent = puts(many, "many", 64)
    world.start((many, *sent), (one, *puts(one, "one", 1)))
    answers(one, 1)
    assert answers(many, 64) == [call.question for call in sent]
    assert world.box.log.index("one") == 0


def test_connections_of_one_principal_share_its_turns(world, slices):
    slices(calls=16)
    first, second, other = world.peer("bob"), world.peer("bob"), world.peer("alice")
    sent = {peer: puts(peer, tag, 64) for peer, tag in ((first, "bob"), (second, "bob"), (other, "alice"))}
    world.start(*((peer, *calls) for peer, calls in sent.items()))
    for peer, calls in sent.items():
        assert answers(peer, 64) == [call.question for call in calls]
    log = world.box.log
    until = max(i for i, tag in enumerate(log) if tag == "alice") + 1
    assert [(tag, len(list(run))) for tag, run in groupby(log[:until])] == [("bob", 16), ("alice", 16)] * 4
    assert len(log) == 192


def test_connections_of_one_principal_get_turns_one_after_the_other(world, slices):
    slices(calls=16)
    first, second = world.peer("bob"), world.peer("bob")
    world.start((first, *puts(first, "first", 64)), (second, *puts(second, "second", 64)))
    answers(first, 64)
    answers(second, 64)
    runs = [len(list(run)) for _, run in groupby(world.box.log)]
    # The first one was served before the second one was seen.
    assert max(runs[:-1]) <= 32, runs
    assert len(runs) >= 6, runs


def test_connection_that_waits_is_not_asked_to_wait_again(world, slices, monkeypatch):
    # With fifty connections this was done eighteen times for each call, and took as long as the call.
    slices(calls=4)
    original, asked, again = Turns.wait, [], []

    def wait(turns, principal, connection):
        (again if turns.has(connection) else asked).append(connection)
        original(turns, principal, connection)

    monkeypatch.setattr(Turns, "wait", wait)
    peers = [world.peer("bob") for _ in range(4)]
    world.start(*((peer, *puts(peer, "x", 32)) for peer in peers))
    for peer in peers:
        answers(peer, 32)
    assert asked
    assert not again


def test_nothing_is_lost_between_slices_of_one_that_is_alone(world, slices):
    slices(messages=5, calls=3)
    peer = world.peer("bob")
    for _ in range(5):
        sent = puts(peer, "x", 64)
        peer.send(*sent)
        assert answers(peer, 64) == [call.question for call in sent]
    assert len(world.box.log) == 320


def test_nothing_is_read_before_what_was_read_is_handled(world, slices):
    """More than one read holds comes while most of the first one waits."""
    slices(messages=5, calls=3)
    peer = world.peer("bob")
    sent = [peer.call(peer.box, "put", ["x" * 12_000]) for _ in range(60)]
    peer.send(*sent)
    assert answers(peer, 60) == [call.question for call in sent]


def test_what_comes_while_messages_wait_is_handled_behind_them(world, slices):
    slices(messages=5, calls=3)
    peer, other = world.peer("bob"), world.peer("alice")
    first, second, third = puts(peer, "first", 20), puts(peer, "second", 20), puts(peer, "third", 20)
    # Calls of a connection start when all of its messages are handled: those of the other one do, meanwhile.
    world.box.on_put = {"a": lambda: peer.send(*second), "b": lambda: peer.send(*third)}
    world.start((peer, *first), (other, *puts(other, "a", 1), *puts(other, "b", 1)))
    assert answers(peer, 60) == [call.question for call in (*first, *second, *third)]
    assert world.box.log.index("a") < world.box.log.index("first")
    assert [tag for tag in world.box.log if tag not in {"a", "b"}] == ["first"] * 20 + ["second"] * 20 + ["third"] * 20


def test_end_of_the_stream_is_seen_behind_messages_that_wait(world, slices):
    slices(messages=5)
    peer, other = world.peer("bob"), world.peer("alice")
    refused = [peer.call(peer.box, "secret") for _ in range(20)]
    world.box.on_put = {"a": lambda: peer.sock.shutdown(socket.SHUT_WR)}
    world.start((peer, *refused), (other, *puts(other, "a", 1)))
    assert [message.question for message in peer.rest()] == [call.question for call in refused]
    answers(other, 1)


def test_everything_behind_refused_calls_is_handled_in_order(world, slices):
    """Refusals are no calls that run: only messages are left when the slice ends."""
    slices(messages=7, calls=3)
    peer, other = world.peer("bob"), world.peer("alice")
    refused = [peer.call(peer.box, "secret") for _ in range(100)]
    world.start((peer, *refused, m.Ping(5)), (other, *puts(other, "other", 40)))
    received = [peer.receive() for _ in range(101)]
    assert [message.question for message in received[:100]] == [call.question for call in refused]
    assert received[100] == m.Pong(5)
    answers(other, 40)


def test_frame_that_is_cut_off_behind_a_slice_goes_on(world, slices):
    slices(messages=5)
    peer, other = world.peer("bob"), world.peer("alice")
    sent = puts(peer, "x", 20)
    data = b"".join(encode_message(call) for call in sent)
    world.start((peer, data[:-7]), (other, *puts(other, "other", 20)))
    assert answers(peer, 19) == [call.question for call in sent[:19]]
    peer.send(data[-7:])
    assert answers(peer, 1) == [sent[19].question]
    answers(other, 20)


def test_peer_that_leaves_in_its_turn_stops_nobody(world, slices):
    slices(messages=5, calls=3)
    leaver, other = world.peer("bob"), world.peer("alice")
    bye = m.GoAway("closed", "", "")
    world.start((leaver, *puts(leaver, "x", 20), bye, *puts(leaver, "y", 20)), (other, *puts(other, "other", 60)))
    answers(other, 60)
    assert "y" not in world.box.log
    assert leaver.rest() is not None


@pytest.mark.parametrize("driver", ["blocking"], indirect=True)
def test_thread_that_reads_takes_what_the_polling_thread_has_left(world, slices):
    """It waits for an answer that may be among it, and what it reads itself comes behind."""
    slices(messages=16)
    holder, user = world.peer("bob"), world.peer("alice")
    holder.send(m.Facet(1, "Item", [(1, "name")], 0))
    kept = holder.ask(holder.box, "keep", payload=pack([[reference(1)], {}]))
    assert isinstance(kept, m.Return)
    sent = puts(holder, "x", 40)
    use = user.call(user.box, "use")
    world.start((holder, *sent), (user, use))
    call = holder.next_call()
    holder.send(m.Return(call.question, pack("its name")))
    assert user.answer(use.question).payload == pack("its name")
    # They have started in order, on workers, and end as those do.
    assert sorted(answers(holder, 40)) == [call.question for call in sent]


@pytest.mark.parametrize("driver", ["blocking"], indirect=True)
def test_thread_that_waits_for_a_callback_gives_way_after_each_slice(world, slices, monkeypatch):
    """What comes with the answer of a callback is handled in slices, too, and all of it before the answer is used."""
    slices(messages=16)
    gave = []
    monkeypatch.setattr(caprpc.blocking.server.Server, "give_way", lambda _server: gave.append(len(world.box.log)))
    holder, user = world.peer("bob"), world.peer("alice")
    holder.send(m.Facet(1, "Item", [(1, "name")], 0))
    kept = holder.ask(holder.box, "keep", payload=pack([[reference(1)], {}]))
    assert isinstance(kept, m.Return)
    use = user.call(user.box, "use")
    user.send(use)
    call = holder.next_call()
    sent = puts(holder, "x", 40)
    holder.send(*sent[:20], m.Return(call.question, pack("its name")), *sent[20:])
    assert user.answer(use.question).payload == pack("its name")
    assert sorted(answers(holder, 40)) == [call.question for call in sent]
    assert len(gave) == 2


class Turn(Guarded):
    """Stands for a connection on a loop, and takes its turns."""

    def __init__(self, principal, log, failure=None):
        self.loop = asyncio.get_running_loop()
        self.principal = principal
        self.log = log
        self.failure = failure

    def end(self, detail, *, code="closed"):
        self.log.append(code)

    def cut_off(self):
        self.log.append("cut off")

    def take_turn(self):
        self.log.append(self)
        if self.failure is not None:
            raise self.failure


def test_connection_that_fails_in_its_turn_takes_nobody_elses():
    log = []

    async def main():
        rounds = caprpc.aio.rounds.Rounds()
        turns = [Turn("a", log, ValueError("a defect")), Turn("b", log), Turn("b", log)]
        for turn in turns:
            rounds.wait(turn)
        for _ in range(10):
            await asyncio.sleep(0.001)
        return turns

    first, second, third = asyncio.run(main())
    assert log == [first, "internal", second, third]


def test_nothing_is_kept_of_a_connection_that_has_ended():
    class Connection:
        principal = "a"

    async def main():
        rounds = caprpc.aio.rounds.Rounds()
        connections = [Connection(), Connection()]
        for connection in connections:
            rounds.room(connection)
        gone = [weakref.ref(connection) for connection in connections]
        for connection in connections:
            rounds.forget(connection)
        connections.clear()
        del connection
        return [ref() for ref in gone]

    assert asyncio.run(main()) == [None, None]
