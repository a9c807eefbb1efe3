"""References over a whole connection in memory: identity, counts, lifetimes, transactions."""

import gc

import pytest

from caprpc import (
    CallRefused,
    ConfigurationError,
    ConnectionLost,
    Denied,
    LimitExceeded,
    ProtocolError,
    ReferenceDead,
    RemoteError,
)
from caprpc.ids import OP_CALL
from caprpc.interface import ResultError, shape_of
from caprpc.session import Origin
from caprpc.wire import messages as m
from caprpc.wire.codec import pack, unpack
from caprpc.wire.values import OwnReference, RemoteReference


def member(world, name):
    return shape_of(world.Node).members[OP_CALL, name]


def test_same_object_is_the_same_stub(world):
    w = world()
    assert w.node.same() is w.node.same()


def test_fresh_objects_are_different_stubs(world):
    w = world()
    first, second = w.node.fresh(), w.node.fresh()
    assert first is not second
    assert first != second


def test_dropped_stubs_are_released(world):
    w = world()
    for _ in range(5):
        w.node.fresh()
        w.node.same()
    gc.collect()
    assert w.baseline()


def test_references_in_containers_are_each_counted(world):
    w = world()
    leaf = w.Leaves()
    assert w.node.keep_all([leaf, leaf, w.Leaves()]) == 2
    client, _ = w.sessions
    w.pair.run()
    assert sorted(export.count for export in client.exports.live()) == [1, 2]
    w.node.drop()
    gc.collect()
    assert w.baseline()


def test_many_results_are_counted_each(world):
    w = world()
    leaves = w.node.leaves(20)
    assert [leaf.name() for leaf in leaves] == [str(i) for i in range(20)]
    del leaves
    gc.collect()
    assert w.baseline()


def test_same_object_twice_in_one_call_is_one_stub_there(world):
    w = world()
    leaf = w.Leaves()
    assert w.node.keep_both(leaf, leaf) is True
    assert w.node.keep_both(w.Leaves(), w.Leaves()) is False


def test_own_object_comes_home_as_itself(world):
    w = world()
    leaf = w.Leaves()
    w.node.keep(leaf)
    assert w.node.kept() is leaf
    w.node.drop()
    gc.collect()
    assert w.baseline()


def test_peers_object_goes_home_as_itself(world):
    w = world(client_more='[[lend]]\nto = "Node.is_yours"\nparam = "leaf"\nas = "Lent"\nlifetime = "call"\n')
    assert w.node.is_yours(w.node.same()) is True
    assert w.node.is_yours(w.node.fresh()) is False
    assert w.node.is_yours(w.Leaves()) is False


def test_going_home_needs_no_lend(world):
    w = world()
    assert w.node.is_yours(w.node.same()) is True


def test_lent_object_is_dead_after_the_call_on_both_sides(world):
    w = world()
    assert w.node.borrow(w.Leaves("mine")) == "mine"
    w.node.borrow_and_keep(w.Leaves())
    with pytest.raises(ReferenceDead):
        w.impl.held[-1].name()
    with pytest.raises(RemoteError):
        w.node.ask_kept()
    w.impl.held.clear()
    assert w.baseline()


def test_object_lent_for_a_call_comes_home_in_its_answer(world):
    w = world()
    leaf = w.Leaves()
    assert w.node.hold_back(leaf) is leaf
    assert w.baseline()


def test_object_lent_for_the_connection_lives_on(world):
    w = world()
    w.node.keep(w.Leaves("kept"))
    assert w.node.ask_kept() == "kept"


def test_nothing_is_sent_for_an_object_that_no_lend_allows(world):
    w = world()
    w.pair.run()
    with pytest.raises(CallRefused, match=r"\[\[lend\]\] to = \"Node.is_yours\" param = \"leaf\""):
        w.node.is_yours(w.Leaves())
    assert not w.pair.client.session.wants_to_send
    assert w.baseline()


def test_nothing_is_sent_for_a_member_that_was_not_offered(world):
    w = world()
    w.pair.run()
    with pytest.raises(Denied, match="nothing was sent"):
        w.node.unoffered()
    assert not w.pair.client.session.wants_to_send


def test_stub_of_another_connection_is_not_passed_on_unless_a_policy_says_so(world):
    one, other = world(), world()
    with pytest.raises(CallRefused, match="no policy lets a reference of .* be passed on"):
        one.node.keep(other.node.same())
    assert one.baseline()


def test_call_that_cannot_be_encoded_rolls_back(world):
    w = world()
    with pytest.raises(TypeError):
        w.node.keep_both(w.Leaves(), "no leaf")
    with pytest.raises(TypeError):
        w.node.keep_all([w.Leaves(), w.Leaves(), 3])
    assert w.baseline()


def test_declared_error_keeps_what_was_taken(world):
    w = world()
    with pytest.raises(w.Refusal, match="not today"):
        w.node.fail("declared", w.Leaves("given"))
    assert w.impl.seen == ["given"]
    gc.collect()
    assert w.baseline()


def test_undeclared_error_is_internal_and_shows_nothing(world):
    w = world()
    with pytest.raises(RemoteError) as caught:
        w.node.fail("other", w.Leaves())
    assert caught.value.code == "internal"
    assert "secret" not in str(caught.value)
    reasons = [record for record in w.records("server") if record.get("reference") == caught.value.reference]
    assert [record["detail"].split(".py:")[0] for record in reasons] == ["raised in fail, conftest"]


def ask_raw(w, name, args):
    """Ask with arguments that our own checks would not let pass; return the question, answered."""
    client = w.pair.client.session
    target = w.node._caprpc_import
    question = client.ask(target, OP_CALL, name, pack([args, {}]), [], None, None)
    w.pair.run()
    return question


def announce_lent(w, lifetime=m.LIFETIME_CONNECTION):
    client = w.pair.client.session
    return client.announce(client.guard.facet("Lent"), lifetime)


def test_arguments_that_do_not_fit_roll_back_on_the_receiver(world):
    w = world()
    _, server = w.sessions
    facet = announce_lent(w).facet_id
    question = ask_raw(w, "keep_all", [[RemoteReference(41, facet), RemoteReference(42, facet), 3]])
    assert (question.outcome.code, question.outcome.taken) == ("invalid-arguments", False)
    assert len(server.imports) == 0


def test_reference_of_another_interface_rolls_back(world):
    w = world()
    client, server = w.sessions
    facet = client.announce(client.guard.facet("Invoke"), 0).facet_id
    question = ask_raw(w, "keep", [RemoteReference(41, facet)])
    assert (question.outcome.code, question.outcome.taken) == ("invalid-arguments", False)
    assert len(server.imports) == 0


def test_more_references_than_accepted_are_refused_with_limit_and_roll_back(world):
    w = world(server_more="[limits]\nimports = 3\n")
    facet = announce_lent(w).facet_id
    question = ask_raw(w, "keep_all", [[RemoteReference(40 + i, facet) for i in range(4)]])
    assert (question.outcome.code, question.outcome.taken) == ("limit", False)
    assert len(w.pair.server.session.imports) == 0


def test_well_behaved_client_does_not_send_more_references_than_accepted(world):
    w = world(server_more="[limits]\nimports = 3\n")
    with pytest.raises(LimitExceeded):
        w.node.keep_all([w.Leaves() for _ in range(4)])
    assert w.baseline()


def test_results_beyond_our_own_limit_are_given_back(world):
    w = world(client_more="[limits]\nimports = 4\n")
    # The server keeps to what we announce; one that does not is met here.
    w.pair.server.session.exports.limit = 100
    with pytest.raises(LimitExceeded):
        w.node.leaves(6)
    gc.collect()
    assert w.baseline()


def test_result_of_another_kind_is_given_back(world):
    w = world()
    _, server = w.sessions
    w.pair.server.holds = True
    pending = w.pair.client.start(w.node._caprpc_import, member(w, "leaves"), (1,), {})
    w.pair.run()
    job = w.pair.server.jobs.popleft()
    leaf = server.exports.hand_over(
        w.Leaves(), shape_of(w.Leaf), server.guard.facet("Leaf"), server.announce(server.guard.facet("Leaf"), 0), None
    )
    server.return_(job.answer, pack([RemoteReference(leaf.export_id, leaf.announced.facet_id), 3]))
    with pytest.raises(ResultError):
        pending.result()
    assert w.baseline()


@pytest.mark.parametrize("payload", [b"\xc1", pack([RemoteReference(9, 99)]), pack([OwnReference(77)])])
def test_result_that_breaks_the_protocol_ends_the_connection(payload, world):
    w = world()
    w.pair.server.holds = True
    pending = w.pair.client.start(w.node._caprpc_import, member(w, "leaves"), (1,), {})
    w.pair.run()
    w.pair.server.session.return_(w.pair.server.jobs.popleft().answer, payload)
    with pytest.raises((ProtocolError, ConnectionLost)):
        pending.result()
    w.pair.advance(0.0)
    assert w.pair.client.ended.code == "protocol-error"
    assert w.pair.server.ended.code == "protocol-error"


@pytest.mark.parametrize(
    "args", [[OwnReference(0)], [OwnReference(77)], [RemoteReference(0, 1)], [RemoteReference(5, 9)]]
)
def test_reference_that_breaks_the_tables_ends_the_connection(args, world):
    w = world()
    announce_lent(w)
    ask_raw(w, "keep", args)
    assert w.pair.server.ended.code == "protocol-error"


def test_reference_in_place_of_a_value_is_an_invalid_argument(world):
    w = world()
    facet = announce_lent(w).facet_id
    for name, args in (("leaves", [RemoteReference(5, facet)]), ("echo", [[RemoteReference(5, facet)]])):
        assert ask_raw(w, name, args).outcome.code == "invalid-arguments"
    assert w.pair.server.ended is None
    assert len(w.pair.server.session.imports) == 0


def test_forbidden_and_absent_members_are_refused_alike(world):
    w = world()
    answers = [ask_raw(w, name, []).outcome for name in ("unoffered", "no_such_member", "__init__")]
    assert len({(a.taken, a.code, a.type, a.text, len(a.reference)) for a in answers}) == 1


def test_refused_call_is_never_decoded(world):
    w = world()
    client = w.pair.client.session
    question = client.ask(w.node._caprpc_import, OP_CALL, "unoffered", b"\xc1 not a payload", [], None, None)
    w.pair.run()
    assert question.outcome.code == "denied"
    assert w.pair.server.ended is None


def test_permitted_call_with_a_broken_payload_ends_the_connection(world):
    w = world()
    w.pair.client.session.ask(w.node._caprpc_import, OP_CALL, "same", b"\xc1", [], None, None)
    w.pair.run()
    assert w.pair.server.ended.code == "protocol-error"


def test_argument_rule_is_checked_before_the_method_runs(world):
    w = world()
    assert w.node.echo([1, 2, 3]) == [1, 2, 3]
    with pytest.raises(RemoteError) as caught:
        w.node.echo([1, 2, 3, 4])
    assert caught.value.code == "invalid-arguments"
    (record,) = [r for r in w.records("server") if r.get("reference") == caught.value.reference]
    assert (record["decision"], record["reason"], record["member"]) == ("deny", "argument", "echo")
    assert record["rule"].startswith("client.toml:")


def test_result_that_does_not_fit_its_declaration_stays_here(world):
    w = world()
    with pytest.raises(RemoteError) as caught:
        w.node.wrong()
    assert caught.value.code == "invalid-result"
    assert "not a number" not in str(caught.value)


def test_root_whose_class_lacks_a_member_stops_the_start(world):
    base = type(world().impl)

    class Half(base):
        same = None

    with pytest.raises(ConfigurationError, match="same"):
        world(impl=Half())


def test_reference_that_goes_home_may_be_dropped_right_behind(world):
    w = world()
    stub = w.node.same()
    pending = w.pair.client.start(w.node._caprpc_import, member(w, "is_yours"), (stub,), {})
    del stub
    gc.collect()
    assert pending.result() is True
    assert w.baseline()


def test_answer_that_goes_home_may_be_dropped_right_behind(world):
    w = world()
    leaf = w.Leaves()
    w.node.keep(leaf)
    pending = w.pair.client.start(w.node._caprpc_import, member(w, "kept"), (), {})
    w.node.drop()
    gc.collect()
    w.pair.run()
    assert len(w.pair.client.session.exports) == 0
    assert pending.result() is leaf


def test_cancelled_call_gives_back_what_comes_late(world):
    w = world()
    w.pair.server.holds = True
    pending = w.pair.client.start(w.node._caprpc_import, member(w, "leaves"), (5,), {})
    w.pair.run()
    job = w.pair.server.jobs.popleft()
    value = job.run()
    w.pair.client.session.cancel(pending.question)
    w.pair.server.link.endpoint.finish(job, value)
    assert w.baseline()


def test_answer_that_came_and_is_not_read_is_given_back_by_cancel(world):
    w = world()
    pending = w.pair.client.start(w.node._caprpc_import, member(w, "leaves"), (5,), {})
    w.pair.run()
    w.pair.client.session.cancel(pending.question)
    assert w.baseline()


def test_cancelled_call_that_has_not_started_does_not_run(world):
    w = world()
    w.pair.server.holds = True
    pending = w.pair.client.start(w.node._caprpc_import, member(w, "keep"), (w.Leaves(),), {})
    w.pair.run()
    w.pair.client.session.cancel(pending.question)
    w.pair.run()
    w.pair.server.holds = False
    w.pair.run()
    assert w.impl.held == []
    gc.collect()
    assert w.baseline()


def test_cancel_kills_what_was_lent_for_the_call(world):
    w = world()
    w.pair.server.holds = True
    pending = w.pair.client.start(w.node._caprpc_import, member(w, "borrow"), (w.Leaves(),), {})
    w.pair.run()
    job = w.pair.server.jobs.popleft()
    w.pair.client.session.cancel(pending.question)
    (leaf,) = job.args
    with pytest.raises(RemoteError):
        leaf.name()
    w.pair.server.link.endpoint.finish(job, "late")
    del leaf, job
    assert w.baseline()


def test_callback_in_a_callback_counts_depth_to_the_limit_and_refuses_beyond(world):
    w = world(server_more="[limits]\ncallback_depth = 4\n", client_more="[limits]\ncallback_depth = 4\n")
    deepest = []

    def down(n):
        deepest.append(n)
        return n if n == 0 else w.node.apply(down, n - 1)

    assert w.node.apply(down, 1) == 0
    deepest.clear()
    with pytest.raises(RemoteError):
        w.node.apply(down, 2)
    assert w.baseline()


def test_reference_handed_through_a_lent_one_dies_with_it(world):
    w = world(
        server_more="[accept.Iterator]\niterate = true\n",
    )
    items = w.node.count(3)
    assert list(items) == [0, 1, 2]
    del items
    gc.collect()
    assert w.baseline()


def test_root_is_the_same_stub_each_time(world):
    w = world()
    assert w.pair.client.root("node", w.Node) is w.node


def test_unknown_and_forbidden_roots_are_denied_alike(world):
    w = world()
    for name in ("nothing", "label"):
        with pytest.raises(Denied):
            w.pair.client.root(name, w.Node)


def test_root_of_another_interface_is_given_back(world):
    w = world()
    before = w.pair.server.session.exports.live()[0].count
    with pytest.raises(ResultError):
        w.pair.client.root("node", w.Leaf)
    w.pair.run()
    assert w.pair.server.session.exports.live()[0].count == before


def test_policy_that_allows_less_depth_is_kept_by_the_other_side(world):
    w = world(server_more="[limits]\nmax_depth = 4\n")
    assert w.pair.client.session.opening.sends.max_depth == 4
    assert w.node.echo([1]) == [1]


def test_batch_is_guarded_call_by_call(world):
    w = world()
    target, echo = w.node._caprpc_import, member(w, "echo")
    results = w.pair.client.batch(
        [(target, echo, ([1],), {}), (target, echo, ([1, 2, 3, 4],), {}), (target, member(w, "wrong"), (), {})]
    )
    assert results[0] == [1]
    assert [error.code for error in results[1:]] == ["invalid-arguments", "invalid-result"]
    decisions = [r for r in w.records("server") if r["kind"] == "decision" and r["operation"] == "call"]
    assert [(r["member"], r["decision"]) for r in decisions] == [
        ("echo", "permit"),
        ("echo", "deny"),
        ("wrong", "permit"),
    ]


def test_batch_takes_no_references(world):
    w = world()
    w.pair.run()
    with pytest.raises(TypeError):
        w.pair.client.batch([(w.node._caprpc_import, member(w, "keep"), (w.Leaves(),), {})])
    assert w.baseline()


def run_raw(w, name, calls):
    client = w.pair.client.session
    run = m.Run(w.node._caprpc_import.export_id, OP_CALL, name, len(calls), pack(calls))
    question = client.ask_batch([run])
    w.pair.run()
    return question.outcome


def test_references_in_a_batch_are_invalid_arguments(world):
    w = world()
    facet = announce_lent(w).facet_id
    outcome = run_raw(w, "keep", [[[RemoteReference(5, facet)], {}]])
    assert [failure.code for failure in outcome.failures] == ["invalid-arguments"]
    assert len(w.pair.server.session.imports) == 0


def test_reference_as_result_in_a_batch_is_an_invalid_result(world):
    w = world()
    outcome = run_raw(w, "same", [[[], {}]])
    assert [failure.code for failure in outcome.failures] == ["invalid-result"]
    assert w.baseline()


def test_results_of_a_batch_that_do_not_fit_into_a_frame_are_over_the_limit_as_one_result_is(world, caplog):
    w = world()
    w.pair.server.session.largest_payload = 10
    numbers = [10**9] * 3
    with pytest.raises(RemoteError) as alone:
        w.node.echo(numbers)
    results = w.pair.client.batch([(w.node._caprpc_import, member(w, "echo"), (numbers,), {})] * 3)
    assert alone.value.code == "limit"
    assert [error.code for error in results] == ["limit"] * 3
    (reference,) = {error.reference for error in results}
    assert f"({reference})" in caplog.text
    assert "the peer takes" in caplog.text


def test_root_in_a_batch_is_refused(world):
    w = world()
    question = w.pair.client.session.ask_batch([m.Run(0, 0, "node", 1, pack([[[], {}]]))])
    w.pair.run()
    assert [failure.code for failure in question.outcome.failures] == ["denied"] or [
        failure.code for failure in question.outcome.failures
    ] == ["limit"]


def test_batch_that_says_more_calls_than_it_holds_ends_the_connection(world):
    w = world()
    client = w.pair.client.session
    client.ask_batch([m.Run(w.node._caprpc_import.export_id, OP_CALL, "same", 2, pack([[[], {}]]))])
    w.pair.run()
    assert w.pair.server.ended.code == "protocol-error"


@pytest.mark.parametrize(
    ("failures", "values"),
    [
        ([], [None]),
        ([], [None] * 3),
        ([5], [[1], [1]]),
        ([0, 0], [None, [1]]),
        ([0], [[1], [1]]),
    ],
    ids=["too-few", "too-many", "position", "twice", "failed-with-value"],
)
def test_batch_return_that_does_not_fit_ends_the_connection(failures, values, world):
    w = world()
    w.pair.server.holds = True
    echo = member(w, "echo")
    calls = [(w.node._caprpc_import, echo, ([1],), {})] * 2
    question = w.pair.client.link.outgoing.ask_batch(calls)
    w.pair.run()
    job = w.pair.server.jobs.popleft()
    made = [m.Failure(position, True, "internal", "", "", "R-1") for position in failures]
    w.pair.server.session.return_batch(job.answer, made, pack(values))
    w.pair.run()
    with pytest.raises(ProtocolError):
        w.pair.client.link.outgoing.conclude_batch(question, [echo, echo])
    w.pair.advance(0.0)
    assert w.pair.client.ended.code == "protocol-error"


def test_long_error_text_of_a_batch_is_cut(world):
    base = type(world().impl)

    class Long(base):
        def fail(self, kind, leaf):
            raise AssertionError

        def echo(self, value):
            raise self.error("x" * 10_000)

    w = world(impl=Long())
    member_of = member(w, "echo")
    member_of_errors = member_of.errors
    try:
        member_of.errors = (w.Refusal,)
        w.impl.error = w.Refusal
        (result,) = w.pair.client.batch([(w.node._caprpc_import, member_of, ([1],), {})])
    finally:
        member_of.errors = member_of_errors
    assert type(result) is w.Refusal
    assert len(str(result)) == 256
    assert w.pair.client.ended is None


def test_batch_result_larger_than_a_frame_fails_and_the_connection_goes_on(world):
    w = world(server_more="[limits]\nmax_items = 100000\n", client_more="[limits]\nmax_frame_bytes = 16384\n")
    base = w.impl
    base.echo = None
    type(base).echo.__get__(base)
    echo = member(w, "echo")
    big = [10**6] * 3
    results = w.pair.client.batch([(w.node._caprpc_import, echo, (big,), {})] * 64)
    assert len(results) == 64
    assert w.pair.client.ended is None


def test_nothing_is_handed_over_after_the_end(world):
    w = world()
    w.pair.server.holds = True
    w.pair.client.start(w.node._caprpc_import, member(w, "leaves"), (3,), {})
    w.pair.run()
    job = w.pair.server.jobs.popleft()
    w.pair.server.take(w.pair.server.link.abort("closed", "a test"))
    w.pair.server.run_job(job)
    assert len(w.pair.server.session.exports) == 0
    assert unpack(pack([])) == []


def test_callback_that_came_before_the_answer_runs_although_its_object_is_dead_by_now(world):
    w = world()
    heard = []
    w.pair.server.holds = True
    pending = w.pair.client.start(w.node._caprpc_import, member(w, "apply"), (lambda n: heard.append(n) or n, 1), {})
    w.pair.run()
    job = w.pair.server.jobs.popleft()
    function, value = job.args
    callback = w.pair.server.link.outgoing.ask(
        function._caprpc_import, function._caprpc_shape.members[4, ""], (value,), {}, Origin(job.answer)
    )
    # The callback and the answer go in one packet.
    w.pair.server.link.endpoint.finish(job, 0)
    assert pending.result() == 0
    w.pair.run()
    assert heard == [1]
    assert type(callback.outcome) is m.Return


def test_batch_on_an_object_that_is_dead_by_now_is_refused(world):
    w = world()
    w.pair.server.holds = True
    w.pair.client.start(w.node._caprpc_import, member(w, "borrow"), (w.Leaves(),), {})
    w.pair.run()
    job = w.pair.server.jobs.popleft()
    (leaf,) = job.args
    name = leaf._caprpc_shape.members[OP_CALL, "name"]
    batch = w.pair.server.link.outgoing.ask_batch([(leaf._caprpc_import, name, (), {})])
    w.pair.server.link.endpoint.finish(job, "x")
    w.pair.run()
    assert [failure.code for failure in batch.outcome.failures] == ["denied"]
    assert w.pair.client.ended is None
