"""Lesser references: what is kept of them, how they end, and what ends with them; both sides in one thread."""

import gc
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import caprpc
from caprpc import CallRefused, Denied, LimitExceeded, ReferenceDead, RemoteError
from caprpc.ids import OP_ATTENUATE, OP_CALL, OP_GET, OP_REVOKE, OP_SET
from caprpc.objects.revocation import end
from caprpc.wire import codec
from caprpc.wire.messages import Facet, Raise, Revoked


def ask(w, stub, operation, *args, member=""):
    """Ask below the stub, as a peer that follows no interface; return the code of the refusal, or ``ok``."""
    imported = stub._caprpc_import
    client = w.sessions[0]
    question = client.ask(imported, operation, member, codec.pack([list(args), {}]), [], None, None)
    w.pair.run_until(question)
    client.discard(question)
    return question.outcome.code if isinstance(question.outcome, Raise) else "ok"


def terms(only=None, args=None, uses=None, for_s=None, rate=None, chain=None):
    return (only, args, uses, for_s, rate, chain)


class TestOfTheirs:
    def test_members_that_are_not_kept_are_not_offered_and_are_denied(self, world):
        w = world()
        less = caprpc.attenuate(w.node, only=["same", "label"])
        assert less.same().name() == "same"
        assert less.label == "node"
        with pytest.raises(Denied, match="nothing was sent"):
            less.fresh()
        assert ask(w, less, OP_CALL, member="fresh") == "denied"
        assert ask(w, less, OP_SET, "other", member="label") == "denied"
        assert w.node.fresh().name() == "fresh"

    def test_announcement_lists_what_is_kept(self, world, monkeypatch):
        w = world()
        said = []
        queue = w.sessions[1].queue
        monkeypatch.setattr(w.sessions[1], "queue", lambda message: (said.append(message), queue(message)))
        caprpc.attenuate(w.node, only={"call": ["same"], "get": ["label"]})
        (facet,) = [message for message in said if isinstance(message, Facet)]
        assert facet.members == [(OP_CALL, "same"), (OP_GET, "label")]

    def test_equal_narrowings_are_announced_once(self, world):
        w = world()
        facets = [caprpc.attenuate(w.node, only=["same"])._caprpc_import.announced for _ in range(3)]
        assert len(set(facets)) == 1

    def test_arguments_are_narrowed_in_the_words_of_the_policy(self, world):
        w = world()
        less = caprpc.attenuate(w.node, args={"leaves": {"count": {"max": 2}}})
        assert len(less.leaves(2)) == 2
        with pytest.raises(RemoteError) as caught:
            less.leaves(3)
        assert caught.value.code == "invalid-arguments"
        assert len(w.node.leaves(3)) == 3

    def test_argument_rules_of_the_policy_stay(self, world):
        less = caprpc.attenuate(world().node, args={"echo": {"value": {"max_len": 100}}})
        with pytest.raises(RemoteError):
            less.echo([1, 2, 3, 4])

    def test_uses_are_counted_also_on_what_was_obtained(self, world):
        w = world()
        less = caprpc.attenuate(w.node, uses=3)
        leaf = less.same()
        assert leaf.name() == "same"
        assert less.echo([1]) == [1]
        for spent in (leaf.name, lambda: less.echo([1])):
            with pytest.raises(Denied):
                spent()
        assert w.node.same().name() == "same"

    def test_use_that_is_refused_is_not_counted(self, world):
        w = world()
        less = caprpc.attenuate(w.node, uses=1)
        assert ask(w, less, OP_CALL, member="unoffered") == "denied"
        assert less.echo([1]) == [1]

    def test_time_ends_it_and_what_was_obtained(self, world):
        w = world()
        less = caprpc.attenuate(w.node, for_s=10)
        leaf = less.same()
        w.pair.now += 9.9
        assert leaf.name() == "same"
        w.pair.now += 0.1
        for dead in (leaf.name, lambda: less.echo([1])):
            with pytest.raises(ReferenceDead):
                dead()

    def test_holder_learns_of_the_end_of_the_time(self, world):
        w = world()
        less = caprpc.attenuate(w.node, for_s=10)
        w.pair.advance(11)
        assert "(revoked)" in repr(less)

    def test_rate(self, world):
        w = world()
        less = caprpc.attenuate(w.node, rate=2)
        assert [less.echo([n]) for n in (1, 2)] == [[1], [2]]
        with pytest.raises(RemoteError) as caught:
            less.echo([3])
        assert caught.value.code == "limit"
        w.pair.now += 0.5
        assert less.echo([3]) == [3]

    def test_composes_and_never_widens(self, world):
        w = world()
        less = caprpc.attenuate(w.node, only=["echo", "same"], uses=2)
        least = caprpc.attenuate(less, only=["echo"], uses=100)
        assert least.echo([1]) == [1]
        with pytest.raises(Denied):
            caprpc.attenuate(least, only=["same"])
        assert ask(w, least, OP_ATTENUATE, *terms(only=[[OP_CALL, "same"]])) == "denied"
        assert least.echo([2]) == [2]
        with pytest.raises(Denied):
            least.echo([3])

    def test_reload_that_narrows_the_base_narrows_the_derived(self, world):
        w = world()
        less = caprpc.attenuate(w.node, only=["echo", "same"])
        guard = w.sessions[1].guard
        guard.narrow(None)
        assert ask(w, less, OP_CALL, [1], member="echo") == "denied"
        assert ask(w, less, OP_ATTENUATE, *terms()) == "denied"

    def test_derivations_are_bounded(self, world):
        w = world()
        less = w.node
        for _ in range(16):
            less = caprpc.attenuate(less)
        with pytest.raises(RemoteError) as caught:
            caprpc.attenuate(less)
        assert caught.value.code == "limit"

    def test_derived_references_count_as_exports(self, world):
        w = world("[limits]\nexports = 4\n")
        kept = [caprpc.attenuate(w.node) for _ in range(3)]
        with pytest.raises(RemoteError) as caught:
            caprpc.attenuate(w.node)
        assert caught.value.code == "limit"
        kept.clear()
        gc.collect()
        w.pair.run()
        assert caprpc.attenuate(w.node).echo([1]) == [1]

    def test_iterators_are_not_narrowed(self, world):
        w = world()
        with pytest.raises(Denied):
            caprpc.attenuate(w.node.count(3))


HOSTILE = [
    terms(chain=[]),
    terms(chain="spiffe://a.example/b"),
    terms(chain=["spiffe://a.example/b"] * 17),
    terms(chain=["not one"]),
    terms(chain=[1]),
    (),
    (None,) * 5,
    (None,) * 7,
    (1, None, None, None, None, None),
    ([[1]], None, None, None, None, None),
    ([["call", "echo"]], None, None, None, None, None),
    ([[1, 2]], None, None, None, None, None),
    (None, 1, None, None, None, None),
    (None, {"echo": 1}, None, None, None, None),
    (None, {"echo": {"value": {"max_len": -1}}}, None, None, None, None),
    (None, {"echo": {"value": {"regex": "(a+)+"}}}, None, None, None, None),
    (None, {"echo": {"value": {}}}, None, None, None, None),
    (None, {"echo": {"other": {"max": 1}}}, None, None, None, None),
    (None, None, 0, None, None, None),
    (None, None, -1, None, None, None),
    (None, None, True, None, None, None),
    (None, None, 1.5, None, None, None),
    (None, None, None, 0.0, None, None),
    (None, None, None, -1.0, None, None),
    (None, None, None, float("inf"), None, None),
    (None, None, None, float("nan"), None, None),
    (None, None, None, None, float("nan"), None),
    (None, None, None, "1", None, None),
]


@pytest.mark.parametrize("args", HOSTILE)
def test_terms_out_of_bounds_are_refused_and_derive_nothing(world, args):
    w = world()
    before = len(w.sessions[1].exports)
    assert ask(w, w.node, OP_ATTENUATE, *args) == "invalid-arguments"
    assert len(w.sessions[1].exports) == before


def test_long_terms_are_refused(world):
    w = world()
    many = {"echo": {"value": {"in": [f"value {n}" for n in range(900)]}}}
    assert ask(w, w.node, OP_ATTENUATE, *terms(args=many)) == "limit"


@pytest.mark.parametrize("unknown", [[OP_CALL, "unoffered"], [OP_CALL, "no_such_member"], [99, ""], [OP_SET, "echo"]])
def test_unknown_member_is_refused_with_the_bytes_of_a_forbidden_one(world, unknown, monkeypatch):
    w = world()
    said = []
    queue = w.sessions[1].queue
    monkeypatch.setattr(w.sessions[1], "queue", lambda message: (said.append(message), queue(message)))
    assert ask(w, w.node, OP_ATTENUATE, *terms(only=[unknown])) == "denied"
    assert ask(w, w.node, OP_CALL, member="unoffered") == "denied"
    one, other = (codec.encode_message(Raise(1, r.taken, r.code, r.type, r.text, "")) for r in said)
    assert one == other


class TestOfOurs:
    def test_handle_goes_in_place_of_the_object(self, world):
        w = world()
        leaf = w.Leaves("mine")
        less = caprpc.attenuate(leaf, uses=1)
        w.node.keep(less)
        assert w.node.ask_kept() == "mine"
        with pytest.raises(RemoteError):
            w.node.ask_kept()
        assert w.node.borrow(leaf) == "mine"

    def test_object_comes_home_as_itself(self, world):
        w = world()
        leaf = w.Leaves("mine")
        w.node.keep(caprpc.attenuate(leaf, uses=5))
        assert w.node.kept() is leaf

    def test_same_object_through_the_same_handle_is_the_same_reference(self, world):
        w = world()
        leaf = w.Leaves("mine")
        less = caprpc.attenuate(leaf)
        assert w.node.keep_both(less, less)
        assert not w.node.keep_both(less, caprpc.attenuate(leaf))
        assert not w.node.keep_both(less, leaf)

    def test_results_may_be_handles(self, world):
        w = world()
        w.impl.leaf = caprpc.attenuate(w.Leaves("narrow"), uses=1)
        leaf = w.node.same()
        assert leaf.name() == "narrow"
        with pytest.raises(Denied):
            leaf.name()

    def test_handle_of_a_handle_never_widens(self, world):
        w = world()
        less = caprpc.attenuate(w.Leaves("mine"), uses=1)
        w.node.keep(caprpc.attenuate(less, uses=9))
        assert w.node.ask_kept() == "mine"
        with pytest.raises(RemoteError):
            w.node.ask_kept()

    def test_functions_are_narrowed_too(self, world):
        w = world()
        assert w.node.apply(caprpc.attenuate(lambda n: n + 1, uses=1), 1) == 2

    def test_functions_are_narrowed_to_what_there_is(self, world):
        w = world()
        kept = caprpc.attenuate(lambda n: n + 1, only=["invoke"], args={"invoke": {"argument1": {"max": 9}}})
        assert w.node.apply(kept, 1) == 2
        with pytest.raises(RemoteError):
            w.node.apply(kept, 10)
        for terms_of in ({"only": ["typo"]}, {"only": {"call": ["invoke"]}}, {"args": {"call": {"n": {"max": 9}}}}):
            with pytest.raises(ValueError, match="function has no '[a-z]+'; there is: invoke"):
                caprpc.attenuate(lambda n: n, **terms_of)

    @pytest.mark.parametrize("value", [1, "text", None, (1,), b""])
    def test_values_are_not_narrowed(self, value):
        with pytest.raises(TypeError, match="copied"):
            caprpc.attenuate(value)

    def test_unknown_member_is_named(self, world):
        with pytest.raises(ValueError, match="no 'nmae'; there is: name"):
            caprpc.attenuate(world().Leaves(), only=["nmae"])

    @pytest.mark.parametrize(
        "bad",
        [
            {"only": "name"}, {"only": []}, {"only": [1]}, {"only": {"calls": ["name"]}}, {"only": {"iterate": False}},
            {"args": {"name": 1}}, {"args": {"name": {"x": {"max": "a"}}}}, {"uses": 0}, {"uses": True}, {"for_s": 0},
            {"for_s": float("nan")}, {"rate": -1}, {"rate": "1"},
        ],
    )  # fmt: skip
    def test_terms_that_are_none_are_refused(self, world, bad):
        with pytest.raises((TypeError, ValueError)):
            caprpc.attenuate(world().Leaves(), **bad)

    def test_handle_is_no_object(self, world):
        less = caprpc.attenuate(world().Leaves())
        with pytest.raises(AttributeError, match="handed out"):
            less.name()
        assert repr(less) == "<narrowed LeafImpl>"


class TestRevoke:
    def test_of_a_handle_ends_it_at_once_and_tells_the_holder(self, world):
        w = world()
        less = caprpc.attenuate(w.Leaves("mine"))
        w.node.keep(less)
        (stub,) = w.impl.held
        caprpc.revoke(less)
        assert [export.obj for export in w.sessions[0].exports.live()] == [None]
        w.pair.run()
        with pytest.raises(ReferenceDead, match="has revoked it"):
            stub.name()
        assert len(w.sessions[0].exports) == len(w.sessions[1].imports) == 0
        with pytest.raises(CallRefused, match="ended"):
            w.node.keep(less)

    def test_is_checked_at_use_and_not_at_delivery(self, world):
        w = world()
        less = caprpc.attenuate(w.node)
        (derived,) = [e for e in w.sessions[1].exports.live() if e.right is not None]
        derived.right.revoke()
        assert ask(w, less, OP_ATTENUATE, *terms()) == "denied"
        assert ask(w, less, OP_CALL, [1], member="echo") == "denied"

    def test_reaches_what_was_derived_and_obtained(self, world):
        w = world()
        less = caprpc.attenuate(w.node)
        least = caprpc.attenuate(less, only=["same", "count"])
        leaf, numbers, method = least.same(), least.count(100), least.same
        assert next(numbers) == 0
        caprpc.revoke(less)
        for dead in (leaf.name, method, less.drop, numbers.__next__):
            with pytest.raises(ReferenceDead, match="revoked"):
                for _ in range(40):
                    dead()
        assert w.node.same().name() == "same"
        del less, least, leaf, numbers, method, dead
        gc.collect()
        w.pair.run()
        assert w.baseline()

    def test_of_the_lesser_leaves_the_greater(self, world):
        w = world()
        less = caprpc.attenuate(w.node)
        least = caprpc.attenuate(less)
        caprpc.revoke(least)
        caprpc.revoke(least)
        assert less.echo([1]) == [1]

    def test_of_what_is_not_ours_is_refused(self, world):
        w = world()
        with pytest.raises(TypeError, match="not ours to revoke"):
            caprpc.revoke(w.node)
        assert ask(w, w.node, OP_REVOKE, True) == "denied"
        leaf = caprpc.attenuate(w.node).same()
        assert ask(w, leaf, OP_REVOKE, True) == "denied"

    def test_of_a_handle_is_not_for_its_holder(self, world):
        w = world()
        w.node.keep(caprpc.attenuate(w.Leaves("mine"), only=["name"]))
        server, held = w.sessions[1], w.impl.held[0]._caprpc_import
        question = server.ask(held, OP_REVOKE, "", codec.pack([[True], {}]), [], None, None)
        w.pair.run_until(question)
        assert question.outcome.code == "denied"
        assert w.node.ask_kept() == "mine"

    def test_of_an_object_ends_every_reference_to_it(self, world):
        w = world()
        leaf = w.Leaves("mine")
        w.node.keep_both(leaf, caprpc.attenuate(leaf))
        caprpc.revoke(leaf, to="spiffe://test.example/other")
        assert w.node.ask_kept() == "mine"
        caprpc.revoke(leaf)
        w.pair.run()
        for stub in w.impl.held:
            with pytest.raises(ReferenceDead):
                stub.name()
        w.node.keep(leaf)
        assert w.node.ask_kept() == "mine"

    @pytest.mark.parametrize("in_flight", ["cancel", "finish"])
    def test_calls_in_flight(self, world, in_flight):
        w = world()
        less = caprpc.attenuate(w.node)
        w.pair.server.holds = True
        question = w.pair.client.start(less._caprpc_import, less._caprpc_shape.members[OP_CALL, "echo"], ([1],), {})
        w.pair.run()
        (export,) = [e for e in w.sessions[1].exports.live() if e.right is not None]
        end(export.right, cut=in_flight == "cancel")
        (job,) = w.pair.server.jobs
        assert job.answer.cancelled == (in_flight == "cancel")
        if in_flight == "finish":
            # It has arrived and not begun: nothing of it may end.
            w.pair.server.holds = False
        with pytest.raises(ReferenceDead):
            question.result()
        w.pair.server.holds = False
        w.pair.run()
        assert w.sessions[1].answers.room == w.sessions[1].limits.in_flight

    def test_is_recorded(self, world):
        w = world()
        caprpc.revoke(caprpc.attenuate(w.node))
        (record,) = [r for r in w.records("server") if r["kind"] == "revoke"]
        assert (record["facet"], record["count"]) == ("Node", 1)

    def test_wrong_word_for_running_calls(self, world):
        with pytest.raises(ValueError, match="'cancel' or 'finish'"):
            caprpc.revoke(world().Leaves(), in_flight="stop")

    def test_revoked_is_read_before_an_answer_that_names_it(self, world):
        """The answer came first and is read late: the reference in it is dead, and its counts go back."""
        w = world()
        leaf = w.impl.leaf
        pending = w.pair.client.start(w.node._caprpc_import, w.node._caprpc_shape.members[OP_CALL, "same"], (), {})
        w.pair.run()
        caprpc.revoke(leaf)
        w.pair.run()
        stub = pending.result()
        with pytest.raises(ReferenceDead, match="revoked"):
            stub.name()
        del stub, pending
        gc.collect()
        assert w.baseline()

    def test_numbers_that_nobody_holds_are_ignored(self, world):
        w = world()
        w.sessions[1].queue(Revoked([12_345]))
        w.pair.run()
        assert w.node.echo([1]) == [1]


class TestLend:
    def test_block_ends_what_was_lent(self, world):
        w = world()
        with caprpc.lend(w.Leaves("mine"), w.Leaf) as ref:
            w.node.keep(ref)
            assert w.node.ask_kept() == "mine"
        w.pair.run()
        with pytest.raises(ReferenceDead):
            w.impl.held[0].name()
        w.node.drop()
        assert w.baseline()

    def test_block_that_fails_ends_it_too(self, world):
        w = world()
        with pytest.raises(ZeroDivisionError), caprpc.lend(w.node, only=["echo"]) as ref:
            kept = ref
            raise ZeroDivisionError
        with pytest.raises(ReferenceDead):
            kept.echo([1])

    def test_goes_out_as_the_interface_it_was_lent_as(self, world):
        w = world()
        with pytest.raises(TypeError), caprpc.lend(w.Leaves(), w.Node):
            pass
        with pytest.raises(TypeError), caprpc.lend(w.node, w.Leaf):
            pass

    def test_terms_hold(self, world):
        w = world()
        with caprpc.lend(w.Leaves("mine"), w.Leaf, uses=1) as ref:
            assert w.node.borrow(ref) == "mine"
            with pytest.raises(RemoteError):
                w.node.borrow(ref)


@pytest.mark.parametrize(
    ("line", "later"), [("lifetime = 10", "time"), ('lifetime = "connection"\nmax_uses = 2', "uses")]
)
def test_terms_of_the_policy_hold(world, line, later):
    w = world(client_more="")
    session = w.sessions[0]
    lends = dict(session.guard._lends)
    key = ("Node", "keep", "leaf")
    lends[key] = replace(lends[key], **({"lifetime": 10.0} if later == "time" else {"max_uses": 2}))
    session.guard._lends = lends
    w.node.keep(w.Leaves("mine"))
    stub = w.impl.held[0]
    assert stub.name() == "mine"
    if later == "time":
        w.pair.now += 10
        with pytest.raises(ReferenceDead):
            stub.name()
    else:
        assert stub.name() == "mine"
        with pytest.raises(Denied):
            stub.name()
        w.node.keep(w.Leaves("again"))
        assert w.impl.held[1].name() == "again"


NAMES = ["echo", "same", "fresh", "leaves", "label", "count", "drop"]


def test_each_derivation_permits_a_part_of_the_one_before(world):
    w = world()

    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(chain=st.lists(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), min_size=1, max_size=5))
    def narrows(chain):
        right, kept = w.node, set(NAMES)
        for names in chain:
            try:
                right = caprpc.attenuate(right, only=names)
            except Denied:
                assert not set(names) <= kept
                return
            assert set(names) <= kept
            kept = set(names)
            assert {name for operation, name in right._caprpc_import.announced.operations} == kept

    narrows()


def test_what_passes_in_through_a_revoked_reference_is_of_no_use(world):
    w = world()
    less = caprpc.attenuate(w.node)
    leaf = w.Leaves("mine")
    less.keep(leaf)
    w.node.keep(leaf)
    through, beside = w.impl.held
    assert through is not beside
    assert through.name() == beside.name() == "mine"
    less.keep(leaf)
    assert w.impl.held[2] is through
    caprpc.revoke(less)
    with pytest.raises(ReferenceDead, match="came in through"):
        through.name()
    assert beside.name() == "mine"
    w.node.drop()
    del through, beside
    gc.collect()
    w.pair.run()
    assert len(w.sessions[1].imports) == 0


def test_release_after(world):
    w = world()
    with caprpc.release_after(w.node.fresh()) as leaf:
        assert leaf.name() == "fresh"
    with pytest.raises(ReferenceDead, match="released"):
        leaf.name()
    w.pair.run()
    assert w.baseline()


@pytest.mark.parametrize("in_a_cycle", [False, True], ids=["alone", "cycle"])
def test_reference_that_a_finalizer_brings_back_breaks_nothing_and_leaves_nothing(world, in_a_cycle):
    """In a cycle its own finalizer has run as well: it may be dead then, and says so."""
    w = world()
    risen = []

    class Phoenix:
        def __init__(self, leaf):
            self.leaf = leaf
            self.cycle = self if in_a_cycle else None

        def __del__(self):
            risen.append(self.leaf)

    phoenix = Phoenix(w.node.fresh())
    del phoenix
    gc.collect()
    w.pair.run()
    (leaf,) = risen
    try:
        assert leaf.name() == "fresh"
    except ReferenceDead:
        assert in_a_cycle
    assert w.node.same().name() == "same"
    risen.clear()
    del leaf
    gc.collect()
    assert w.baseline()


def test_handle_beyond_the_derivations(world):
    less = caprpc.attenuate(world().Leaves())
    for _ in range(15):
        less = caprpc.attenuate(less)
    with pytest.raises(LimitExceeded):
        caprpc.attenuate(less)
