"""SQLite: WAL and `synchronous=FULL`, so that a commit is on the disk when it returns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espalier_coordinator.model import NO_TALLIES, Ending, Job, Spent, TaskRecord
from espalier_coordinator.store import (
    DropJob,
    DropWorker,
    PutEnding,
    PutJob,
    PutSpent,
    PutTasks,
    PutWorker,
    Snapshot,
    StoredTask,
    Write,
)
from espalier_kit.errors import Permanent, Retryable
from espalier_kit.execution import Dependency, TaskState, When

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
  uid TEXT PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, priority INTEGER NOT NULL,
  suspended INTEGER NOT NULL, cancelled INTEGER NOT NULL, retries INTEGER NOT NULL, task_timeout_s REAL NOT NULL,
  submitted_at REAL NOT NULL, finished_at REAL NOT NULL, has_endpoints INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tasks (
  sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, job_uid TEXT NOT NULL, key TEXT NOT NULL, type TEXT NOT NULL,
  payload BLOB NOT NULL, depends_on TEXT, timeout_s REAL NOT NULL, retries INTEGER, tags TEXT,
  attempt INTEGER NOT NULL DEFAULT 0, faults INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS tasks_by_job ON tasks (job_uid);
CREATE TABLE IF NOT EXISTS results (
  task_id TEXT PRIMARY KEY, job_uid TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, reason TEXT NOT NULL,
  message TEXT NOT NULL, value BLOB NOT NULL, tallies TEXT, worker TEXT NOT NULL, execution_s REAL NOT NULL,
  finished_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS workers (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_PUT_JOB = "INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
_PUT_TASK = "INSERT OR IGNORE INTO tasks VALUES (?,?,?,?,?,?,?,?,?,?,0,0,0)"
_PUT_SPENT = "UPDATE tasks SET attempt=?, faults=?, lost=? WHERE id=?"
_PUT_ENDING = "INSERT OR IGNORE INTO results VALUES (?,?,?,?,?,?,?,?,?,?,?)"
_LOAD_TASKS = """
SELECT t.id, t.job_uid, t.sequence, t.key, t.type, t.payload, t.depends_on, t.timeout_s, t.retries, t.tags,
       t.attempt, t.faults, t.lost,
       r.state, r.attempts, r.reason, r.message, r.value, r.tallies, r.worker, r.execution_s, r.finished_at
FROM tasks t LEFT JOIN results r ON r.task_id = t.id ORDER BY t.sequence
"""


class SqliteStore:
    """One database file. The process that opens it holds it alone: a second one is refused."""

    def __init__(self, path: Path, *, wait_s: float = 5.0, max_bytes: int | None = None) -> None:
        """Waits `wait_s` seconds for a former process to let go; `max_bytes` is where the database refuses to grow."""
        with _translated():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=wait_s)
        try:
            with _translated():
                self._prepare(path, max_bytes)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, path: Path, max_bytes: int | None) -> None:
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY"):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        if max_bytes is not None:
            (page_bytes,) = self._db.execute("PRAGMA page_size").fetchone()
            self._db.execute(f"PRAGMA max_page_count={max_bytes // page_bytes}").fetchall()
        self._db.executescript(_SCHEMA)
        self._check_version(path)

    def _check_version(self, path: Path) -> None:
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (SCHEMA_VERSION,))
        (found,) = self._db.execute("SELECT value FROM meta WHERE name='schema'").fetchone()
        if found != SCHEMA_VERSION:
            raise Permanent(f"{path} has schema {found}, this version reads {SCHEMA_VERSION}: use the version that "
                            "wrote it, or a new volume", reason="SchemaMismatch")

    def begin_epoch(self) -> int:
        with _translated():
            row = self._db.execute(
                "INSERT INTO meta VALUES ('epoch', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 "
                "RETURNING value"
            ).fetchall()
        return int(row[0][0])

    def load(self) -> Snapshot:
        with _translated():
            jobs = tuple(_job(row) for row in self._db.execute("SELECT * FROM jobs ORDER BY submitted_at, uid"))
            tasks = tuple(_task(row) for row in self._db.execute(_LOAD_TASKS))
            workers = tuple(key for (key,) in self._db.execute("SELECT key FROM workers"))
        return Snapshot(jobs, tasks, workers)

    def commit(self, writes: Sequence[Write]) -> None:
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for statement, rows in _batches(writes):
                    self._db.executemany(statement, rows)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        self._db.close()


_TASK_LEVEL: dict[type, tuple[str, Callable[[Any], list[tuple[Any, ...]]]]] = {
    PutTasks: (_PUT_TASK, lambda w: [_task_row(record) for record in w.records]),
    PutSpent: (_PUT_SPENT, lambda w: [(w.spent.attempt, w.spent.faults, w.spent.lost, w.task_id)]),
    PutEnding: (_PUT_ENDING, lambda w: [_ending_row(w)]),
}
"""Writes that may be collected by kind, in this order: they only ever add to what the kinds before them did."""


def _batches(writes: Sequence[Write]) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """Statements with their rows: few `executemany` instead of many `execute`; other writes keep their place."""
    collected: dict[type, list[tuple[Any, ...]]] = {kind: [] for kind in _TASK_LEVEL}
    for write in writes:
        if type(write) in collected:
            collected[type(write)].extend(_TASK_LEVEL[type(write)][1](write))
            continue
        yield from _drain(collected)
        yield from _statements(write)
    yield from _drain(collected)


def _drain(collected: dict[type, list[tuple[Any, ...]]]) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    for kind, rows in collected.items():
        if rows:
            yield _TASK_LEVEL[kind][0], list(rows)
            rows.clear()


def _statements(write: Write) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    match write:
        case PutJob(job):
            yield _PUT_JOB, [_job_row(job)]
        case DropJob(uid):
            yield "DELETE FROM results WHERE task_id IN (SELECT id FROM tasks WHERE job_uid=?)", [(uid,)]
            yield "DELETE FROM tasks WHERE job_uid=?", [(uid,)]
            yield "DELETE FROM jobs WHERE uid=?", [(uid,)]
        case PutWorker(key):
            yield "INSERT OR IGNORE INTO workers VALUES (?)", [(key,)]
        case DropWorker(key):
            yield "DELETE FROM workers WHERE key=?", [(key,)]


@contextmanager
def _translated() -> Iterator[None]:
    """SQLite's own errors into ours: a full or locked disk may pass, anything else is a bug and stays what it is."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Retryable(f"the database cannot write: {error}; free space on the data volume", reason="StoreUnavailable"
                        ) from error


def _job_row(job: Job) -> tuple[Any, ...]:
    return (
        job.uid, job.namespace, job.name, job.kind, job.priority, job.suspended, job.cancelled, job.retries,
        job.task_timeout_s, job.submitted_at, job.finished_at, job.has_endpoints,
    )


def _job(row: tuple[Any, ...]) -> Job:
    uid, namespace, name, kind, priority, suspended, cancelled, retries, timeout_s, submitted, finished, endpoints = row
    return Job(uid, namespace, name, kind, priority, bool(suspended), bool(cancelled), retries, timeout_s, submitted,
               finished, bool(endpoints))


def _task_row(r: TaskRecord) -> tuple[Any, ...]:
    depends_on = json.dumps([[d.key, d.when] for d in r.depends_on]) if r.depends_on else None
    tags = json.dumps(r.tags) if r.tags else None
    return r.sequence, r.id, r.job_uid, r.key, r.type, r.payload, depends_on, r.timeout_s, r.retries, tags


def _ending_row(write: PutEnding) -> tuple[Any, ...]:
    e = write.ending
    tallies = json.dumps(dict(e.tallies)) if e.tallies else None
    return (write.task_id, write.job_uid, e.state, e.attempts, e.reason, e.message, e.value, tallies, e.worker,
            e.execution_s, e.finished_at)


def _task(row: tuple[Any, ...]) -> StoredTask:
    id_, job_uid, sequence, key, type_, payload, depends_on, timeout_s, retries, tags = row[:10]
    edges = tuple(Dependency(k, When(w)) for k, w in json.loads(depends_on)) if depends_on else ()
    record = TaskRecord(id_, job_uid, sequence, key, type_, payload, edges, timeout_s, retries,
                        tuple(json.loads(tags)) if tags else ())
    return StoredTask(record, Spent(*row[10:13]), _ending(row[13:]) if row[13] is not None else None)


def _ending(row: tuple[Any, ...]) -> Ending:
    state, attempts, reason, message, value, tallies, worker, execution_s, finished_at = row
    return Ending(TaskState(state), attempts, reason, message, value, json.loads(tallies) if tallies else NO_TALLIES,
                  worker, execution_s, finished_at)
