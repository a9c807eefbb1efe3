"""The table of the reference page says what is found of each attack on the files; here each is done, and compared."""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from caprpc.audit.merkle import Range
from caprpc.audit.notes import KIND_LOG, Checkpoint, NoteSigner, VerifierKey
from caprpc.audit.record import GENESIS, leaf_hash
from caprpc.audit.segment import Head
from caprpc.audit.witness import RESEND_S
from caprpc.cli import main
from caprpc.errors import AuditError
from tests.audit.conftest import PEER, Logs

US = "spiffe://org-a.example/server"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "audit.md"
STAMP = re.compile(rb'"time":"[^"]+","mono":\d+')
COLUMNS = ("in place", "chain and head", "signed anew", "witness")
FOUND_ALONE = COLUMNS[:3]
"""What is found without a witness; where whole files are put back or taken away, nothing is left to write anew."""


def table():
    part = PAGE.read_text(encoding="utf-8").split("| attack |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()[2:]]
    return [(row[0], dict(zip(COLUMNS, row[1:], strict=True))) for row in rows]


class World:
    """Our log, and that of the peer, which has cosigned ours."""

    def __init__(self, path, decision):
        self.ours, self.theirs = Logs(path / "ours"), Logs(path / "theirs")
        self.decision = decision
        self.now = 10.0
        self.question = 0
        self.open()
        self.yesterday = path / "yesterday"
        self.run()
        shutil.copytree(self.ours.path, self.yesterday)
        self.run()

    def open(self):
        self.logs = [(self.ours.open("server"), PEER), (self.theirs.open("client"), US)]
        for log, peer in self.logs:
            log.relation(peer)

    def run(self, rounds=3):
        """Write, sign and exchange."""
        (ours, _), _ = self.logs
        relation = ours.relation(PEER)
        for _ in range(rounds):
            self.question += 1
            relation.append(relation.template(**self.decision), self.question)
            self.now += RESEND_S + 1
            for logs, (log, _) in zip((self.ours, self.theirs), self.logs, strict=True):
                logs.clock.advance(RESEND_S + 1)
                log.tick(self.now)
            one, other = (log.witness(peer) for log, peer in self.logs)
            for sender, receiver in ((one, other), (other, one)):
                for message in sender.take():
                    receiver.receive(message)

    def close(self):
        for log, _ in self.logs:
            log.close()

    def said(self):
        """What the peer's log says of ours."""
        events = [one["event"] for one in self.theirs.records(US) if one["kind"] == "checkpoint"]
        return ", ".join(dict.fromkeys(one for one in events[1:]))

    def write(self, lines):
        self.ours.files()[0].write_bytes(b"".join(line + b"\n" for line in lines))

    def rewrite(self, lines, *, sign):
        """Write a chain anew from other records, with its head, and sign it if that is asked for."""
        prev, tree, made = GENESIS, Range(), []
        times = sorted((STAMP.search(line)[0] for line in lines), key=lambda stamp: int(stamp.rpartition(b":")[2]))
        for seq, (line, stamp) in enumerate(zip(lines, times, strict=True), 1):
            line = STAMP.sub(stamp, line)
            line = re.sub(rb'^\{"seq":\d+', b'{"seq":%d' % seq, line)
            line = re.sub(rb'"prev":"[0-9a-f]{64}"\}$', b'"prev":"%b"}' % prev.encode(), line)
            prev = leaf_hash(line)
            tree.append(bytes.fromhex(prev))
            made.append(line)
        self.write(made)
        size = self.ours.files()[0].stat().st_size
        self.ours.head().write_bytes(Head(len(made), prev, 1, size).encode())
        if sign:
            secret = self.ours.head().with_suffix(".key").read_text().split("\n")[0].partition(" ")[2]
            signer = NoteSigner.parse(secret)
            note = Checkpoint(signer.key.name, tree.end, tree.root()).sign([signer])
            self.ours.head().with_suffix(".000001.checkpoints").write_bytes(note.encode() + b"\n")

    def verdict(self):
        found = [one for one in self.ours.verify().relations if one.relation == PEER]
        return found[0].verdict if found else "intact"


def change(lines):
    return [*lines[:3], re.sub(rb'"question":\d+', b'"question":99', lines[3]), *lines[4:]]


def remove(lines):
    return lines[:3] + lines[4:]


def add(lines):
    return [*lines[:4], lines[3], *lines[4:]]


def swap(lines):
    return [*lines[:3], lines[4], lines[3], *lines[5:]]


def cut(lines):
    return lines[:-4]


RECORDS = {
    "a record changed": change,
    "a record removed": remove,
    "a record added": add,
    "two records swapped": swap,
    "the end cut off": cut,
}


@pytest.fixture
def made(tmp_path, decision):
    world = World(tmp_path, decision)
    yield world
    for logs in (world.ours, world.theirs):
        for log in logs.opened:
            log.close()


def reopened(world):
    world.open()
    world.run(12)
    world.close()
    return world.said() or "nothing"


@pytest.mark.parametrize(("attack", "found"), [row for row in table() if row[0] in RECORDS])
def test_attacks_on_records(made, attack, found):
    made.close()
    lines = made.ours.lines()
    changed = RECORDS[attack](lines)
    assert changed != lines
    made.write(changed)
    done = {"in place": made.verdict()}
    made.rewrite(changed, sign=False)
    done["chain and head"] = made.verdict()
    made.rewrite(changed, sign=True)
    done["signed anew"] = made.verdict()
    for log in list(made.ours.opened + made.theirs.opened):
        log.close()
    done["witness"] = reopened(made)
    assert done == found


def test_a_process_does_not_sign_on_over_a_chain_that_was_written_anew(made):
    made.close()
    made.rewrite(change(made.ours.lines()), sign=False)
    log = made.ours.open("server")
    made.ours.clock.advance(5)
    relation = log.relation(PEER)
    with pytest.raises(AuditError, match="another root"):
        log.tick(made.now + 100)
    with pytest.raises(AuditError):
        relation.append(relation.template(**made.decision), 1)


def test_the_last_second_of_a_killed_process(made):
    found = dict(table())["the last second of a killed process changed"]
    (ours, _), (theirs, _) = made.logs
    relation = ours.relation(PEER)
    for _ in range(3):
        relation.append(relation.template(**made.decision), 1)
    made.ours.abandon(ours)
    theirs.close()
    lines = made.ours.lines()
    changed = [*lines[:-1], lines[-1].replace(b'"question":1', b'"question":99')]
    made.write(changed)
    done = {"in place": made.verdict()}
    for column in FOUND_ALONE[1:]:
        made.rewrite(changed, sign=column == "signed anew")
        done[column] = made.verdict()
    done["witness"] = reopened(made)
    assert done == found


def test_yesterdays_directory_put_back(made):
    found = dict(table())["the directory of yesterday put back"]
    made.close()
    shutil.rmtree(made.ours.path)
    shutil.copytree(made.yesterday, made.ours.path)
    assert {found[column] for column in FOUND_ALONE} == {made.verdict()}
    assert found["witness"] == reopened(made)


def test_a_whole_relation_removed(made):
    found = dict(table())["a whole relation removed, with all its files"]
    made.close()
    for file in made.ours.path.glob(f"{made.ours.head().stem}.*"):
        file.unlink()
    assert {found[column] for column in FOUND_ALONE} == {made.verdict()}
    assert found["witness"] == reopened(made)


def test_a_new_log_in_its_place(made):
    found = dict(table())["a new log in its place"]
    made.close()
    shutil.rmtree(made.ours.path)
    assert found["witness"] == reopened(made)
    assert {found[column] for column in FOUND_ALONE} == {made.verdict()}


CHECKPOINTS = "a record changed, and all checkpoints removed"


def test_checkpoints_removed(made):
    found = dict(table())[CHECKPOINTS]
    made.close()
    changed = change(made.ours.lines())
    made.write(changed)
    checkpoints = made.ours.head().with_suffix(".000001.checkpoints")
    checkpoints.unlink()
    done = {"in place": made.verdict()}
    made.rewrite(changed, sign=False)
    done["chain and head"] = made.verdict()
    checkpoints.touch(mode=0o600)
    made.rewrite(changed, sign=True)
    done["signed anew"] = made.verdict()
    for log in list(made.ours.opened + made.theirs.opened):
        log.close()
    done["witness"] = reopened(made)
    assert done == found


@pytest.fixture
def brief(tmp_path, decision):
    """A log of less than a second that was closed, its chain written anew, and its checkpoints removed."""
    world = World.__new__(World)
    world.ours = Logs(tmp_path / "brief")
    log = world.ours.open("server")
    relation = log.relation(PEER)
    for question in range(4):
        relation.append(relation.template(**decision), question)
    log.close()
    (world.keys,) = [one.keys for one in world.ours.verify().relations if one.relation == PEER]
    world.ours.head().with_suffix(".000001.checkpoints").unlink()
    return world


@pytest.mark.parametrize(("dropped", "code"), [(0, 4), (1, 0)], ids=["closed", "as if killed"])
def test_a_brief_log_written_anew_without_checkpoints_is_found_by_key_alone(brief, dropped, code):
    lines = change(brief.ours.lines())
    brief.rewrite(lines[: len(lines) - dropped], sign=False)
    assert brief.verdict() == "intact"
    result = CliRunner().invoke(main, ["audit", "verify", str(brief.ours.path)])
    assert (result.exit_code, f"nothing is signed of {PEER}" in result.stdout) == (code, True)
    (found,) = brief.ours.verify(keys=map(VerifierKey.parse, brief.keys)).relations[1:]
    assert (found.relation, found.verdict) == (PEER, "forged")


def test_a_relation_whose_key_was_kept_is_missed(made):
    made.close()
    keys = [key for one in made.ours.verify().relations for key in one.keys]
    stem = made.ours.head().stem
    for file in made.ours.path.glob(f"{stem}.*"):
        file.unlink()
    report = made.ours.verify(keys=map(VerifierKey.parse, keys))
    assert [(one.relation, one.verdict) for one in report.relations] == [("general", "intact"), (stem, "deleted")]
    strangers = [NoteSigner.generate("caprpc/audit/other-log/x", KIND_LOG).key]
    assert len(made.ours.verify(keys=[*strangers]).relations) == 1


def test_every_row_is_tried():
    tried = {
        *RECORDS,
        CHECKPOINTS,
        "the last second of a killed process changed",
        "the directory of yesterday put back",
        "a whole relation removed, with all its files",
        "a new log in its place",
    }
    assert {row[0] for row in table()} == tried
