"""Derived references of a peer that sends what races in one segment."""

import pytest

from caprpc.audit import Selection, select
from caprpc.ids import OP_ATTENUATE, OP_REVOKE
from caprpc.wire import messages as m

NO_TERMS = [None] * 6
CUT, FINISH = [True], [False]


def derive(peer, of):
    return peer.value(of, "", NO_TERMS, operation=OP_ATTENUATE).export


def outcome(answer):
    return answer.code if isinstance(answer, m.Raise) else "ok"


def in_one_segment(peer, *calls):
    """Return the answers of several calls that arrived together."""
    peer.send(*calls)
    found = {}
    while len(found) < len(calls):
        message = peer.receive()
        if isinstance(message, m.Return | m.Raise):
            found[message.question] = message
    return [found[call.question] for call in calls]


def test_a_derived_reference_outlives_the_release_of_what_it_came_from(world, driver):
    peer = world.open(world.serve(driver))
    vault = peer.root()
    parent = peer.value(vault, "slip").export
    child = derive(peer, parent)
    grandchild = derive(peer, child)
    peer.send(m.Release([(parent, 1), (child, 1)]))
    assert peer.value(grandchild, "text") == "slip"
    assert [outcome(peer.ask(gone, "text")) for gone in (parent, child)] == ["denied", "denied"]


@pytest.mark.parametrize("cut", [CUT, FINISH])
def test_what_arrives_behind_a_revocation_in_one_segment_is_refused(world, driver, cut):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    parent = derive(peer, peer.value(vault, "slip").export)
    child = derive(peer, parent)
    grandchild = derive(peer, child)
    calls = [
        peer.call(grandchild, "text"),
        peer.call(child, "", cut, operation=OP_REVOKE),
        peer.call(grandchild, "text"),
        peer.call(child, "text"),
        peer.call(child, "", NO_TERMS, operation=OP_ATTENUATE),
        peer.call(parent, "text"),
    ]
    answers = in_one_segment(peer, *calls)
    first, *others = map(outcome, answers)
    # On a busy machine it may have gone to a worker, and not have begun there.
    assert first in ("ok", "revoked")
    assert others == ["ok", "revoked", "revoked", "revoked", "ok"]
    refused = {answer.reference for answer in answers if outcome(answer) == "revoked"}
    known = {entry.record.fields["reference"] for entry in select(running.side.audit, Selection(decision="deny"))}
    assert refused <= known


@pytest.mark.parametrize(
    "value",
    [2**1100, -(2**1100), float("nan"), float("inf"), 0, True],
    ids=["huge", "below", "nan", "infinity", "nothing", "true"],
)
def test_numbers_of_no_sense_in_terms_are_arguments_that_do_not_fit(world, driver, value):
    running = world.serve(driver)
    peer = world.open(running)
    slip = peer.value(peer.root(), "slip").export
    for place in range(len(NO_TERMS)):
        terms = [*NO_TERMS[:place], value, *NO_TERMS[place + 1 :]]
        assert outcome(peer.ask(slip, "", terms, operation=OP_ATTENUATE)) == "invalid-arguments", place
    assert peer.value(slip, "text") == "slip"
    assert running.denials() == len(NO_TERMS)
