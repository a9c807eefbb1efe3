"""What a hostile client may learn: results, exceptions, refusals. CAP-CB, CAP-SI, CAP-TY, CAP-CO-16."""

import asyncio
import time
from contextlib import suppress

import pytest
from hostile_peer import NOTHING, reference
from vault_service import CANARY

from caprpc.ids import OP_CALL, OP_GET, OP_INVOKE
from caprpc.wire import messages as m
from caprpc.wire.codec import encode_message, pack

LEAKS = ["object", "class", "self", "module", "list", "dict", "function", "lambda", "generator", "exception", "slip"]
UNFIT = ["cycle", "deep", "surrogate", "huge"]
FAILURES = ["chained", "group", "value", "os", "recursion", "exit", "generator", "no-such-kind"]
SECRETS = [
    CANARY,
    "vault_service",
    "/tests/",
    "/caprpc/",
    "site-packages",
    "Traceback",
    "Safe",
    "Plain",
    "/etc/shadow",
    "0x7f",
    "PATH",
]


def secrets_in(data):
    return [secret for secret in SECRETS if secret.encode() in bytes(data)]


def small(message):
    return len(encode_message(message)) <= 512


@pytest.mark.parametrize("kind", [*LEAKS, *UNFIT])
def test_objects_without_a_declaration_never_leave(world, driver, kind):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    answer = peer.ask(vault, "leak", [kind])
    assert (answer.code, answer.type, answer.text) == ("invalid-result", "", "")
    assert small(answer)
    assert [peer.ask(export, "text").code for export in range(vault + 1, vault + 5)] == ["denied"] * 4
    assert peer.value(vault, "slip").export == vault + 1
    assert secrets_in(peer.heard) == []


def test_exceptions_cross_as_a_code_and_a_number_only(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    for kind in FAILURES:
        answer = peer.ask(vault, "fail", [kind])
        assert (answer.code, answer.type, answer.text, answer.taken) == ("internal", "", "", True), kind
        assert small(answer)
    assert peer.value(vault, "noop") is None
    assert peer.value(vault, "slip").export == vault + 1
    assert secrets_in(peer.heard) == []


def test_methods_that_raise_control_exceptions_end_their_call_and_nothing_else(world, driver):
    async def fail(_self, kind):
        raise {"exit": SystemExit, "cancelled": asyncio.CancelledError}[kind](CANARY)

    def nap(_self, ms):
        raise (SystemExit, GeneratorExit, asyncio.CancelledError)[ms](CANARY)

    service = world.service
    service.__class__ = type("Ends", (type(service),), {"fail": fail, "nap": nap})
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    for _ in range(5):
        for kind in ("exit", "cancelled"):
            assert peer.ask(vault, "fail", [kind]).code == "internal", kind
        for kind in range(3):
            assert peer.ask(vault, "nap", [kind]).code == "internal", kind
    assert secrets_in(peer.heard) == []


def test_a_declared_error_crosses_with_its_first_text_and_nothing_else(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    answer = peer.ask(peer.root(), "fail", ["declared"])
    assert (answer.code, answer.type, answer.text) == ("declared", "Shortage", "out of stock")
    assert secrets_in(peer.heard) == []


def test_every_refusal_is_small_and_says_nothing(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    long = "n" * 128
    refusals = [
        peer.ask(vault, long),
        peer.ask(vault, "hidden", ["x" * 100_000]),
        peer.ask(vault, "add", ["x" * 100_000]),
        peer.ask(vault, "add", [], {long: 1}),
        peer.ask(vault, "pay", [1e9, "x" * 10_000]),
        peer.ask(vault, "tick", [True, [1] * 1000, {}]),
        peer.ask(10**9, "noop"),
        peer.ask(vault, "leak", ["self"]),
    ]
    for answer in refusals:
        assert isinstance(answer, m.Raise)
        assert small(answer)
    assert secrets_in(peer.heard) == []


def test_every_refusal_is_on_record_exactly_once(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    denied = [("hidden", []), ("nothing", []), ("__class__", []), ("hidden", [1]), ("trap", []), ("x" * 128, [])]
    unfit = [("add", ["x"]), ("pay", [1e9]), ("pay", [-1.0]), ("take", [3]), ("add", [])]
    references = {peer.ask(vault, name, args).reference for name, args in denied + unfit}
    assert len(references) == len(denied + unfit)
    assert running.denials() == len(denied + unfit)
    recorded = running.records(decision="deny")
    assert {fields["reference"] for fields in recorded} == references
    assert {fields["peer"] for fields in recorded} == {f"spiffe://{world.deployment.trust_domain}/mallory"}


def test_arguments_and_secrets_are_not_on_record(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    for name in ("echo", "hidden", "add", "nap"):
        peer.ask(vault, name, [CANARY])
    peer.ask(vault, "pay", [1e9, CANARY])
    peer.ask(vault, "add", [1], {"b": CANARY})
    running.stop()
    for file in running.side.audit.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes()


def test_texts_of_a_peer_cannot_break_out_of_a_record(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    evil = ['x","decision":"permit', "a\nb", "a\r\n{}", "\x00", "\x1b[2J", "\u202e", "}\n{", "\\u0000", "x" * 128]
    for name in evil:
        assert peer.ask(vault, name).code == "denied"
    recorded = running.records(decision="deny")
    assert len(recorded) == len(evil)
    assert all(fields["member"].isprintable() for fields in recorded)


WRONG = {
    "add": [["1"], [1.0], [True], [None], [[1]], [{"a": 1}], [b"1"], [1 << 70, "x"], [(1,)], [1, 2, 3], []],
    "pay": [["1"], [True], [None], [1], [[1.0]], [1.0, 2], [1.0, b"x"], [1.0, None], [1.0, "", ""], []],
    "tick": [
        *([1, [], {}], [True, ["a", 1], {}], [True, ("a",), {}], [True, {"a"}, {}], [True, [], {"a": True}]),
        *([True, [], {1: 1}], [True, [], []], [True, "abc", {}], [None, [], {}], [True, [None], {}]),
    ],
    "take": [[1], ["slip"], [None], [{}], [[]]],
    "call_back": [[1], [None], ["noop"], [[]]],
    "blob": [["1"], [1.5], [None], [True]],
}


def test_arguments_of_other_types_are_refused_before_the_body(world, driver):
    running = world.serve(driver, connection="glitch_burst = 1000")
    peer = world.open(running)
    vault = peer.root()
    for name, cases in WRONG.items():
        for args in cases:
            answer = peer.ask(vault, name, args)
            assert (answer.code, answer.taken) == ("invalid-arguments", False), (name, args)
            assert len(answer.text.encode()) <= 256
    assert world.service.ran == []


def test_arguments_that_are_no_arguments_end_or_are_refused(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    for raw in (None, [], [[]], [[], {}, 1], {}, [{}, []], [1, {}], [[], None], "x", 5):
        answer = peer.ask(vault, "noop", payload=pack(raw))
        assert answer is None or (isinstance(answer, m.Raise) and not answer.taken), raw
        if answer is None:
            peer = world.open(running)
            vault = peer.root()
    assert world.service.ran == []


def test_keywords_cannot_smuggle_anything_in(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    words = ["self", "cls", "__class__", "_caller", "_policy", "class", "internal", "a ", "\uff41", "A", ""]
    for word in words:
        answer = peer.ask(vault, "add", [1], {word: 1})
        assert (answer.code, answer.taken) == ("invalid-arguments", False), word
    assert peer.ask(vault, "add", [1], {"a": 1}).code == "invalid-arguments"
    assert peer.ask(vault, "noop", [], {"self": 1}).code == "invalid-arguments"
    assert peer.ask(vault, "add", [1], {f"k{number}": 1 for number in range(10_000)}).code == "invalid-arguments"
    assert world.service.ran == []


def test_bounds_cannot_be_beaten_by_odd_numbers(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    for amount in (float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 5e-324, 100.00001, 1e308, -1.0):
        answer = peer.ask(vault, "pay", [amount])
        assert not answer.taken, amount
    for amount in (True, 1, 10**400, "1.0", None):
        assert peer.ask(vault, "pay", [amount]).code == "invalid-arguments", amount
    assert world.service.ran == []
    assert peer.value(vault, "pay", [0.01]) == "paid"
    assert peer.value(vault, "pay", [100.0]) == "paid"


def callback(peer, vault):
    """Lend a callable, and return the question and the call that comes on it."""
    peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
    question = peer.call(vault, "call_back", [reference(1, 1)])
    peer.send(question)
    return question.question, peer.next_call()


@pytest.mark.parametrize("value", ["x", 1.5, True, None, [1], b"1", 1 << 70, float("nan")])
def test_a_hostile_result_of_a_callback_is_refused_before_the_body_sees_it(world, driver, value):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    question, call = callback(peer, vault)
    assert (call.operation, call.target, call.meta.cause) == (OP_INVOKE, 1, question)
    peer.send(m.Return(call.question, pack(value)))
    answer = peer.answer(question)
    if value == 1 << 70:
        assert isinstance(answer, m.Return)
        return
    assert answer.code == "internal"
    assert world.service.ran == ["call_back"]
    assert peer.value(vault, "noop") is None


@pytest.mark.parametrize(
    "name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError", "MemoryError", "Shortage"]
)
def test_a_callback_cannot_raise_control_exceptions(world, driver, name):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    for code in ("declared", "internal", "denied", "no-such-code"):
        question, call = callback(peer, vault) if code == "declared" else _again(peer, vault)
        peer.send(m.Raise(call.question, True, code, name, "\x1b[31m" + name, "R-\x00"))
        answer = peer.answer(question)
        assert (answer.code, answer.type, answer.text) == ("internal", "", "")
    assert peer.value(vault, "noop") is None


def _again(peer, vault):
    question = peer.call(vault, "call_back", [reference(peer.next_question() + 100, 1)])
    peer.send(question)
    return question.question, peer.next_call()


def test_the_end_of_a_peer_in_a_callback_frees_the_method(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    callback(peer, peer.root())
    peer.close()
    other = world.open(running)
    assert other.value(other.root(), "noop") is None
    running.stop()
    assert ("got", 1) not in world.service.ran


def test_recursion_through_callbacks_ends_at_its_limit(world, driver):
    running = world.serve(driver, connection="callback_depth = 6")
    peer = world.open(running)
    vault = peer.root()
    peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
    cause, answers, depth = None, [], 0
    while depth < 30:
        call = peer.call(vault, "call_back", [reference(depth + 1, 1)], meta=m.Meta(cause) if cause else None)
        peer.send(call)
        message = peer.receive()
        if isinstance(message, m.Raise):
            answers.append(message.code)
            break
        cause = message.question
        depth += 1
    assert answers == ["limit"] or answers == ["internal"]
    assert 2 <= depth <= 6


@pytest.mark.parametrize("lie", ["nothing", "the first"])
def test_a_peer_that_lies_about_what_it_calls_for_keeps_to_the_limits(world, driver, lie):
    """Who calls on behalf of nothing, or always of the same, nests no deeper than calls may be in flight."""
    running = world.serve(driver, connection="in_flight = 8\ncall_timeout_s = 3")
    peer = world.open(running)
    vault = peer.root()
    peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
    calls = []
    with suppress(TimeoutError):
        for number in range(1, 40):
            meta = m.Meta(calls[0].question) if calls and lie == "the first" else None
            peer.send(peer.call(vault, "call_back", [reference(number, 1)], meta=meta))
            message = peer.receive(0.5)
            if isinstance(message, m.Call):
                calls.append(message)
    assert 2 <= len(calls) <= 16
    other = world.open(running, "alice")
    started = time.monotonic()
    assert other.value(other.root(), "add", [1, 2]) == 3
    assert time.monotonic() - started < 0.5
    peer.close()


def test_functions_that_were_lent_for_a_call_are_dead_after_it(world, driver):
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    peer.send(m.Facet(1, "Callable", [(OP_INVOKE, "")], 1))
    assert peer.value(vault, "keep", [reference(1, 1)]) is None
    assert peer.ask(vault, "call_kept").code == "internal"
    assert not any(isinstance(message, m.Call) for message in peer.silence(0.1))


def test_each_call_knows_its_own_caller(world, driver):
    running = world.serve(driver)
    peers = {name: world.open(running, name) for name in ("mallory", "alice")}
    vaults = {name: peer.root() for name, peer in peers.items()}
    for _ in range(20):
        calls = {name: [peer.call(vaults[name], "caller") for _ in range(30)] for name, peer in peers.items()}
        for name, peer in peers.items():
            peer.send(*calls[name])
        for name, peer in peers.items():
            answers = {peer.answer(call.question).payload for call in calls[name]}
            assert answers == {pack(f"spiffe://{world.deployment.trust_domain}/{name}")}


def test_a_stub_is_never_an_instance_of_a_local_class(world, driver):
    service = world.service
    seen = []
    service.__class__ = type("Looks", (type(service),), {"take": lambda _self, slip: seen.append(slip) or "taken"})
    running = world.serve(driver)
    peer = world.open(running)
    vault = peer.root()
    peer.send(m.Facet(1, "Slip", [(OP_CALL, "text"), (OP_CALL, "__class__"), (OP_GET, "__fspath__")], 0))
    assert peer.value(vault, "take", [reference(1, 1)]) == "taken"
    stub = seen.pop()
    assert not isinstance(stub, str | dict | int | type(service))
    assert not hasattr(stub, "__fspath__")
    assert not hasattr(stub, "read")
    assert NOTHING
