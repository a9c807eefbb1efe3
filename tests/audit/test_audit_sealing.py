"""Checkpoints are signed over what is on the disk, by a key of their segment that the one before has vouched for."""

import json
import os
import stat

import pytest

from caprpc.audit import verify
from caprpc.audit.checkpoints import last_entry, origin_of, read_entries
from caprpc.audit.merkle import Range
from caprpc.audit.notes import KIND_LOG, NoteSigner, VerifierKey
from caprpc.audit.record import leaf_hash
from caprpc.audit.sealing import RECORDS_PER_CHECKPOINT
from caprpc.errors import AuditError
from tests.audit.conftest import PEER


@pytest.fixture
def tick(logs):
    def run(log):
        logs.clock.advance(2)
        log.tick(logs.clock.monotonic / 1e9)

    return run


def checkpoints(logs, relation=PEER):
    origin = origin_of(json.loads((logs.path / "log.json").read_bytes())["id"], relation)
    found = []
    for file in sorted(logs.path.glob(f"{logs.head(relation).stem}.*.checkpoints")):
        with file.open("rb") as stream:
            found += read_entries(stream.fileno(), origin, file.stat().st_size)
    return found


def roots(logs, relation=PEER):
    """The root of each prefix of the records, made from the files alone."""
    tree, found = Range(), {}
    for line in logs.lines(relation):
        if b'"prev":"' not in line:
            continue
        tree.append(bytes.fromhex(leaf_hash(line)))
        found[tree.end] = tree.root()
    return found


def the(report, relation=PEER):
    return next(one for one in report.relations if one.relation == relation)


def write(log, decision, count, first=1):
    relation = log.relation(PEER)
    template = relation.template(**decision)
    for question in range(first, first + count):
        relation.append(template, question)


def test_a_tick_signs_the_tree_of_all_records(logs, decision, tick):
    log = logs.open()
    write(log, decision, 5)
    assert checkpoints(logs) == []
    tick(log)
    (entry,) = checkpoints(logs)
    assert entry.checkpoint.size == 6
    assert entry.checkpoint.root == roots(logs)[6]
    key = VerifierKey.parse(logs.records()[0]["detail"])
    assert entry.note.signature_of(key) is not None
    assert key.name == entry.checkpoint.origin


def test_no_more_than_so_many_records_stand_between_checkpoints(logs, decision, tick):
    log = logs.open()
    write(log, decision, 3 * RECORDS_PER_CHECKPOINT)
    tick(log)
    sizes = [entry.checkpoint.size for entry in checkpoints(logs)]
    assert sizes == [256, 512, 768, 769]
    found = roots(logs)
    assert all(entry.checkpoint.root == found[entry.checkpoint.size] for entry in checkpoints(logs))


def test_a_checkpoint_is_due_a_second_after_the_one_before(logs, decision):
    log = logs.open()
    seen = []
    for question, seconds in enumerate((1.0, 0.9, 0.1, 0.5, 0.5)):
        write(log, decision, 1, first=question)
        logs.clock.advance(seconds)
        log.tick(logs.clock.monotonic / 1e9)
        seen.append([entry.checkpoint.size for entry in checkpoints(logs)])
    assert seen == [[2], [2], [2, 4], [2, 4], [2, 4, 6]]


def test_nothing_new_is_not_signed_again(logs, decision, tick):
    log = logs.open()
    write(log, decision, 2)
    for _ in range(3):
        tick(log)
    assert len(checkpoints(logs)) == 1


def test_closing_signs_everything(logs, decision):
    log = logs.open()
    write(log, decision, 2)
    log.close()
    report = the(logs.verify())
    assert (report.signed, report.unsigned, report.trust) == (4, 0, "own")


def test_unsigned_tail_of_a_killed_process_is_counted(logs, decision, tick):
    log = logs.open()
    write(log, decision, 2)
    tick(log)
    write(log, decision, 3)
    logs.abandon(log)
    report = the(logs.verify())
    assert (report.verdict, report.signed, report.unsigned) == ("intact", 3, 3)


def test_a_restart_continues_chain_and_tree_under_the_same_key(logs, decision, tick):
    for run in range(3):
        log = logs.open()
        write(log, decision, 2)
        tick(log)
        write(log, decision, 1)
        if run == 1:
            logs.abandon(log)
        else:
            log.close()
    report = the(logs.verify())
    assert (report.verdict, report.unsigned, len(report.keys)) == ("intact", 0, 1)
    sizes = [entry.checkpoint.size for entry in checkpoints(logs)]
    assert sizes == sorted(set(sizes))


def test_each_segment_has_its_key_and_the_one_before_vouches_for_it(logs, decision, tick):
    log = logs.open(max_segment_bytes=1_500)
    for _ in range(4):
        write(log, decision, 3)
        tick(log)
    log.close()
    report = the(logs.verify())
    begins = [record for record in logs.records() if record.get("event") == "begin"]
    assert report.verdict == "intact"
    assert len(begins) > 2
    assert report.keys == list(dict.fromkeys(record["detail"] for record in begins))
    assert len(set(report.keys)) == len(report.keys) > 2
    twice = [entry for entry in checkpoints(logs) if len(entry.note.signatures) == 2]
    assert len(twice) == len(report.keys) - 1


def test_old_keys_are_gone_and_the_key_file_is_private(logs, decision, tick):
    log = logs.open(max_segment_bytes=1_500)
    for _ in range(4):
        write(log, decision, 3)
        tick(log)
    log.close()
    keys = [VerifierKey.parse(text) for text in the(logs.verify()).keys]
    file = logs.head().with_suffix(".key")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = file.read_text()
    assert [key.key_id.hex() in kept for key in keys] == [False] * (len(keys) - 1) + [True]


def test_segments_that_end_faster_than_a_tick_go_on_with_the_key_before(logs, decision, tick):
    log = logs.open(max_segment_bytes=1_500)
    tick(log)
    write(log, decision, 20)
    tick(log)
    write(log, decision, 20)
    log.close()
    assert len(logs.files()) > 4
    assert the(logs.verify()).verdict == "intact"


def test_a_trusted_key_is_enough_and_another_one_is_not(logs, decision, tick):
    log = logs.open(max_segment_bytes=1_500)
    for _ in range(4):
        write(log, decision, 3)
        tick(log)
    log.close()
    keys = [VerifierKey.parse(text) for text in the(logs.verify()).keys]
    for key in keys:
        assert the(logs.verify(keys=[key])).trust == "given"
    other = NoteSigner.generate(keys[0].name, KIND_LOG).key
    assert the(logs.verify(keys=[other])).verdict == "forged"
    elsewhere = NoteSigner.generate("elsewhere", KIND_LOG).key
    report = the(logs.verify(keys=[elsewhere]))
    assert (report.verdict, report.trust) == ("intact", "none")


def test_a_key_vouches_for_nothing_behind_its_segment(logs, decision, tick):
    """Who kept the key of a segment that has ended cannot sign the records of a later one."""
    log = logs.open(max_segment_bytes=1_500)
    write(log, decision, 1)
    kept = NoteSigner.parse(logs.head().with_suffix(".key").read_text().split("\n")[0].partition(" ")[2])
    for _ in range(5):
        write(log, decision, 3)
        tick(log)
    log.close()
    report = the(logs.verify())
    assert (report.verdict, report.keys[0], len(report.keys) > 2) == ("intact", str(kept.key), True)
    last = checkpoints(logs)[-1].checkpoint
    file = sorted(logs.path.glob(f"{logs.head().stem}.*.checkpoints"))[-1]
    file.write_bytes(last.sign([kept]).encode() + b"\n")
    report = the(logs.verify())
    assert (report.verdict, report.problem.found) == ("forged", f"none over {last.size} records")


def test_gaps_and_debris_are_no_leaves(logs, decision, tick):
    log = logs.open()
    write(log, decision, 2)
    logs.abandon(log)
    with logs.files()[0].open("ab") as stream:
        stream.write(b'{"seq":9\n\nx')
    log = logs.open()
    write(log, decision, 2)
    tick(log)
    write(log, decision, 2)
    log.close()
    report = the(logs.verify())
    assert (report.verdict, report.unsigned, report.gaps) == ("intact", 0, 1)
    assert checkpoints(logs)[-1].checkpoint.root == roots(logs)[report.records]


@pytest.mark.parametrize(("cut", "left"), [(1, 0), (40, 1), (120, 1)])
def test_a_torn_checkpoint_is_reported_and_passed_over(logs, decision, tick, cut, left):
    log = logs.open()
    write(log, decision, 2)
    tick(log)
    write(log, decision, 2)
    tick(log)
    logs.abandon(log)
    file = logs.head().with_suffix(".000001.checkpoints")
    os.truncate(file, file.stat().st_size - 1 - cut)
    assert the(logs.verify()).damaged_checkpoints == 1
    log = logs.open()
    write(log, decision, 2)
    log.close()
    report = the(logs.verify())
    assert (report.verdict, report.unsigned, report.damaged_checkpoints) == ("intact", 0, left)


def test_the_last_whole_checkpoint_is_found_before_a_torn_one(logs, decision, tick):
    log = logs.open()
    for _ in range(2):
        write(log, decision, 2)
        tick(log)
    logs.abandon(log)
    file = logs.head().with_suffix(".000001.checkpoints")
    whole = checkpoints(logs)[0]
    for cut in range(2, 200, 9):
        os.truncate(file, file.stat().st_size - cut)
        with file.open("rb") as stream:
            found = last_entry(stream.fileno(), whole.checkpoint.origin)
        assert found == whole
        if file.stat().st_size < 2 * len(whole.note.encode()) - 180:
            break


def test_segments_that_end_while_nobody_ticks_leave_no_more_than_two_keys(logs):
    log = logs.open()
    log.relation(PEER)
    for number in range(1, 6):
        log._opened[PEER].sealer.key_for(number)
    assert len(logs.head().with_suffix(".key").read_text().splitlines()) == 2


def test_checkpoint_that_cannot_be_written_is_made_up_for(logs, decision, tick):
    log = logs.open()
    write(log, decision, 2)
    tick(log)
    file = logs.head().with_suffix(".000001.checkpoints")
    kept = file.read_bytes()
    file.unlink()
    file.mkdir()
    write(log, decision, 2)
    with pytest.raises(AuditError):
        tick(log)
    file.rmdir()
    file.write_bytes(kept)
    file.chmod(0o600)
    log.close()


@pytest.mark.parametrize("changed", [3, 5])
def test_nothing_is_signed_that_was_changed_on_the_disk_meanwhile(logs, decision, tick, changed):
    log = logs.open()
    write(log, decision, 5)
    file = logs.files()[0]
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"question":%d' % changed, b'"question":9'))
    with pytest.raises(AuditError, match="was changed after it was written"):
        tick(log)
    with pytest.raises(AuditError):
        write(log, decision, 1)


def test_a_log_that_was_cut_while_nobody_ran_is_not_signed_on(logs, decision, tick):
    log = logs.open()
    write(log, decision, 5)
    tick(log)
    head, data = logs.head().read_bytes(), logs.files()[0].read_bytes()
    write(log, decision, 5)
    log.close()
    logs.head().write_bytes(head)
    logs.files()[0].write_bytes(data)
    log = logs.open()
    with pytest.raises(AuditError, match="was changed after it was written"):
        for _ in range(20):
            write(log, decision, 1)
            tick(log)


def test_a_checkpoint_with_a_changed_signature_is_found(logs, decision):
    log = logs.open()
    write(log, decision, 2)
    log.close()
    file = logs.head().with_suffix(".000001.checkpoints")
    data = file.read_bytes()
    at = data.rindex(b" ") + 20
    file.write_bytes(data[:at] + (b"A" if data[at : at + 1] != b"A" else b"B") + data[at + 1 :])
    report = the(logs.verify())
    assert report.verdict == "forged"
    assert "its key did not make" in report.problem.found


def test_more_than_a_minute_without_a_signature_is_a_finding(logs, decision):
    log = logs.open()
    for _ in range(4):
        write(log, decision, 1)
        logs.clock.advance(19)
    logs.abandon(log)
    assert the(logs.verify()).verdict == "intact"
    log = logs.open()
    for _ in range(5):
        write(log, decision, 1)
        logs.clock.advance(19)
    log.close()
    assert the(logs.verify()).verdict == "intact"
    logs.head().with_suffix(".000001.checkpoints").unlink()
    assert the(logs.verify()).verdict == "unsigned"


def test_lost_keys_show(logs, decision, tick):
    log = logs.open()
    write(log, decision, 2)
    log.close()
    logs.head().with_suffix(".key").unlink()
    log = logs.open()
    write(log, decision, 2)
    log.close()
    report = the(logs.verify())
    assert report.verdict == "forged"
    assert "vouches for its successor" in report.problem.expected


def test_archived_segments_leave_their_tree(logs, decision, tick):
    log = logs.open(max_segment_bytes=1_500)
    for _ in range(4):
        write(log, decision, 3)
        tick(log)
    log.close()
    for number in (1, 2):
        for suffix in ("jsonl", "checkpoints"):
            logs.head().with_suffix(f".{number:06d}.{suffix}").unlink(missing_ok=True)
    report = the(verify(logs.path, archived=True))
    assert (report.verdict, report.unsigned, report.trust) == ("intact", 0, "own")
    frontier = logs.head().with_suffix(".000003.tree")
    found = json.loads(frontier.read_bytes())
    found["hashes"][0] = "00" * 32
    frontier.write_text(json.dumps(found) + "\n")
    assert the(verify(logs.path, archived=True)).verdict == "forged"
    frontier.unlink()
    report = the(verify(logs.path, archived=True))
    assert (report.verdict, report.trust) == ("intact", "none")


def test_a_record_after_long_idleness_leaves_a_short_tail(logs, decision, tick):
    log = logs.open()
    write(log, decision, 2)
    tick(log)
    logs.clock.advance(3_600)
    write(log, decision, 1)
    logs.clock.advance(0.5)
    write(log, decision, 1)
    logs.abandon(log)
    report = the(logs.verify())
    assert (report.verdict, report.unsigned, report.unsigned_s) == ("intact", 2, 0.5)


@pytest.mark.parametrize("resumed", [False, True])
def test_the_first_record_after_long_idleness_leaves_a_short_tail(logs, decision, tick, resumed):
    """Nothing is signed before there is a first fact, and of the record of the beginning alone nothing follows."""
    log = logs.open()
    if resumed:
        write(log, decision, 2)
        tick(log)
        logs.abandon(log)
        log = logs.open()
    log.relation(PEER)
    logs.clock.advance(3_600)
    write(log, decision, 1)
    logs.clock.advance(0.5)
    write(log, decision, 1)
    logs.abandon(log)
    report = the(logs.verify())
    assert report.verdict == "intact"
    if resumed:
        assert report.unsigned_s == 0.5


def test_more_than_a_minute_of_records_behind_the_beginning_is_unsigned(logs, decision):
    log = logs.open()
    write(log, decision, 1)
    logs.clock.advance(61)
    write(log, decision, 1)
    logs.abandon(log)
    assert the(logs.verify()).verdict == "unsigned"
