"""Handles: references of other connections, dead ones, forged ones, and arithmetic with their counts. CAP-HD."""

import re
import time

import pytest
from hostile_peer import GENEROUS, own, reference
from vault_service import CANARY, PaperSlip

from caprpc.ids import OP_CLOSE, OP_ENTER, OP_EXIT, OP_INVOKE, OP_ITERATE, OP_NEXT, OP_ROOT
from caprpc.wire import messages as m
from caprpc.wire.codec import pack, unpack


def slip_of(peer, vault):
    return peer.value(vault, "slip")


def ends(peer):
    """Return whether the connection ends with a protocol error."""
    return peer.rest()[-1].code == "protocol-error"


def announce(peer, interface="Slip", operations=((1, "text"),), lifetime=0, number=1):
    peer.send(m.Facet(number, interface, list(operations), lifetime))


def test_a_handle_of_another_connection_of_the_same_principal_is_denied(world, driver):
    running = world.serve(driver)
    one, other = world.open(running), world.open(running)
    vault = one.root()
    slips = [slip_of(one, vault).export for _ in range(5)]
    for export in (vault, *slips):
        assert other.ask(export, "text").code == "denied"
    assert one.value(slips[0], "text") == "slip"


def test_a_released_handle_is_denied_and_its_number_never_used_again(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    seen = {vault}
    for _ in range(50):
        export = slip_of(peer, vault).export
        assert export not in seen
        seen.add(export)
        peer.send(m.Release([(export, 1)]))
        assert peer.ask(export, "text").code == "denied"


def test_a_call_behind_a_release_in_one_segment_is_denied_and_one_before_it_runs(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    export = slip_of(peer, vault).export
    before, after = peer.call(export, "text"), peer.call(export, "text")
    peer.send(before, m.Release([(export, 1)]), after)
    assert unpack(peer.answer(before.question).payload) == "slip"
    assert peer.answer(after.question).code == "denied"


@pytest.mark.parametrize("case", ["twice", "more", "root", "unknown", "zero", "negative", "huge", "none", "iterator"])
def test_release_arithmetic_that_does_not_add_up_ends_the_connection(world, driver, case):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    export = slip_of(peer, vault).export
    message = {
        "twice": m.Release([(export, 1), (export, 1)]),
        "more": m.Release([(export, 2)]),
        "root": m.Release([(0, 1)]),
        "unknown": m.Release([(export + 1, 1)]),
        "zero": m.Release([(export, 0)]),
        "negative": m.Release([(export, -1)]),
        "huge": m.Release([(export, 2**32)]),
        "none": m.Release([]),
        "iterator": m.Release([(2**53 - 1, 1)]),
    }[case]
    peer.send(message, peer.call(vault, "noop"))
    assert ends(peer)
    assert world.service.ran == []


def test_each_occurrence_is_counted(world, driver):
    service = world.service
    same = PaperSlip()
    service.__class__ = type("Same", (type(service),), {"slips": lambda _self, count: [same] * count})
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    exports = {item.export for item in peer.value(vault, "slips", [3])}
    assert len(exports) == 1
    export = exports.pop()
    peer.send(m.Release([(export, 2)]))
    assert peer.value(export, "text") == "slip"
    peer.send(m.Release([(export, 1)]))
    assert peer.ask(export, "text").code == "denied"


def test_a_reference_of_a_facet_that_was_not_announced_ends_the_connection(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    peer.send(peer.call(peer.root(), "take", [reference(1, facet=1)]))
    assert ends(peer)
    assert world.service.ran == []


def test_facets_that_are_not_numbered_in_order_end_the_connection(world, driver):
    running = world.serve(driver)
    for numbers in ((2,), (1, 1), (1, 3), (0,)):
        peer = world.open(running)
        for number in numbers:
            announce(peer, number=number)
        assert ends(peer), numbers


def test_facets_with_too_many_members_altogether_end_the_connection(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    members = [(1, f"member_{number}") for number in range(4096)]
    for number in range(1, 18):
        peer.try_to_send(m.Facet(number, "Slip", members, 0))
    assert ends(peer)


def test_an_export_under_another_facet_than_before_ends_the_connection(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    announce(peer)
    announce(peer, number=2, operations=())
    service = world.service
    service.__class__ = type("Keeps", (type(service),), {"take": lambda self, slip: setattr(self, "kept", slip)})
    peer.ask(vault, "take", [reference(7, 1)])
    assert service.kept is not None
    peer.send(peer.call(vault, "take", [reference(7, 2)]))
    assert ends(peer)
    service.kept = None


@pytest.mark.parametrize("number", [0, 1, 2, 77])
def test_an_own_reference_to_what_was_not_handed_over_ends_the_connection(world, driver, number):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    number = number if number != 1 else vault + 1
    peer.send(peer.call(vault, "take", [own(number)]))
    assert ends(peer)
    assert world.service.ran == []


def test_a_forged_reference_never_becomes_a_local_object(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    for forged in (own(vault), own(slip_of(peer, vault).export)):
        answer = peer.ask(vault, "call_back", [forged])
        assert (answer.code, answer.taken) == ("invalid-arguments", False)
    texts = [
        "Slip",
        "caprpc.objects.targets.Stub",
        "builtins.dict",
        {"__class__": "Slip", "id": vault},
        [1, 1],
        f"<Slip {vault}>",
    ]
    for text in texts:
        assert peer.ask(vault, "take", [text]).code == "invalid-arguments"
    assert world.service.ran == []


def test_our_own_object_comes_home_where_its_interface_is_declared(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    assert peer.value(vault, "take", [own(slip_of(peer, vault).export)]) == "taken"


def test_numbers_of_their_objects_and_of_ours_are_never_confused(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    announce(peer)
    mine = vault + 500
    assert peer.value(vault, "take", [reference(mine, 1)]) == "taken"
    assert peer.ask(mine, "text").code == "denied"
    assert peer.ask(mine, "noop").code == "denied"


def test_a_handle_of_another_interface_is_refused_before_the_body(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    announce(peer, interface="Parcel", operations=[(1, "weight")])
    announce(peer, interface="Callable", operations=[(OP_INVOKE, "")], number=2)
    for number in (1, 2):
        answer = peer.ask(vault, "take", [reference(20 + number, number)])
        assert (answer.code, answer.taken) == ("invalid-arguments", False)
    assert peer.ask(vault, "echo", [reference(30, 1)]).code == "invalid-arguments"
    assert world.service.ran == []


def test_one_object_under_a_narrow_and_a_wide_facet_keeps_each_to_its_rights(world, driver):
    wide = """
[offer.Wide]
interface = "Vault"
call = ["noop", "hidden"]
"""
    running = world.serve(
        driver,
        roots={"vault": world.service, "wide": world.service},
        extra='wide = "Wide"\n' + wide,
    )
    peer = world.open(running)
    narrow, other = peer.root(), peer.root("wide")
    assert narrow != other
    assert peer.value(other, "hidden") is None
    assert peer.ask(narrow, "hidden").code == "denied"
    assert peer.ask(other, "add", [1]).code == "denied"


def test_promised_answers_are_protocol_errors(world, driver):
    running = world.serve(driver)
    for target in (-1, -2, -(2**53)):
        peer = world.open(running)
        peer.root()
        peer.send(peer.call(target, "noop"))
        assert ends(peer)


@pytest.mark.parametrize(
    "meta",
    [
        m.Meta(None, 5),
        m.Meta(None, None, True),
        m.Meta(None, None, False, b"trace"),
        m.Meta(77),
        m.Meta(None, 2**53 - 1),
    ],
)
def test_reserved_words_beside_a_call_end_the_connection(world, driver, meta):
    running = world.serve(driver)
    peer = world.open(running)
    peer.send(peer.call(peer.root(), "noop", meta=meta))
    assert ends(peer)
    assert world.service.ran == []


def test_deadlines_of_other_types_end_the_connection(world, driver):
    running = world.serve(driver)
    for deadline in (b"\xcb\x7f\xf8" + bytes(6), b"\xff", b"\xcf" + b"\xff" * 8, b"\xa11", b"\xc3"):
        peer = world.open(running)
        vault = peer.root()
        head = b"\x97\x04" + pack(peer.next_question()) + pack(vault) + b"\x01\xa4noop"
        peer.send_body(head + b"\x94\xc0" + deadline + b"\xc2\xc0" + pack(pack([[], {}])))
        assert ends(peer), deadline


def test_iterators_belong_to_one_connection_and_end_once(world, driver):
    running = world.serve(driver)
    one, other = world.open(running), world.open(running)
    vault = one.root()
    numbers = one.value(vault, "numbers", [5]).export
    iterator = numbers
    assert one.value(iterator, operation=OP_NEXT, args=[2, 1000]) == [False, [0, 1]]
    assert other.ask(iterator, operation=OP_NEXT, args=[2, 1000]).code == "denied"
    for name in ("send", "throw", "gi_frame", "__next__", "close"):
        assert one.ask(iterator, name).code == "denied"
    assert one.value(iterator, operation=OP_CLOSE) is None
    after = one.ask(iterator, operation=OP_NEXT, args=[2, 1000])
    assert isinstance(after, m.Raise) or unpack(after.payload) == [True, []]
    assert one.ask(vault, operation=OP_ITERATE).code == "denied"


def test_sizes_that_are_no_sizes_are_refused_by_iterators(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    iterator = peer.value(peer.root(), "numbers", [5]).export
    for sizes in (
        [-1, 10],
        [0, 10],
        [10, 0],
        [10, -(2**53)],
        [True, 10],
        [1.5, 10],
        [2**60],
        [],
        ["2", "2"],
        [None, None],
    ):
        answer = peer.ask(iterator, operation=OP_NEXT, args=sizes)
        assert isinstance(answer, m.Raise), sizes
    assert peer.value(iterator, operation=OP_NEXT, args=[10**9, 10**9]) == [True, [0, 1, 2, 3, 4]]


def test_numbers_tell_nothing_of_addresses_or_of_other_peers(world, driver):
    running = world.serve(driver)
    one, other = world.open(running, "mallory"), world.open(running, "alice")
    vaults = one.root(), other.root()
    mine = [slip_of(one, vaults[0]).export for _ in range(200)]
    assert [slip_of(other, vaults[1]).export for _ in range(3)] == [vaults[1] + n for n in (1, 2, 3)]
    assert mine == [vaults[0] + n for n in range(1, 201)]
    assert b"0x7f" not in one.heard
    with open("/proc/self/maps", encoding="ascii") as maps:
        starts = [int(re.match("[0-9a-f]+", line).group(), 16) for line in maps]
    assert max(mine) < min(starts)


def test_exports_end_at_their_limit_and_room_comes_back(world, driver):
    running = world.serve(driver, connection="exports = 10")
    peer = world.open(running)
    vault = peer.root()
    held = [slip_of(peer, vault).export for _ in range(9)]
    assert peer.ask(vault, "slip").code == "limit"
    assert peer.ask(vault, "slips", [5]).code == "limit"
    peer.send(m.Release([(held[0], 1)]))
    assert slip_of(peer, vault).export not in held


def test_imports_end_at_their_limit_and_room_comes_back(world, driver):
    running = world.serve(driver, connection="imports = 4")
    peer = world.open(running)
    vault = peer.root()
    announce(peer, interface="Callable", operations=[(OP_INVOKE, "")])
    kept = []
    world.service.__class__ = type(
        "Keeps", (type(world.service),), {"keep": lambda _self, function: kept.append(function)}
    )
    codes = [peer.ask(vault, "keep", [reference(100 + n, 1)]) for n in range(8)]
    assert sum(isinstance(code, m.Return) for code in codes) <= 4
    assert {code.code for code in codes if isinstance(code, m.Raise)} == {"limit"}
    kept.clear()


def test_a_peer_that_takes_few_references_gets_no_more(world, driver):
    running = world.serve(driver)
    peer = world.dial(running).open(m.PeerLimits(1 << 20, 64, 3, 32))
    vault = peer.root()
    answers = [peer.ask(vault, "slip") for _ in range(4)]
    assert [isinstance(answer, m.Return) for answer in answers] == [True, True, False, False]
    assert GENEROUS.max_references > 3
    assert CANARY.encode() not in peer.heard


def test_contexts_are_entered_and_left_once_and_errors_that_are_forged_are_none(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    door = peer.value(peer.root(), "door").export
    assert isinstance(peer.ask(door, operation=OP_EXIT, args=[False]), m.Raise)
    assert peer.value(door, operation=OP_ENTER) == 1
    assert isinstance(peer.ask(door, operation=OP_ENTER), m.Raise)
    assert isinstance(peer.ask(door, operation=OP_EXIT, args=[True, 7, {}]), m.Raise)
    assert peer.value(door, operation=OP_EXIT, args=[True, "KeyboardInterrupt", "now"]) is False
    assert isinstance(peer.ask(door, operation=OP_EXIT, args=[True, "SystemExit", ""]), m.Raise)
    assert world.service.ran == ["enter", "exit"]


def test_revoking_one_number_after_the_other_costs_the_same_each_time(world, driver):
    peer = world.open(world.serve(driver))
    number = 1_000_000

    def revoked(count):
        nonlocal number
        before = time.process_time()
        for _ in range(count // 256):
            peer.send(*[m.Revoked([number + i]) for i in range(256)])
            number += 256
        assert peer.ask(0, "vault", operation=OP_ROOT) is not None
        return time.process_time() - before

    few = revoked(4_096)
    # From here on as many numbers are remembered as there may be references.
    assert revoked(8_192) < 10 * few + 0.1
