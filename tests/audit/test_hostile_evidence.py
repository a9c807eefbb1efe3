"""Logs, proofs and openings from a partner who wants a wrong yes, or the reader's terminal."""

import json

import pytest
from click.testing import CliRunner

from caprpc.audit import AuditLog, extra
from caprpc.audit.notes import KIND_COSIGNER, KIND_LOG, Note, NoteSigner, VerifierKey
from caprpc.audit.proofs import Proof, prove
from caprpc.audit.reader import BadRecord, RawLine, Record
from caprpc.audit.reconcile import Difference, reconcile
from caprpc.cli import main
from caprpc.wire.codec import pack
from tests.audit.conftest import PEER


@pytest.fixture
def run():
    return lambda *words: CliRunner().invoke(main, ["audit", *map(str, words)])


@pytest.fixture
def sides(tmp_path):
    """Write what we have asked, and the partner's log of it; return the directories of both logs."""

    def write(asked, decided, counted=(), *, connection="c1", reason="closed"):
        ours, theirs = (AuditLog.open(tmp_path / name, name=name) for name in ("ours", "theirs"))
        relation = ours.relation("spiffe://b.example/b")
        relation.record("open", peer="spiffe://b.example/b", connection=connection)
        relation.record("close", connection=connection, reason="closed", count=asked)
        relation = theirs.relation("spiffe://a.example/a")
        relation.record("open", peer="spiffe://a.example/a", connection=connection)
        template = relation.template(kind="decision", connection=connection, decision="permit", facet="F", member="m")
        for question in decided:
            relation.append(template, question)
        for first, last, count in counted:
            relation.record("decision", connection=connection, decision="deny", first=first, last=last, count=count)
        relation.record("close", connection=connection, reason=reason)
        ours.close()
        theirs.close()
        return tmp_path / "ours", tmp_path / "theirs"

    return write


@pytest.mark.parametrize("connection", ["c\x1b[2J\x07\n1", "c\ud8001"])
@pytest.mark.parametrize("reason", ["closed", "lost"])
def test_the_name_of_a_connection_cannot_steer_the_terminal(run, sides, connection, reason):
    result = run("reconcile", *sides(5, [1], connection=connection, reason=reason))
    assert result.exit_code == (1 if reason == "closed" else 4), result.output
    assert f"connection {ascii(connection)[1:-1]}: " in result.stdout
    assert all(line.isprintable() for line in result.stdout.splitlines())


def test_a_count_stands_for_no_more_questions_than_it_counts(run, sides):
    paths = sides(100, [1], [(2, 100, 2)])
    found = reconcile(*paths)
    assert (found.calls, found.differences) == (3, [Difference("ours", "c1", "asked", (2, 100))])
    assert run("reconcile", *paths).exit_code == 1


def test_counts_that_stand_for_all_questions_between_them_are_no_difference(sides):
    found = reconcile(*sides(10, [1, 4, 6], [(2, 10, 4), (3, 9, 3)]))
    assert (found.calls, found.differences, found.undecided) == (10, [], [])


@pytest.mark.parametrize(("reason", "decided"), [("lost", [1]), ("closed", [])])
def test_a_count_that_falls_short_where_a_log_may_lack_records_is_undecided(sides, reason, decided):
    found = reconcile(*sides(10, decided, [(2 if decided else 1, 10, 2)], reason=reason))
    assert found.differences == []
    assert [why.partition(" ")[0] for _, why in found.undecided] == ["theirs"]


@pytest.mark.parametrize("counted", [(5, 2, 1), (2, 3, 3)])
def test_a_count_of_more_than_there_is_room_for_is_made_up(sides, counted):
    found = reconcile(*sides(3, [1, 2, 3], [counted]))
    assert found.calls == 3
    assert Difference("theirs", "c1", "decided", counted[:2]) in found.differences


@pytest.fixture
def proof(logs, decision):
    log = logs.open()
    relation = log.relation(PEER)
    relation.append(relation.template(**decision), 1)
    log.close()
    return prove(logs.path, logs.files()[0].name, 2)


def test_the_key_of_another_log_proves_nothing_about_this_one(run, logs, proof, tmp_path):
    mallory, witness = NoteSigner.generate("mallory.example", KIND_LOG), NoteSigner.generate("w.example", KIND_COSIGNER)
    note = Note(proof.note.text, (mallory.sign(proof.note.text), witness.sign(proof.note.text, 1)))
    made = Proof(proof.line, proof.index, proof.path, note)
    assert made.check([mallory.key]) == []
    assert [one.name for one in made.check([mallory.key, witness.key])] == ["w.example"]
    file = tmp_path / "made.tlog-proof"
    file.write_bytes(made.encode())
    assert run("check-proof", file, "--key", mallory.key).exit_code == 4
    own = next(one.keys[-1] for one in logs.verify().relations if one.relation == PEER)
    assert len(proof.check([VerifierKey.parse(own), mallory.key])) == 1


@pytest.mark.parametrize(
    "value",
    ['"\\ud800"', "sNaN", "1e999999999", "[" * 40 + "]" * 40, "9" * 5_000, "NaN", "\udcff", '{"a":1,"a":2}'],
    ids=["surrogate", "signalling", "exponent", "deep", "long", "nan", "byte", "twice"],
)
def test_a_value_that_no_argument_can_have_is_not_the_one(run, logs, decision, value):
    log = logs.open()
    relation = log.relation(PEER)
    digest = log.redactor.digest(pack(10_000), decision["connection"], 5, "amount")
    relation.append(relation.template(**decision), 5, extra(args={"amount": digest}))
    log.close()
    result = run("open", f"{logs.files()[0]}:2", "amount", "--key", logs.path / "redact.key", "--", value)
    assert result.exit_code == 1, result.output
    assert result.stdout.startswith("no: ")


@pytest.mark.parametrize(
    "time", ["2026-99-99T10:00:00.000000Z", "2026-02-29T10:00:00.000000Z", "0000-01-01T00:00:00.000000Z"]
)
def test_a_time_that_there_is_not_is_no_record(time):
    line = json.dumps({"seq": 1, "time": time, "mono": 1, "kind": "open", "prev": "0" * 64}, separators=(",", ":"))
    with pytest.raises(BadRecord, match="'time' like"):
        Record.parse(RawLine(0, line.encode(), len(line), ended=True))
