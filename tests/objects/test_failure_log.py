"""A peer that may call what fails cannot fill the operator's log: one traceback for each kind, then counts."""

import pytest

from caprpc import RemoteError
from caprpc.ids import OP_NEXT
from caprpc.objects.failures import SUM_S, FailureLog
from caprpc.wire.messages import Raise

PEER = "spiffe://test.example/alice"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def fail(log, called="Node.echo (call)", error=ValueError, times=1):
    for number in range(times):
        log.add(called, error("x"), f"R-{number}")


def lines(caplog):
    return [(record.getMessage(), record.exc_info is not None) for record in caplog.records]


def test_first_failure_of_a_kind_is_whole_and_those_behind_it_are_counted(caplog, clock):
    log = FailureLog(PEER, clock)
    fail(log, times=50)
    assert lines(caplog) == [(f"Node.echo (call) for {PEER} failed (R-0)", True)]
    log.sum_up()
    assert lines(caplog)[1:] == [
        (f"Node.echo (call) for {PEER} failed 49 more times with ValueError, the last of them R-49", False)
    ]
    log.sum_up()
    assert len(caplog.records) == 2


def test_what_other_lines_raise_is_a_kind_of_its_own(caplog, clock):
    """The operator looks for the traceback of a number: that of another mistake would mislead."""
    log = FailureLog(PEER, clock)
    for number in range(4):
        try:
            if number % 2:
                raise ValueError("one")
            raise ValueError("another")
        except ValueError as exc:
            log.add("Node.echo (call)", exc, f"R-{number}")
    assert lines(caplog) == [(f"Node.echo (call) for {PEER} failed (R-{number})", True) for number in range(2)]


def test_counts_are_written_once_a_minute(caplog, clock):
    log = FailureLog(PEER, clock)
    fail(log, times=3)
    clock.now += SUM_S - 0.1
    fail(log)
    log.tick(clock.now)
    assert len(caplog.records) == 1
    clock.now += 0.1
    log.tick(clock.now)
    assert "3 more times" in caplog.records[1].getMessage()


def test_other_members_and_other_errors_are_kinds_of_their_own(caplog, clock):
    log = FailureLog(PEER, clock)
    for called in ("A.x (call)", "A.y (call)"):
        for error in (ValueError, KeyError):
            fail(log, called, error, times=2)
    assert [whole for _, whole in lines(caplog)] == [True] * 4


def test_kinds_are_bounded(caplog, clock):
    log = FailureLog(PEER, clock)
    for number in range(1000):
        fail(log, f"A.m{number} (call)")
    assert len(caplog.records) < 70
    log.sum_up()
    assert f"other members for {PEER} failed 935 more times" in caplog.text


def test_a_connection_that_ends_writes_what_it_has_counted(world, caplog):
    w = world()

    class Failing(w.Leaves):
        def name(self):
            raise LookupError("it broke")

    for _ in range(5):
        with pytest.raises(RemoteError):
            w.node.borrow(Failing())
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert {record.exc_info[0].__name__ for record in tracebacks} == {"LookupError", "RemoteError"}
    assert len(tracebacks) == 2
    w.pair.server.link.abort("closed", "over")
    w.pair.client.link.abort("closed", "over")
    assert caplog.text.count("failed 4 more times") == 2


def pull(w, remote, *caps):
    member = remote._caprpc_shape.members[OP_NEXT, ""]
    return w.pair.client.start(remote._caprpc_import, member, caps, {})


@pytest.mark.parametrize("caps", [(-1, 5), (5, -1), (-(10**30), 5)])
def test_pull_of_less_than_nothing_is_an_invalid_argument(world, caps, caplog):
    w = world()
    asked = pull(w, w.node.count(10), *caps)
    w.pair.run()
    outcome = asked.question.outcome
    assert isinstance(outcome, Raise)
    assert outcome.code == "invalid-arguments"
    assert not caplog.records
