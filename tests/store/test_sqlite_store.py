"""The embedded store: what was acknowledged is kept, nobody else can read it, and an old copy is known as one."""

import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from caprpc.errors import ConfigurationError, StoreError
from caprpc.store import SqliteStore, accept_restore
from caprpc.sturdy import digest_of, new_secret


def copy_of(path, to):
    """Copy a store as a backup tool would that knows SQLite: one file, without the file of acknowledged changes."""
    source, target = sqlite3.connect(path), sqlite3.connect(to)
    source.backup(target)
    source.close()
    target.close()
    to.chmod(0o600)


def put_back(backup, path):
    for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        name.unlink(missing_ok=True)
    shutil.copy2(backup, path)


def test_a_grant_comes_back_as_it_was_given(stores, add):
    store = stores()
    grant, secret = add(store, only=frozenset({"balance", "history"}), expires_at=2_000.5)
    assert store.find(digest_of(secret)) == grant
    assert store.get(grant.grant_id) == grant
    assert stores().grants() == [grant]


def test_only_the_digest_of_a_secret_is_kept(stores, add, path):
    store = stores()
    _, secret = add(store)
    store.close()
    assert all(secret.encode() not in file.read_bytes() for file in path.parent.iterdir())
    assert any(digest_of(secret) in file.read_bytes() for file in path.parent.iterdir())


def test_an_unknown_secret_and_an_unknown_id_find_nothing(stores, add):
    store = stores()
    add(store)
    assert store.find(digest_of(new_secret())) is None
    assert store.get("G-AAAAAAAAAAAA") is None
    assert store.revoke("G-AAAAAAAAAAAA", 1.0) is None


def test_a_revocation_is_final_and_told_once(stores, add):
    store, other = stores(), stores()
    grant, secret = add(store)
    before, _ = other.revoked_since(0)
    revision = store.revoke(grant.grant_id, 1_500.0)
    assert revision == before + 1
    assert store.revoke(grant.grant_id, 1_600.0) is None
    assert other.find(digest_of(secret)).revoked_at == 1_500.0
    assert other.revoked_since(before) == (revision, [grant.grant_id])
    assert other.revoked_since(revision) == (revision, [])


@pytest.mark.parametrize(("now", "state"), [(1_999.9, "live"), (2_000.0, "expired")])
def test_the_state_of_a_grant(stores, add, now, state):
    grant, _ = add(stores(), expires_at=2_000.0)
    assert grant.state(now) == state
    revoked, _ = add(stores(), expires_at=2_000.0, revoked_at=1_500.0)
    assert revoked.state(now) == "revoked"


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", ".acknowledged"])
def test_every_file_is_for_its_owner_alone(stores, add, path, suffix):
    before = os.umask(0)
    try:
        add(stores())
    finally:
        os.umask(before)
    assert path.with_name(path.name + suffix).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("suffix", ["", ".acknowledged"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_touch_is_refused(stores, add, path, suffix, mode):
    store = stores()
    add(store)
    store.close()
    path.with_name(path.name + suffix).chmod(mode)
    with pytest.raises(ConfigurationError, match="by others") as refused:
        SqliteStore(path)
    assert "chmod 0600" in refused.value.hint


def test_a_directory_that_others_may_write_is_refused(path):
    path.parent.chmod(0o770)
    with pytest.raises(ConfigurationError, match="directory is writable by others"):
        SqliteStore(path)


def test_a_link_is_refused(stores, add, path):
    store = stores()
    add(store)
    store.close()
    elsewhere = path.with_name("elsewhere.db")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        SqliteStore(path)


def test_what_is_no_store_is_refused(path):
    path.write_bytes(b"not a database, and longer than a header of one hundred bytes would be" * 10)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="cannot be used as a store"):
        SqliteStore(path)


def test_a_database_of_another_program_is_refused_and_left_alone(path):
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE notes (text TEXT)")
    foreign.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_newer_layout_is_refused(stores, path):
    stores().close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 3")
    newer.close()
    with pytest.raises(ConfigurationError, match="version 3, this release reads version 2"):
        SqliteStore(path)


def test_damage_is_found_when_the_store_is_opened(stores, add, path):
    store = stores()
    for number in range(200):
        add(store, key=str(number))
    store.close()
    data = bytearray(path.read_bytes())
    for at in range(4096 * 2, 4096 * 3):
        data[at] ^= 0x5A
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match="damaged|malformed|cannot be used"):
        SqliteStore(path)


def test_an_old_backup_is_refused_and_says_what_to_do(stores, add, path, tmp_path):
    store = stores()
    grant, _ = add(store)
    copy_of(path, tmp_path / "backup.db")
    store.revoke(grant.grant_id, 1_500.0)
    store.close()
    put_back(tmp_path / "backup.db", path)
    with pytest.raises(ConfigurationError, match="revision 1, and 2 was acknowledged") as refused:
        SqliteStore(path)
    assert "caprpc grants accept-restore" in refused.value.hint


def test_accepting_an_old_backup_revokes_again_and_names_what_is_lost(stores, add, path, tmp_path):
    store = stores()
    revoked, secret = add(store)
    kept, kept_secret = add(store)
    copy_of(path, tmp_path / "backup.db")
    store.revoke(revoked.grant_id, 1_500.0)
    lost, lost_secret = add(store)
    store.close()
    put_back(tmp_path / "backup.db", path)
    assert accept_restore(path) == ([revoked.grant_id], [lost.grant_id])
    again = stores()
    assert again.find(digest_of(secret)).state(1_600.0) == "revoked"
    assert again.find(digest_of(kept_secret)) == kept
    assert again.find(digest_of(lost_secret)) is None
    assert again.revoked_since(3)[1] == [revoked.grant_id]
    again.revoke(kept.grant_id, 1_700.0)
    stores()


def test_both_files_of_one_backup_bring_back_what_was_revoked_as_the_page_says(stores, add, path, tmp_path):
    """What cannot be told without a third place; docs/how-to/sturdy-references.md says so, and what to compare with."""
    store = stores()
    revoked, secret = add(store)
    noted = path.with_name("grants.db.acknowledged")
    copy_of(path, tmp_path / "backup.db")
    shutil.copy2(noted, tmp_path / "acknowledged")
    store.revoke(revoked.grant_id, 1_500.0)
    store.close()
    put_back(tmp_path / "backup.db", path)
    shutil.copy2(tmp_path / "acknowledged", noted)
    assert stores().find(digest_of(secret)).state(1_600.0) == "live"
    page = Path(__file__).parents[2] / "docs/how-to/sturdy-references.md"
    assert "If **both** files come back from the same backup, nobody can" in page.read_text(encoding="utf-8")


def test_accepting_what_is_no_old_backup_changes_nothing(stores, add, path):
    store = stores()
    grant, secret = add(store)
    assert accept_restore(path) == ([], [])
    assert store.find(digest_of(secret)) == grant


def test_a_store_without_its_file_of_acknowledged_changes_is_refused(stores, add, path):
    store = stores()
    add(store)
    store.close()
    path.with_name("grants.db.acknowledged").unlink()
    for opening in (SqliteStore, accept_restore):
        with pytest.raises(ConfigurationError, match="acknowledged|missing"):
            opening(path)


def test_the_file_of_another_store_is_refused(stores, add, path):
    store, other = stores(), stores(path.with_name("other.db"))
    add(store)
    add(other)
    store.close()
    path.with_name("other.db.acknowledged").replace(path.with_name("grants.db.acknowledged"))
    for opening in (SqliteStore, accept_restore):
        with pytest.raises(ConfigurationError, match="belongs to"):
            opening(path)


def test_an_old_copy_that_is_put_in_place_under_a_running_service_is_refused(stores, add, path, tmp_path):
    store = stores()
    grant, secret = add(store)
    copy_of(path, tmp_path / "backup.db")
    store.revoke(grant.grant_id, 1_500.0)
    put_back(tmp_path / "backup.db", path)
    with pytest.raises(StoreError, match="another file stands there"):
        store.find(digest_of(secret))


def test_an_older_state_in_the_same_file_is_refused(stores, add, path, tmp_path):
    store = stores()
    grant, secret = add(store)
    copy_of(path, tmp_path / "backup.db")
    store.revoke(grant.grant_id, 1_500.0)
    backup, live = sqlite3.connect(tmp_path / "backup.db"), sqlite3.connect(path)
    backup.backup(live)
    backup.close()
    live.close()
    for use in (lambda: store.find(digest_of(secret)), lambda: store.revoked_since(0), lambda: store.revoke("x", 1.0)):
        with pytest.raises(StoreError, match="an older copy was put in its place"):
            use()


@pytest.mark.parametrize("left", ["\n2 revoked G-ABC", "\n2 revoked G-ABC" + "\0" * 20, "\0" * 36])
def test_half_a_line_of_a_crash_spoils_nothing(stores, add, path, left):
    store = stores()
    grant, _ = add(store)
    store.close()
    with path.with_name("grants.db.acknowledged").open("a") as file:
        file.write(left)
    store = stores()
    assert store.revoke(grant.grant_id, 1_500.0) == 2
    store.close()
    put_back(path, path.with_name("same.db"))
    assert stores().get(grant.grant_id).revoked_at == 1_500.0


def test_a_change_that_was_kept_and_not_acknowledged_counts_after_a_restart(stores, add, path, tmp_path):
    store = stores()
    grant, secret = add(store)
    beside = path.with_name("grants.db.acknowledged")
    before = beside.read_bytes()
    store.revoke(grant.grant_id, 1_500.0)
    store.close()
    beside.write_bytes(before)
    copy = tmp_path / "kept.db"
    copy_of(path, copy)
    assert stores().find(digest_of(secret)).state(2_000.0) == "revoked"
    assert f"2 revoked {grant.grant_id} " in beside.read_text()


def test_a_store_that_takes_no_acknowledgement_says_so(stores, add, path):
    store = stores()
    grant, _ = add(store)
    path.with_name("grants.db.acknowledged").unlink()
    with pytest.raises(StoreError, match="could not be acknowledged"):
        store.revoke(grant.grant_id, 1_500.0)


def test_another_process_that_holds_the_file_too_long_is_an_error(stores, add, path, monkeypatch):
    monkeypatch.setattr("caprpc.store.sqlite.BUSY_TIMEOUT_S", 0.01)
    store = stores()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        add(store)
    holder.execute("ROLLBACK")
    holder.close()
    add(store)
    assert len(store.grants()) == 1


def test_threads_share_one_store(stores, add):
    store = stores()
    failures = []

    def work():
        try:
            for _ in range(10):
                grant, secret = add(store)
                assert store.find(digest_of(secret)) == grant
                assert store.revoke(grant.grant_id, 2_000.0)
        except Exception as exc:  # the main thread reports it
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert store.revoked_since(0)[0] == 160
    assert all(grant.revoked_at for grant in store.grants())


def test_a_store_is_refused_after_fork(stores, add):
    store = stores()
    _, secret = add(store)
    child = os.fork()
    if not child:
        try:
            store.find(digest_of(secret))
        except StoreError as exc:
            os._exit(0 if "after fork" in str(exc) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
