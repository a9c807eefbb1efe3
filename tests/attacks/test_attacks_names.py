"""Attribute traversal: names that a hostile client asks for, over the network. CAP-AT, CAP-EX."""

from hostile_peer import NOTHING
from vault_service import CANARY, GRANTED, PaperSlip, Safe, Vault

from caprpc.ids import (
    IMPLICIT_OPERATIONS,
    NAMED_OPERATIONS,
    OP_CALL,
    OP_COMPARE,
    OP_GET,
    OP_INVOKE,
    OP_ROOT,
    OP_SET,
    OPERATION_NAMES,
)
from caprpc.wire import messages as m
from caprpc.wire.codec import encode_message, pack

NO_BUDGET = "glitch_burst = 10000\nglitch_per_s = 1000"
"""Names are many; what the budget does with a flood of them is a test of its own."""


def attempt(peer, target, names, operations=(OP_CALL, OP_GET, OP_SET)):
    """Ask for every name in every way; return the answers by operation and name."""
    asked = {}
    frames = []
    for name in names:
        for operation in operations:
            call = peer.call(target, name, [1] if operation == OP_SET else [], operation=operation)
            asked[call.question] = (operation, name)
            frames.append(call)
    peer.send(*frames)
    return {asked[question]: peer.answer(question) for question in asked}


def all_denied(answers):
    return {(a.code, a.type, a.text, a.taken) if isinstance(a, m.Raise) else a for a in answers.values()} == {
        ("denied", "", "", False)
    }


def every_dunder():
    """Return the special names of every class that the interpreter has loaded, and of modules, frames and code."""
    found, waiting = set(), [object]
    while waiting:
        kind = waiting.pop()
        found.update(name for name in (*vars(kind), *vars(type(kind))) if name.startswith("__"))
        waiting.extend(type.__subclasses__(kind))
        if len(found) > 2000:
            break
    return sorted(name for name in found if len(name) <= 128)


FRAMES = [
    "gi_frame",
    "gi_code",
    "cr_frame",
    "cr_code",
    "ag_frame",
    "tb_frame",
    "tb_next",
    "f_back",
    "f_globals",
    "f_locals",
]
GENERATED = [
    "_replace",
    "_asdict",
    "_make",
    "model_dump",
    "__post_init__",
    "__members__",
    "assert_called",
    "mock_calls",
]
INHERITED = [
    "public_but_undeclared",
    "made",
    "helper",
    "trap",
    "ran",
    "gate",
    "kept",
    "mro",
    "register",
    "format",
    "start",
]
PREFIXED = [
    "exposed_noop",
    "exposed_exposed_noop",
    "remote_noop",
    "get_noop",
    "perspective_noop",
    "noo",
    "noopp",
    "Noop",
    "NOOP",
]


def test_dunder_names_are_denied(world, driver):
    dunders = every_dunder()
    assert len(dunders) >= 150
    running = world.serve(driver, connection=NO_BUDGET)
    peer = world.open(running)
    assert all_denied(attempt(peer, peer.root(), dunders))
    assert world.service.ran == []
    assert peer.value(peer.root(), "noop") is None


def test_private_and_mangled_names_are_denied(world, driver):
    names = [name for name in dir(world.service) if name.startswith("_")]
    assert "_Safe__mangled" in names
    running = world.serve(driver, connection=NO_BUDGET)
    peer = world.open(running)
    assert all_denied(attempt(peer, peer.root(), [*names, "__mangled", "_x"]))


def test_unicode_look_alikes_and_odd_spellings_are_denied(world, driver):
    odd = [
        "\uff3f\uff3fclass\uff3f\uff3f",
        "noo\uff50",
        "\U0001d4c3oop",
        "n\u043e\u043ep",
        "no\u200bop",
        "noop\u0301",
        "\ufb01ll",
        "noop\x00",
        "noop ",
        " noop",
        "noop\n",
        "NOOP",
        "noop.noop",
        "noop()",
        "vault.noop",
        "*",
        "noop\u202e",
        "{0.__class__}",
        "%(x)s",
        "${x}",
    ]
    running = world.serve(driver, connection=NO_BUDGET)
    peer = world.open(running)
    assert all_denied(attempt(peer, peer.root(), odd))
    assert world.service.ran == []


def test_a_name_that_is_no_short_text_ends_the_connection(world, driver):
    running = world.serve(driver)
    for name in (b"noop", 7, True, None, ["noop"], {"noop": 1}, "x" * 129, "x" * 1_000_000, 1.5):
        peer = world.open(running)
        vault = peer.root()
        head = b"\x97\x04" + pack(peer.next_question()) + pack(vault) + b"\x01"
        peer.send_body(head + pack(name) + b"\xc0" + pack(NOTHING))
        assert [(type(x).__name__, x.code) for x in peer.rest()] == [("GoAway", "protocol-error")]
    assert world.service.ran == []


def test_an_operation_without_its_name_or_with_one_too_many_ends_the_connection(world, driver):
    running = world.serve(driver)
    for operation, name in ((OP_CALL, ""), (OP_GET, ""), (OP_INVOKE, "noop"), (OP_COMPARE, ""), (200, ""), (255, "")):
        peer = world.open(running)
        peer.send(peer.call(peer.root(), name, operation=operation))
        assert peer.rest()[-1].code == "protocol-error"


def test_prefixes_and_near_misses_match_nothing(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    assert all_denied(attempt(peer, peer.root(), PREFIXED))
    assert world.service.ran == []


def test_getter_of_a_denied_attribute_never_runs(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    assert all_denied(attempt(peer, vault, ["trap", "balance"]))
    assert world.service.ran == []
    assert peer.value(vault, "label", operation=OP_GET) == "vault"


def test_an_attribute_granted_for_reading_cannot_be_set(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    assert all_denied(attempt(peer, peer.root(), ["label"], [OP_SET]))
    assert world.service.label == "vault"


def test_implicit_operations_are_denied_without_a_grant(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    slip = peer.value(vault, "slip").export
    unnamed = OPERATION_NAMES.keys() - NAMED_OPERATIONS - IMPLICIT_OPERATIONS
    for target in (vault, slip, 0):
        assert all_denied(attempt(peer, target, [""], sorted(unnamed)))
        assert all_denied(attempt(peer, target, ["eq", "lt", "__eq__"], [OP_COMPARE]))
    assert all_denied(attempt(peer, vault, ["vault"], [OP_ROOT]))
    assert all_denied(attempt(peer, 0, ["noop", "vault", "get"], [OP_CALL, OP_GET, OP_SET]))


def test_roots_that_exist_and_roots_that_do_not_are_denied_alike(world, driver):
    other = Safe()
    running = world.serve(driver, roots={"vault": world.service, "admin": other})
    peer = world.open(running)
    answers = [peer.ask(0, name, operation=OP_ROOT) for name in ("admin", "nothing", "Limited")]
    bodies = {_without_numbers(answer) for answer in answers}
    assert len(bodies) == 1


def test_absent_and_forbidden_members_are_answered_with_the_same_bytes(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    asked = [
        (vault, "hidden"),
        (vault, "parcel"),
        (vault, "nothing"),
        (vault, "__class__"),
        (vault, "trap"),
        (999, "noop"),
    ]
    answers = [peer.ask(target, name) for target, name in asked]
    assert len({_without_numbers(answer) for answer in answers}) == 1
    assert world.service.ran == []


def _without_numbers(answer):
    assert len(answer.reference) == 14
    return encode_message(m.Raise(0, answer.taken, answer.code, answer.type, answer.text, ""))


def test_the_announcement_names_what_is_granted_and_nothing_else(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    call = peer.call(0, "vault", operation=OP_ROOT)
    peer.send(call)
    facet = peer.receive()
    assert isinstance(facet, m.Facet)
    assert {(operation, name) for operation, name in facet.members} == {
        *((OP_CALL, n) for n in GRANTED),
        (OP_GET, "label"),
    }
    peer.answer(call.question)
    for kind in ("doc", "signature", "describe", "__doc__", "__annotations__", "__module__", "__signature__"):
        assert peer.ask(1, kind).code == "denied"
    assert b"hidden" not in peer.heard
    assert b"Safe" not in peer.heard


def test_inherited_generated_static_and_class_members_are_denied(world, driver):
    running = world.serve(driver, connection=NO_BUDGET)
    peer = world.open(running)
    names = {*INHERITED, *GENERATED, *FRAMES}
    assert all_denied(attempt(peer, peer.root(), sorted(names)))
    assert world.service.ran == []


def test_members_of_an_implementation_and_of_a_later_release_are_unreachable(world, driver):
    class Upgraded(Safe):
        def added_later(self):
            self.ran.append("added_later")

        def hidden(self):
            self.ran.append("hidden")

    service = Upgraded()
    running = world.serve(driver, roots={"vault": service})
    peer = world.open(running)
    assert all_denied(attempt(peer, peer.root(), ["added_later", "hidden"]))
    assert service.ran == []


def test_an_override_with_a_wider_signature_takes_what_the_interface_declares(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    answer = peer.ask(peer.root(), "add", [1], {"internal": 1})
    assert (answer.code, answer.taken) == ("invalid-arguments", False)
    assert world.service.ran == []


def test_instance_state_cannot_shadow_a_granted_method(world, driver):
    running = world.serve(driver)
    world.service.noop = world.service.public_but_undeclared
    world.service.add = lambda *_: CANARY
    peer = world.open(running)
    vault = peer.root()
    assert peer.value(vault, "noop") is None
    assert peer.value(vault, "add", [1, 2]) == 3
    assert world.service.ran == ["noop", "add"]


def test_an_object_that_looks_like_the_interface_is_not_exported(world, driver):
    class Impostor:
        def text(self):
            return CANARY

    service = Safe()
    service.__class__ = type("Odd", (Safe,), {"slip": lambda _self: Impostor()})
    running = world.serve(driver, roots={"vault": service})
    peer = world.open(running)
    answer = peer.ask(peer.root(), "slip")
    assert answer.code == "invalid-result"
    assert CANARY.encode() not in peer.heard


def test_a_virtual_subclass_is_not_exported(world, driver):
    class Registered:
        __class__ = PaperSlip

        def text(self):
            return CANARY

    assert isinstance(Registered(), PaperSlip)
    service = Safe()
    service.__class__ = type("Odd", (Safe,), {"slip": lambda _self: Registered()})
    running = world.serve(driver, roots={"vault": service})
    peer = world.open(running)
    assert peer.ask(peer.root(), "slip").code == "invalid-result"


def test_an_operation_on_a_plain_value_ends_the_connection(world, driver):
    running = world.serve(driver)
    reference_extension = b"\xc7\x10\x01" + bytes(16)
    values = (
        b"\xa5vault",
        b"\xc4\x01x",
        b"\x91\x01",
        b"\xcb" + bytes(8),
        b"\xc3",
        b"\xc0",
        b"\xd4\x01\x00",
        reference_extension,
    )
    for target in values:
        peer = world.open(running)
        peer.root()
        peer.send_body(b"\x97\x04\x05" + target + b"\x01\xa4noop\xc0\xc4\x03\x92\x90\x80")
        assert peer.rest()[-1].code == "protocol-error"
    assert world.service.ran == []


def test_templates_in_texts_stay_text(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    for text in ("{0.__class__.__init__.__globals__}", "%(CANARY)s", "${CANARY}", "{CANARY}", "\x1b[31m", "{{7*7}}"):
        assert peer.value(vault, "echo", [text]) == text
        assert peer.ask(vault, text).code == "denied"
        assert peer.ask(vault, "fail", [text]).code == "internal"
    assert CANARY.encode() not in peer.heard
    assert all(CANARY not in str(fields) for fields in running.records())


def test_the_vault_is_as_wide_as_these_tests_believe():
    assert {"hidden", "parcel"} & set(GRANTED) == set()
    assert all(hasattr(Vault, name) for name in GRANTED)
