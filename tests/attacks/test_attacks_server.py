"""A malicious server against our client, in both drivers. CAP-SV."""

import time

import pytest
from duels import GONE
from hostile_peer import own, reference

import caprpc
from caprpc.ids import OP_CALL, OP_GET, OP_INVOKE, OP_ITERATE, OP_NEXT, OP_ROOT
from caprpc.wire import messages as m
from caprpc.wire.codec import pack

CONTROL = [
    "SystemExit",
    "KeyboardInterrupt",
    "GeneratorExit",
    "StopIteration",
    "CancelledError",
    "MemoryError",
    "BaseException",
]


def test_control_exceptions_by_wire_are_remote_errors(duel):
    def script(peer):
        for name in CONTROL:
            for code in ("declared", "internal", name[:32], "denied"):
                call = peer.next_call()
                peer.send(m.Raise(call.question, True, code, name, name, "R-AAAAAAAAAAAA"))
        call = peer.next_call()
        peer.send(m.Return(call.question, pack(7)))
        peer.rest()

    def scenario(client):
        for _ in range(4 * len(CONTROL)):
            with pytest.raises(caprpc.RemoteError):
                client.call("add", 1, 2)
        assert client.call("add", 1, 2) == 7

    duel(script, scenario)


def test_error_texts_cannot_steer_a_terminal(duel):
    evil = "\x1b]52;c;x\x07\x1b[2J\r\n\u202e\x00" + "x" * 200

    def script(peer):
        call = peer.next_call()
        peer.send(m.Raise(call.question, True, "invalid-arguments", evil[:100], evil, evil[:32]))
        peer.rest()

    def scenario(client):
        with pytest.raises(caprpc.RemoteError) as caught:
            client.call("add", 1, 2)
        for text in (str(caught.value), caught.value.text, caught.value.reference, repr(caught.value)):
            assert text.isprintable()
        assert len(str(caught.value)) < 4000

    duel(script, scenario)


@pytest.mark.parametrize(
    ("name", "args", "value"),
    [
        ("add", (1, 2), "7"),
        ("add", (1, 2), True),
        ("add", (1, 2), None),
        ("add", (1, 2), reference(5, 1)),
        ("noop", (), 0),
        ("echo", (1,), reference(5, 1)),
        ("slip", (), 5),
        ("slip", (), "Slip"),
        ("slip", (), {"export": 1}),
        ("slip", (), reference(9, 1)),
        ("slips", (2,), [1, 2]),
        ("slips", (2,), (reference(9, 1),)),
        ("numbers", (2,), [1, 2]),
    ],
)
def test_results_of_other_types_are_refused(duel, name, args, value):
    def script(peer):
        call = peer.next_call()
        peer.send(m.Return(call.question, pack(value)))
        call = peer.next_call()
        peer.send(m.Return(call.question, pack(7)))
        peer.rest()

    def scenario(client):
        with pytest.raises(caprpc.CapRPCError) as caught:
            client.call(name, *args)
        assert not isinstance(caught.value, caprpc.ConnectionLost)
        assert client.call("add", 1, 2) == 7

    duel(script, scenario)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x91" * 1000,
        b"\xd0\x01",
        b"\x07\x07",
        pack([1]) * 2,
        b"\xdd\xff\xff\xff\xff",
        b"\xd4\x03\x00",
        pack(reference(5, 99)),
    ],
)
def test_results_that_break_the_encoding_end_the_connection(duel, payload):
    def script(peer):
        call = peer.next_call()
        peer.send(m.Return(call.question, payload))
        peer.rest()

    def scenario(client):
        with pytest.raises(caprpc.CapRPCError):
            client.call("slip")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            try:
                client.call("add", 1, 2)
            except GONE:
                return
            except caprpc.DeadlineExceeded:
                continue
        pytest.fail("the connection is still there")

    duel(script, scenario, connection="call_timeout_s = 0.1")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 1_114_113, 64 << 20])
def test_a_huge_reply_ends_the_connection_at_its_header(duel, size):
    def script(peer):
        peer.next_call()
        peer.send(size.to_bytes(4, "big") + b"\x93\x05")
        assert peer.rest()[-1].code == "protocol-error"

    def scenario(client):
        with pytest.raises(caprpc.ConnectionLost) as caught:
            client.call("add", 1, 2)
        assert "max_frame_bytes" in str(caught.value)

    duel(script, scenario)


def unsolicited(case, question):
    return {
        "unknown": [m.Return(question + 50, pack(1))],
        "twice": [m.Return(question, pack(7)), m.Return(question, pack(8))],
        "batch": [m.BatchReturn(question, [], pack([7]))],
        "other": [m.Raise(question + 1, False, "denied", "", "", "")],
        "zero": [m.Return(0, pack(1))],
        "finish": [m.Finish(question)],
        "hello": [m.Hello([1], b"x" * 32, m.PeerLimits(1 << 20, 1, 1, 1), [])],
        "second welcome": [m.Welcome([1], b"x" * 32, m.PeerLimits(1 << 20, 1, 1, 1), [])],
        "release": [m.Release([(1, 1)])],
    }[case]


@pytest.mark.parametrize(
    "case", ["unknown", "twice", "batch", "other", "zero", "finish", "hello", "second welcome", "release"]
)
def test_replies_that_nobody_asked_for_end_the_connection(duel, case):
    seen = []

    def script(peer):
        call = peer.next_call()
        peer.send(*unsolicited(case, call.question))
        seen.extend(peer.rest())

    def scenario(client):
        try:
            assert client.call("add", 1, 2) == 7
        except caprpc.CapRPCError:
            pass
        with pytest.raises(GONE):
            client.call("add", 1, 2)

    duel(script, scenario, connection="call_timeout_s = 1")
    assert seen[-1].code == "protocol-error"


@pytest.mark.parametrize("how", ["silent", "drip", "late"])
def test_a_server_that_never_answers_meets_the_deadline(duel, how):
    def script(peer):
        call = peer.next_call()
        if how == "drip":
            for byte in b"\x00\x00\x00\x10":
                peer.try_to_send(bytes([byte]))
        cancel = peer.receive()
        assert isinstance(cancel, m.Cancel)
        assert cancel.question == call.question
        if how == "late":
            peer.send(m.Return(call.question, pack(99)))
            call = peer.next_call()
            peer.send(m.Return(call.question, pack(7)))
        peer.rest()

    def scenario(client):
        started = time.monotonic()
        with pytest.raises(caprpc.DeadlineExceeded) as caught:
            client.call("add", 1, 2)
        assert "call_timeout_s" in str(caught.value)
        assert 0.15 <= time.monotonic() - started < 2.0
        if how == "late":
            assert client.call("add", 3, 4) == 7

    duel(script, scenario, connection="call_timeout_s = 0.2")


def test_a_server_that_vanishes_ends_the_call(duel):
    def script(peer):
        peer.next_call()
        peer.sock.close()

    def scenario(client):
        with pytest.raises(caprpc.ConnectionLost):
            client.call("add", 1, 2)

    duel(script, scenario)


def test_nothing_of_the_client_can_be_called_that_was_not_lent(duel):
    codes = []

    def script(peer):
        call = peer.next_call()
        targets = [
            (0, OP_ROOT, "vault"),
            (0, OP_ROOT, "server"),
            (0, OP_CALL, "x"),
            (1, OP_CALL, "text"),
            (7, OP_INVOKE, ""),
        ]
        targets += [
            (1, OP_GET, "__globals__"),
            (1, OP_GET, "__code__"),
            (1, OP_CALL, "__call__"),
            (1, OP_ITERATE, ""),
            (1, OP_NEXT, ""),
        ]
        for target, operation, name in targets:
            codes.append(peer.ask(target, name, operation=operation).code)
        cause = m.Meta(call.question)
        answer = peer.ask(1, operation=OP_INVOKE, args=[20], meta=cause)
        codes.append(answer.payload)
        peer.send(m.Return(call.question, pack(7)))
        codes.append(peer.ask(1, operation=OP_INVOKE, args=[20]).code)
        peer.rest()

    ran = []

    def function(value):
        ran.append(value)
        return value + 1

    def scenario(client):
        assert client.call("call_back", function) == 7
        client.idle(0.3)

    duel(script, scenario)
    assert codes == [*["denied"] * 10, pack(21), "denied"]
    assert ran == [20]


def test_arguments_of_a_lent_function_are_checked_before_it_runs(duel):
    codes = []

    def script(peer):
        call = peer.next_call()
        for args in (["20"], [True], [], [1, 2], [None]):
            codes.append(peer.ask(1, operation=OP_INVOKE, args=args, meta=m.Meta(call.question)).code)
        peer.send(m.Return(call.question, pack(7)))
        peer.rest()

    ran = []

    def scenario(client):
        assert client.call("call_back", lambda value: ran.append(value) or 1) == 7

    duel(script, scenario)
    assert codes == ["invalid-arguments"] * 5
    assert ran == []


def test_a_call_on_behalf_of_a_question_that_has_ended_ends_the_connection(duel):
    seen = []

    def script(peer):
        call = peer.next_call()
        peer.send(m.Return(call.question, pack(7)))
        peer.send(peer.call(1, operation=OP_INVOKE, args=[1], meta=m.Meta(call.question)))
        seen.extend(peer.rest())

    def scenario(client):
        assert client.call("add", 1, 2) == 7
        client.idle(0.2)

    duel(script, scenario)
    assert seen[-1].code == "protocol-error"


@pytest.mark.parametrize("number", [0, 3, 2**53 - 1])
def test_own_references_that_were_not_lent_end_the_connection(duel, number):
    def script(peer):
        call = peer.next_call()
        peer.send(m.Return(call.question, pack(own(number))))
        peer.rest()

    def scenario(client):
        with pytest.raises(caprpc.CapRPCError):
            client.call("slip")

    duel(script, scenario)


def test_goaway_cannot_send_a_client_elsewhere(duel):
    def script(peer):
        peer.next_call()
        peer.send(m.GoAway("redirect", "caprpc://evil.example:1", "R-\x1b[2J"))
        peer.rest()

    def scenario(client):
        with pytest.raises(caprpc.ConnectionLost) as caught:
            client.call("add", 1, 2)
        assert caught.value.code == "internal"
        assert str(caught.value).isprintable()

    duel(script, scenario)


def test_what_was_not_announced_or_is_not_accepted_is_not_asked_for(duel):
    heard = []

    def script(peer):
        heard.extend(peer.rest())

    def scenario(client):
        with pytest.raises(caprpc.Denied):
            client.call("parcel")
        with pytest.raises(caprpc.Denied):
            client.call("pay", 1.0)

    duel(script, scenario)
    assert not any(isinstance(message, m.Call) for message in heard)
