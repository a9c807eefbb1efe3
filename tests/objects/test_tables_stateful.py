"""Random histories over a pair: whatever was called, kept, dropped, cancelled, in the end every table is empty."""

import gc
import logging
import tempfile
import weakref
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import caprpc
from caprpc import CapRPCError, IteratorBusy
from caprpc.ids import OP_CALL, OP_CLOSE, OP_NEXT
from caprpc.interface import shape_of
from caprpc.objects.attenuation import AttenuateMember, EndMember, Terms, narrow
from caprpc.objects.iteration import RemoteIterator
from caprpc.objects.revocation import end as end_right
from caprpc.objects.stubs import Stub
from caprpc.testing.pair import Pair

SIZES = st.integers(0, 3)
INDEX = st.integers(0, 1_000_000)


class Batched:
    """A batch that is under way."""

    def __init__(self, end, calls):
        self._end, self._members = end, [member for _, member, _, _ in calls]
        self.question = end.link.outgoing.ask_batch(calls, None)

    def result(self):
        self._end._network.run_until(self.question)
        return self._end.link.outgoing.conclude_batch(self.question, self._members)


def histories(make_pair, classes):
    """Return the state machine for one deployment."""
    node_class, leaf_class, make_leaf, make_node, Refusal = classes

    class Histories(RuleBasedStateMachine):
        @initialize()
        def connect(self):
            self.impl = make_node()
            self.pair = make_pair(self.impl)
            self.node = self.pair.client.root("node", node_class)
            self.ours = [make_leaf() for _ in range(2)]
            self.stubs = []
            self.pending = []
            self.rights = []
            self.watched = []
            self.streams = []
            self.promises = []
            self.lent = []

        def teardown(self):
            if not hasattr(self, "pair"):
                return
            try:
                self.settle_all()
            finally:
                self.pair.end()

        def settle_all(self):
            self.pair.client.holds = self.pair.server.holds = False
            self.pair.run()
            self.forget_all()
            for end in (self.pair.client, self.pair.server):
                assert end.ended is None, end.ended.detail
            self.rights.clear()
            gc.collect()
            assert [right for right in self.watched if right() is not None] == []
            tables = [
                (session.exports.live(), session.imports.live(), session.asked.open, session.answers)
                for session in (self.pair.client.session, self.pair.server.session)
            ]
            assert tables == [([], [], {}, {})] * 2
            assert not any(end.session.exports.standing for end in (self.pair.client, self.pair.server))
            assert self.pair.client.session.asked.kept == 0
            assert not self.pair.server.session.kept

        def forget_all(self):
            for pending in self.pending:
                self.read(pending)
            self.pending.clear()
            self.stubs.clear()
            self.streams.clear()
            self.promises.clear()
            while self.lent:
                self.lent.pop()[0].close()
            self.impl.held.clear()
            self.impl.leaf = None
            self.node = None
            gc.collect()
            self.pair.run()

        def read(self, pending):
            """Take a result; keep the references in it."""
            try:
                result = pending.result()
            except (CapRPCError, Refusal, IteratorBusy):
                return
            if isinstance(result, RemoteIterator):
                self.streams.append(result)
                return
            found = result if isinstance(result, list) else [result]
            self.stubs += [item for item in found if isinstance(item, leaf_class) or "Stub" in type(item).__name__]

        def start(self, name, *args):
            member = shape_of(node_class).members[OP_CALL, name]
            try:
                self.pending.append(self.pair.client.start(self.node._caprpc_import, member, args, {}))
            except CapRPCError:
                return

        def leaf(self, index):
            choice = self.ours + self.stubs
            return choice[index % len(choice)]

        def room(self):
            return len(self.pending) < 12

        @precondition(room)
        @rule(name=st.sampled_from(["fresh", "same", "kept"]))
        def get(self, name):
            self.start(name)

        @precondition(room)
        @rule(names=st.lists(st.sampled_from(["echo", "fresh", "wrong", "drop"]), min_size=1, max_size=4))
        def batch(self, names):
            """A reference as a result is none in a batch: it is taken back."""
            members = [shape_of(node_class).members[OP_CALL, name] for name in names]
            calls = [(self.node._caprpc_import, one, ([1],) if one.name == "echo" else (), {}) for one in members]
            self.pending.append(Batched(self.pair.client, calls))

        @precondition(room)
        @rule(count=SIZES)
        def get_many(self, count):
            self.start("leaves", count)

        @precondition(room)
        @rule(index=INDEX, name=st.sampled_from(["keep", "borrow", "borrow_and_keep", "hold_back", "is_yours"]))
        def hand_over(self, index, name):
            self.start(name, self.leaf(index))

        @precondition(room)
        @rule(one=INDEX, other=INDEX)
        def hand_over_two(self, one, other):
            self.start("keep_both", self.leaf(one), self.leaf(other))

        def start_on(self, stub, operation, *args):
            member = stub._caprpc_shape.members[operation, ""]
            try:
                self.pending.append(self.pair.client.start(stub._caprpc_import, member, args, {}))
            except CapRPCError:
                return

        @precondition(room)
        @rule(count=SIZES)
        def open_stream(self, count):
            self.start("count", count)

        @precondition(lambda self: self.streams and len(self.pending) < 12)
        @rule(index=INDEX, most=st.integers(1, 3))
        def pull(self, index, most):
            self.start_on(self.streams[index % len(self.streams)], OP_NEXT, most, 65_536)

        @precondition(lambda self: self.streams and len(self.pending) < 12)
        @rule(index=INDEX)
        def close_stream(self, index):
            self.start_on(self.streams[index % len(self.streams)], OP_CLOSE)

        @precondition(lambda self: self.streams)
        @rule(index=INDEX)
        def drop_stream(self, index):
            self.streams.pop(index % len(self.streams))

        @precondition(lambda self: len(self.promises) < 6 and len(self.pending) < 12)
        @rule(name=st.sampled_from(["fresh", "same", "kept"]))
        def promise(self, name):
            member = shape_of(node_class).members[OP_CALL, name]
            try:
                self.promises.append(self.pair.client.step(self.node._caprpc_import, member, (), {}))
            except CapRPCError:
                return

        @precondition(lambda self: self.promises and len(self.pending) < 12)
        @rule(index=INDEX)
        def step_on_promise(self, index):
            promise = self.promises[index % len(self.promises)]
            try:
                self.pending.append(promise.name())
            except (CapRPCError, Refusal):
                return

        @precondition(lambda self: self.promises)
        @rule(index=INDEX)
        def drop_promise(self, index):
            self.promises.pop(index % len(self.promises))

        @precondition(lambda self: len(self.lent) < 3)
        @rule(index=INDEX, uses=st.none() | st.integers(1, 3))
        def lend(self, index, uses):
            block = ExitStack()
            handle = block.enter_context(caprpc.lend(self.ours[index % 2], leaf_class, uses=uses))
            self.watched.append(weakref.ref(handle._caprpc_right))
            self.lent.append((block, handle))

        @precondition(lambda self: self.lent and len(self.pending) < 12)
        @rule(index=INDEX, name=st.sampled_from(["keep", "borrow", "borrow_and_keep", "hold_back", "is_yours"]))
        def hand_over_lent(self, index, name):
            self.start(name, self.lent[index % len(self.lent)][1])

        @precondition(lambda self: self.lent)
        @rule(index=INDEX)
        def end_of_block(self, index):
            self.lent.pop(index % len(self.lent))[0].close()

        @precondition(room)
        @rule(index=INDEX, kind=st.sampled_from(["declared", "other"]))
        def fail(self, index, kind):
            self.start("fail", kind, self.leaf(index))

        @precondition(room)
        @rule(value=st.integers(0, 3))
        def call_back(self, value):
            def function(n):
                return n if n <= 0 else self.node.apply(function, n - 1)

            self.start("apply", function, value)

        @precondition(room)
        @rule()
        def let_go_there(self):
            self.start("drop")

        def keeps(self, handle):
            right = handle._caprpc_right
            self.watched.append(weakref.ref(right))
            self.rights.append(handle)

        @precondition(lambda self: len(self.rights) < 6)
        @rule(index=INDEX, uses=st.none() | st.integers(1, 3), for_s=st.none() | st.integers(1, 5))
        def narrow_ours(self, index, uses, for_s):
            choice = [*self.ours, *self.rights]
            terms = Terms.of(uses=uses, for_s=for_s)
            try:
                self.keeps(narrow(choice[index % len(choice)], terms, self.pair.now))
            except CapRPCError:
                return

        @precondition(lambda self: self.rights and len(self.pending) < 12)
        @rule(index=INDEX, name=st.sampled_from(["keep", "borrow", "hold_back", "is_yours"]))
        def hand_over_handle(self, index, name):
            self.start(name, self.rights[index % len(self.rights)])

        @precondition(lambda self: self.rights)
        @rule(index=INDEX, cut=st.booleans())
        def revoke_ours(self, index, cut):
            end_right(self.rights.pop(index % len(self.rights))._caprpc_right, cut=cut)

        @precondition(lambda self: self.rights)
        @rule(index=INDEX)
        def forget_handle(self, index):
            self.rights.pop(index % len(self.rights))

        @precondition(room)
        @rule(index=INDEX, uses=st.none() | st.integers(1, 3), for_s=st.none() | st.integers(1, 5))
        def narrow_theirs(self, index, uses, for_s):
            stubs = [self.node, *(stub for stub in self.stubs if isinstance(stub, Stub))]
            stub = stubs[index % len(stubs)]
            member = AttenuateMember(stub, Terms.of(uses=uses, for_s=for_s))
            try:
                self.pending.append(self.pair.client.start(stub._caprpc_import, member, (stub,), {}))
            except CapRPCError:
                return

        @precondition(lambda self: self.stubs and len(self.pending) < 12)
        @rule(index=INDEX, cut=st.booleans())
        def revoke_theirs(self, index, cut):
            stub = self.stubs[index % len(self.stubs)]
            imported = getattr(stub, "_caprpc_import", None)
            if imported is None or not imported.derived or not imported.alive:
                return
            self.pending.append(self.pair.client.start(imported, EndMember(), (cut,), {}))

        @rule(name=st.sampled_from(["same", "node"]))
        def revoke_object(self, name):
            caprpc.revoke(self.impl.leaf if name == "same" else self.ours[0])

        @precondition(lambda self: self.stubs and len(self.pending) < 12)
        @rule(index=INDEX)
        def call_through(self, index):
            stub = self.stubs[index % len(self.stubs)]
            shape = getattr(stub, "_caprpc_shape", None)
            member = None if shape is None else shape.members.get((OP_CALL, "name" if shape.name == "Leaf" else "same"))
            if member is None:
                return
            try:
                self.pending.append(self.pair.client.start(stub._caprpc_import, member, (), {}))
            except CapRPCError:
                return

        @rule(seconds=st.integers(1, 3))
        def wait(self, seconds):
            self.pair.advance(seconds)

        @rule()
        def forbidden(self):
            member = shape_of(node_class).members[OP_CALL, "unoffered"]
            with pytest.raises(CapRPCError):
                self.pair.client.start(self.node._caprpc_import, member, (), {})

        @rule(steps=st.integers(1, 6))
        def move(self, steps):
            for _ in range(steps):
                self.pair.step()

        @rule()
        def settle(self):
            self.pair.run()

        @rule(holds=st.booleans())
        def hold(self, holds):
            self.pair.server.holds = holds

        @precondition(lambda self: self.pair.server.jobs)
        @rule(index=INDEX)
        def run_one(self, index):
            jobs = self.pair.server.jobs
            job = jobs[index % len(jobs)]
            jobs.remove(job)
            self.pair.server.run_job(job)

        @precondition(lambda self: any(p.question.outcome is not None for p in self.pending))
        @rule()
        def take_result(self):
            for pending in list(self.pending):
                if pending.question.outcome is not None:
                    self.pending.remove(pending)
                    self.read(pending)
                    return

        @precondition(lambda self: self.pending)
        @rule(index=INDEX)
        def cancel(self, index):
            pending = self.pending.pop(index % len(self.pending))
            self.pair.client.session.cancel(pending.question)

        @precondition(lambda self: self.stubs)
        @rule(index=INDEX)
        def let_go(self, index):
            self.stubs.pop(index % len(self.stubs))

        @precondition(lambda self: self.stubs)
        @rule(index=INDEX)
        def release_now(self, index):
            stub = self.stubs.pop(index % len(self.stubs))
            imported = getattr(stub, "_caprpc_import", None)
            if imported is not None:
                self.pair.client.session.imports.release_now(imported)

        @invariant()
        def no_count_is_below_one(self):
            if not hasattr(self, "pair"):
                return
            for session in (self.pair.client.session, self.pair.server.session):
                assert all(export.count > 0 for export in session.exports.live())
                assert all(imported.count > 0 for imported in session.imports.live())

        @invariant()
        def every_derived_export_is_found_by_its_right(self):
            if not hasattr(self, "pair"):
                return
            for session in (self.pair.client.session, self.pair.server.session):
                standing = session.exports.standing
                derived = {one for one in session.exports.live() if one.right is not None and one.source is not None}
                assert {one for one in standing.all() if one.source is not None} == derived
                assert all(one in standing.under([one.right]) for one in derived)

        @invariant()
        def nobody_breaks_the_protocol(self):
            if hasattr(self, "pair"):
                for end in (self.pair.client, self.pair.server):
                    assert end.ended is None, end.ended.detail

    return Histories


class Reused(Pair):
    """A pair whose connection is renewed for each history, on the same logs."""

    def end(self):
        for end in (self.client, self.server):
            end.take(end.link.abort("closed", "the history is over"))


def test_after_every_history_all_tables_are_empty(sides, node_classes, monkeypatch):
    # pytest keeps every log record, and with its traceback the references in the frames of failed methods.
    monkeypatch.setattr(logging.getLogger("caprpc"), "disabled", True)
    gc.freeze()
    server, client = sides()
    node_class = node_classes[0]
    served = {}

    def root(_peer):
        return served["impl"]

    with tempfile.TemporaryDirectory() as directory:
        pair = Reused(server, client, {"node": root}, audit=Path(directory), interfaces=[node_class])
        try:
            pair.end()

            def renewed(impl):
                served["impl"] = impl
                pair.reconnect()
                return pair

            machine = histories(renewed, node_classes)
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=100,
                    stateful_step_count=35,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            gc.unfreeze()
            pair.close()
