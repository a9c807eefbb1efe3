"""Random histories of three parties: nothing runs that a policy forbids, what is revoked is dead, all tables end empty.

An owner, somebody in the middle who passes references on in both directions, and a far one. Whatever they call, keep,
lend, narrow, revoke, release, iterate and lose, also in the middle of each other's calls.
"""

import gc
import itertools
import logging
import tempfile
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
from caprpc import CapRPCError
from caprpc.ids import OP_CALL, OP_CLOSE, OP_NEXT
from caprpc.interface import shape_of
from caprpc.objects.attenuation import AttenuateMember, EndMember, Terms, narrow
from caprpc.objects.forwarding import Forwarder
from caprpc.objects.stubs import Stub
from caprpc.testing import Deployment, Network, Stalled
from tests.objects.three_parties import (
    ALLOWED,
    FAR,
    MIDDLE,
    OWNER,
    Gate,
    GateImpl,
    Leaf,
    LeafImpl,
    Log,
    Node,
    NodeImpl,
    sides,
)

INDEX = st.integers(0, 1_000_000)
MOST_PENDING = 8
LOSSES = ["upstream", "front", "owner revokes the middle", "middle revokes the far one"]
MISHAPS = [*["revoke leaf", "revoke handle", "release"] * 2, *LOSSES]


class Standing:
    """Three parties whose connections are made anew for each history, on the same logs."""

    def __init__(self, directory):
        owner, middle, far = sides(Deployment(directory))
        self.node = self.gate = None
        self.network = Network()
        self.owner = self.network.party(owner, {"node": lambda _peer: self.node}, interfaces=[Node])
        self.middle = self.network.party(middle, {"gate": lambda _peer: self.gate}, interfaces=[Gate])
        self.far = self.network.party(far)

    def begin(self):
        log = Log()
        self.node, self.gate = NodeImpl(log), GateImpl(log)
        return log, self.network.connect(self.middle, self.owner), self.network.connect(self.far, self.middle)


class Histories(RuleBasedStateMachine):
    standing: Standing

    @initialize()
    def connect(self):
        standing = self.standing
        self.network = standing.network
        self.log, self.upstream, self.front = standing.begin()
        self.node, self.gate = standing.node, standing.gate
        self.gate.held = self.upstream.client.root("node", Node)
        self.root = self.front.client.root("gate", Gate)
        self.far_node = self.root.node()
        self.ours = [LeafImpl(self.log, "far's") for _ in range(2)]
        self.node.handles.append(narrow(self.node.leaf, Terms.of(), self.network.now))
        self.held = [self.far_node.same(), self.far_node.offered(0)]
        self.streams = []
        self.pending = []
        self.lent = []
        self.tags = itertools.count()
        self.callers = {}
        """Who has made a call, by its tag: whoever serves it knows that it is for them."""
        self.refused = set()
        """Tags of calls on what was dead: none of them may have run."""

    def teardown(self):
        if not hasattr(self, "network"):
            return
        try:
            self.settle_all()
        finally:
            self.upstream.close()
            self.front.close()

    # What is asked, and what comes of it.

    def start(self, end, stub, key, *args):
        member = stub._caprpc_shape.members.get(key)
        if member is None or len(self.pending) >= MOST_PENDING:
            return
        try:
            self.pending.append(end.start(stub._caprpc_import, member, args, {}))
        except CapRPCError:
            return

    def ask(self, name, *args):
        """Have the far one call the owner's node, through the middle."""
        if self.far_node is not None:
            self.start(self.front.client, self.far_node, (OP_CALL, name), *args)

    def read(self, pending):
        try:
            result = pending.result()
        except (CapRPCError, Stalled):
            return
        self.keep(result)

    def keep(self, result):
        found = result[0] if isinstance(result, tuple) else [result]
        for item in found if isinstance(found, list) else []:
            if isinstance(item, Stub) and item._caprpc_shape.name in ("Iterator", "ByteSource"):
                self.streams.append(item)
            elif isinstance(item, Stub):
                self.held.append(item)

    def read_all(self):
        for pending in self.pending:
            self.read(pending)

    def fresh_tag(self, by=None):
        tag = next(self.tags)
        if by is not None:
            self.callers[tag] = by
        return tag

    def leaf(self, index):
        choice = [*self.ours, *(stub for stub in self.held if stub._caprpc_shape.name == "Leaf")]
        choice += [handle for _, handle in self.lent]
        return choice[index % len(choice)]

    def way(self, stub):
        """Yield stub and export of each connection that a reference leads over, as the tables have it."""
        while isinstance(stub, Stub):
            end = stub._caprpc_call.__self__
            ends = next((c.ends for c in (self.upstream, self.front) if end in c.ends), None)
            if ends is None or end.link.admitted is None:
                return
            other = ends[1] if ends[0] is end else ends[0]
            export = other.session.exports.get(stub._caprpc_import.export_id)
            if export is None or not stub._caprpc_import.alive:
                return
            yield stub, export
            stub = export.source

    def leads(self, holders, to):
        """Return which of the stubs that somebody holds lead over what is chosen."""
        return [stub for stub in holders if any(to(*step) for step in self.way(stub))]

    def everywhere(self):
        return [
            stub for stub in [*self.held, *self.node.held, *self.gate.of_owner, *self.gate.of_far] if stub is not None
        ]

    def are_dead(self, stubs):
        """Call each of the stubs: it is refused, now and for good."""
        for stub in stubs:
            member = stub._caprpc_shape.members.get((OP_CALL, "name"))
            if member is None:
                continue
            tag = self.fresh_tag()
            self.refused.add(tag)
            with pytest.raises(CapRPCError):
                stub._caprpc_call(stub._caprpc_import, member, (tag,), {})

    # The rules: calls of the far one.

    @rule(name=st.sampled_from(["same", "same", "sealed", "data"]), wait=st.booleans())
    def get(self, name, wait):
        self.ask(name)
        self.finish(wait)

    @precondition(lambda self: self.node.handles)
    @rule(index=INDEX, wait=st.booleans())
    def get_offered(self, index, wait):
        self.ask("offered", index)
        self.finish(wait)

    @precondition(lambda self: self.node.held)
    @rule(index=INDEX, name=st.sampled_from(["kept", "ask_kept"]), wait=st.booleans())
    def get_kept(self, index, name, wait):
        self.ask(name, *([index] if name == "kept" else [index, self.fresh_tag()]))
        self.finish(wait)

    @rule(index=INDEX, name=st.sampled_from(["keep", "shut", "borrow", "borrow_and_keep", "is_same"]))
    def hand_over(self, index, name):
        leaf = self.leaf(index)
        if name == "shut" and isinstance(leaf, LeafImpl):
            leaf = LeafImpl(self.log, "shut")
        self.ask(name, leaf, *([self.fresh_tag()] if name == "borrow" else []))

    @rule(value=st.integers(0, 2))
    def call_back(self, value):
        def function(n):
            self.log.note("function", "")
            return n if n <= 0 else self.far_node.apply(function, n - 1)

        self.ask("apply", function, value)

    @precondition(lambda self: self.root is not None)
    @rule(
        index=INDEX,
        name=st.sampled_from(["node", "own", "passed", "bare", "taken", "take", "take"]),
        wait=st.booleans(),
    )
    def ask_the_middle(self, index, name, wait):
        ready = {"passed": self.gate.of_owner, "bare": self.gate.of_owner, "taken": self.gate.of_far}
        args = [index] if name in ready else [self.leaf(index)] if name == "take" else []
        if ready.get(name, True):
            self.start(self.front.client, self.root, (OP_CALL, name), *args)
        self.finish(wait)

    @precondition(lambda self: self.held)
    @rule(index=INDEX, name=st.sampled_from(["name", "name", "hidden"]))
    def use(self, index, name):
        self.start(self.front.client, self.held[index % len(self.held)], (OP_CALL, name), self.fresh_tag(FAR))

    @rule(n=st.integers(0, 4), name=st.sampled_from(["count", "leaves"]), wait=st.booleans())
    def open_stream(self, n, name, wait):
        self.ask(name, n)
        self.finish(wait)

    @precondition(lambda self: self.streams)
    @rule(index=INDEX, most=st.integers(1, 3), name=st.sampled_from(["pull", "pull", "close", "drop"]))
    def stream(self, index, most, name):
        stub = self.streams[index % len(self.streams)]
        if name == "drop":
            self.streams.remove(stub)
        elif stub._caprpc_shape.name == "ByteSource":
            key = (OP_CALL, "read" if name == "pull" else "close")
            self.start(self.front.client, stub, key, *([most] if name == "pull" else []))
        elif name == "pull":
            self.start(self.front.client, stub, (OP_NEXT, ""), most, 65_536)
        else:
            self.start(self.front.client, stub, (OP_CLOSE, ""))

    @rule(name=st.sampled_from(["secret"]))
    def forbidden(self, name):
        member = shape_of(Node).members[OP_CALL, name]
        if self.far_node is not None:
            with pytest.raises(CapRPCError):
                self.front.client.start(self.far_node._caprpc_import, member, (), {})

    # What the others do.

    @rule(name=st.sampled_from(["same", "kept", "offered"]), index=INDEX)
    def middle_gets(self, name, index):
        choice = {"kept": self.node.held, "offered": self.node.handles}
        if self.gate.held is None or not choice.get(name, True) or len(self.gate.of_owner) >= 4:
            return
        try:
            self.gate.of_owner.append(getattr(self.gate.held, name)(*([] if name == "same" else [index])))
        except (CapRPCError, Stalled):
            return

    @precondition(lambda self: self.gate.of_owner and len(self.gate.of_owner) < 6)
    @rule(index=INDEX, uses=st.none() | st.integers(1, 3))
    def middle_narrows(self, index, uses):
        stub = self.gate.of_owner[index % len(self.gate.of_owner)]
        try:
            member = AttenuateMember(stub, Terms.of(uses=uses))
            self.gate.of_owner.append(stub._caprpc_call(stub._caprpc_import, member, (stub,), {}))
        except (CapRPCError, Stalled):
            return

    @precondition(lambda self: self.gate.of_owner)
    @rule(index=INDEX, cut=st.booleans())
    def middle_revokes(self, index, cut):
        stub = self.gate.of_owner[index % len(self.gate.of_owner)]
        imported = stub._caprpc_import
        if not imported.derived or not imported.alive or stub._caprpc_call.__self__ is not self.upstream.client:
            return
        dead = self.leads(self.held, lambda passed, _: passed._caprpc_import.origin is imported.origin)
        try:
            self.upstream.client.call(imported, EndMember(), (cut,), {})
        except (CapRPCError, Stalled):
            return
        self.are_dead([stub, *dead])

    @rule(index=INDEX)
    def middle_calls(self, index):
        choice = [(self.upstream.client, stub) for stub in self.gate.of_owner]
        choice += [(self.front.server, stub) for stub in self.gate.of_far]
        if choice:
            end, stub = choice[index % len(choice)]
            self.start(end, stub, (OP_CALL, "name"), self.fresh_tag(MIDDLE))

    @precondition(lambda self: self.gate.of_far)
    @rule(index=INDEX, name=st.sampled_from(["keep", "borrow", "shut"]))
    def middle_passes_on(self, index, name):
        stub = self.gate.of_far[index % len(self.gate.of_far)]
        if self.gate.held is not None:
            self.start(
                self.upstream.client,
                self.gate.held,
                (OP_CALL, name),
                stub,
                *([self.fresh_tag()] if name == "borrow" else []),
            )

    @precondition(lambda self: self.node.held)
    @rule(index=INDEX)
    def owner_calls(self, index):
        stub = self.node.held[index % len(self.node.held)]
        if isinstance(stub, Stub):
            self.start(self.upstream.server, stub, (OP_CALL, "name"), self.fresh_tag(OWNER))

    @precondition(lambda self: len(self.node.handles) < 3)
    @rule(index=INDEX, uses=st.none() | st.integers(1, 3), for_s=st.none() | st.integers(1, 3))
    def owner_narrows(self, index, uses, for_s):
        choice = [self.node.leaf, *self.node.handles]
        try:
            made = narrow(choice[index % len(choice)], Terms.of(uses=uses, for_s=for_s), self.network.now)
        except CapRPCError:
            return
        self.node.handles.append(made)

    @precondition(lambda self: len(self.lent) < 3)
    @rule(index=INDEX, uses=st.none() | st.integers(1, 3))
    def far_lends(self, index, uses):
        block = ExitStack()
        self.lent.append((block, block.enter_context(caprpc.lend(self.ours[index % 2], Leaf, uses=uses))))

    @precondition(lambda self: self.lent)
    @rule(index=INDEX)
    def end_of_block(self, index):
        block, handle = self.lent.pop(index % len(self.lent))
        right = handle._caprpc_right
        dead = self.leads(self.everywhere(), lambda _, e: e.right is not None and right in e.right.lineage)
        block.close()
        self.are_dead(dead)

    # Mishaps, also in the middle of a call.

    def revoke_leaf(self, _index):
        dead = self.leads(self.everywhere(), lambda _, export: export.source is self.node.leaf)
        caprpc.revoke(self.node.leaf)
        self.are_dead(dead)

    def revoke_handle(self, index):
        if self.node.handles:
            handle = self.node.handles.pop(index % len(self.node.handles))
            right = handle._caprpc_right
            dead = self.leads(self.everywhere(), lambda _, e: e.right is not None and right in e.right.lineage)
            caprpc.revoke(handle)
            self.are_dead(dead)

    def release(self, index):
        stubs = [stub for stub in (*self.gate.of_owner, *self.gate.of_far) if stub._caprpc_import.alive]
        if stubs:
            stub = stubs[index % len(stubs)]
            origin = stub._caprpc_import.origin
            dead = self.leads(self.everywhere(), lambda passed, _: passed._caprpc_import.origin is origin)
            caprpc.release(stub)
            self.are_dead(dead)

    def mishap(self, kind, index):
        if kind in LOSSES:
            self.lose(kind)
        else:
            {"revoke leaf": self.revoke_leaf, "revoke handle": self.revoke_handle, "release": self.release}[kind](index)

    def lose(self, kind):
        connection = self.upstream if kind in ("upstream", LOSSES[2]) else self.front
        dead = self.leads(self.everywhere(), lambda stub, _: stub._caprpc_call.__self__ in connection.ends)
        if kind == LOSSES[2]:
            self.standing.owner.revoke(MIDDLE)
        elif kind == LOSSES[3]:
            self.standing.middle.revoke(FAR)
        else:
            connection.lose()
        self.are_dead(dead)

    @rule(kind=st.sampled_from(MISHAPS), index=INDEX)
    def happens(self, kind, index):
        self.mishap(kind, index)
        self.mend()

    @precondition(lambda self: self.node.action is None)
    @rule(kind=st.sampled_from(MISHAPS), index=INDEX, wait=st.booleans())
    def happens_meanwhile(self, kind, index, wait):
        """Have it happen while the owner's method runs for the far one, and the middle waits for it."""
        self.node.action = lambda: self.mishap(kind, index)
        self.ask("meanwhile")
        if wait:
            self.network.run()
            self.mend()

    def mend(self):
        """Connect again what was lost."""
        self.network.run()
        if self.upstream.client.ended or self.upstream.server.ended:
            self.gate.held = None
            self.gate.of_owner.clear()
            self.upstream.reconnect()
            self.gate.held = self.upstream.client.root("node", Node)
            self.far_node = None
        if self.front.client.ended or self.front.server.ended:
            self.gate.of_far.clear()
            self.front.reconnect()
            self.root = self.front.client.root("gate", Gate)
            self.far_node = None
        if self.far_node is None or not self.far_node._caprpc_import.alive:
            self.far_node = self.root.node()

    # Time, order, and letting go.

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds):
        self.network.advance(seconds)

    @rule(front=st.booleans(), steps=st.integers(1, 6))
    def move(self, front, steps):
        connection = self.front if front else self.upstream
        for _ in range(steps):
            connection.step()

    @rule()
    def settle(self):
        self.network.run()
        self.mend()

    @rule(holds=st.sampled_from([True, False, False]))
    def hold(self, holds):
        self.upstream.server.holds = holds

    @precondition(lambda self: any(p.question.outcome is not None for p in self.pending))
    @rule()
    def take_results(self):
        self.take()

    def finish(self, wait):
        """Have what is under way come to its end, and keep the results; or leave it under way."""
        if wait:
            self.network.run()
            self.take()

    def take(self):
        for pending in [p for p in self.pending if p.question.outcome is not None]:
            self.pending.remove(pending)
            self.read(pending)

    @precondition(lambda self: self.pending)
    @rule(index=INDEX)
    def cancel(self, index):
        pending = self.pending.pop(index % len(self.pending))
        pending._end.session.cancel(pending.question)

    @precondition(lambda self: self.held)
    @rule(index=INDEX, now=st.booleans())
    def let_go(self, index, now):
        stub = self.held.pop(index % len(self.held))
        if now:
            caprpc.release(stub)

    @rule()
    def identity(self):
        """The same object twice is the same stub; what is one's own comes home as itself, over both connections."""
        self.upstream.server.holds = False
        self.network.run()
        self.mend()
        node, mine = self.far_node, self.ours[0]
        first, second = node.same(), node.same()
        assert first is second
        assert node.is_same(first)
        assert self.root.node() is node
        assert self.root.is_node(node)
        node.keep(mine)
        assert node.kept(len(self.node.held) - 1) is mine
        assert self.root.own() is self.root.own()

    @invariant()
    def nothing_runs_that_no_policy_permits(self):
        if hasattr(self, "log"):
            assert self.log.ran <= ALLOWED, self.log.ran - ALLOWED
            assert not self.log.tags.keys() & self.refused
            for tag in self.log.tags.keys() & self.callers.keys():
                assert self.log.tags[tag][-1] == self.callers[tag]

    @invariant()
    def nobody_breaks_the_protocol(self):
        if hasattr(self, "network"):
            for end in (*self.upstream.ends, *self.front.ends):
                assert end.ended is None or end.ended.code in ("lost", "revoked"), end.ended.detail

    def settle_all(self):
        self.upstream.server.holds = False
        self.node.action = None
        self.network.run()
        self.read_all()
        while self.lent:
            self.lent.pop()[0].close()
        for held in (self.pending, self.held, self.streams, self.node.held, self.node.handles):
            held.clear()
        self.gate.of_owner.clear()
        self.gate.of_far.clear()
        self.gate.held = self.root = self.far_node = None
        self.nothing_runs_that_no_policy_permits()
        self.nobody_breaks_the_protocol()
        self.quiet()
        assert self.network.empty, self.tables()
        for connection in (self.upstream, self.front):
            for end in connection.ends:
                assert end.session.asked.kept == 0
                assert not end.session.kept
                assert not len(end.link.endpoint.nested)
                assert not end.jobs
        gc.collect()
        assert [obj for obj in gc.get_objects() if type(obj) is Forwarder] == []

    def quiet(self):
        """A quiet moment: what nobody holds is collected and given back; it takes a turn for each connection."""
        for _ in range(2):
            gc.collect()
            self.network.run()
            self.network.advance(2.0)

    def tables(self):
        return [
            [
                [(e.export_id, e.count, e.source) for e in session.exports.live()],
                [(i.export_id, i.count, i.announced.interface) for i in session.imports.live()],
                session.asked.open,
                dict(session.answers),
            ]
            for connection in (self.upstream, self.front)
            for session in connection.sessions
        ]


def run(histories, steps, seed=None):
    """Run so many histories of at most so many steps; with a seed others than those of each run."""
    # pytest keeps every log record, and with its traceback the references in the frames of failed methods.
    chosen = settings(
        max_examples=histories,
        stateful_step_count=steps,
        deadline=None,
        derandomize=seed is None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory() as directory:
        standing = Standing(Path(directory))
        machine = type("Histories", (Histories,), {"standing": standing})
        if seed is not None:
            machine._hypothesis_internal_use_seed = seed
        try:
            run_state_machine_as_test(machine, settings=chosen)
        finally:
            gc.unfreeze()
            standing.network.close()


def test_three_parties_keep_to_policies_and_end_with_empty_tables(monkeypatch):
    monkeypatch.setattr(logging.getLogger("caprpc"), "disabled", True)
    run(100, 30)
