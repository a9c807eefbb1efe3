"""A thread that is interrupted in any of its waits: what it held is free again, each call has one outcome. CAP-RU-10.

A profile function sees each call of C code that may wait. Each operation runs once to count them. Then it runs once for
each, and is interrupted there as by Ctrl-C: before anything has come, which is how a signal ends a wait, or just behind
it, so that what has come is lost.
"""

import gc
import sys
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from test_attacks_cancelled import Bank, tables
from vault_service import Slip, Vault

import caprpc

WAITS = frozenset({"recv", "recv_into", "poll", "acquire", "select", "connect", "sleep", "wait", "getaddrinfo"})
"""What the blocking driver waits in. A lock that is taken with ``with`` is held for a moment only."""

NO_WAITS = frozenset({"_acquire_restore", "_is_owned"})
"""Where ``threading.Condition`` takes such a lock back; an interrupt there breaks the condition itself."""


class Interrupted(KeyboardInterrupt):
    """As of a signal."""


class Waits:
    """Counts the waits of this thread while it runs something, and interrupts one of them."""

    def __init__(self, at=0, event="c_call"):
        self._at = at
        self._event = event
        self.count = 0

    def run(self, function, *args):
        """Return how it ended: with a result, or with an error."""
        before = sys.getprofile()
        sys.setprofile(self._see)
        try:
            function(*args)
        except BaseException as exc:
            # Its frames hold references.
            exc.__context__ = None
            return exc.with_traceback(None)
        finally:
            sys.setprofile(before)
        return None

    def _see(self, frame, event, what):
        if event == self._event and what.__name__ in WAITS and frame.f_code.co_name not in NO_WAITS:
            self.count += 1
            if self.count == self._at:
                sys.setprofile(None)
                raise Interrupted


class Between(Waits):
    """Interrupts this thread as it enters or leaves a function of the driver."""

    def __init__(self, function, event):
        super().__init__(1, event)
        self._function = function

    def _see(self, frame, event, _what):
        if event == self._event and frame.f_code.co_name == self._function:
            sys.setprofile(None)
            raise Interrupted


def call(at):
    assert at.vault.add(1, 2) == 3


def slow_call(at):
    at.vault.nap(5)


def callback(at):
    assert at.vault.call_back(lambda number: number + 1) == 2


def stream(at):
    assert list(at.vault.numbers(60)) == list(range(60))


def context(at):
    with at.vault.door() as inside:
        assert inside == 1
        at.vault.noop()


def reference(at):
    assert at.vault.slip().text() == "slip"


def batch(at):
    assert caprpc.batch([(at.vault.add, (1, 2)), (at.vault.noop, ()), (at.vault.add, (3, 4))]) == [3, None, 7]


def pipelined(at):
    assert caprpc.pipe(at.vault).slip().text().result() == "slip"


def future(at):
    futures = [caprpc.submit(at.vault.add, 1, number) for number in range(3)]
    assert [one.result() for one in futures] == [1, 2, 3]


def one_way(at):
    caprpc.oneway(at.vault.noop)
    at.vault.noop()


def root(at):
    assert at.peer.root("vault", Vault).add(1, 2) == 3


def restore(at):
    assert at.peer.restore(at.uri, Slip).text() == "7"


OPERATIONS = [call, slow_call, callback, stream, context, reference, batch, pipelined, future, one_way, root, restore]


@pytest.fixture
def bank(world, driver, tmp_path, monkeypatch):
    # Looking again before sleeping is no wait, and happens as often as there is time for.
    monkeypatch.setattr("caprpc.blocking.spin.SPIN_S", 0.0)
    return Bank(world, driver, tmp_path / "state")


def until_settled(look, wanted, seconds=5.0):
    end = time.monotonic() + seconds
    while (found := look()) != wanted and time.monotonic() < end:
        time.sleep(0.002)
        gc.collect(0)
    return found


def look_of(bank, peer):
    """Return a function that tells what both ends hold, and who reads and sleeps on the client's."""
    connection = peer._connection

    def look():
        with connection.lock:
            connection.flush()
            waiting = connection.reader is not None, len(connection._followers), len(connection.attended)
            return tables(connection.link.session), waiting, bank.held()

    return look


def at_rest(look):
    end = time.monotonic() + 5.0
    while (held := look())[1] != (False, 0, 0) or any(any(table[2:]) for table in (held[0], *held[2][1])):
        assert time.monotonic() < end, held
        time.sleep(0.002)
    return held


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_a_thread_that_is_interrupted_in_any_wait_leaves_nothing(bank, operation):
    ends = []
    with caprpc.connect(bank.running.address, **bank.side.directories) as peer:
        at = SimpleNamespace(peer=peer, vault=peer.root("vault", Vault), uri=bank.uri)
        look = look_of(bank, peer)
        before = at_rest(look)
        place = 0
        while not ends or ends[-1] is not None:
            place += 1
            ends.append(Waits(place).run(operation, at))
            assert ends[-1] is None or type(ends[-1]) is Interrupted, ends[-1]
            assert until_settled(look, before) == before, place
            assert at.vault.add(1, 2) == 3
    assert len(ends) > 1
    decided, over = bank.outcomes()
    assert (decided - over, over - decided) == (Counter(), Counter()), "as many ends as beginnings"


@pytest.mark.parametrize("operation", [call, callback, stream], ids=lambda operation: operation.__name__)
def test_what_came_with_the_interrupt_is_lost_and_the_connection_at_most(bank, operation):
    """Bytes that were read and never handled cannot be made up for: no later record fits, and the connection ends."""
    ends = []
    place = 0
    while not ends or ends[-1] is not None:
        place += 1
        with caprpc.connect(bank.running.address, **bank.side.directories) as peer:
            at = SimpleNamespace(peer=peer, vault=peer.root("vault", Vault))
            ends.append(Waits(place, "c_return").run(operation, at))
            assert ends[-1] is None or type(ends[-1]) is Interrupted, ends[-1]
            after = Waits().run(call, at)
            if after is not None:
                assert isinstance(after, caprpc.ConnectionLost | caprpc.ReferenceDead), after
                assert peer._connection.wire.closed
        assert until_settled(bank.held, (0, [])) == (0, []), place
    assert len(ends) > 1
    decided, over = bank.outcomes()
    assert over - decided == Counter(), "no call has two ends"


@pytest.mark.parametrize("event", ["c_call", "c_return"])
def test_connecting_and_closing_that_is_interrupted_in_any_wait_leaves_nothing(bank, event):
    """Who connects next has the audit log to itself: it was closed, too."""

    def connected():
        with caprpc.connect(bank.running.address, **bank.side.directories) as peer:
            assert peer.root("vault", Vault).add(1, 2) == 3

    ends = []
    while not ends or ends[-1] is not None:
        ends.append(Waits(len(ends) + 1, event).run(connected))
        assert ends[-1] is None or type(ends[-1]) is Interrupted, ends[-1]
        gc.collect()
        assert until_settled(bank.held, (0, [])) == (0, []), len(ends)
        connected()
    assert len(ends) > 5
    decided, over = bank.outcomes()
    assert over - decided == Counter(), "no call has two ends"


PLACES = [("flush", "return"), ("become_reader", "call"), ("become_reader", "return"), ("_wait_or_cancel", "call")]
"""Functions that the thread of a call runs once its message has gone, before it waits."""


@pytest.mark.parametrize("driver", ["blocking"])
@pytest.mark.parametrize(("function", "event"), PLACES)
def test_a_thread_that_is_interrupted_before_it_waits_leaves_nothing(bank, function, event):
    """A method that is fast to begin may be what has the signal sent."""
    interrupt_before_it_waits(bank, slow_call, function, event)


ASKED = [("flush", "return"), ("_wait_within", "call"), ("_wait_or_cancel", "call"), ("become_reader", "return")]
"""What the thread runs for a root, a sturdy reference or a batch."""


def slow_root(at):
    at.peer.root("vault", Vault)


def slow_restore(at):
    at.peer.restore(at.uri, Slip)


def slow_list(at):
    at.peer.roots()


def slow_batch(at):
    caprpc.batch([(at.vault.nap, (5,))])


@pytest.mark.parametrize("driver", ["blocking"])
@pytest.mark.parametrize(("function", "event"), ASKED)
@pytest.mark.parametrize(
    "operation", [slow_root, slow_restore, slow_list, slow_batch], ids=lambda operation: operation.__name__
)
def test_a_thread_that_asks_for_something_else_is_interrupted_likewise(bank, operation, function, event):
    interrupt_before_it_waits(bank, operation, function, event)


def interrupt_before_it_waits(bank, operation, function, event):
    with caprpc.connect(bank.running.address, **bank.side.directories) as peer:
        at = SimpleNamespace(peer=peer, vault=peer.root("vault", Vault), uri=bank.uri)
        look = look_of(bank, peer)
        before = at_rest(look)
        session = peer._connection.link.session
        cancelled, cancel = [], session.cancel
        session.cancel = lambda question, *rest: (cancelled.append(question), cancel(question, *rest))
        place = Between(function, event)
        assert type(place.run(operation, at)) is Interrupted
        del session.cancel
        assert cancelled
        assert cancelled[-1].abandoned
        assert all(question.abandoned for question in session.asked.open.values())
        assert until_settled(look, before) == before
        assert at.vault.add(1, 2) == 3
    decided, over = bank.outcomes()
    assert (decided - over, over - decided) == (Counter(), Counter()), "as many ends as beginnings"
