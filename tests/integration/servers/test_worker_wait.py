"""A call that finds all workers taken by others waits for a bounded time, and is refused then; on both servers."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hostile_peer import dial, reference, until
from vault_service import QUICK, Running

import caprpc
from caprpc import Interface, method
from caprpc.aio import runner
from caprpc.blocking import slow
from caprpc.blocking.reactor import Reactor
from caprpc.errors import RemoteError
from caprpc.ids import OP_CALL, OP_INVOKE
from caprpc.limits import KIB
from caprpc.wire import messages as m
from caprpc.wire.codec import pack, unpack

NAMES = ("mallory", "bob", "alice")
POLICY = """[peer]
ca = ["@CA@"]
spiffe = [@WHO@]
[roots]
desk = "Desk"
[offer.Desk]
interface = "Desk"
call = ["block", "ready", "quick", "later", "item", "call_back", "stall"]
[offer.Desk.limit.ready]
in_flight = 1
[offer.Desk.returns]
item = "Item"
[offer.Item]
interface = "Item"
call = ["text"]
[accept.Callable]
invoke = true
[audit]
level = "outcome"
"""
ACCEPT = """[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Desk]
call = ["block", "ready", "quick", "later", "item", "call_back", "stall"]
[offer.Function]
interface = "Callable"
invoke = true
[[lend]]
to = "Desk.call_back"
param = "function"
as = "Function"
lifetime = "call"
"""


class Item(Interface):
    @method(effect="read")
    def text(self) -> str: ...


class Desk(Interface):
    @method(effect="write", blocking=True)
    def block(self) -> None: ...

    @method(effect="read", blocking=True)
    def ready(self, value: bytes = b"") -> int: ...

    @method(effect="read")
    def quick(self) -> int: ...

    @method(effect="read")
    def later(self) -> int: ...

    @method(effect="read", blocking=True)
    def item(self) -> Item: ...

    @method(effect="write")
    def stall(self) -> None: ...

    @method(effect="write", blocking=True)
    def call_back(self, function: Callable[[int], int]) -> int: ...


class PaperItem(Item):
    def text(self):
        return "text"


class OneDesk(Desk):
    def __init__(self):
        self.gate = threading.Event()
        self.ran = []

    def block(self):
        self.ran.append("block")
        self.gate.wait(20)

    def stall(self):
        self.block()

    def ready(self, value=b""):
        self.ran.append("ready")
        return 1

    def quick(self):
        self.ran.append("quick")
        return 2

    async def later(self):
        self.ran.append("later")
        return 3

    def item(self):
        self.ran.append("item")
        return PaperItem()

    def call_back(self, function):
        self.ran.append("call_back")
        return function(1)


class Office:
    """A server of one driver with few workers, and peers of three principals, each with half of them at most."""

    def __init__(self, world, driver, wait_s, workers):
        self.desk = OneDesk()
        make = world.deployment.side
        who = ", ".join(f'"spiffe://@DOMAIN@/{name}"' for name in NAMES)
        server = make("server", {"peers": POLICY.replace("@WHO@", who)}, [Desk, Item])
        self.sides = {name: make(name, {"server": ACCEPT}, [Desk, Item]) for name in NAMES}
        limits = replace(QUICK, workers=workers, worker_wait_s=wait_s)
        self.running = Running(driver, {"desk": self.desk}, server, limits)
        self._peers = []

    def peer(self, name):
        peer = dial(self.running.address, self.sides[name]).open(features=["pipeline", "deadline"])
        peer.desk = peer.root("desk")
        self._peers.append(peer)
        return peer

    def fill(self):
        """Have two principals take both workers; return them with their calls."""
        held = []
        for name in ("mallory", "bob"):
            peer = self.peer(name)
            call = peer.call(peer.desk, "block")
            peer.send(call)
            held.append((peer, call.question))
        until(lambda: self.desk.ran.count("block") == 2)
        return held

    @property
    def shares(self):
        server = self.running.server
        return server.runner._shares if hasattr(server, "runner") else server._reactor.pool._shares

    def close(self):
        self.desk.gate.set()
        for peer in self._peers:
            peer.close()
        self.running.stop()


@pytest.fixture
def wait_s():
    return 0.15


@pytest.fixture
def workers():
    return 2


@pytest.fixture
def office(world, driver, wait_s, workers):
    made = Office(world, driver, wait_s, workers)
    yield made
    made.close()


def batch(peer, **calls):
    runs = [m.Run(peer.desk, OP_CALL, name, count, pack([[[], {}]] * count)) for name, count in calls.items()]
    return m.Batch(peer.next_question(), None, runs)


def timed(peer, call):
    started = time.monotonic()
    peer.send(call)
    return peer.answer(call.question), time.monotonic() - started


def test_worker_wait_s(office, wait_s):
    """The refusal names the limits, is on record under its number, and leaves nothing behind."""
    held = office.fill()
    alice = office.peer("alice")
    arguments = office.running.server._admission._quotas.arguments
    for _ in range(2):
        answer, seconds = timed(alice, alice.call(alice.desk, "ready", [bytes(8 * KIB)]))
        assert (answer.code, answer.taken) == ("limit", True)
        assert "limits.workers" in answer.text
        assert "limits.worker_wait_s" in answer.text
        assert "has not run" in answer.text
        assert wait_s <= seconds < wait_s + 2
        assert arguments.held == 0
    assert office.shares._taken.keys() == {peer.principal for peer in held_by(office)}
    office.desk.gate.set()
    assert all(isinstance(peer.answer(question), m.Return) for peer, question in held)
    # One at a time may run, as its policy says: neither of those before is counted any more.
    assert alice.value(alice.desk, "ready") == 1
    assert office.desk.ran.count("ready") == 1
    until(lambda: not office.shares._taken)
    denied = office.running.records(decision="deny")
    assert [(entry["reason"], entry["rule"], entry["member"]) for entry in denied] == [
        ("workers", "limits.workers", "ready")
    ] * 2
    assert answer.reference == denied[1]["reference"]
    ends = [entry["outcome"] for entry in office.running.records(kind="outcome") if entry["member"] == "ready"]
    assert ends == ["limit", "limit", "ok"]


def held_by(office):
    return [office.sides[name] for name in ("mallory", "bob")]


@pytest.mark.parametrize("wait_s", [20.0])
def test_worker_that_is_free_in_time_is_taken(office):
    held = office.fill()
    alice = office.peer("alice")
    call = alice.call(alice.desk, "ready")
    alice.send(call)
    until(lambda: office.shares.crowded)
    office.desk.gate.set()
    assert isinstance(alice.answer(call.question), m.Return)
    assert all(isinstance(peer.answer(question), m.Return) for peer, question in held)


def test_call_that_waits_for_its_own_principal_waits_on(office, wait_s):
    mallory = office.peer("mallory")
    first, second = (mallory.call(mallory.desk, "block") for _ in range(2))
    mallory.send(first, second)
    assert mallory.silence(3 * wait_s) == []
    office.desk.gate.set()
    assert isinstance(mallory.answer(second.question), m.Return)


@pytest.fixture
def patience(monkeypatch):
    """Have methods prove fast, and not block, however busy the machine is."""
    monkeypatch.setattr(runner, "FAST_S", 10.0)
    monkeypatch.setattr(runner, "SLOW_S", 10.0)
    monkeypatch.setattr(slow, "_STRIKE_S", 0.0)


@pytest.mark.usefixtures("patience")
def test_everything_of_a_connection_that_needs_a_worker_is_refused_together(office, wait_s):
    """And what needs none runs, in place or on the loop."""
    alice = office.peer("alice")
    # On asyncio a method runs on a thread until it has proved fast.
    for _ in range(8):
        assert alice.value(alice.desk, "quick") == 2
    office.fill()
    calls = [alice.call(alice.desk, name) for name in ("block", "quick", "later", "item", "ready", "quick")]
    started = time.monotonic()
    alice.send(*calls)
    answers = [alice.answer(call.question) for call in calls]
    assert time.monotonic() - started < wait_s + 2
    assert [getattr(answer, "code", "") for answer in answers] == ["limit", "", "", "limit", "limit", ""]
    assert [unpack(answer.payload) for answer in answers if isinstance(answer, m.Return)] == [2, 3, 2]


def test_refused_calls_cost_nothing_of_the_budget_for_useless_things(office):
    """It is not the peer's doing: more of them than ``glitch_burst`` leave its connection as it was."""
    office.fill()
    alice = office.peer("alice")
    for _ in range(4):
        calls = [alice.call(alice.desk, "block") for _ in range(60)]
        alice.send(*calls)
        assert {alice.answer(call.question).code for call in calls} == {"limit"}
    assert alice.value(alice.desk, "later") == 3


def test_batch_is_refused_as_a_whole_and_each_call_is_on_record(office):
    office.fill()
    alice = office.peer("alice")
    sent = batch(alice, ready=1, quick=2)
    alice.send(sent)
    answer = alice.answer(sent.question)
    assert [(failure.position, failure.code) for failure in answer.failures] == [(n, "limit") for n in range(3)]
    assert "limits.workers" in answer.failures[0].text
    assert [failure.text for failure in answer.failures[1:]] == ["", ""]
    office.desk.gate.set()
    assert alice.value(alice.desk, "ready") == 1
    denied = office.running.records(decision="deny", reason="workers")
    assert [entry["reference"] for entry in denied] == [failure.reference for failure in answer.failures]
    assert "quick" not in office.desk.ran


def test_batch_of_a_coroutine_function_runs_on_the_loop(office):
    office.fill()
    alice = office.peer("alice")
    sent = batch(alice, later=1, ready=1)
    alice.send(sent)
    assert unpack(alice.answer(sent.question).payload) == [3, 1]


@pytest.mark.parametrize("wait_s", [20.0])
def test_coroutine_functions_wait_for_no_worker(office):
    office.fill()
    alice = office.peer("alice")
    assert alice.value(alice.desk, "later") == 3


def test_call_on_the_answer_of_a_refused_one_is_broken(office):
    office.fill()
    alice = office.peer("alice")
    item = alice.call(alice.desk, "item", meta=m.Meta(keep=True))
    text = alice.call(~item.question, "text")
    alice.send(item, text)
    assert alice.answer(item.question).code == "limit"
    assert alice.answer(text.question).code == "broken"
    alice.send(m.Finish(item.question))
    office.desk.gate.set()
    assert alice.value(alice.desk, "ready") == 1


@pytest.mark.parametrize("wait_s", [0.4])
def test_deadline_before_that_is_met(office):
    office.fill()
    alice = office.peer("alice")
    call = alice.call(alice.desk, "ready", meta=m.Meta(deadline_ms=50))
    answer, seconds = timed(alice, call)
    assert answer.code == "deadline"
    assert seconds < 0.4
    # What has been answered is not answered again, and the next call has its own time.
    assert alice.silence(0.6) == []
    answer, seconds = timed(alice, alice.call(alice.desk, "ready"))
    assert answer.code == "limit"
    assert seconds >= 0.4


@pytest.mark.parametrize("wait_s", [20.0])
def test_connection_that_ends_leaves_its_place_in_the_crowd(office):
    office.fill()
    alice = office.peer("alice")
    alice.send(*(alice.call(alice.desk, "block") for _ in range(2)))
    until(lambda: office.shares.crowded)
    alice.close()
    until(lambda: not office.shares.crowded)
    assert len(office.shares._taken) == 2


def test_call_that_waits_for_a_worker_can_be_cancelled(office):
    office.fill()
    alice = office.peer("alice")
    call = alice.call(alice.desk, "ready")
    alice.send(call)
    until(lambda: office.shares.crowded)
    alice.send(m.Cancel(call.question))
    assert alice.answer(call.question).code == "cancelled"
    office.desk.gate.set()
    assert alice.value(alice.desk, "ready") == 1
    assert office.desk.ran.count("ready") == 1


@pytest.mark.parametrize("workers", [4])
def test_call_within_a_callback_of_one_that_runs_is_not_lost(office, driver):
    """Its thread waits: on the blocking server that runs the call, on asyncio the call waits for one like any other."""
    mallory, bob = office.peer("mallory"), office.peer("bob")

    def reenter(_number):
        mallory.send(mallory.call(mallory.desk, "block"), mallory.call(mallory.desk, "block"))
        bob.send(bob.call(bob.desk, "block"))
        until(lambda: office.desk.ran.count("block") == 3)
        try:
            return desk.ready()
        except RemoteError as exc:
            return -1 if exc.code == "limit" else -2

    with caprpc.connect(office.running.address, **office.sides["alice"].directories) as peer:
        desk = peer.root("desk", Desk)
        assert desk.call_back(reenter) == {"blocking": 1, "aio": -1}[driver]
        office.desk.gate.set()
        assert desk.ready() == 1


@pytest.mark.parametrize("workers", [4])
def test_what_needs_no_worker_goes_on_while_a_method_waits_for_its_peer(office):
    """The thread that waits for the peer reads the connection, so that the polling thread runs nothing of it."""
    alice, mallory, bob = (office.peer(name) for name in ("alice", "mallory", "bob"))
    alice.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 0))
    waiting = alice.call(alice.desk, "call_back", [reference(1)])
    alice.send(waiting)
    question = alice.next_call().question
    mallory.send(mallory.call(mallory.desk, "block"), mallory.call(mallory.desk, "block"))
    bob.send(bob.call(bob.desk, "block"))
    until(lambda: office.desk.ran.count("block") == 3)
    calls = [alice.call(alice.desk, name) for name in ("ready", "later", "item", "later")]
    alice.send(*calls)
    answers = [alice.answer(call.question) for call in calls]
    assert [getattr(answer, "code", "") for answer in answers] == ["limit", "", "limit", ""]
    alice.send(m.Return(question, pack(5)))
    assert unpack(alice.answer(waiting.question).payload) == 5


def test_audit_log_is_kept_while_all_workers_are_taken(office, monkeypatch):
    looks = []
    admission = office.running.server._admission
    tick = type(admission).tick
    monkeypatch.setattr(type(admission), "tick", lambda self, now: looks.append(now) or tick(self, now))
    office.fill()
    seen = len(looks)
    until(lambda: len(looks) > seen)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("driver", ["blocking"])
def test_polling_thread_sleeps_again_after_it_was_woken(office, monkeypatch):
    office.fill()
    alice = office.peer("alice")
    calls = [alice.call(alice.desk, name) for name in ("ready", "quick")]
    alice.send(*calls)
    assert alice.answer(calls[0].question).code == "limit"
    assert unpack(alice.answer(calls[1].question).payload) == 2
    rounds = []
    round_ = Reactor._round
    monkeypatch.setattr(Reactor, "_round", lambda self, *args: rounds.append(args) or round_(self, *args))
    time.sleep(0.3)
    assert len(rounds) < 10


@pytest.mark.parametrize("driver", ["blocking"])
def test_method_that_stops_the_polling_thread_counts_as_a_worker(office):
    mallory, bob, alice = (office.peer(name) for name in ("mallory", "bob", "alice"))
    calls = []
    for peer, name in ((mallory, "stall"), (bob, "block")):
        calls.append(peer.call(peer.desk, name))
        peer.send(calls[-1])
    until(lambda: office.desk.ran.count("block") == 2)
    assert alice.ask(alice.desk, "ready").code == "limit"
    office.desk.gate.set()
    assert isinstance(mallory.answer(calls[0].question), m.Return)
    assert isinstance(bob.answer(calls[1].question), m.Return)
    assert alice.value(alice.desk, "ready") == 1
    until(lambda: not office.shares._taken)


@pytest.mark.parametrize("driver", ["blocking"])
def test_closing_what_a_peer_has_let_go_of_counts_as_a_worker(office):
    pool, alice = office.running.server._reactor.pool, office.peer("alice")
    for _ in range(2):
        pool.aside(office.desk.block)
    until(lambda: office.desk.ran.count("block") == 2)
    assert alice.ask(alice.desk, "ready").code == "limit"
    office.desk.gate.set()
    until(lambda: not office.shares._taken)
    assert alice.value(alice.desk, "ready") == 1
