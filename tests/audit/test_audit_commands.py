"""``caprpc audit`` and ``caprpc explain``: output, exit codes, and no way for a peer to steer the terminal."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from caprpc.audit import extra
from caprpc.audit.notes import KIND_LOG, NoteSigner
from caprpc.cli import main
from tests.audit.conftest import PEER

REFERENCE = "R-7KQ2M9XW4HTA"


@pytest.fixture
def run(monkeypatch):
    monkeypatch.delenv("CAPRPC_AUDIT", raising=False)

    def invoke(*words):
        done = CliRunner().invoke(main, [str(word) for word in words])
        return done.exit_code, done.stdout, done.stderr

    return invoke


@pytest.fixture
def written(logs, decision, refusal):
    """A closed log with one rejected peer, two permitted calls, a refusal, and a failure."""
    log = logs.open()
    log.general.record(
        "reject",
        address="203.0.113.9:4711",
        reason="no-policy",
        detail="spiffe://x.example/y",
        reference="R-AAAAAAAAAAAA",
    )
    relation = log.relation(PEER)
    relation.append(relation.template(**decision), 1)
    logs.clock.advance(60)
    relation.append(relation.template(**decision), 2, extra(args={"line": "a\x1b[2Jb"}))
    relation.append(relation.template(**refusal), 3, extra(reference=REFERENCE, detail="no\x1b[31m\u202esuch"))
    relation.record("outcome", peer=PEER, outcome="error", error="KeyError", reference="R-BBBBBBBBBBBB", member="m")
    log.close()
    return logs


def test_verify_of_an_intact_log(run, written):
    code, out, err = run("audit", "verify", written.path)
    assert (code, err) == (0, "")
    assert "ok   general: 3 records" in out
    assert f"ok   {PEER}: 6 records" in out
    assert "closed in good order" in out
    assert out.splitlines()[-1] == "intact: 9 records in 2 relations"


def test_verify_of_a_changed_log_names_the_record(run, written):
    file = written.files()[0]
    file.write_bytes(file.read_bytes().replace(b'"question":1,', b'"question":7,'))
    code, out, _ = run("audit", "verify", written.path)
    assert code == 1
    assert f"BAD  {PEER}" in out
    assert f"EDITED, first bad: {file.name}:2: expected hash " in out
    assert out.splitlines()[-1].startswith("NOT INTACT: 1 of 2 relations")


def test_verify_as_json(run, written):
    code, out, _ = run("audit", "verify", "--json", written.path)
    assert code == 0
    report = json.loads(out)
    assert report["intact"] is True
    assert [found["records"] for found in report["relations"]] == [3, 6]


@pytest.mark.parametrize("command", ["verify", "show"])
def test_directory_that_is_not_there(run, command, tmp_path):
    code, _, err = run("audit", command, tmp_path / "nowhere")
    assert code == 3
    assert "nowhere" in err


def test_verify_of_a_directory_without_a_log(run, tmp_path):
    code, _, err = run("audit", "verify", tmp_path)
    assert code == 3
    assert "is this an audit log?" in err


def test_show_prints_all_in_order_of_time(run, written):
    code, out, _ = run("audit", "show", written.path)
    assert code == 0
    times = [line.split()[0] for line in out.splitlines()]
    assert len(times) == 9
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--decision", "deny"], 1),
        (["--decision", "permit"], 2),
        (["--peer", "org-b.example"], 6),
        (["--peer", "org-c.example"], 0),
        (["--kind", "reject"], 1),
        (["--member", "line_counter"], 3),
        (["--member", "line"], 0),
        (["--last", "2"], 2),
        (["--since", "2026-05-28T20:27:00Z"], 5),
        (["--since", "2026-05-28T22:27:00+02:00"], 5),
        (["--since", "2099-01-01T00:00:00Z"], 0),
        (["--since", "9999d"], 9),
        (["--decision", "permit", "--last", "1"], 1),
    ],
)
def test_show_selects(run, written, options, expected):
    code, out, _ = run("audit", "show", written.path, *options)
    assert code == 0
    assert len(out.splitlines()) == expected


def test_a_day_is_its_midnight_in_utc(run, written):
    assert len(run("audit", "show", written.path, "--since", "2026-05-28")[1].splitlines()) == 9
    assert run("audit", "show", written.path, "--since", "2026-05-29")[1] == ""


def test_a_kind_or_reason_that_there_is_not_is_said_to_be_none(run, written):
    code, out, err = run("audit", "query", written.path, "--kind", "rejekt")
    assert (code, out) == (2, "")
    assert "'reject'" in err
    code, out, err = run("audit", "query", written.path, "--reason", "not-grantd")
    assert (code, out) == (1, "")
    assert err == "note: no record has the reason 'not-grantd'; did you mean 'not-granted'?\n"


def test_verify_says_for_whom_no_key_was_given(run, written):
    stranger = NoteSigner.generate("stranger.example", KIND_LOG)
    code, out, _ = run("audit", "verify", written.path, "--key", str(stranger.key))
    assert code == 4
    assert (
        out.splitlines()[-1] == f"cannot decide who wrote 2 of them: none of the keys you gave is for general, {PEER}"
    )


def test_verify_says_what_is_not_signed_and_asks_for_no_key(run, logs, decision):
    log = logs.open()
    relation = log.relation(PEER)
    relation.append(relation.template(**decision), 1)
    logs.abandon(log)
    code, out, _ = run("audit", "verify", logs.path)
    assert (code, out.splitlines()[-1]) == (
        0,
        f"cannot decide who wrote 2 of them: nothing is signed of general, {PEER}",
    )


def test_output_that_nobody_reads_ends_quietly(written):
    command = [sys.executable, "-m", "caprpc", "audit", "export", "--to", "jsonl", written.path]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("since", ["yesterday", "3x", "2026-01-31T12:00:00", "999999999999d"])
def test_show_explains_a_wrong_time(run, written, since):
    code, _, err = run("audit", "show", written.path, "--since", since)
    assert code == 2
    assert "since" in err or "expected" in err or "time zone" in err


def test_show_as_json_prints_the_lines_as_they_are(run, written):
    _, out, _ = run("audit", "show", written.path, "--json", "--peer", PEER)
    assert out.encode() == written.files()[0].read_bytes()


def test_show_names_damage_and_goes_on(run, written):
    file = written.files()[0]
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([*lines[:2], b"\x1b[2Jgarbage", b"more", *lines[2:]]) + b"\n")
    code, out, err = run("audit", "show", written.path, "--peer", PEER)
    assert code == 0
    assert len(out.splitlines()) == 6
    assert err.startswith(f"{file.name}:3: ")
    assert "\x1b" not in err


def test_nothing_of_a_peer_steers_the_terminal(run, written):
    for words in (["audit", "show", written.path], ["explain", REFERENCE, "--audit", written.path]):
        _, out, _ = run(*words)
        assert all(character.isprintable() or character == "\n" for character in out)
    assert "no\\x1b[31m\\u202esuch" in out


def test_explain_prints_the_whole_reason_and_what_to_do(run, written):
    code, out, _ = run("explain", REFERENCE, "--audit", written.path)
    assert code == 0
    rows = {line[2:13].strip(): line[14:] for line in out.splitlines()[1:]}
    assert rows["who"] == PEER
    assert rows["tried"] == "call line_counter on Counter"
    assert rows["reason"] == "not-granted"
    assert rows["rule"] == "org-b.toml:23"
    assert rows["record"].endswith(".jsonl:4, seq 4")
    assert "does not grant" in rows["it means"]
    assert "offer table" in rows["to do"]


def test_explain_a_peer_that_was_not_let_in(run, written):
    _, out, _ = run("explain", "R-AAAAAAAAAAAA", "--audit", written.path)
    assert "203.0.113.9:4711" in out
    assert "no-policy" in out
    assert "caprpc.toml" in out


def test_explain_a_failure_of_our_own_method(run, written):
    _, out, _ = run("explain", "R-BBBBBBBBBBBB", "--audit", written.path)
    assert "KeyError" in out
    assert "its method failed" in out


def test_explain_finds_a_refusal_that_was_only_counted(run, logs, refusal):
    log = logs.open()
    relation = log.relation(PEER)
    template = relation.template(**refusal)
    for number in range(150):
        relation.append(
            template, number, extra(reference=f"R-{'A' * 9}{number:03}".replace("0", "Z").replace("1", "Y"))
        )
    log.close()
    code, out, _ = run("explain", "R-AAAAAAAAAY4Y", "--audit", logs.path)
    assert code == 0
    assert "equal refusals" in out


def test_explain_searches_every_log_below_a_directory(run, written, tmp_path, monkeypatch):
    assert run("explain", REFERENCE, "--audit", written.path.parent)[0] == 0
    monkeypatch.setenv("CAPRPC_AUDIT", str(tmp_path))
    assert run("explain", REFERENCE.lower())[0] == 0


def test_explain_of_an_unknown_number(run, written):
    code, _, err = run("explain", "R-ZZZZZZZZZZZZ", "--audit", written.path)
    assert code == 66
    assert "belongs to the side that refused" in err


@pytest.mark.parametrize("reference", ["foo", "R-7KQ2M9XW4HT", "R-7KQ2M9XW4HTO", "R-7KQ2M9XW4HTA\n", "../../etc"])
def test_explain_of_what_is_no_number(run, written, reference):
    assert run("explain", reference, "--audit", written.path)[0] == 64
