"""Many references in one message: how many may be, and that those which are read together are read as one by one."""

import gc
from collections.abc import Iterator

import pytest

from caprpc import Interface, LimitExceeded, RemoteError, method
from caprpc.errors import RemoteProtocolError
from caprpc.ids import OP_CALL
from caprpc.limits import DEFAULT_LIMITS
from caprpc.testing import Deployment, Pair
from caprpc.wire.codec import pack, unpack_tree
from caprpc.wire.scan import TooManyReferences
from caprpc.wire.values import MAX_ID, OwnReference, RemoteReference

FEW = "[limits]\nmessage_references = 10\n"


def ask_raw(w, name, args):
    """Have the client send what its own side would not let it."""
    question = w.pair.client.session.ask(w.node._caprpc_import, OP_CALL, name, pack([args, {}]), [], None, None)
    w.pair.run()
    return question


def facet_of(w, name="Lent"):
    client = w.pair.client.session
    return client.announce(client.guard.facet(name), 0).facet_id


def numbered(facet, *numbers):
    return [RemoteReference(number, facet) for number in numbers]


def test_arguments_at_the_edge(world):
    w = world(server_more=FEW)
    facet, server = facet_of(w), w.pair.server.session
    question = ask_raw(w, "keep_all", [numbered(facet, *range(40, 50))])
    assert type(question.outcome).__name__ == "Return"
    assert len(server.imports) == 10
    question = ask_raw(w, "keep_all", [numbered(facet, *range(60, 71))])
    assert (question.outcome.code, question.outcome.taken) == ("limit", False)
    assert len(server.imports) == 10
    refused = [fields for fields in w.records("server") if fields.get("decision") == "deny"]
    assert [(fields["reason"], fields["rule"]) for fields in refused] == [
        ("message_references", "limits.message_references")
    ]


def test_results_at_the_edge(world):
    w = world(client_more=FEW)
    assert len(w.node.leaves(10)) == 10
    with pytest.raises(LimitExceeded, match=r"more than 10 references in one message \(limits.message_references\)"):
        w.node.leaves(11)
    gc.collect()
    assert w.baseline()


def test_nothing_is_sent_beyond_our_own_limit(world):
    w = world(client_more=FEW)
    assert w.node.keep_all([w.Leaves() for _ in range(10)]) == 10
    asked = w.pair.client.session.asked.count
    with pytest.raises(LimitExceeded, match=r"limits.message_references.*an iterator gives them in pieces"):
        w.node.keep_all([w.Leaves() for _ in range(11)])
    assert w.pair.client.session.asked.count == asked
    w.node.drop()
    gc.collect()
    assert w.baseline()


def test_result_beyond_the_limit_of_who_gives_it_is_answered_limit(world):
    w = world(server_more=FEW)
    with pytest.raises(RemoteError) as failed:
        w.node.leaves(11)
    assert failed.value.code == "limit"
    gc.collect()
    assert w.baseline()


@pytest.mark.parametrize(
    "wrap",
    [tuple, set, lambda found: {"x": found}, lambda found: [[one] for one in found]],
    ids=["tuple", "set", "in a dict", "in lists"],
)
def test_references_are_counted_wherever_they_stand(wrap):
    def found(count):
        return pack([[wrap(numbered(1, *range(1, count + 1))), "y" * 200], {}])

    assert unpack_tree(found(10), DEFAULT_LIMITS, 10)[1] is False
    with pytest.raises(TooManyReferences):
        unpack_tree(found(11), DEFAULT_LIMITS, 10)


@pytest.mark.parametrize("padding", [b"", b"x" * 100_000], ids=["whole", "scanned"])
def test_both_kinds_of_references_are_counted_together(padding):
    def found(ours):
        return pack([[numbered(1, *range(1, 9)), [OwnReference(n) for n in range(ours)], padding], {}])

    unpack_tree(found(4), DEFAULT_LIMITS, 12)
    with pytest.raises(TooManyReferences):
        unpack_tree(found(5), DEFAULT_LIMITS, 12)


def test_bytes_that_look_like_references_are_none():
    value = [[b"\xd8\x01" * 5_000, "x"], {}]
    assert unpack_tree(pack(value), DEFAULT_LIMITS, 10) == (value, True)


def test_same_reference_twice_among_many_is_one_stub_and_two_counts(world):
    w = world()
    facet = facet_of(w)
    ask_raw(w, "keep_all", [numbered(facet, *range(40, 60), 40, 41)])
    held = w.impl.held
    assert (held[20], held[21]) == (held[0], held[1])
    assert len(set(map(id, held))) == 20
    imports = w.pair.server.session.imports
    assert [imports.get(number).count for number in (40, 41, 42)] == [2, 2, 1]
    # What is held already is the same stub when it comes again.
    ask_raw(w, "keep_all", [numbered(facet, *range(40, 60))])
    assert held[22:] == held[:20]


@pytest.mark.parametrize("bad", [0, MAX_ID + 1])
def test_number_that_no_export_can_have_ends_the_connection(world, bad):
    w = world()
    facet = facet_of(w)
    references = numbered(facet, *range(40, 60))
    payload = pack([[references], {}]).replace((45).to_bytes(8, "big"), bad.to_bytes(8, "big"))
    w.pair.client.session.ask(w.node._caprpc_import, OP_CALL, "keep_all", payload, [], None, None)
    w.pair.run()
    assert w.pair.server.ended is not None
    assert w.pair.server.ended.code == "protocol-error"
    assert w.impl.held == []


def test_facet_that_changes_among_many_ends_the_connection(world):
    w = world(client_more='[offer.Other]\ninterface = "Leaf"\ncall = ["name"]\n')
    first, second = facet_of(w), facet_of(w, "Other")
    ask_raw(w, "keep_all", [numbered(first, *range(40, 60))])
    ask_raw(w, "keep_all", [numbered(second, *range(59, 80))])
    assert "reference 59 changed its facet" in w.pair.server.ended.detail


def test_many_beyond_the_imports_are_all_given_back(world):
    w = world(server_more="[limits]\nimports = 15\n")
    facet, imports = facet_of(w), w.pair.server.session.imports
    ask_raw(w, "keep_all", [numbered(facet, *range(40, 50))])
    question = ask_raw(w, "keep_all", [numbered(facet, *range(45, 65))])
    assert (question.outcome.code, question.outcome.taken) == ("limit", False)
    assert len(imports) == 10
    assert {one.count for one in imports.live()} == {1}


def test_many_that_were_revoked_before_are_dead(world):
    w = world()
    facet, imports = facet_of(w), w.pair.server.session.imports
    imports.revoke([45])
    ask_raw(w, "keep_all", [numbered(facet, *range(40, 60))])
    assert [imports.get(number).alive for number in (44, 45, 46)] == [True, False, True]


def test_references_end_too_early():
    whole = pack([numbered(1, *range(1, 20))])
    with pytest.raises(RemoteProtocolError):
        unpack_tree(whole[:-1])


class Leaf(Interface):
    @method(effect="read")
    def name(self) -> str: ...


class Tree(Interface):
    @method(effect="read")
    def each(self, count: int) -> Iterator[Leaf]: ...


class LeafImpl(Leaf):
    def __init__(self, text):
        self.text = text

    def name(self):
        return self.text


class TreeImpl(Tree):
    def each(self, count):
        return (LeafImpl(str(n)) for n in range(count))


def test_iterator_gives_more_than_one_message_may_hold(tmp_path):
    peer = '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/{}"]\n'
    offer = (
        '[roots]\ntree = "Tree"\n[offer.Tree]\ninterface = "Tree"\ncall = ["each"]\n[offer.Tree.returns]\n'
        'each = "Each"\n[offer.Each]\ninterface = "Iterator"\niterate = true\n[offer.Each.returns]\niterate = "Leaf"\n'
        '[offer.Leaf]\ninterface = "Leaf"\ncall = ["name"]\n'
    )
    accept = '[accept.Tree]\ncall = ["each"]\n[accept.Leaf]\ncall = ["name"]\n[accept.Iterator]\niterate = true\n'
    deployment = Deployment(tmp_path)
    server = deployment.side("server", {"client": peer.format("client") + offer + FEW}, [Tree, Leaf])
    client = deployment.side("client", {"server": peer.format("server") + accept + FEW}, [Tree, Leaf])
    with Pair(server, client, {"tree": TreeImpl()}) as pair:
        leaves = list(pair.client.root("tree", Tree).each(35))
        assert [leaf.name() for leaf in leaves] == [str(n) for n in range(35)]
