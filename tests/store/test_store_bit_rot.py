"""A bit that flips in the files of a store is found, or was one that nobody reads; nothing is believed that changed."""

import random

import pytest

from caprpc.errors import ConfigurationError, StoreError
from caprpc.store import SqliteStore
from caprpc.sturdy import digest_of


@pytest.fixture
def filled(stores, add, path):
    """Return what a store with grants of every kind answers, and the secrets by which it is asked; it is closed."""
    store = stores()
    given = [
        add(store),
        add(store, only=frozenset({"balance", "history"}), expires_at=2_000.5),
        add(store, holder="", key="", granted_at=3),
        add(store, expires_at=9_000.0),
    ]
    store.revoke(given[3][0].grant_id, 1_500.0)
    answers = store.grants(), store.revoked_since(0), [store.find(digest_of(secret)) for _, secret in given]
    store.close()
    return answers, [secret for _, secret in given]


def answers_of(path, secrets):
    """Return what a store answers now; None if it is refused."""
    try:
        store = SqliteStore(path)
    except ConfigurationError:
        return None
    try:
        return store.grants(), store.revoked_since(0), [store.find(digest_of(secret)) for secret in secrets]
    except StoreError:
        return None
    finally:
        store.close()


def flipped(path, beside, rot, position, bit):
    """Flip one bit of one file, and take away what SQLite may have made beside it."""
    for name in (path.name + "-wal", path.name + "-shm"):
        path.with_name(name).unlink(missing_ok=True)
    for file, whole in beside.items():
        file.write_bytes(whole)
    data = bytearray(beside[rot])
    data[position] ^= 1 << bit
    rot.write_bytes(data)


def test_no_flipped_bit_of_the_store_changes_an_answer(filled, path):
    answers, secrets = filled
    files = [path, path.with_name("grants.db.acknowledged")]
    beside = {file: file.read_bytes() for file in files}
    choose = random.Random(4)
    used = [position for position, byte in enumerate(beside[path]) if byte]
    found = 0
    for position in used:
        flipped(path, beside, path, position, choose.randrange(8))
        now = answers_of(path, secrets)
        found += now is None
        assert now in (None, answers), position
    assert found > len(used) // 2


def test_every_flipped_bit_of_what_was_acknowledged_is_found(filled, path):
    _, secrets = filled
    acknowledged = path.with_name("grants.db.acknowledged")
    beside = {file: file.read_bytes() for file in (path, acknowledged)}
    missed = []
    choose = random.Random(5)
    for position, byte in enumerate(beside[acknowledged]):
        for bit in choose.sample(range(8), 3):
            flipped(path, beside, acknowledged, position, bit)
            if answers_of(path, secrets) is not None:
                missed.append((position, byte, bit))
    # Between two lines stand two newlines: one of them may go.
    assert all(byte == 0x0A for _, byte, _ in missed), missed
