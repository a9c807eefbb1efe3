"""The files of a log are ours, private, plain, and those of this log."""

import os
import stat

import pytest

from caprpc.audit.storage import stem_of
from caprpc.errors import AuditError
from tests.audit.conftest import PEER


@pytest.fixture
def written(logs):
    log = logs.open()
    log.relation(PEER).record("open", peer=PEER)
    log.close()
    return logs


def test_everything_is_private_whatever_the_umask(logs):
    before = os.umask(0)
    try:
        log = logs.open(max_segment_bytes=500)
        for _ in range(10):
            log.relation(PEER).record("open", peer=PEER)
        log.tick(9.0)
        log.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(logs.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in logs.path.iterdir()} == {0o600}
    assert not list(logs.path.glob("*.tmp"))


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o720])
def test_directory_that_others_may_enter_is_refused(written, mode):
    written.path.chmod(mode)
    with pytest.raises(AuditError, match=f"mode {mode:04o} lets others in; chmod 0700"):
        written.open()


@pytest.mark.parametrize("name", ["general.000001.jsonl", "redact.key", "log.json", "lock", "general.head"])
def test_file_that_others_may_read_is_refused(written, name):
    (written.path / name).chmod(0o640)
    with pytest.raises(AuditError, match=f"{name}: mode 0640 lets others in; chmod 0600"):
        written.open()


@pytest.mark.parametrize("name", ["general.000001.jsonl", "redact.key", "log.json", "lock", "general.head"])
def test_link_in_place_of_a_file_is_refused(written, name, tmp_path):
    (written.path / name).rename(tmp_path / "elsewhere")
    (written.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError, match=f"{name}: cannot open"):
        written.open()


def test_second_name_of_a_file_is_refused(written, tmp_path):
    os.link(written.path / "general.000001.jsonl", tmp_path / "second")
    with pytest.raises(AuditError, match="hard links"):
        written.open()


def test_link_in_place_of_the_directory_is_refused(written, tmp_path):
    (tmp_path / "link").symlink_to(written.path)
    written.path = tmp_path / "link"
    with pytest.raises(AuditError, match="cannot open the audit directory"):
        written.open()


def test_file_in_place_of_the_directory_is_refused(logs):
    logs.path.write_text("")
    with pytest.raises(AuditError, match="cannot open the audit directory"):
        logs.open()


def test_link_planted_at_the_name_of_the_next_segment_is_not_followed(logs, tmp_path, decision):
    log = logs.open(max_segment_bytes=600)
    relation = log.relation(PEER)
    target = tmp_path / "victim"
    target.write_text("precious")
    (logs.path / f"{stem_of(PEER)}.000002.jsonl.tmp").symlink_to(target)
    for question in range(4):
        relation.append(relation.template(**decision), question)
    assert target.read_text() == "precious"
    assert len(logs.files()) > 1


def test_log_of_another_role_is_refused(written):
    with pytest.raises(AuditError, match="holds the audit log of 'server', not of 'client'"):
        written.open(name="client")


@pytest.mark.parametrize("name", ["redact.key", "log.json"])
def test_damaged_side_file_is_refused(written, name):
    (written.path / name).write_bytes(b"{")
    with pytest.raises(AuditError, match=name):
        written.open()


def test_missing_segment_or_head_is_refused(written):
    written.head("general").unlink()
    with pytest.raises(AuditError, match=r"general\.head is missing"):
        written.open()


@pytest.mark.parametrize(
    "principal",
    [
        "spiffe://org-b.example/../../etc/passwd",
        "spiffe://org-b.example/" + "a" * 5_000,
        "../x",
        "/",
        "\x00",
        "général",
        "\ud800",
        ".",
        "",
        "lock",
        "redact.key",
        "GENERAL",
    ],
)
def test_any_principal_has_its_own_plain_file_name(logs, principal):
    log = logs.open()
    log.relation(principal).record("open", peer=principal)
    log.close()
    assert {file.parent for file in logs.path.rglob("*")} == {logs.path}
    assert len(logs.files(principal)) == 1
    report = logs.verify()
    assert len(report.relations) == 2
    assert report.intact or len(principal) > 2_048


def test_principals_that_look_alike_have_different_files():
    names = ["spiffe://a.b/c", "spiffe://a.b/C", "spiffe://a-b/c", "spiffe://a.b/c/", "spiffe://a.b//c"]
    assert len({stem_of(name) for name in names}) == len(names)


def test_name_of_the_general_relation_is_no_principal(logs):
    with pytest.raises(AuditError, match="not the principal"):
        logs.open().relation("general")


def test_no_descriptor_is_left_behind(logs, decision):
    before = len(os.listdir("/proc/self/fd"))
    log = logs.open(max_segment_bytes=600)
    for question in range(5):
        relation = log.relation(PEER)
        relation.append(relation.template(**decision), question)
        log.tick(float(question * 2))
    log.close()
    logs.verify()
    with pytest.raises(AuditError):
        logs.open(name="client")
    assert len(os.listdir("/proc/self/fd")) == before
