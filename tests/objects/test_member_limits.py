"""What ``[offer.*.limit]`` says beyond rates: how long a call may take, and how much it may let out."""

import pytest

from caprpc import DeadlineExceeded, RemoteError
from caprpc.ids import OP_CALL, OP_NEXT
from caprpc.interface import shape_of
from caprpc.objects.context import CURRENT, current
from caprpc.policy import Right
from caprpc.wire.codec import unpack
from caprpc.wire.messages import Raise, Return


def limit(member, **bounds):
    return f"[offer.Node.limit.{member}]\n" + "".join(f"{key} = {value}\n" for key, value in bounds.items())


def limits_in(w):
    return [(record["reason"], record["reference"]) for record in w.records("server") if record["kind"] == "limit"]


def refused(w, call, reason):
    """Run a call that a limit stops; the audit log must name the limit under the number the caller has."""
    with pytest.raises(RemoteError) as caught:
        call()
    assert caught.value.code == "limit"
    assert limits_in(w)[-1] == (reason, caught.value.reference)


def test_result_of_more_items_than_allowed_is_kept_back(world):
    w = world(server_more=limit("echo", max_items=2))
    assert w.node.echo([1, 2]) == [1, 2]
    refused(w, lambda: w.node.echo([1, 2, 3]), "max_items")


def test_result_of_more_bytes_than_allowed_is_kept_back(world):
    w = world(server_more=limit("borrow", max_bytes=5))
    assert w.node.borrow(w.Leaves("abcd")) == "abcd"
    refused(w, lambda: w.node.borrow(w.Leaves("abcde")), "max_bytes")


def test_references_in_a_result_that_is_kept_back_are_taken_back(world):
    w = world(server_more=limit("leaves", max_items=2))
    refused(w, lambda: w.node.leaves(3), "max_items")
    assert w.baseline()


def test_iterator_delivers_as_many_items_as_its_member_may_return_and_no_more(world):
    w = world(server_more=limit("count", max_items=40))
    assert len(list(w.node.count(40))) == 40
    seen = []
    refused(w, lambda: seen.extend(w.node.count(41)), "max_items")
    remote = w.node.count(41)
    assert [next(remote) for _ in range(40)] == list(range(40))
    refused(w, lambda: next(remote), "max_items")


def test_limit_of_iterate_holds_for_the_life_of_each_iterator(world):
    w = world(server_more=limit("iterate", max_items=50))
    assert len(list(w.node.count(50))) == 50
    assert len(list(w.node.count(50))) == 50
    refused(w, lambda: list(w.node.count(51)), "max_items")


def test_iterator_delivers_no_more_bytes_than_its_member_may_return(world):
    w = world(server_more=limit("count", max_bytes=1000))
    remote = w.node.count(100_000)
    seen = []
    refused(w, lambda: seen.extend(remote), "max_bytes")
    assert 100 < len(seen) < 1000


def test_pulls_sent_at_once_get_no_more_than_one_after_the_other(world):
    w = world(server_more=limit("count", max_items=40))
    remote = w.node.count(100)
    pull = remote._caprpc_shape.members[OP_NEXT, ""]
    asked = [w.pair.client.start(remote._caprpc_import, pull, (30, 10_000), {}) for _ in range(4)]
    w.pair.run()
    delivered = [
        len(unpack(each.question.outcome.payload)[1]) for each in asked if isinstance(each.question.outcome, Return)
    ]
    assert 30 <= sum(delivered) <= 40
    assert {each.question.outcome.code for each in asked if isinstance(each.question.outcome, Raise)} == {"limit"}


def test_results_of_a_batch_are_bounded_one_by_one(world):
    w = world(server_more=limit("echo", max_items=2))
    echo = shape_of(w.Node).members[OP_CALL, "echo"]
    target = w.node._caprpc_import
    short, long = w.pair.client.batch([(target, echo, ([1, 2],), {}), (target, echo, ([1, 2, 3],), {})])
    assert short == [1, 2]
    assert (long.code, limits_in(w)) == ("limit", [("max_items", long.reference)])


def begin(w, name, *args):
    """Call, and return the pending call and its job, which has not run."""
    w.pair.server.holds = True
    pending = w.pair.client.start(w.node._caprpc_import, shape_of(w.Node).members[OP_CALL, name], args, {})
    w.pair.run()
    return pending, w.pair.server.jobs.popleft()


def test_call_that_takes_too_long_is_answered_and_learns_of_it(world):
    w = world(server_more=limit("echo", timeout_s=2))
    pending, job = begin(w, "echo", [1])
    assert w.pair.server.link.deadline() <= w.pair.now + 2
    w.pair.advance(1.9)
    assert pending.question.outcome is None
    w.pair.advance(0.2)
    with pytest.raises(DeadlineExceeded) as caught:
        pending.result()
    assert limits_in(w) == [("timeout_s", caught.value.reference)]
    token = CURRENT.set(job)
    assert current().cancelled
    CURRENT.reset(token)


def test_late_end_of_an_overdue_call_is_not_sent(world):
    w = world(server_more=limit("echo", timeout_s=2))
    pending, job = begin(w, "echo", [1])
    w.pair.advance(2.5)
    job.answer.cancelled = False
    w.pair.server.run_job(job)
    w.pair.run()
    assert w.pair.client.ended is None
    assert w.baseline()
    with pytest.raises(DeadlineExceeded):
        pending.result()


def test_what_was_lent_dies_when_the_time_is_over(world):
    w = world(server_more=limit("borrow", timeout_s=2))
    _, job = begin(w, "borrow", w.Leaves())
    w.pair.advance(2.5)
    w.pair.server.run_job(job)
    assert w.baseline()


def test_call_in_time_is_not_touched(world):
    w = world(server_more=limit("echo", timeout_s=2))
    assert w.node.echo([1]) == [1]
    w.pair.advance(5.0)
    assert limits_in(w) == []
    assert w.node.echo([2]) == [2]


def test_overdue_calls_that_still_run_keep_their_place(world):
    w = world(server_more=limit("echo", timeout_s=2) + "[limits]\nin_flight = 2\n")
    _, job = begin(w, "echo", [1])
    _, other = begin(w, "echo", [1])
    w.pair.advance(2.5)
    third = w.pair.client.start(w.node._caprpc_import, shape_of(w.Node).members[OP_CALL, "echo"], ([1],), {})
    with pytest.raises(RemoteError, match="a limit of the peer"):
        third.result()
    w.pair.server.run_job(job)
    w.pair.server.run_job(other)
    w.pair.server.holds = False
    assert w.node.echo([1]) == [1]


def test_batch_is_answered_when_the_time_of_one_of_its_calls_is_over(world):
    w = world(server_more=limit("echo", timeout_s=2))
    w.pair.server.holds = True
    echo = shape_of(w.Node).members[OP_CALL, "echo"]
    question = w.pair.client.link.outgoing.ask_batch([(w.node._caprpc_import, echo, ([1],), {})] * 3)
    w.pair.run()
    w.pair.advance(2.5)
    with pytest.raises(DeadlineExceeded):
        w.pair.client.link.outgoing.conclude_batch(question, [echo] * 3)
    w.pair.server.holds = False
    w.pair.run()
    assert w.node.echo([1]) == [1]


def test_use_of_a_lent_object_that_policy_refuses_is_not_counted(world):
    w = world()
    client, server = w.sessions
    w.node.keep(w.Leaves("once"))
    (export,) = client.exports.live()
    export.right = Right(uses=1)
    imported = w.impl.held[0]._caprpc_import
    for name in ("hidden", "name", "name"):
        server.ask(imported, OP_CALL, name, b"\x92\x90\x80", [], None, None)
        w.pair.run()
    reasons = [record["reason"] for record in w.records("client") if record.get("decision") == "deny"]
    assert reasons == ["not-granted", "uses"]


def test_all_members_of_a_facet_share_its_limit_over_a_connection(world):
    w = world(server_more="[offer.Node.limit]\nper_hour = 4\n")
    for _ in range(2):
        w.node.echo([1])
    list(w.node.count(0))
    with pytest.raises(RemoteError) as caught:
        w.node.echo([1])
    assert caught.value.code == "limit"
    denied = [record for record in w.records("server") if record.get("reference") == caught.value.reference]
    assert [record["reason"] for record in denied] == ["facet_per_hour"]


def test_running_calls_of_a_facet_are_given_back_when_they_end(world):
    w = world(server_more="[offer.Node.limit]\nin_flight = 1\n")
    for _ in range(5):
        assert w.node.echo([1]) == [1]
    assert w.node.borrow(w.Leaves("a")) == "a"
    assert w.node.echo([1]) == [1]
