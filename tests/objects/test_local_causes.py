"""Whose fault it was: a call that fails because our own lent object failed tells us so, and tells the peer nothing."""

import contextlib
import traceback
from contextlib import AbstractContextManager

import pytest

from caprpc import Interface, RemoteError, method
from caprpc.ids import OP_CALL
from caprpc.interface import shape_of


def shown(error):
    return "".join(traceback.format_exception(error))


def test_caller_sees_how_its_lent_object_failed(world):
    w = world()

    class Failing(w.Leaves):
        def name(self):
            raise LookupError("line 3 is not UTF-8")

    with pytest.raises(RemoteError) as caught:
        w.node.borrow(Failing())
    assert caught.value.code == "internal"
    (note,) = (note for note in caught.value.__notes__ if "on your lent object" in note)
    assert "while serving Lent.name (call) on your lent object: LookupError: line 3 is not UTF-8" in note
    reference = note.split("reference number ")[1].rstrip(")")
    assert [r["reference"] for r in w.records("client") if r["kind"] == "outcome"] == [reference]


def test_caller_sees_how_its_lent_function_failed(world):
    w = world()
    with pytest.raises(RemoteError) as caught:
        w.node.apply(lambda value: 1 // value, 0)
    assert "on your lent object: ZeroDivisionError" in shown(caught.value)


def test_peer_learns_nothing_of_it(world):
    w = world()

    class Failing(w.Leaves):
        def name(self):
            raise LookupError("a secret of the client")

    seen = []
    base = type(w.impl)

    def borrow(self, leaf):
        try:
            return base.borrow(self, leaf)
        except RemoteError as exc:
            seen.append(shown(exc))
            raise

    w.impl.__class__ = type("Curious", (base,), {"borrow": borrow})
    with pytest.raises(RemoteError):
        w.node.borrow(Failing())
    assert len(seen) == 1
    assert "secret" not in seen[0]


def test_failure_of_another_call_is_not_shown(world):
    w = world()
    with pytest.raises(RemoteError):
        w.node.apply(lambda value: 1 // value, 0)
    with pytest.raises(RemoteError) as caught:
        w.node.wrong()
    assert "on your lent object" not in shown(caught.value)
    assert "ZeroDivisionError" not in shown(caught.value)


def raising(w, text):
    """Have ``echo`` raise a declared error with a text; return its member, as a batch takes it."""
    member = shape_of(w.Node).members[OP_CALL, "echo"]

    def echo(_self, _value):
        raise w.Refusal(text)

    w.impl.__class__ = type("Raising", (type(w.impl),), {"echo": echo})
    return member


@pytest.mark.parametrize("text", ["x" * 10_000, "\u20ac" * 300, "lone \ud800 surrogate", "\U0001f600" * 200, ""])
def test_text_of_a_declared_error_crosses_cut_and_encodable_in_a_batch_as_in_a_call(world, monkeypatch, text):
    w = world()
    member = raising(w, text)
    monkeypatch.setattr(member, "errors", (w.Refusal,))
    with pytest.raises(w.Refusal) as caught:
        w.node.echo([1])
    (result,) = w.pair.client.batch([(w.node._caprpc_import, member, ([1],), {})])
    assert type(result) is w.Refusal
    assert str(result) == str(caught.value)
    assert len(str(result).encode()) <= 256
    assert w.pair.client.ended is w.pair.server.ended is None


def test_calls_of_a_batch_that_did_not_run_are_answered_when_the_thread_is_asked_to_end(world):
    w = world()
    member = shape_of(w.Node).members[OP_CALL, "echo"]

    def echo(_self, value):
        if value == [2]:
            raise SystemExit
        return value

    w.impl.__class__ = type("Ending", (type(w.impl),), {"echo": echo})
    w.pair.server.holds = True
    calls = [(w.node._caprpc_import, member, ([n],), {}) for n in (1, 2, 3)]
    question = w.pair.client.link.outgoing.ask_batch(calls)
    w.pair.run()
    job = w.pair.server.jobs.popleft()
    with pytest.raises(SystemExit) as caught:
        job.run()
    job.forget()
    w.pair.server.link.endpoint.fail(job, caught.value)
    w.pair.run()
    first, second, third = w.pair.client.link.outgoing.conclude_batch(question, [member] * 3)
    assert first == [1]
    assert (second.code, third.code) == ("internal", "internal")


class Bank(Interface):
    @method(effect="write")
    def opened(self) -> AbstractContextManager["Bank"]: ...

    @method(effect="read")
    def __getitem__(self, index: int) -> "Bank": ...


class BankOfAcme(Bank):
    def opened(self):
        return contextlib.nullcontext(self)

    def __getitem__(self, index):
        return self


def test_owner_sees_which_line_lets_out_what_a_context_gives(caprpc_pair, caplog):
    """An operation without a name is called in policies by its flag."""
    offer = (
        '[peer]\nca = ["@CA@"]\nspiffe = ["spiffe://@DOMAIN@/client"]\n[roots]\nbank = "Bank"\n'
        '[offer.Bank]\ninterface = "Bank"\ncall = ["opened"]\n[offer.Bank.returns]\nopened = "Open"\n'
        '[offer.Open]\ninterface = "ContextManager"\ncontext = true\n'
    )
    bank = caprpc_pair({"bank": BankOfAcme()}, offer=offer).client.root("bank", Bank)
    with pytest.raises(RemoteError, match="declaration or policy does not let out"), bank.opened():
        pass
    assert 'out of context; to allow it name a facet under [offer.Open.returns]: context = "<facet>"' in caplog.text
