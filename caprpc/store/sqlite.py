"""The embedded store: one SQLite file that only we can read, and beside it what was acknowledged.

WAL, synchronous=FULL. A change is committed and synced, then written to the file of acknowledged changes and
synced, and only then is the caller told.
"""

import contextlib
import fcntl
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from caprpc.errors import ConfigurationError, StoreError
from caprpc.forks import FORKS
from caprpc.lasting import sync_directory
from caprpc.store.acknowledged import SUFFIX, Acknowledged, check_private
from caprpc.store.grants import StoredGrant
from caprpc.store.rows import SCHEMA, check_row, grant_of, row_of, seal_of, sealed

APPLICATION_ID: Final = 0x43617047
"""``CapG`` in the header of the file: another program's database is not taken for ours."""

SCHEMA_VERSION: Final = 2

BUSY_TIMEOUT_S: Final = 5.0
"""How long one process waits for another that writes; a write takes milliseconds."""


class SqliteStore:
    """A store of grants in one file.

    Invariant: what it answers is never older than what was acknowledged, by this process or by another; a file that
    went back in time is refused, when it is opened and while it is used.
    """

    __slots__ = ("_acknowledged", "_connection", "_file", "_forks", "_lock", "_path", "_seen")

    def __init__(self, path: Path) -> None:
        """Open the store at ``path``, and make it if there is none.

        Raises:
            ConfigurationError: Others may read it, it is no store, it is of a newer version, or it is older than what
                was acknowledged: it came back from a backup.
        """
        self._path = path.absolute()
        self._forks = FORKS.count
        self._lock = threading.Lock()
        with _locked(self._path.parent):
            # What was acknowledged is read first: the store can only be further by the time it is looked at.
            known = Acknowledged.read(_beside(self._path))
            self._connection = _open(self._path)
            try:
                self._seen, store_id = self._connection.execute("SELECT revision, store_id FROM state").fetchone()
                self._acknowledged = _checked(known, self._path, self._seen, store_id)
                missing = _changes_after(self._connection, self._acknowledged.revision)
                if missing:
                    # Committed, and killed before it was acknowledged: it counts.
                    self._acknowledged.append(missing)
                status = self._path.stat()
            except BaseException:
                self._connection.close()
                raise
        self._file = (status.st_dev, status.st_ino)

    def add(self, grant: StoredGrant, digest: bytes) -> int:
        """Keep a new grant under the digest of its secret; return the revision."""
        with self._changing() as (connection, revision):
            row = row_of(grant, digest, revision)
            connection.execute("INSERT INTO grants VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", row)
        self._acknowledged.append([(revision, "granted", grant.grant_id)])
        return revision

    def find(self, digest: bytes) -> StoredGrant | None:
        """Return the grant of a secret, by its digest; the same work whether there is one or not."""
        with self._reading() as connection:
            revision, *row = connection.execute(
                "SELECT state.revision, grants.* FROM state LEFT JOIN grants ON digest = ?", (digest,)
            ).fetchone()
            self._note(revision)
        return None if row[0] is None else grant_of(tuple(row), self._path)

    def get(self, grant_id: str) -> StoredGrant | None:
        """Return a grant by its id."""
        with self._reading() as connection:
            row = connection.execute("SELECT * FROM grants WHERE grant_id = ?", (grant_id,)).fetchone()
        return None if row is None else grant_of(row, self._path)

    def grants(self) -> list[StoredGrant]:
        """Return every grant, oldest first, those that have ended included."""
        with self._reading() as connection:
            rows = connection.execute("SELECT * FROM grants ORDER BY granted_revision").fetchall()
        return [grant_of(row, self._path) for row in rows]

    def revoke(self, grant_id: str, at: float) -> int | None:
        """End a grant; return the revision, None if there is none of that id or it was revoked before."""
        with self._changing() as (connection, revision):
            changed = _revoke(connection, grant_id, at, revision, self._path)
            if not changed:
                connection.execute("ROLLBACK")
        if not changed:
            return None
        self._acknowledged.append([(revision, "revoked", grant_id)])
        return revision

    def revoked_since(self, revision: int) -> tuple[int, list[str]]:
        """Return the newest revision, and the ids of what was revoked after the given one."""
        with self._reading() as connection:
            newest = connection.execute("SELECT revision FROM state").fetchone()[0]
            self._note(newest)
            if newest == revision:
                return newest, []
            rows = connection.execute(
                "SELECT grant_id FROM grants WHERE revoked_revision > ? ORDER BY revoked_revision", (revision,)
            ).fetchall()
        return newest, [row[0] for row in rows]

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        if FORKS.count == self._forks:
            with self._lock:
                self._connection.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to one thread, if the file is still the one that was opened.

        Raises:
            StoreError: It is not, or it cannot be read.
        """
        if FORKS.count != self._forks:
            raise StoreError(f"{self._path}: cannot be used after fork(): the child must open its own")
        try:
            status = self._path.stat()
            if (status.st_dev, status.st_ino) != self._file:
                raise StoreError(f"{self._path}: another file stands there since it was opened; restart the service")
            with self._lock:
                yield self._connection
        except (sqlite3.Error, OSError, UnicodeError) as exc:
            raise StoreError(f"{self._path}: {exc}") from exc

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        """Run a change in a transaction of its own, under the next revision; a body may roll it back.

        Raises:
            StoreError: It was not kept.
        """
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                before = connection.execute("SELECT revision FROM state").fetchone()[0]
                self._note(before)
                _set_revision(connection, before + 1)
                yield connection, before + 1
                if connection.in_transaction:
                    connection.execute("COMMIT")
                    self._note(before + 1)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _note(self, revision: int) -> None:
        """Take note how far the store has come.

        Raises:
            StoreError: It was further before.
        """
        if revision < self._seen:
            raise StoreError(
                f"{self._path}: is at revision {revision}, and was at {self._seen}: an older copy was put in its place"
            )
        self._seen = revision


def accept_restore(path: Path) -> tuple[list[str], list[str]]:
    """Take a store that came back from a backup into use: revoke again what was revoked since.

    Returns:
        The ids of grants that were revoked again, and of those that were given after the backup and are lost.

    Raises:
        ConfigurationError: It is no store, or there is no file of acknowledged changes to go by.
    """
    path = path.absolute()
    known = Acknowledged.read(_beside(path))
    if known is None:
        raise ConfigurationError(
            "there is no file of acknowledged changes: what was revoked since the backup is not known",
            where=str(_beside(path)),
            hint="put it back; if it is lost, move the store away and grant anew",
        )
    with _locked(path.parent):
        opened = _open(path)
    with contextlib.closing(opened) as connection:
        store_id = connection.execute("SELECT store_id FROM state").fetchone()[0]
        _check_same(path, store_id, known)
        connection.execute("BEGIN IMMEDIATE")
        present = {row[0] for row in connection.execute("SELECT grant_id FROM grants")}
        live = {row[0] for row in connection.execute("SELECT grant_id FROM grants WHERE revoked_at IS NULL")}
        again, lost = sorted(known.revoked & live), sorted(known.granted - present)
        newest = max(known.revision, connection.execute("SELECT revision FROM state").fetchone()[0])
        changes = [(newest + position, "revoked", grant_id) for position, grant_id in enumerate(again, 1)]
        for revision, _, grant_id in changes:
            _revoke(connection, grant_id, None, revision, path)
        _set_revision(connection, newest + len(again))
        connection.execute("COMMIT")
        if changes:
            known.append(changes)
    return again, lost


def _beside(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _open(path: Path) -> sqlite3.Connection:
    """Return a connection to a file that is a store of ours, made if it is not there; the directory is locked.

    The file itself is never opened here: closing it would drop the locks that SQLite holds on it for the process.
    """
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        temporary.replace(path)
        sync_directory(path.parent)
    check_private(path, path.lstat())
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, UnicodeError) as exc:
        # A text that is no UTF-8 any more, in the schema itself, is no error of SQLite's.
        raise ConfigurationError(
            f"cannot be used as a store of grants: {exc}",
            where=str(path),
            hint="restore it from a backup; a new file makes every sturdy reference void",
        ) from exc
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is whole and ours, and lay out a new one."""
    execute = connection.execute
    execute("PRAGMA trusted_schema = OFF")
    execute("PRAGMA cell_size_check = ON")
    application = execute("PRAGMA application_id").fetchone()[0]
    version = execute("PRAGMA user_version").fetchone()[0]
    if (application, version) == (0, 0) and not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        execute("PRAGMA journal_mode = WAL")
        execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            execute(statement)
        state = (1, secrets.token_hex(16), 0)
        execute("INSERT INTO state VALUES (?, ?, ?, ?)", (*state, seal_of(state)))
        execute(f"PRAGMA application_id = {APPLICATION_ID}")
        execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        execute("COMMIT")
    elif application != APPLICATION_ID:
        raise ConfigurationError(
            "is a database of another program", where=str(path), hint="name a file of its own for grants"
        )
    elif version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"is a store of version {version}, this release reads version {SCHEMA_VERSION}",
            where=str(path),
            hint="use the release of caprpc that wrote it",
        )
    mode = execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise ConfigurationError(
            f"journal mode is {mode}, WAL is needed", where=str(path), hint="keep it on a local file system"
        )
    execute("PRAGMA synchronous = FULL")
    verdict = execute("PRAGMA integrity_check(1)").fetchone()[0]
    tables = tuple(row[0] for row in execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"))
    if verdict == "ok" and tables != SCHEMA:
        verdict = "its tables are not those that were made"
    if verdict != "ok":
        raise ConfigurationError(f"is damaged: {verdict}", where=str(path), hint="put back a copy that is whole")
    _check_rows(connection, path)


def _check_rows(connection: sqlite3.Connection, path: Path) -> None:
    """Check every row against its seal, before any of them is believed.

    Raises:
        ConfigurationError: One is not as it was written.
    """
    try:
        for table in ("SELECT * FROM state", "SELECT * FROM grants"):
            for row in connection.execute(table):
                check_row(row, path)
    except StoreError as exc:
        raise ConfigurationError(
            "is damaged: a row is not as it was written", where=str(path), hint="put back a copy that is whole"
        ) from exc


def _revoke(connection: sqlite3.Connection, grant_id: str, at: float | None, revision: int, path: Path) -> bool:
    """End a grant that has not ended, as of the moment that it was given if none is named; whether there is one."""
    row = connection.execute("SELECT * FROM grants WHERE grant_id = ? AND revoked_at IS NULL", (grant_id,)).fetchone()
    if row is None:
        return False
    check_row(row, path)
    ended = sealed((*row[:8], row[6] if at is None else at, *row[9:11], revision))
    connection.execute(
        "UPDATE grants SET revoked_at = ?, revoked_revision = ?, seal = ? WHERE grant_id = ?",
        (ended[8], revision, ended[-1], grant_id),
    )
    return True


def _set_revision(connection: sqlite3.Connection, revision: int) -> None:
    store_id = connection.execute("SELECT store_id FROM state").fetchone()[0]
    connection.execute("UPDATE state SET revision = ?, seal = ?", (revision, seal_of((1, store_id, revision))))


def _checked(known: Acknowledged | None, path: Path, revision: int, store_id: str) -> Acknowledged:
    """Return what was acknowledged of a store that is not older than that.

    Raises:
        ConfigurationError: It is older, or nothing is there to tell.
    """
    if known is None:
        if revision:
            raise ConfigurationError(
                f"is missing, and the store is at revision {revision}: nobody can tell whether it is an old copy",
                where=str(_beside(path)),
                hint="put it back; if it is lost, move the store away and grant anew",
            )
        return Acknowledged.create(_beside(path), store_id)
    _check_same(path, store_id, known)
    if known.revision > revision:
        raise ConfigurationError(
            f"the store is at revision {revision}, and {known.revision} was acknowledged: it came back from an old "
            "backup, and what was revoked since would live again",
            where=str(path),
            hint=f"caprpc grants accept-restore {path}: it revokes again what was revoked since",
        )
    return known


def _check_same(path: Path, store_id: str, known: Acknowledged) -> None:
    if known.store_id != store_id:
        raise ConfigurationError(
            f"the store is {store_id}, {known.path.name} belongs to {known.store_id}",
            where=str(path),
            hint="put back the pair that belongs together",
        )


def _changes_after(connection: sqlite3.Connection, revision: int) -> list[tuple[int, str, str]]:
    rows: list[tuple[int, str, str]] = connection.execute(
        "SELECT granted_revision, 'granted', grant_id FROM grants WHERE granted_revision > ? UNION ALL "
        "SELECT revoked_revision, 'revoked', grant_id FROM grants WHERE revoked_revision > ? ORDER BY 1",
        (revision, revision),
    ).fetchall()
    return rows


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Let one process at a time make or check a store in a directory that nobody else can change.

    Raises:
        ConfigurationError: Others can exchange files in it, or it is not there.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise ConfigurationError(
            f"directory cannot be opened: {exc.strerror}", where=str(directory), hint="create it, or correct the name"
        ) from exc
    try:
        mode = os.fstat(descriptor).st_mode
        if mode & 0o022:
            raise ConfigurationError(
                f"directory is writable by others (mode {mode & 0o7777:04o})",
                where=str(directory),
                hint=f"chmod go-w {directory}",
            )
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
