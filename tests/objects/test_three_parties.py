"""What passes between two others through somebody in the middle: no more than each of the three policies lets."""

import json

import pytest

import caprpc
from caprpc import ReferenceDead, RemoteError
from caprpc.ids import OP_CALL
from caprpc.interface import shape_of
from tests.objects.three_parties import (
    ALLOWED,
    FAR,
    OF_THE_FAR_ONE,
    OF_THE_MIDDLE,
    OF_THE_OWNER,
    ON,
    Gate,
    GateImpl,
    LeafImpl,
    Log,
    Node,
    NodeImpl,
    sides,
)


class Three:
    """All of them, connected; ``node`` is the owner's, as the far one has it."""

    def __init__(self, deployment, network, names):
        self.deployment, self.network = deployment, network
        self.log = Log()
        self.impl, self.gate = NodeImpl(self.log), GateImpl(self.log)
        self.directories = dict(zip(("owner", "middle", "far"), names, strict=True))
        self.owner = network.party(names[0], {"node": self.impl})
        self.middle = network.party(names[1], {"gate": self.gate})
        self.far = network.party(names[2])
        self.upstream = network.connect(self.middle, self.owner)
        self.front = network.connect(self.far, self.middle)
        self.gate.held = self.upstream.client.root("node", Node)
        self.root = self.front.client.root("gate", Gate)
        self.node = self.root.node()

    def reload(self, party, name, policies, version=2):
        self.deployment.rewrite(self.directories[name], policies, version)
        getattr(self, party).reload()

    def records(self, name):
        lines = []
        for path in sorted(self.directories[name].audit.rglob("*.jsonl")):
            lines += [json.loads(line) for line in path.read_text().splitlines()]
        return lines


@pytest.fixture
def three(caprpc_deployment, caprpc_network):
    return Three(caprpc_deployment, caprpc_network, sides(caprpc_deployment))


def refused(function, *args):
    with pytest.raises(RemoteError) as caught:
        function(*args)
    return caught.value.code


def test_what_the_owner_lets_nobody_pass_on_is_not_handed_out_for_a_third_party(three):
    assert refused(three.node.sealed) == "internal"
    assert {held.announced.interface for held in three.upstream.client.session.imports.live()} == {"Node"}
    details = [record.get("detail", "") for record in three.records("owner")]
    assert any("under [offer.S]: forward = true" in detail and FAR in detail for detail in details)
    own = three.gate.held.sealed()
    assert own.name(1) == "sealed"
    assert three.log.ran <= ALLOWED


def test_reload_that_forbids_to_pass_on_ends_it_for_what_is_passed_on_already(three):
    leaf, numbers, rows = three.node.same(), three.node.count(3), three.node.leaves(3)
    direct = three.gate.held.same()
    assert leaf.name(1) == direct.name(2) == "owner's"
    assert next(numbers) == 0
    three.reload("owner", "owner", {"middle": OF_THE_OWNER["middle"].replace(ON, "")})
    assert refused(leaf.name, 3) == refused(three.node.same) == "denied"
    # Chunks that have come before are the far one's; the next is not.
    with pytest.raises(RemoteError, match="grant"):
        list(rows)
    assert direct.name(4) == "owner's", "what the middle does itself is another right"
    assert three.log.tags.keys() == {1, 2, 4}


def test_reload_that_takes_away_whose_objects_may_be_passed_on_ends_it_for_those(three):
    leaf, own = three.node.same(), three.root.own()
    assert leaf.name(1) == "owner's"
    policies = dict(OF_THE_MIDDLE)
    policies["far"] = policies["far"].replace('forward_from = ["spiffe://test.example/owner"]\n', "")
    three.reload("middle", "middle", policies)
    assert refused(leaf.name, 2) == refused(three.node.same) == "denied"
    assert own.name(3) == "middle's"
    assert three.log.tags.keys() == {1, 3}


def test_reload_at_the_far_end_is_felt_by_the_owner(three):
    mine = LeafImpl(three.log, "far's")
    three.node.keep(mine)
    (kept,) = three.impl.held
    assert kept.name(1) == "far's"
    three.reload("far", "far", {"middle": OF_THE_FAR_ONE["middle"].replace(ON, "")})
    assert refused(kept.name, 2) == "denied"
    assert three.log.tags.keys() == {1}


def test_answer_that_is_read_after_the_end_gives_what_is_dead(three):
    member = shape_of(Node).members[OP_CALL, "same"]
    waiting = three.upstream.client.start(three.gate.held._caprpc_import, member, (), {})
    three.network.run()
    assert waiting.question.outcome is not None
    three.upstream.lose()
    leaf = waiting.result()
    assert not leaf._caprpc_import.alive
    assert three.upstream.client.session.imports.live() == []
    with pytest.raises(ReferenceDead):
        leaf.name(1)
    three.gate.of_owner.append(leaf)
    assert refused(three.root.passed, 0) == "invalid-result"


def test_revoking_at_the_owner_cuts_what_runs_for_the_far_one(three):
    three.impl.action = lambda: caprpc.revoke(three.impl)
    with pytest.raises((RemoteError, ReferenceDead)) as caught:
        three.node.meanwhile()
    assert getattr(caught.value, "code", "revoked") == "revoked"
    with pytest.raises(ReferenceDead, match="revoked"):
        three.node.same()
    assert three.root.own().name(1) == "middle's"


def test_cancelling_far_away_reaches_the_owners_method(three):
    def look():
        pending = three.pending
        pending._end.session.cancel(pending.question)
        three.network.run()
        assert caprpc.current().cancelled
        three.seen = True

    three.impl.action = look
    member = shape_of(Node).members[OP_CALL, "meanwhile"]
    three.pending = three.front.client.start(three.node._caprpc_import, member, (), {})
    three.network.run()
    assert three.seen
    assert not three.front.server.session.answers
    assert not len(three.front.server.link.endpoint.nested)


NARROW = "[offer.N.args.offered]\nindex = { max = 10 }\n"


def test_refusals_that_the_far_one_provokes_cost_the_middle_nothing_at_the_owner(three):
    three.impl.handles.append(three.impl.leaf)
    three.reload("owner", "owner", {"middle": OF_THE_OWNER["middle"] + NARROW})
    codes = []
    while three.front.client.ended is None and len(codes) < 400:
        try:
            three.node.offered(99)
        except RemoteError as exc:
            codes.append(exc.code)
        except caprpc.ConnectionLost:
            break
    # As many as it may have of its own peer, which ends the connection with it and with nobody else.
    assert len(codes) == 201
    assert codes == ["invalid-arguments"] * 200 + ["limit"]
    assert three.front.server.ended.code == "protocol-error"
    assert three.upstream.client.ended is None
    assert three.gate.held.offered(1).name(1) == "owner's"
    assert [budget.spent(0.0) for budget in three.upstream.server.session.liveness.others.values()] == [True]
    assert not three.upstream.server.session.liveness.glitches.spent(0.0)
