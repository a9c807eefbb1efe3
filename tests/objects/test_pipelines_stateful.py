"""Random histories of pipelines, deadlines and cancels over a pair: in the end nothing is kept, held or owed."""

import gc
import logging
import tempfile
from pathlib import Path

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

from caprpc import CapRPCError
from caprpc.ids import OP_CALL
from caprpc.interface import shape_of
from caprpc.objects.promises import Promised, promise_of, result_shape
from caprpc.session import FOREVER, Origin
from caprpc.testing.pair import Pair, Pending

INDEX = st.integers(0, 1_000_000)
TIMES = st.sampled_from([FOREVER, FOREVER, 0.0, 0.2, 1.0, 1e12])


def histories(make_pair, classes):
    """Return the state machine for one deployment."""
    node_class, leaf_class, make_leaf, make_node, Refusal = classes
    shape = shape_of(node_class)
    name_of_leaf = shape_of(leaf_class).members[OP_CALL, "name"]

    class Histories(RuleBasedStateMachine):
        @initialize()
        def connect(self):
            self.impl = make_node()
            self.impl.held.append(make_leaf())
            self.pair = make_pair(self.impl)
            self.node = self.pair.client.root("node", node_class)
            self.promises = []
            self.pending = []
            self.stubs = []

        def teardown(self):
            if not hasattr(self, "pair"):
                return
            try:
                self.settle_all()
            finally:
                self.pair.end()

        def settle_all(self):
            self.pair.client.holds = self.pair.server.holds = False
            self.promises.clear()
            self.pair.run()
            for pending in self.pending:
                self.read(pending)
            self.pending.clear()
            self.stubs.clear()
            self.impl.held.clear()
            self.node = None
            gc.collect()
            self.pair.run()
            for end in (self.pair.client, self.pair.server):
                assert end.ended is None, end.ended.detail
            client, server = self.pair.client.session, self.pair.server.session
            assert client.asked.kept == 0
            for session in (client, server):
                tables = (session.exports.live(), session.imports.live(), session.asked.open, session.answers)
                assert tables == ([], [], {}, {})
                assert not session.kept
                assert not session.kept.resolved

        def read(self, pending):
            if pending.question.abandoned:
                return
            try:
                result = pending.result()
            except (CapRPCError, Refusal):
                return
            self.stubs.append(result)

        def ask(self, target, member, args, seconds, *, keep):
            end = self.pair.client
            origin = Origin(None, self.pair.now + seconds, self.pair.now)
            outgoing = end.link.outgoing
            try:
                make = outgoing.ask_kept if keep else outgoing.ask
                question = make(target, member, args, {}, origin)
            except (CapRPCError, Refusal):
                return None
            self.pending.append(Pending(end, question, member))
            return question

        def room(self):
            return len(self.pair.client.session.asked.open) < 40

        @precondition(room)
        @rule(name=st.sampled_from(["fresh", "same", "kept", "hold_back", "wrong"]), seconds=TIMES)
        def begin(self, name, seconds):
            member = shape.members[OP_CALL, name]
            args = (make_leaf(),) if name == "hold_back" else ()
            target = self.node._caprpc_import
            returned = result_shape(member) or shape_of(leaf_class)
            promised = Promised(returned, target, member)
            question = self.ask(target, member, args, seconds, keep=True)
            if question is not None:
                promised.asked(question)
                self.promises.append(promise_of(promised, returned, lambda *_: None))

        @precondition(lambda self: self.promises and self.room())
        @rule(index=INDEX, seconds=TIMES)
        def step(self, index, seconds):
            target = self.promises[index % len(self.promises)]._caprpc_import
            self.ask(target, name_of_leaf, (), seconds, keep=False)

        @precondition(lambda self: self.promises)
        @rule(index=INDEX)
        def drop_promise(self, index):
            self.promises.pop(index % len(self.promises))

        @precondition(lambda self: self.pending)
        @rule(index=INDEX)
        def cancel(self, index):
            pending = self.pending.pop(index % len(self.pending))
            self.pair.client.session.cancel(pending.question)

        @rule(seconds=st.sampled_from([0.1, 0.5, 2.0]))
        def pass_time(self, seconds):
            self.pair.advance(seconds)
            session = self.pair.client.session
            for question in session.asked.overdue(self.pair.now):
                session.cancel(question, self.pair.now)

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

        @precondition(lambda self: self.stubs)
        @rule(index=INDEX)
        def let_go(self, index):
            self.stubs.pop(index % len(self.stubs))

        @invariant()
        def nobody_breaks_the_protocol(self):
            if hasattr(self, "pair"):
                for end in (self.pair.client, self.pair.server):
                    assert end.ended is None, end.ended.detail

        @invariant()
        def pins_are_those_of_kept_answers(self):
            if hasattr(self, "pair"):
                session = self.pair.server.session
                kept = [entry.export for entry in session.kept.values() if entry.export is not None]
                for export in session.exports.live():
                    assert export.kept == sum(one is export for one in kept)
                    assert export.count >= export.kept

    return Histories


class Reused(Pair):
    """A pair whose connection is renewed for each history, on the same logs."""

    def end(self):
        for end in (self.client, self.server):
            end.take(end.link.abort("closed", "the history is over"))


def test_after_every_history_nothing_is_kept(sides, node_classes, monkeypatch):
    monkeypatch.setattr(logging.getLogger("caprpc"), "disabled", True)
    gc.freeze()
    server, client = sides("[limits]\nglitch_burst = 10000\n", "[limits]\nglitch_burst = 10000\n")
    served = {}
    with tempfile.TemporaryDirectory() as directory:
        pair = Reused(
            server, client, {"node": lambda _peer: served["impl"]}, audit=Path(directory), interfaces=[node_classes[0]]
        )
        try:
            pair.end()

            def renewed(impl):
                served["impl"] = impl
                pair.reconnect()
                return pair

            run_state_machine_as_test(
                histories(renewed, node_classes),
                settings=settings(
                    max_examples=100,
                    stateful_step_count=40,
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
