"""Rows of the store, each under a digest of itself: a bit that flipped on the disk is found, not believed.

SQLite has no checksums of its own. A flipped bit could give a grant another holder, or a longer life. The digest
needs no key: whoever can write the file can write grants.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

from caprpc.errors import StoreError
from caprpc.store.grants import StoredGrant

SCHEMA: Final = (
    "CREATE TABLE grants (grant_id TEXT PRIMARY KEY, name TEXT NOT NULL, key TEXT NOT NULL, holder TEXT NOT NULL,"
    " only_members TEXT, granted_by TEXT NOT NULL, granted_at REAL NOT NULL, expires_at REAL, revoked_at REAL,"
    " digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),"
    " granted_revision INTEGER NOT NULL UNIQUE, revoked_revision INTEGER UNIQUE, seal BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), store_id TEXT NOT NULL, revision INTEGER NOT NULL,"
    " seal BLOB NOT NULL)",
)
"""Columns in the order of ``StoredGrant``, then what only the store needs; the seal is over all before it."""

_TIMES: Final = (6, 7, 8)
"""Where a row has numbers that SQLite gives back as floats."""

Row = tuple[Any, ...]


def seal_of(row: Row) -> bytes:
    """Return the digest of what a row holds; types count."""
    return hashlib.sha256(repr(row).encode("utf-8", "surrogatepass")).digest()


def row_of(grant: StoredGrant, digest: bytes, granted: int, revoked: int | None = None) -> Row:
    """Return the sealed row of a grant that was given, and perhaps revoked, in these revisions."""
    only = None if grant.only is None else " ".join(sorted(grant.only))
    named = (grant.grant_id, grant.name, grant.key, grant.holder, only, grant.granted_by)
    return sealed((*named, grant.granted_at, grant.expires_at, grant.revoked_at, digest, granted, revoked))


def sealed(row: Row) -> Row:
    """Return a row with its seal behind it."""
    values = tuple(float(value) if place in _TIMES and value is not None else value for place, value in enumerate(row))
    return (*values, seal_of(values))


def grant_of(row: Row, path: Path) -> StoredGrant:
    """Return the grant that a row holds.

    Raises:
        StoreError: The row is not as it was written.
    """
    check_row(row, path)
    grant_id, name, key, holder, only, granted_by, granted_at, expires_at, revoked_at = row[:9]
    return StoredGrant(
        grant_id=grant_id,
        name=name,
        key=key,
        holder=holder,
        only=None if only is None else frozenset(only.split()),
        granted_by=granted_by,
        granted_at=granted_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )


def check_row(row: Row, path: Path) -> None:
    """Check that a row is as it was written.

    Raises:
        StoreError: It is not.
    """
    if seal_of(tuple(row[:-1])) != row[-1]:
        raise StoreError(f"{path}: is damaged: a row is not as it was written; put back a copy that is whole")
