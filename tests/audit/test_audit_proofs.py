"""Proofs of single records, reconciliation, exports and the commands for them."""

import json
import re

import pymerkle
import pytest
from click.testing import CliRunner

from caprpc.audit import AuditLog, extra
from caprpc.audit.notes import KIND_LOG, NoteError, NoteSigner, VerifierKey
from caprpc.audit.proofs import Proof, prove
from caprpc.audit.query import Follower, Selection
from caprpc.audit.reconcile import Difference, reconcile
from caprpc.cli import main
from caprpc.wire.codec import pack
from tests.audit.conftest import PEER

HOSTILE = 'a|b=c\\d "e"\r\nCEF:0|x\x1b[2J\u202e\x00=|\\'


@pytest.fixture
def run():
    def invoke(*words):
        done = CliRunner().invoke(main, [str(word) for word in words])
        return done.exit_code, done.stdout, done.stderr

    return invoke


@pytest.fixture
def written(logs, decision, refusal):
    log = logs.open()
    relation = log.relation(PEER)
    for question in range(1, 8):
        relation.append(relation.template(**decision), question)
    relation.append(relation.template(**refusal), 8, extra(reference="R-7KQ2M9XW4HTA", detail=HOSTILE))
    log.close()
    return logs


def place(logs, line):
    return f"{logs.files()[0]}:{line}"


def key_of(logs):
    return next(one.keys[-1] for one in logs.verify().relations if one.relation == PEER)


def test_every_record_is_proved_to_someone_without_the_log(written):
    lines = written.lines()
    key = VerifierKey.parse(key_of(written))
    oracle = pymerkle.InmemoryTree(algorithm="sha256")
    for line in lines:
        oracle.append_entry(line)
    for number, line in enumerate(lines, 1):
        proof = Proof.parse(prove(written.path, written.files()[0].name, number).encode())
        assert proof.line == line
        assert len(proof.check([key])) == 1
        theirs = [bytes.fromhex(one) for one in oracle.prove_inclusion(number).serialize()["path"]]
        assert all(one in theirs for one in proof.path)


def test_proof_of_another_record_place_or_root_is_bad(written):
    key = VerifierKey.parse(key_of(written))
    data = prove(written.path, written.files()[0].name, 3).encode()
    proof = Proof.parse(data)
    for changed in (
        Proof(proof.line.replace(b"permit", b"refuse"), proof.index, proof.path, proof.note),
        Proof(proof.line, proof.index + 1, proof.path, proof.note),
        Proof(proof.line, proof.index, proof.path[:-1], proof.note),
        Proof(proof.line, proof.index, proof.path[::-1], proof.note),
    ):
        with pytest.raises(NoteError, match="is not number"):
            changed.check([key])
    stranger = NoteSigner.generate(key.name, KIND_LOG).key
    assert proof.check([stranger]) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"c2sp.org/tlog-proof@v1\nindex 0\n\nnote",
        b"c2sp.org/tlog-proof@v2\nextra AA==\nindex 0\n\nnote",
        b"c2sp.org/tlog-proof@v1\nextra AA==\nindex 00\n\nnote",
        b"c2sp.org/tlog-proof@v1\nextra AA==\nindex 0\nAA==\n\nnote",
        b"c2sp.org/tlog-proof@v1\nextra AA==\nindex 0\n\nnote",
        b"x" * 100_000,
    ],
)
def test_files_that_are_no_proofs_are_refused(data):
    with pytest.raises(NoteError):
        Proof.parse(data)


def test_prove_and_check_proof_commands(run, written, tmp_path):
    code, out, _ = run("audit", "prove", place(written, 3))
    assert code == 0
    file = tmp_path / "r.tlog-proof"
    file.write_text(out)
    code, out, _ = run("audit", "check-proof", file, "--key", key_of(written))
    assert code == 0
    assert written.lines()[2].decode() in out
    assert "proved: record 3 of" in out
    assert run("audit", "check-proof", file)[0] == 4
    file.write_text(file.read_text().replace("index 2", "index 1"))
    assert run("audit", "check-proof", file, "--key", key_of(written))[0] == 1
    assert run("audit", "check-proof", tmp_path / "none")[0] == 3
    assert run("audit", "check-proof", file, "--key", "no+key")[0] == 2
    assert run("audit", "prove", place(written, 99))[0] == 3
    assert run("audit", "prove", "nothing")[0] == 2


def test_verify_with_keys(run, written, tmp_path):
    keys = [one.keys[-1] for one in written.verify().relations]
    file = tmp_path / "keys"
    file.write_text("\n".join(keys))
    assert run("audit", "verify", written.path, "--key", file)[0] == 0
    assert run("audit", "verify", written.path, "--key", keys[0])[0] == 4
    name = keys[0].partition("+")[0]
    other = NoteSigner.generate(name, KIND_LOG).key
    code, out, _ = run("audit", "verify", written.path, "--key", other)
    assert code == 1
    assert "FORGED" in out


def test_query_says_whether_there_is_something(run, written):
    assert run("audit", "query", written.path, "--reason", "not-granted")[0] == 0
    assert run("audit", "query", written.path, "--reason", "no-such")[0] == 1
    code, out, _ = run("audit", "query", written.path, "--reference", "R-7KQ2M9XW4HTA", "--json")
    assert code == 0
    assert json.loads(out)["question"] == 8
    assert run("audit", "query", written.path, "--until", "2020-01-01T00:00:00Z")[0] == 1
    code, out, _ = run("audit", "tail", written.path, "-n", 2)
    assert (code, len(out.splitlines())) == (0, 2)


def test_follower_returns_each_new_record_once(logs, decision):
    log = logs.open(max_segment_bytes=1_000)
    relation = log.relation(PEER)
    template = relation.template(**decision)
    follower = Follower(logs.path)
    seen = []
    for question in range(1, 12):
        relation.append(template, question)
        if question % 3 == 0:
            seen += [one.record.fields["question"] for one in follower.poll() if "question" in one.record.fields]
    assert seen == list(range(1, 10))
    assert all(Selection().matches(one) for one in follower.poll())
    assert list(follower.poll()) == []


def exported(run, logs, form):
    code, out, err = run("audit", "export", "--to", form, logs.path)
    assert (code, err) == (0, "")
    return out.splitlines()


def test_export_as_jsonl_is_the_records(run, written):
    assert sorted(exported(run, written, "jsonl")) == sorted(
        line.decode() for relation in (PEER, "general") for line in written.lines(relation)
    )


def test_export_to_ocsf_is_api_activity(run, written):
    events = [json.loads(line) for line in exported(run, written, "ocsf")]
    for event in events:
        assert (event["category_uid"], event["class_uid"]) == (6, 6003)
        assert event["type_uid"] == 600_300 + event["activity_id"]
        assert {"metadata", "time", "severity_id", "actor", "api", "src_endpoint"} <= event.keys()
        assert {"product", "version"} <= event["metadata"].keys()
    denied = next(event for event in events if event["unmapped"].get("decision") == "deny")
    assert (denied["status_id"], denied["status_detail"]) == (2, "not-granted")
    assert denied["actor"]["user"]["name"] == PEER
    assert denied["time"] == 1_780_000_000_123
    assert denied["unmapped"]["detail"] == HOSTILE


def test_export_to_otlp_has_the_json_form_of_its_numbers(run, written):
    events = [json.loads(line) for line in exported(run, written, "otlp")]
    records = [event["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0] for event in events]
    assert all(record["timeUnixNano"].isdecimal() for record in records)
    attributes = [{one["key"]: one["value"] for one in record["attributes"]} for record in records]
    denied = next(one for one in attributes if one.get("caprpc.decision") == {"stringValue": "deny"})
    assert denied["caprpc.question"] == {"intValue": "8"}
    assert denied["caprpc.detail"] == {"stringValue": HOSTILE}


def test_export_to_cef_cannot_be_broken_out_of(run, written):
    lines = exported(run, written, "cef")
    assert len(lines) == sum(len(written.lines(relation)) for relation in (PEER, "general"))
    for line in lines:
        parts = re.split(r"(?<!\\)(?:\\\\)*\|", line, maxsplit=7)
        assert (len(parts), parts[0]) == (8, "CEF:0")
        assert line.isprintable()
    (denied,) = [line for line in lines if "decision:deny" in line]
    message = re.search(r" msg=((?:[^=\\]|\\.)*)(?= [a-zA-Z0-9]+=|$)", denied)[1]
    unescaped = re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), message)
    shown = "".join(one if one.isprintable() or one in "\r\n" else f"<U+{ord(one):04X}>" for one in HOSTILE)
    assert unescaped == shown


@pytest.mark.parametrize(
    ("address", "cef", "ocsf"),
    [
        ("192.0.2.7:44150", " src=192.0.2.7 spt=44150", {"ip": "192.0.2.7", "port": 44150}),
        (
            "[2001:db8::7]:443",
            " c6a2=2001:db8::7 c6a2Label=Source IPv6 Address spt=443",
            {"ip": "2001:db8::7", "port": 443},
        ),
        ("/run/a=b.sock", "", {"name": "/run/a=b.sock"}),
        ("caprpc://127.0.0.1:4853", "", {"name": "caprpc://127.0.0.1:4853"}),
        ("192.0.2.7:99999999", "", {"name": "192.0.2.7:99999999"}),
    ],
)
def test_an_address_is_exported_as_what_it_is(run, logs, address, cef, ocsf):
    log = logs.open()
    log.relation(PEER).record("open", peer=PEER, address=address)
    log.close()
    (line,) = [line for line in exported(run, logs, "cef") if "|open|" in line]
    assert line.endswith(cef)
    assert f" caprpcAddress={address.replace('=', chr(92) + '=')}" in line
    (event,) = [one for one in map(json.loads, exported(run, logs, "ocsf")) if one["unmapped"]["kind"] == "open"]
    assert event["src_endpoint"] == ocsf


def test_cef_values_are_no_longer_than_its_fields(run, logs):
    peer = "spiffe://org-b.example/" + "x" * 1_900
    log = logs.open()
    log.relation(peer).record(
        "decision", peer=peer, operation="call", facet="F" * 200, member="m" * 250, decision="deny"
    )
    log.close()
    (line,) = [line for line in exported(run, logs, "cef") if "decision:deny" in line]
    fields = dict(re.findall(r"(\w+)=(\S*)", line.split("|", 7)[7]))
    assert (len(fields["suser"]), len(fields["cs1"]), fields["act"]) == (1_023, len(peer), "call")
    assert len(line.split("|")[5]) <= 512


def test_the_head_of_a_cef_event_cannot_be_broken_out_of(run, logs):
    log = logs.open()
    log.relation(PEER).record(
        "decision", peer=PEER, operation="call", facet="F", member="x|9|src=1\\|y\r\nCEF:0|z", decision="deny"
    )
    log.close()
    (line,) = [line for line in exported(run, logs, "cef") if "decision:deny" in line]
    head = re.match(r"((?:[^|\\]|\\.)*)\|" * 7, line).groups()
    assert head[4:] == ("decision:deny", "call F x\\|9\\|src=1\\\\\\|y  CEF:0\\|z", "6")
    assert re.sub(r"\\(.)", r"\1", head[5]) == "call F x|9|src=1\\|y  CEF:0|z"


@pytest.mark.parametrize("since", ["yesterday", "2026-01-01T00:00:00"])
def test_export_refuses_a_time_that_is_none(run, written, since):
    code, out, err = run("audit", "export", "--to", "jsonl", "--since", since, written.path)
    assert (code, out) == (2, "")
    assert repr(since) in err


def test_an_argument_is_opened_one_at_a_time(run, logs, decision):
    log = logs.open()
    relation = log.relation(PEER)
    values = {"amount": 10_000, "memo": "rent"}
    redactor = log.redactor
    args = {name: redactor.digest(pack(one), decision["connection"], 5, name) for name, one in values.items()}
    relation.append(relation.template(**decision), 5, extra(args=args))
    log.close()
    where, secret = place(logs, 2), logs.path / "redact.key"
    code, out, _ = run("audit", "open", where, "amount", "--key", secret)
    assert code == 0
    key = out.strip()
    assert run("audit", "open", where, "amount", "10000", "--key", key)[0] == 0
    assert run("audit", "open", where, "amount", "10001", "--key", key)[0] == 1
    assert run("audit", "open", where, "memo", "rent", "--key", key)[0] == 1
    assert run("audit", "open", where, "memo", "rent", "--key", secret)[0] == 0
    assert run("audit", "open", where, "other", "--key", secret)[0] == 3
    assert run("audit", "open", where, "memo", "--key", "00")[0] == 2


def two_sides(tmp_path, ours, theirs, asked, *, lost=False):
    """Our log with the questions that we answered, theirs with how many they asked."""
    answerer = AuditLog.open(tmp_path / "ours", name="server")
    relation = answerer.relation("spiffe://b.example/b")
    relation.record("open", peer="spiffe://b.example/b", connection="c1")
    template = relation.template(kind="decision", connection="c1", decision="permit", facet="F", member="m")
    for question in ours:
        relation.append(template, question)
    relation.record("close", connection="c1", reason="lost" if lost else "closed")
    asker = AuditLog.open(tmp_path / "theirs", name="client")
    relation = asker.relation("spiffe://a.example/a")
    for connection in theirs:
        relation.record("open", peer="spiffe://a.example/a", connection=connection)
        relation.record("close", connection=connection, reason="closed", count=asked)
    answerer.close()
    asker.close()
    return tmp_path / "ours", tmp_path / "theirs"


def test_logs_that_agree_have_no_differences(tmp_path, run):
    paths = two_sides(tmp_path, [1, 2, 2, 3], ["c1"], 3)
    found = reconcile(*paths)
    assert (found.connections, found.calls, found.differences, found.undecided) == (1, 3, [], [])
    assert run("audit", "reconcile", *paths)[0] == 0


def test_calls_that_only_one_side_has_are_found(tmp_path, run):
    paths = two_sides(tmp_path, [1, 2, 5, 9], ["c1", "c2"], 6)
    assert reconcile(*paths).differences == [
        Difference("theirs", "c2", "connection"),
        Difference("ours", "c1", "decided", (9, 9)),
        Difference("theirs", "c1", "asked", (3, 4)),
        Difference("theirs", "c1", "asked", (6, 6)),
    ]
    code, out, _ = run("audit", "reconcile", *paths)
    assert code == 1
    assert "only ours: connection c1: decided, question 9" in out


def test_what_was_under_way_when_a_connection_was_lost_is_undecided(tmp_path, run):
    paths = two_sides(tmp_path, [1, 2], ["c1"], 4, lost=True)
    found = reconcile(*paths)
    assert found.differences == []
    assert found.undecided == [("c1", "questions 3 to 4 were under way when it was lost")]
    assert run("audit", "reconcile", *paths)[0] == 4


def test_a_log_that_is_not_intact_is_not_compared(tmp_path, run):
    paths = two_sides(tmp_path, [1], ["c1"], 1)
    next(paths[1].glob("spiffe*.jsonl")).write_bytes(b"x")
    assert run("audit", "reconcile", *paths)[0] == 3
