"""References at the level of the tables: counts of occurrences, releases, scopes, and numbers used once."""

import gc
import weakref

import pytest

from caprpc.errors import CallRefused, ConnectionLost, LimitExceeded, RemoteProtocolError
from caprpc.session import Announced, Scope
from caprpc.wire import messages as m
from caprpc.wire.codec import pack
from caprpc.wire.values import OwnReference, RemoteReference


class Target:
    pass


def test_same_object_is_the_same_export_counted_twice(half):
    one = half()
    thing = object.__new__(type(one.hand_over().obj))
    first, second = one.hand_over(thing), one.hand_over(thing)
    assert first is second
    assert first.count == 2


def test_equal_objects_are_different_exports(half):
    one = half()
    assert one.hand_over().export_id != one.hand_over().export_id


def test_exports_start_at_one_and_number_zero_is_the_root(half):
    one = half()
    assert one.hand_over().export_id == 1
    assert one.session.exports.get(0).facet is one.guard.roots


def test_release_gives_counts_back_and_the_last_one_forgets(half):
    one = half()
    export = one.hand_over()
    one.hand_over(export.source)
    one.hear(m.Release([(export.export_id, 1)]))
    assert one.session.exports.get(export.export_id) is export
    one.hear(m.Release([(export.export_id, 1)]))
    assert one.session.exports.get(export.export_id) is None
    assert len(one.session.exports) == 0


def test_released_object_is_let_go(half):
    one = half()
    export = one.hand_over()
    watched = weakref.ref(export.source)
    number = export.export_id
    del export
    one.hear(m.Release([(number, 1)]))
    one.said()
    gc.collect()
    assert watched() is None


def test_export_keeps_its_object_alive(half):
    one = half()
    watched = weakref.ref(one.hand_over().source)
    gc.collect()
    assert watched() is not None


@pytest.mark.parametrize(
    "counts",
    [[(1, 2)], [(1, 1), (1, 1)], [(0, 1)], [(2, 1)], [(1, 2**53 - 1)]],
    ids=["more-than-held", "twice", "root", "unknown", "huge"],
)
def test_wrong_release_ends_the_session(counts, half):
    one = half()
    one.hand_over()
    one.hear(m.Release(counts))
    assert one.ended == "protocol-error"


def test_release_of_zero_ends_the_session(half):
    one = half()
    export = one.hand_over()
    with pytest.raises(RemoteProtocolError):
        one.session.exports.release(export.export_id, 0)


def test_numbers_are_never_used_again(half):
    one = half()
    seen = set()
    for _ in range(20):
        export = one.hand_over()
        assert export.export_id not in seen
        seen.add(export.export_id)
        one.hear(m.Release([(export.export_id, 1)]))
    assert len(one.session.exports) == 0


def test_taking_back_undoes_one_occurrence_each(half):
    one = half()
    export = one.hand_over()
    one.hand_over(export.source)
    one.session.exports.take_back([export, export])
    assert len(one.session.exports) == 0


def test_limit_of_exports_is_kept(half):
    one = half("exports = 2")
    kept = [one.hand_over(), one.hand_over()]
    with pytest.raises(LimitExceeded, match=r"limits\.exports"):
        one.hand_over()
    assert one.hand_over(kept[0].source) is kept[0]


def test_no_more_is_exported_than_the_peer_accepts(half):
    one = half(peer_limits=m.PeerLimits(1_114_112, 64, 2, 32))
    one.hand_over()
    one.hand_over()
    with pytest.raises(LimitExceeded):
        one.hand_over()


def test_no_more_facets_are_announced_than_the_peer_accepts(half):
    one = half(peer_limits=m.PeerLimits(1_114_112, 64, 1, 32))
    facet = one.guard.facet("Box")
    one.session.announce(facet, 0)
    with pytest.raises(LimitExceeded):
        one.session.announce(facet, 1)


def test_facet_is_announced_once_and_before_its_first_reference(half):
    one = half()
    one.hand_over()
    one.hand_over()
    (facet,) = one.said()
    assert (type(facet), facet.facet, facet.interface, facet.lifetime) == (m.Facet, 1, "Box", 0)
    assert facet.members == [(1, "limited"), (1, "put")]


def test_dead_export_does_not_stand_for_another_object_at_its_address(half):
    one = half()
    export = one.hand_over()
    key = export.key
    one.session.revoke([export], [])
    other = one.hand_over()
    # As if the memory of the dead object had been given to a new one.
    one.session.exports._by_key[(id(other.source), *key[1:])] = export
    assert one.hand_over(other.source) is not export


def test_revoking_tells_the_holder_and_keeps_the_counts(half):
    one = half()
    export = one.hand_over()
    one.said()
    one.session.revoke([export], [])
    (revoked,) = one.said()
    assert revoked.exports == [export.export_id]
    assert export.obj is None
    one.hear(one.call(export.export_id, 1, "put"))
    assert one.said()[0].code == "denied"
    one.hear(m.Release([(export.export_id, 1)]))
    assert one.ended is None


def test_answer_ends_what_was_lent_for_the_call(half):
    one = half()
    scope = Scope()
    target = one.import_()
    export = one.hand_over(scope=scope)
    question = one.ask(target, handed_over=[export], scope=scope)
    one.hear(m.Return(question.question_id, b"\xc0"))
    assert one.session.exports.get(export.export_id) is None
    assert export.obj is None
    assert not scope.alive


def test_cancel_ends_what_was_lent_at_once_but_keeps_its_number(half):
    one = half()
    scope = Scope()
    target = one.import_()
    export = one.hand_over(scope=scope)
    question = one.ask(target, handed_over=[export], scope=scope)
    one.session.cancel(question)
    assert export.obj is None
    one.hear(one.call(export.export_id, 1, "put"), m.Release([(export.export_id, 1)]))
    assert one.ended is None
    refused = [message for message in one.said() if type(message) is m.Raise]
    assert [message.code for message in refused] == ["denied"]


def test_release_before_the_end_of_the_call_is_legal(half):
    one = half()
    scope = Scope()
    target = one.import_()
    export = one.hand_over(scope=scope)
    question = one.ask(target, handed_over=[export], scope=scope)
    one.hear(m.Release([(export.export_id, 1)]), m.Return(question.question_id, b"\xc0"))
    assert one.ended is None
    assert len(one.session.exports) == 0


def test_release_after_the_end_of_the_call_ends_the_session(half):
    one = half()
    scope = Scope()
    target = one.import_()
    export = one.hand_over(scope=scope)
    question = one.ask(target, handed_over=[export], scope=scope)
    one.hear(m.Return(question.question_id, b"\xc0"), m.Release([(export.export_id, 1)]))
    assert one.ended == "protocol-error"


def test_nothing_is_handed_over_in_a_call_that_has_ended(half):
    one = half()
    scope = Scope()
    scope.end()
    with pytest.raises(CallRefused):
        one.hand_over(scope=scope)
    assert len(one.session.exports) == 0


def test_reply_ends_what_was_lent_to_us_without_release(half):
    one = half()
    announced = one.learn_facet(lifetime=1)
    (answer,) = one.hear(one.call())
    answer.scope = Scope()
    imported = one.import_(5, announced, answer.scope)
    one.session.return_(answer, b"\xc0")
    assert not imported.alive
    assert len(one.session.imports) == 0
    assert [type(message) for message in one.said()] == [m.Return]


def test_call_lifetime_reference_outside_any_call_breaks_the_protocol(half):
    one = half()
    announced = one.learn_facet(lifetime=1)
    with pytest.raises(RemoteProtocolError):
        one.session.imports.receive(5, announced, None)


def test_reference_read_after_the_end_of_its_call_is_dead_and_in_no_table(half):
    one = half()
    announced = one.learn_facet(lifetime=1)
    scope = Scope()
    scope.end()
    imported = one.session.imports.receive(5, announced, scope)
    assert not imported.alive
    assert len(one.session.imports) == 0


def test_every_occurrence_is_counted_and_given_back_in_one_release(half):
    one = half()
    announced = one.learn_facet()
    for _ in range(3):
        imported = one.session.imports.receive(9, announced, None)
    one.session.imports.release_now(imported)
    assert one.said() == [m.Release([(9, 3)])]
    assert len(one.session.imports) == 0


def test_finalizers_queue_and_the_session_checks_again(half):
    one = half()
    imported = one.import_(9)
    stub = Target()
    imported.stubs.append(weakref.ref(stub))
    one.session.imports.dropped.append(imported)
    assert one.said() == []
    del stub
    one.session.imports.dropped.append(imported)
    assert one.said() == [m.Release([(9, 1)])]


def test_an_import_dropped_twice_is_released_once(half):
    one = half()
    imported = one.import_(9)
    one.session.imports.dropped.extend([imported, imported])
    assert one.said() == [m.Release([(9, 1)])]
    assert one.said() == []


def test_giving_back_leaves_no_count_and_sends_nothing(half):
    one = half()
    announced = one.learn_facet()
    received = [one.session.imports.receive(9, announced, None) for _ in range(2)]
    one.session.imports.give_back(received)
    assert len(one.session.imports) == 0
    assert one.said() == []


def test_limit_of_imports_is_kept(half):
    one = half("imports = 2")
    announced = one.learn_facet()
    one.import_(1, announced)
    one.import_(2, announced)
    with pytest.raises(LimitExceeded, match=r"limits\.imports"):
        one.import_(3, announced)
    assert one.import_(2, announced).count == 2


def test_reference_to_the_root_breaks_the_protocol(half):
    one = half()
    with pytest.raises(RemoteProtocolError):
        one.import_(0)


def test_reference_that_changes_its_facet_breaks_the_protocol(half):
    one = half()
    first, second = one.learn_facet(1), one.learn_facet(2)
    one.import_(9, first)
    with pytest.raises(RemoteProtocolError):
        one.import_(9, second)


def test_reference_of_an_unknown_facet_breaks_the_protocol(half):
    with pytest.raises(RemoteProtocolError):
        half().session.announced_by_peer(1)


@pytest.mark.parametrize("number", [0, 2, 7])
def test_facets_out_of_order_end_the_session(number, half):
    one = half()
    one.hear(m.Facet(number, "Box", [], 0))
    assert one.ended == "protocol-error"


def test_facet_announced_twice_ends_the_session(half):
    one = half()
    one.hear(m.Facet(1, "Box", [], 0), m.Facet(1, "Box", [], 0))
    assert one.ended == "protocol-error"


def test_more_facets_than_we_accept_end_the_session(half):
    one = half("imports = 2")
    one.hear(*(m.Facet(number, "Box", [], 0) for number in (1, 2)))
    assert one.ended is None
    one.hear(m.Facet(3, "Box", [], 0))
    assert one.ended == "protocol-error"


def test_revoked_import_is_dead_and_still_owed(half):
    one = half()
    imported = one.import_(9)
    one.hear(m.Revoked([9, 77]))
    assert not imported.alive
    one.session.imports.release_now(imported)
    assert one.said() == [m.Release([(9, 1)])]


def test_arguments_that_were_not_taken_are_taken_back(half):
    one = half()
    target = one.import_()
    export = one.hand_over()
    one.hand_over(export.source)
    question = one.ask(target, handed_over=[export, export])
    one.hear(m.Raise(question.question_id, False, "denied", "", "", "R-1"))
    assert len(one.session.exports) == 0


def test_arguments_that_were_taken_stay_until_they_are_released(half):
    one = half()
    target = one.import_()
    export = one.hand_over()
    question = one.ask(target, handed_over=[export])
    one.hear(m.Raise(question.question_id, True, "internal", "", "", "R-1"))
    assert export.count == 1
    one.hear(m.Release([(export.export_id, 1)]))
    assert len(one.session.exports) == 0


def test_released_and_then_not_taken_ends_the_session(half):
    one = half()
    target = one.import_()
    export = one.hand_over()
    question = one.ask(target, handed_over=[export])
    one.hear(m.Release([(export.export_id, 1)]))
    one.hear(m.Raise(question.question_id, False, "denied", "", "", "R-1"))
    assert one.ended == "protocol-error"
    assert export.count >= 0
    assert isinstance(question.outcome, ConnectionLost)


def test_references_in_a_late_answer_are_given_back(half):
    one = half()
    target = one.import_(1)
    announced = one.session.announced_by_peer(1)
    question = one.ask(target)
    one.session.cancel(question)
    one.said()
    payload = pack([RemoteReference(7, announced.facet_id), RemoteReference(8, 1), RemoteReference(7, 1)])
    one.hear(m.Return(question.question_id, payload))
    assert one.said() == [m.Release([(7, 2), (8, 1)])]
    assert len(one.session.imports) == 1


def test_answer_that_came_before_the_cancel_is_given_back_too(half):
    one = half()
    question = one.ask(one.import_(1))
    one.hear(m.Return(question.question_id, pack({"k": (RemoteReference(7, 1),)})))
    one.said()
    one.session.cancel(question)
    one.session.cancel(question)
    assert one.said() == [m.Release([(7, 1)])]


def test_late_answer_gives_nothing_back_that_lives_as_long_as_the_call(half):
    one = half()
    announced = one.learn_facet(lifetime=1)
    scope = Scope()
    target = one.import_(5, announced, scope)
    question = one.ask(target)
    one.session.cancel(question)
    scope.end()
    one.said()
    one.hear(m.Return(question.question_id, pack(RemoteReference(7, 1))))
    assert one.said() == []
    assert one.ended is None


def test_late_answer_that_cannot_be_read_ends_the_session(half):
    one = half()
    question = one.ask(one.import_(1))
    one.session.cancel(question)
    one.hear(m.Return(question.question_id, b"\xc1"))
    assert one.ended == "protocol-error"


def test_late_answer_of_an_unknown_facet_ends_the_session(half):
    one = half()
    question = one.ask(one.import_(1))
    one.session.cancel(question)
    one.hear(m.Return(question.question_id, pack(RemoteReference(7, 99))))
    assert one.ended == "protocol-error"


def test_own_reference_is_known_although_its_end_stands_behind_it(half):
    one = half()
    export = one.hand_over()
    source = export.source
    question = one.ask(one.import_())
    question.homes = {}
    payload = pack([OwnReference(export.export_id)])
    one.hear(m.Return(question.question_id, payload), m.Release([(export.export_id, 1)]))
    assert question.homes[export.export_id][0] is source
    assert one.session.exports.home(export.export_id, 0.0)[0] is source
    one.said()
    assert one.session.exports.home(export.export_id, 0.0) is None


def test_own_reference_that_was_never_handed_over_ends_the_session(half):
    one = half()
    question = one.ask(one.import_())
    question.homes = {}
    one.hear(m.Return(question.question_id, pack([OwnReference(1)])))
    assert one.ended == "protocol-error"
    assert isinstance(question.outcome, ConnectionLost)


def test_end_of_the_session_empties_every_table(half):
    one = half()
    scope = Scope()
    target = one.import_()
    lent = one.hand_over(scope=scope)
    one.hand_over()
    one.ask(target, handed_over=[lent], scope=scope)
    one.hear(one.call())
    one.session.connection_lost("gone", one.events)
    session = one.session
    assert (len(session.exports), len(session.imports), session.asked.open, session.answers) == (0, 0, {}, {})
    assert not scope.alive


def test_announced_facets_are_told_apart_by_number(half):
    assert Announced(1, "Box", frozenset(), 0) != Announced(1, "Box", frozenset(), 0)
