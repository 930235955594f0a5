"""The rows of a ledger in SQLite, on the disk when a commit returns (DP-5.1)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from fedbcs_secure.errors import LedgerError
from fedbcs_secure.files import lock, sync_folder
from fedbcs_secure.privacy.chain import MAX_CONTENT_BYTES, START, Head, Row
from fedbcs_secure.privacy.releases import cannot, private_folder

_VERSION = 2


_TABLE = (
    "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, content BLOB NOT NULL, "
    "hash BLOB NOT NULL, signature BLOB NOT NULL)"
)


_PUT_BACK = (
    "put back the latest good copy with its -wal file; without it the site cannot know what it has "
    "spent, and takes no part"
)


_UNTOUCHED = "Nothing was released. Mend it and start again: it goes on where it was"


_FAILURES = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "the file or its folder is read-only",
    "SQLITE_CANTOPEN": "the file or its folder cannot be opened",
    "SQLITE_PERM": "the permissions forbid it",
    "SQLITE_BUSY": "another program uses it",
    "SQLITE_LOCKED": "another program uses it",
    "SQLITE_IOERR": "the disk is full, or fails",
}


class Store:
    """The rows of a ledger in SQLite, for one process. Every failure is a :class:`LedgerError`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, held: TextIO | None) -> None:
        self._path, self._connection, self._held = path, connection, held

    @classmethod
    def open(cls, path: Path) -> Store:
        """Take the lock, make the file if there is none, and check that it is a ledger."""
        held = hold(path)
        connection = None
        try:
            with _named(path):
                # SQLite gives its -wal file the same mode.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                if os.name != "nt":
                    path.chmod(0o600)
                sync_folder(path.parent)
                connection = connect(path)
                _prepare(path, connection)
            return cls(path, connection, held)
        except BaseException:
            if connection is not None:
                connection.close()
            if held is not None:
                held.close()
            raise

    def rows(self) -> Iterator[Row]:
        """All entries in order; each bounded before it is read."""
        query = "SELECT sequence, content, hash, signature FROM entries ORDER BY sequence"
        with _named(self._path):
            for sequence, *parts in self._connection.execute(query):
                if not all(isinstance(part, bytes) for part in parts):
                    raise LedgerError(f"entry {sequence} of the ledger {self._path} is not bytes")
                yield Row(sequence, *parts)

    def append(self, row: Row, behind: Head) -> None:
        """Commit ``row`` if ``behind`` is still the last entry; on the disk on return."""
        run = self._connection.execute
        with _named(self._path):
            run("BEGIN IMMEDIATE")
            try:
                query = "SELECT sequence, hash FROM entries ORDER BY sequence DESC LIMIT 1"
                last = run(query).fetchone() or (START.sequence, START.hash)
                if last != (behind.sequence, behind.hash):
                    raise LedgerError(
                        f"another program wrote to the ledger {self._path}; close it, and find out "
                        "which before the site goes on"
                    )
                values = row.sequence, row.content, row.hash, row.signature
                run("INSERT INTO entries VALUES (?, ?, ?, ?)", values)
                run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    run("ROLLBACK")
                raise

    def check_pages(self) -> None:
        """Raises :class:`LedgerError` when SQLite finds the file damaged."""
        with _named(self._path):
            found = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != ("ok",):
            raise LedgerError(_damaged(self._path))

    def close(self) -> None:
        """Close the file, then let go of the lock."""
        with _named(self._path):
            self._connection.close()
        if self._held is not None:
            self._held.close()


def hold(path: Path) -> TextIO | None:
    """A lock on the ledger at ``path`` until what is returned is closed, or the process ends.

    Raises :class:`LedgerError` when another has it. None on Windows, which has no such lock; the
    head that every commit checks guards it there (DP-5.1).
    """
    try:
        private_folder(path.parent)
        return lock(path)
    except BlockingIOError:
        raise LedgerError(
            f"another process of this site uses the ledger {path}; wait until it has ended: two "
            "at once could spend one budget twice"
        ) from None
    except OSError as error:
        raise cannot("lock the ledger", path, error) from None


def connect(path: Path) -> sqlite3.Connection:
    """A connection without transactions of Python's own."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1)


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    """DP-5.1: settings under which a commit is on the disk, and the one table."""
    run = connection.execute
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CONTENT_BYTES + 1024)
    run("PRAGMA trusted_schema = OFF")
    if run("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise LedgerError(f"the disk of {path} cannot keep a ledger: it has no shared memory files")
    # With WAL, FULL syncs every commit.
    for setting in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON"):
        run(f"PRAGMA {setting}")
    (version,) = run("PRAGMA user_version").fetchone()
    schema = run("SELECT sql FROM sqlite_schema").fetchall()
    if version == 0 and not schema:
        run("BEGIN IMMEDIATE")
        run(_TABLE)
        run(f"PRAGMA user_version = {_VERSION}")
        run("COMMIT")
    elif 0 < version < _VERSION:
        raise LedgerError(
            f"the ledger {path} is of version {version}, made by an older program: its entries do "
            "not say whether patients or single images were hidden. Go on with that program, or "
            "start a new ledger in another folder if nothing was ever released about a patient"
        )
    elif version > _VERSION:
        raise LedgerError(
            f"the ledger {path} is of version {version}, made by a newer program; this one knows "
            f"version {_VERSION}: use the newer one"
        )
    elif version != _VERSION or schema != [(_TABLE,)]:
        raise LedgerError(f"{path} is no privacy ledger, or one that was changed; {_PUT_BACK}")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn failures of SQLite and of the system into sentences."""
    try:
        yield
    except OSError as error:
        raise cannot("open the ledger", path, error) from None
    except UnicodeDecodeError:  # in SQLite's own message about it
        raise LedgerError(_damaged(path)) from None
    except (sqlite3.Error, OverflowError) as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_TOOBIG")):
            raise LedgerError(_damaged(path)) from None
        for start, what in _FAILURES.items():
            if name.startswith(start):
                raise LedgerError(f"cannot write the ledger {path}: {what}. {_UNTOUCHED}") from None
        raise LedgerError(f"cannot use the ledger {path}: {error}. {_UNTOUCHED}") from None


def _damaged(path: Path) -> str:
    return f"the ledger {path} is damaged; {_PUT_BACK}"
