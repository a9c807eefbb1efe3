"""``caprpc grants``: listing, showing, revoking, and taking an old backup into use."""

import json
import sqlite3

import pytest
from click.testing import CliRunner

from caprpc.cli import main
from caprpc.store import SqliteStore, StoredGrant
from caprpc.sturdy import digest_of

LIVE, OVER, BEARER = "G-AAAAAAAAAAAA", "G-BBBBBBBBBBBB", "G-CCCCCCCCCCCC"
ALICE, BOB = "spiffe://org-b.example/alice", "spiffe://org-c.example/bob"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    path = tmp_path / "state" / "grants.db"
    store = SqliteStore(path)
    only = frozenset({"number", "deposit"})
    store.add(StoredGrant(LIVE, "account", "42", ALICE, only, "server", 1_000.0, None), digest_of("a"))
    store.add(StoredGrant(OVER, "account", "43\x1b[2J", BOB, None, "server", 1_000.0, 2_000.0), digest_of("b"))
    store.add(StoredGrant(BEARER, "bank", "", "", None, "server", 1_000.0, None), digest_of("c"))
    store.close()
    return path


def run(*args):
    result = CliRunner().invoke(main, ["grants", *map(str, args)])
    return result.exit_code, result.stdout, result.stderr


def test_list_shows_every_grant_in_order(path):
    code, out, _ = run("list", path)
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [LIVE, OVER, BEARER]
    assert lines[0].startswith(f"{LIVE}  live     1970-01-01T00:16:40Z  until revoked  account 42 for {ALICE}")
    assert "expired" in lines[1]
    assert "until 1970-01-01T00:33:20Z" in lines[1]
    assert lines[2].endswith("bank for whoever has the secret")


def test_texts_cannot_steer_the_terminal(path):
    _, listed, _ = run("list", path)
    _, shown, _ = run("show", path, OVER)
    assert "\x1b" not in listed + shown
    assert "\\x1b" in listed


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--holder", "org-b"], [LIVE]),
        (["--name", "bank"], [BEARER]),
        (["--state", "expired"], [OVER]),
        (["--state", "live"], [LIVE, BEARER]),
        (["--state", "revoked"], []),
    ],
)
def test_list_selects(path, options, ids):
    _, out, _ = run("list", path, "--json", *options)
    assert [json.loads(line)["id"] for line in out.splitlines()] == ids


def test_show_has_everything_but_the_secret(path):
    code, out, _ = run("show", path, LIVE.lower(), "--json")
    assert code == 0
    assert json.loads(out) == {
        "id": LIVE,
        "state": "live",
        "name": "account",
        "key": "42",
        "holder": ALICE,
        "only": ["deposit", "number"],
        "granted_by": "server",
        "granted_at": "1970-01-01T00:16:40Z",
        "expires_at": None,
        "revoked_at": None,
    }
    _, text, _ = run("show", path, LIVE)
    assert "only        deposit, number" in text


def test_revoke_ends_grants_and_says_which(path):
    code, out, err = run("revoke", path, LIVE, "G-ZZZZZZZZZZZZ", BEARER)
    assert code == 66
    assert out.splitlines() == [
        f"{LIVE} is revoked: account 42 for {ALICE}",
        f"{BEARER} is revoked: bank for whoever has the secret",
    ]
    assert "no grant G-ZZZZZZZZZZZZ" in err
    assert run("revoke", path, LIVE) == (0, f"{LIVE} was revoked before\n", "")
    _, out, _ = run("list", path, "--state", "revoked", "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == [LIVE, BEARER]


def test_a_running_service_sees_the_revocation(path):
    service = SqliteStore(path)
    run("revoke", path, LIVE)
    assert service.find(digest_of("a")).revoked_at is not None
    service.close()


def test_an_old_backup_is_refused_until_it_is_accepted(path, tmp_path):
    backup = tmp_path / "backup.db"
    with sqlite3.connect(path) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    source.close()
    target.close()
    run("revoke", path, LIVE)
    backup.chmod(0o600)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    backup.replace(path)
    code, _, err = run("list", path)
    assert code == 78
    assert "old backup" in err.replace("\n", " ")
    assert "caprpc grants accept-restore" in err
    code, out, _ = run("accept-restore", path)
    assert code == 0
    assert out.splitlines() == [f"{LIVE} is revoked again", f"{path} can be used: 1 revoked again, 0 lost"]
    code, out, _ = run("list", path, "--state", "revoked")
    assert code == 0
    assert out.startswith(LIVE)


@pytest.mark.parametrize("command", [["list"], ["show", "x"], ["revoke", "x"], ["accept-restore"]])
def test_a_store_that_is_not_there_is_not_made(tmp_path, command):
    (tmp_path / "state").mkdir(mode=0o700)
    path = tmp_path / "state" / "grants.db"
    code, _, err = run(command[0], path, *command[1:])
    assert code == 66
    assert "no store of grants there" in err
    assert not path.exists()


def test_an_unknown_grant_is_not_found(path):
    code, _, err = run("show", path, "G-ZZZZZZZZZZZZ")
    assert code == 66
    assert "caprpc grants list" in err
