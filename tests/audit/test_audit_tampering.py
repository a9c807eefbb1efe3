"""Whatever is done to the files of a closed log without the means to rewrite its head, verify finds and names it."""

import json
import re
import shutil
from itertools import pairwise

import pytest

from caprpc.audit.record import encode, leaf_hash


@pytest.fixture
def closed(logs, decision):
    """A closed log of two segments, small enough to change each byte of it."""
    log = logs.open(max_segment_bytes=1_000)
    relation = log.relation(decision["peer"])
    small = relation.template(kind="decision", facet="F", decision="permit", member="m")
    for question in range(3):
        relation.append(small, question)
    log.close()
    assert len(logs.files()) == 2
    assert logs.problem() is None
    return logs


def join(lines):
    return b"".join(line + b"\n" for line in lines)


def test_every_change_of_one_byte_is_found(closed):
    for file in (*closed.files(), closed.head()):
        whole = file.read_bytes()
        missed = []
        for at in range(len(whole)):
            flip = (0x01, 0x02, 0x20, 0x80)[at % 4]
            file.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            if closed.problem() is None:
                missed.append((file.name, at, flip))
        file.write_bytes(whole)
        assert not missed


def test_every_removed_or_added_byte_is_found(closed):
    for file in closed.files():
        whole = file.read_bytes()
        for at in range(len(whole)):
            file.write_bytes(whole[:at] + whole[at + 1 :] if at % 2 else whole[:at] + b"0" + whole[at:])
            assert closed.problem() is not None, (file.name, at)
        file.write_bytes(whole)


def test_every_removed_swapped_or_doubled_record_is_found(closed):
    for file in closed.files():
        whole = file.read_bytes()
        lines = whole.splitlines()
        for at in range(len(lines)):
            changes = [lines[:at] + lines[at + 1 :], [*lines[: at + 1], lines[at], *lines[at + 1 :]]]
            if at:
                changes.append([*lines[: at - 1], lines[at], lines[at - 1], *lines[at + 1 :]])
            for changed in changes:
                file.write_bytes(join(changed))
                assert closed.problem() is not None, (file.name, at)
        file.write_bytes(whole)


def test_every_cut_of_the_end_is_found(closed):
    file = closed.files()[-1]
    whole = file.read_bytes()
    for size in range(len(whole) - 1):
        file.write_bytes(whole[:size])
        assert closed.problem() is not None, size


def starts(lines):
    """The offset at which each line begins."""
    return [sum(len(line) + 1 for line in lines[:at]) for at in range(len(lines))]


def edited(line):
    """The same record with another time, in the only spelling."""
    return re.sub(rb'"time":"20', b'"time":"19', line)


def test_the_edited_record_itself_is_named_with_file_line_and_both_hashes(closed):
    """Its successor names another hash, and is vouched for by what stands behind it: the next file, or the head."""
    first, second = closed.files()
    places = [(file, at) for file in (first, second) for at in range(len(file.read_bytes().splitlines()))]
    for (file, at), (behind, successor) in pairwise(places):
        whole = file.read_bytes()
        lines = whole.splitlines()
        right = leaf_hash(lines[at])
        lines[at] = edited(lines[at])
        file.write_bytes(join(lines))
        problem = closed.problem()
        assert (problem.file, problem.line, problem.offset) == (file.name, at + 1, starts(lines)[at])
        seq = json.loads(lines[at])["seq"]
        assert problem.expected == f"hash {right} of record {seq}, as the next one says"
        assert problem.found == f"hash {leaf_hash(lines[at])}"
        assert right.encode() in behind.read_bytes().splitlines()[successor]
        file.write_bytes(whole)


def test_a_record_whose_own_hash_of_the_one_before_was_edited_is_named(closed):
    for file in closed.files():
        whole = file.read_bytes()
        for at in range(len(whole.splitlines())):
            lines = whole.splitlines()
            lines[at] = lines[at][:-66] + b"e" * 64 + lines[at][-2:]
            file.write_bytes(join(lines))
            problem = closed.problem()
            assert (problem.file, problem.line) == (file.name, at + 1)
            assert problem.found == f"prev {'e' * 64}"
        file.write_bytes(whole)


def test_where_two_records_were_edited_the_place_is_at_or_before(closed):
    file = closed.files()[0]
    lines = file.read_bytes().splitlines()
    lines[1], lines[2] = edited(lines[1]), edited(lines[2])
    file.write_bytes(join(lines))
    problem = closed.problem()
    assert (problem.file, problem.line) == (file.name, 3)
    assert problem.found.endswith(": changed at or before this record")


def test_the_last_record_behind_the_head_cannot_tell_which_of_two_was_edited(logs, decision):
    log = logs.open()
    relation = log.relation(decision["peer"])
    for question in range(3):
        relation.append(relation.template(**decision), question)
    logs.abandon(log)
    file = logs.files()[0]
    lines = file.read_bytes().splitlines()
    lines[-2] = edited(lines[-2])
    file.write_bytes(join(lines))
    problem = logs.problem()
    assert problem.line == len(lines)
    assert problem.found.endswith(": changed at or before this record")


def test_yesterdays_file_does_not_verify(logs, decision):
    log = logs.open()
    log.relation(decision["peer"]).record("open", peer=decision["peer"])
    log.close()
    yesterday = logs.files()[0].read_bytes()
    log = logs.open()
    log.relation(decision["peer"]).record("open", peer=decision["peer"])
    log.close()
    logs.files()[0].write_bytes(yesterday)
    assert "as the head says" in logs.problem().expected


def test_file_and_head_of_another_service_do_not_verify(closed, tmp_path, decision):
    other = type(closed)(tmp_path / "other")
    log = other.open()
    log.relation(decision["peer"]).record("open", peer=decision["peer"])
    log.close()
    for file in (*closed.files(), closed.head()):
        file.unlink()
    for file in (*other.files(), other.head()):
        shutil.copy(file, closed.path / file.name)
    assert "log_id" in closed.problem().expected


def test_records_of_another_peer_do_not_verify(closed):
    stranger = "spiffe://org-c.example/x"
    log = closed.open()
    log.relation(stranger).record("open", peer=stranger)
    log.close()
    head, files = closed.head(), closed.files()
    for file in files:
        file.unlink()
    shutil.copy(closed.files(stranger)[0], files[0])
    shutil.copy(closed.head(stranger), head)
    assert closed.problem().expected.startswith("files named spiffe-org-c")


@pytest.mark.parametrize("which", [0, 1])
def test_missing_segment_is_found(closed, which):
    closed.files()[which].unlink()
    assert closed.problem() is not None


def test_swapped_segments_are_found(closed):
    first, second = closed.files()
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    assert "prev" in closed.problem().expected or "seq" in closed.problem().expected


def test_missing_head_is_found(closed):
    head = closed.head()
    head.unlink()
    assert closed.problem().file == head.name


def test_chain_rewritten_from_the_middle_is_found_by_the_head(closed):
    """An insider who computes all hashes anew still has to change the head; a checkpoint will be signed."""
    file = closed.files()[1]
    lines, prev = [], None
    for line in file.read_bytes().splitlines():
        record = json.loads(line)
        if prev:
            record["prev"] = prev
            record["mono"] += 1
        line = json.dumps(record, separators=(",", ":")).encode()
        prev = leaf_hash(line)
        lines.append(line)
    file.write_bytes(join(lines))
    assert "hash" in closed.problem().expected


def test_record_with_the_right_hash_and_wrong_content_is_found(logs, decision):
    log = logs.open()
    log.relation(decision["peer"])
    logs.abandon(log)
    file = logs.files()[0]
    line = file.read_bytes()[:-1]
    now, earlier = (b"2026-05-28T20:26:40.", 1, 5_000_000_000), (b"2026-05-28T20:26:40.", 1, 4_000_000_000)
    closing = encode(2, now, {"kind": "segment", "event": "close", "segment": 1}, leaf_hash(line))
    nothing = {"kind": "gap", "event": "torn", "bytes": 5}
    for tail, expected in (
        ([encode(9, now, {"kind": "open"}, leaf_hash(line))], "seq 2"),
        ([encode(2, now, nothing, leaf_hash(line))], "a gap record for 0 bytes"),
        ([encode(2, earlier, {"kind": "open"}, leaf_hash(line))], "mono of at least 5000000000"),
        ([closing, encode(3, now, {"kind": "open"}, leaf_hash(closing))], "'resume' or a gap behind 'close'"),
    ):
        file.write_bytes(join([line, *tail]))
        assert expected in logs.problem().expected


def test_link_in_place_of_a_segment_is_refused(closed, tmp_path):
    file = closed.files()[0]
    moved = tmp_path / "elsewhere"
    file.rename(moved)
    file.symlink_to(moved)
    assert "cannot open" in closed.problem().found


def test_archived_segments_may_be_missing_only_if_one_says_so(closed):
    closed.files()[0].unlink()
    assert closed.problem() is not None
    assert closed.verify(archived=True).intact
    closed.files()[0].unlink()
    assert not closed.verify(archived=True).intact


def test_debris_without_its_gap_record_is_found(closed):
    log = closed.open()
    closed.abandon(log)
    file = closed.files("general")[0]
    whole = file.read_bytes()
    lines = whole.splitlines()
    file.write_bytes(join(lines[:1]) + b"debris\n" + join(lines[1:]))
    assert "expected one JSON object" in str(closed.problem())


def test_writer_does_not_continue_a_log_that_was_changed(closed, decision):
    from caprpc.errors import AuditError

    file = closed.files()[1]
    file.write_bytes(file.read_bytes().replace(b'"event":"close"', b'"event":"cloze"'))
    log = closed.open()
    with pytest.raises(AuditError, match=r"changed after it was written.*\n.*caprpc audit verify"):
        log.relation(decision["peer"])
