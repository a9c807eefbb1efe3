"""Stores in a directory of their own."""

import pytest

from caprpc.ids import new_grant_id
from caprpc.store import SqliteStore, StoredGrant
from caprpc.sturdy import digest_of, new_secret

HOLDER = "spiffe://org-b.example/feed"


def a_grant(**changes):
    given = {
        "grant_id": new_grant_id(),
        "name": "account",
        "key": "42",
        "holder": HOLDER,
        "only": None,
        "granted_by": "server",
        "granted_at": 1_000.0,
        "expires_at": None,
    }
    return StoredGrant(**{**given, **changes})


@pytest.fixture
def path(tmp_path):
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    return directory / "grants.db"


@pytest.fixture
def stores(path):
    """Open stores at one path, and close them all."""
    opened = []

    def open_store(at=path):
        opened.append(SqliteStore(at))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def add():
    """Add a grant to a store; return it and its secret."""

    def add_to(store, **changes):
        grant, secret = a_grant(**changes), new_secret()
        store.add(grant, digest_of(secret))
        return grant, secret

    return add_to
