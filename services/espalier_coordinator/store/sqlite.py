"""SQLite: WAL and `synchronous=FULL`, so that a commit is on the disk when it returns."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from espalier_coordinator.store import Archived, Contents, DeadLetter, Snapshot, Write, relational
from espalier_kit.errors import Retryable

_SAFE = ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL")
_FAST = ("temp_store=MEMORY", "cache_size=-32768", "wal_autocheckpoint=4000")
"""32 MiB of pages in memory, and pages go from the log into the database every 16 MiB: ids are keys at random, so that
pages are changed again and again. What a commit promises does not depend on any of these."""


class SqliteStore:
    """One database file. The process that opens it holds it alone: a second one is refused."""

    def __init__(self, path: Path, *, wait_s: float = 5.0, max_bytes: int | None = None) -> None:
        """Waits `wait_s` seconds for a former process to let go; `max_bytes` is where the database refuses to grow."""
        with _translated():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=wait_s)
        try:
            with _translated():
                self._prepare(path, max_bytes)
                self._epoch = self._found_epoch()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, path: Path, max_bytes: int | None) -> None:
        for pragma in (*_SAFE, *_FAST):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        if max_bytes is not None:
            (page_bytes,) = self._db.execute("PRAGMA page_size").fetchone()
            self._db.execute(f"PRAGMA max_page_count={max_bytes // page_bytes}").fetchall()
        with self._transaction():
            self._db.execute(relational.META)
            found = self._db.execute(relational.GET_VERSION).fetchone()
            for statement in relational.migrations(found[0] if found else None, str(path)):
                self._db.execute(statement)
            self._db.execute(relational.PUT_VERSION, (relational.SCHEMA_VERSION,))

    def _found_epoch(self) -> int:
        row = self._db.execute(relational.GET_EPOCH).fetchone()
        return int(row[0]) if row else 0

    def begin_epoch(self) -> int:
        with _translated():
            (row,) = self._db.execute(relational.NEXT_EPOCH).fetchall()
        self._epoch = int(row[0])
        return self._epoch

    def load(self) -> Snapshot:
        with _translated():
            return relational.snapshot(self._db.execute)

    def job(self, uid: str) -> Snapshot:
        with _translated():
            return relational.one_job(self._db.execute, uid)

    def archived(self, uids: Sequence[str]) -> tuple[Archived, ...]:
        with _translated():
            return relational.archived(self._db.execute, uids)

    def dead_letters(
        self, namespace: str | None, *, job_uid: str = "", after: int = 0, limit: int = 1000
    ) -> tuple[DeadLetter, ...]:
        with _translated():
            return relational.dead_letters(self._db.execute, namespace, job_uid, after, limit)

    def contents(self, *, after: int = 0, limit: int = 1000) -> tuple[Contents, ...]:
        with _translated():
            return relational.contents(self._db.execute, after, limit)

    def commit(self, writes: Sequence[Write]) -> None:
        with _translated(), self._transaction():
            relational.check_epoch(self._epoch, self._found_epoch())
            for statement, rows in relational.batches(writes):
                self._db.executemany(statement, rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._db.close()


_SHARED = "another process uses its file: one folder is for one coordinator"
_REMEDIES = {
    sqlite3.SQLITE_BUSY: _SHARED, sqlite3.SQLITE_LOCKED: _SHARED,
    sqlite3.SQLITE_FULL: "free space on the data volume", sqlite3.SQLITE_IOERR: "free space on the data volume",
    sqlite3.SQLITE_READONLY: "let the coordinator's user write there",
    sqlite3.SQLITE_CANTOPEN: "let the coordinator's user write there",
}
"""By SQLite's primary result code."""


@contextmanager
def _translated() -> Iterator[None]:
    """SQLite's own errors into ours: a full or locked disk may pass, anything else is a bug and stays what it is."""
    try:
        yield
    except sqlite3.OperationalError as error:
        remedy = _REMEDIES.get(error.sqlite_errorcode & 0xFF, "see whether the data volume is there and well")
        raise Retryable(f"the database cannot be used: {error}; {remedy}", reason="StoreUnavailable") from error
