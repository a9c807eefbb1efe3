"""The audit log that takes no records: nothing that it does not know of happens, and nobody waits in vain."""

import pytest

from caprpc import AuditError, ConnectionLost, RemoteError
from caprpc.ids import OP_CALL
from caprpc.interface import shape_of
from caprpc.objects.work import admit


def broken(*_args, **_kwargs):
    raise AuditError("the disk is full")


def break_log(end, monkeypatch, *names):
    relation = end.link.endpoint.recorder._relation
    for name in names:
        monkeypatch.setattr(type(relation), name, broken)


def test_call_that_cannot_be_recorded_does_not_run(world, monkeypatch):
    w = world()
    break_log(w.pair.server, monkeypatch, "commit", "record", "append")
    with pytest.raises((RemoteError, ConnectionLost)):
        w.node.keep(w.Leaves())
    assert w.impl.held == []


@pytest.mark.parametrize("level", ["decision", "outcome"])
@pytest.mark.parametrize("name", ["same", "wrong", "fail"])
def test_outcome_that_cannot_be_recorded_is_not_told(name, level, world, monkeypatch):
    w = world(server_more=f'[audit]\nlevel = "{level}"\n')
    args = {"fail": ("other", w.Leaves())}.get(name, ())
    w.pair.server.holds = True
    member = shape_of(w.Node).members[OP_CALL, name]
    pending = w.pair.client.start(w.node._caprpc_import, member, args, {})
    w.pair.run()
    break_log(w.pair.server, monkeypatch, "commit", "record", "append")
    w.pair.server.holds = False
    if name == "same" and level == "decision":
        assert pending.result() is not None
        return
    with pytest.raises((RemoteError, ConnectionLost)):
        pending.result()


def results_of_unrecorded_batch(world, monkeypatch):
    """Return what three calls of a batch end with whose decisions are on record, and whose outcomes cannot be."""
    w = world(server_more='[audit]\nlevel = "outcome"\n')
    member = shape_of(w.Node).members[OP_CALL, "echo"]
    w.pair.server.holds = True
    question = w.pair.client.link.outgoing.ask_batch([(w.node._caprpc_import, member, ([1],), {})] * 3)
    w.pair.run()
    break_log(w.pair.server, monkeypatch, "commit", "record", "append")
    w.pair.server.holds = False
    w.pair.run()
    return w.pair.client.link.outgoing.conclude_batch(question, [member] * 3)


def test_batch_whose_outcomes_cannot_be_recorded_tells_no_result(world, monkeypatch):
    results = results_of_unrecorded_batch(world, monkeypatch)
    assert [error.code for error in results] == ["internal"] * 3


@pytest.mark.parametrize("level", ["decision", "outcome"])
@pytest.mark.parametrize("name", ["echo", "fail", "wrong"])
def test_full_disk_costs_the_operators_log_a_few_lines_and_each_number_leads_there(
    name, level, world, monkeypatch, caplog
):
    w = world(server_more=f'[audit]\nlevel = "{level}"\n')
    args = {"fail": ("other", w.Leaves()), "echo": ([1],)}.get(name, ())
    member = shape_of(w.Node).members[OP_CALL, name]
    break_log(w.pair.server, monkeypatch, "commit", "record", "append", "write")
    told = []
    for _ in range(50):
        with pytest.raises(RemoteError) as caught:
            w.pair.client.start(w.node._caprpc_import, member, args, {}).result()
        told.append(caught.value.reference)
    w.pair.server.link.abort("closed", "over")
    assert 1 <= len(caplog.records) <= 6
    assert told[0] in caplog.text
    assert told[-1] in caplog.text


def test_call_refused_in_the_short_form_is_counted_too(world, monkeypatch, caplog):
    w = world()
    server, member = w.pair.server.link, shape_of(w.Node).members[OP_CALL, "echo"]
    break_log(w.pair.server, monkeypatch, "commit", "record", "append", "write")
    told = []
    for _ in range(50):
        question = w.pair.client.link.outgoing.ask(w.node._caprpc_import, member, ([1],), {}, None)
        (answer,) = server.receive(b"".join(w.pair.client.link.data_to_send()), 1.0)
        assert admit(server, answer).jobs == []
        w.pair.client.link.receive(b"".join(server.data_to_send()), 1.0)
        told.append(question.outcome.reference)
    server.abort("closed", "over")
    assert "recording a call" in caplog.text
    assert len(caplog.records) == 2
    assert told[0] in caplog.text
    assert told[-1] in caplog.text


def test_batch_that_is_withheld_is_one_event_with_one_number(world, monkeypatch, caplog):
    (reference,) = {error.reference for error in results_of_unrecorded_batch(world, monkeypatch)}
    assert f"replying to a batch for spiffe://test.example/client failed ({reference})" in caplog.text
