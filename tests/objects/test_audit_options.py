"""What ``[audit]`` of a policy asks for happens to every call under it, and both logs can be laid side by side."""

import json
import os

import pytest
from click.testing import CliRunner

from caprpc.audit.reconcile import reconcile
from caprpc.cli import main
from caprpc.errors import RemoteError


def decisions(world, member):
    return [one for one in world.records("server") if one["kind"] == "decision" and one.get("member") == member]


def test_arguments_leave_nothing_unless_the_policy_says_so(world):
    made = world()
    made.node.echo([1, 2])
    assert "args" not in decisions(made, "echo")[-1]


def test_digests_stand_for_arguments_and_types_for_references(world, tmp_path):
    made = world(server_more='[audit]\narguments = "digest"\n')
    made.node.echo([1, 2])
    made.node.fresh()
    (found,) = decisions(made, "echo")
    assert found["args"]["value"].startswith("hmac:")
    assert "args" not in decisions(made, "fresh")[-1]
    log = made.pair_audit / "server"
    (file,) = log.glob("spiffe*.jsonl")
    line = next(at for at, text in enumerate(file.read_text().splitlines(), 1) if '"member":"echo"' in text)
    ask = ["audit", "open", f"{file}:{line}", "value", "[1, 2]", "--key", str(log / "redact.key")]
    assert CliRunner().invoke(main, ask).exit_code == 0
    ask[4] = "[1, 3]"
    assert CliRunner().invoke(main, ask).exit_code == 1


@pytest.mark.parametrize("durability", ["group", "sync"])
def test_a_call_runs_after_its_decision_is_on_the_disk(world, monkeypatch, durability):
    made = world(server_more=f'[audit]\ndurability = "{durability}"\n')
    flushed, real = [], os.fdatasync

    def watched(fd):
        real(fd)
        flushed.append(len(decisions(made, "echo")))

    monkeypatch.setattr(os, "fdatasync", watched)
    made.node.echo([1])
    assert flushed == [1]


@pytest.mark.parametrize("durability", ["group", "sync"])
def test_a_disk_that_fails_refuses_the_call(world, monkeypatch, durability):
    made = world(server_more=f'[audit]\ndurability = "{durability}"\n')

    def fails(_fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(RemoteError):
        made.node.echo([1])
    assert made.impl.label == "node"


def test_both_logs_have_the_same_calls_when_all_is_over(world):
    made = world()
    for _ in range(3):
        made.node.echo([1])
    made.pair.close()
    found = reconcile(made.pair_audit / "server", made.pair_audit / "client")
    assert (found.connections, found.differences, found.undecided) == (1, [], [])
    assert found.calls >= 4


def test_a_call_that_one_side_made_up_is_found(world):
    made = world()
    made.node.echo([1])
    recorder = made.pair.server.link.endpoint.recorder
    recorder.fact("decision", decision="permit", facet="Node", member="echo", question=4_711)
    made.pair.close()
    (found,) = reconcile(made.pair_audit / "server", made.pair_audit / "client").differences
    assert (found.only, found.what, found.questions) == ("ours", "decided", (4_711, 4_711))
    closes = [one for one in made.records("client") if one["kind"] == "close"]
    assert json.dumps(closes[-1]["count"]).isdecimal()


PERMIT, DENY, OK = ("decision", "permit"), ("decision", "deny"), ("outcome", "ok")


@pytest.mark.parametrize(
    ("level", "kept"),
    [("deny", [DENY]), ("decision", [PERMIT, DENY]), ("outcome", [PERMIT, OK, DENY])],
    ids=["deny", "decision", "outcome"],
)
def test_the_level_says_what_leaves_a_record(world, level, kept):
    made = world(server_more=f'[audit]\nlevel = "{level}"\n')
    made.node.echo([1])
    with pytest.raises(RemoteError):
        made.node.echo([1, 2, 3, 4])
    found = [one for one in made.records("server") if one.get("member") == "echo"]
    assert [(one["kind"], one.get("decision") or one["outcome"]) for one in found] == kept
    assert len({one["question"] for one in found}) == min(len(kept), 2)
