"""What the stores that speak SQL share: tables, statements and rows. Written in SQLite's words; `?` is a parameter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from espalier_coordinator.model import NO_TALLIES, Ending, Job, Spent, TaskRecord
from espalier_coordinator.store import (
    Deposed,
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
from espalier_kit.errors import Permanent
from espalier_kit.execution import Dependency, TaskState, When

Row = tuple[Any, ...]
Rows = list[Row]

SCHEMA_VERSION = 2

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
  uid TEXT PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, priority INTEGER NOT NULL,
  suspended INTEGER NOT NULL, cancelled INTEGER NOT NULL, retries INTEGER NOT NULL, task_timeout_s REAL NOT NULL,
  submitted_at REAL NOT NULL, finished_at REAL NOT NULL, has_endpoints INTEGER NOT NULL,
  pool TEXT NOT NULL
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

PUT_JOB = """
INSERT INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (uid) DO UPDATE SET
  namespace=excluded.namespace, name=excluded.name, kind=excluded.kind, priority=excluded.priority,
  suspended=excluded.suspended, cancelled=excluded.cancelled, retries=excluded.retries,
  task_timeout_s=excluded.task_timeout_s, submitted_at=excluded.submitted_at, finished_at=excluded.finished_at,
  has_endpoints=excluded.has_endpoints, pool=excluded.pool
"""
PUT_TASK = "INSERT INTO tasks VALUES (?,?,?,?,?,?,?,?,?,?,0,0,0) ON CONFLICT DO NOTHING"
PUT_ENDING = """
INSERT INTO results SELECT * FROM (SELECT ? AS task_id,?,?,?,?,?,?,?,?,?,?) AS new
WHERE EXISTS (SELECT 1 FROM tasks WHERE id = new.task_id) ON CONFLICT DO NOTHING
"""
"""Nothing for a task that is not there: a group that is written twice leaves what it left the first time."""
_PUT_SPENT = "UPDATE tasks SET attempt=?, faults=?, lost=? WHERE id=?"
_LOAD_JOBS = "SELECT * FROM jobs ORDER BY submitted_at, uid"
_LOAD_TASKS = """
SELECT t.id, t.job_uid, t.sequence, t.key, t.type, t.payload, t.depends_on, t.timeout_s, t.retries, t.tags,
       t.attempt, t.faults, t.lost,
       r.state, r.attempts, r.reason, r.message, r.value, r.tallies, r.worker, r.execution_s, r.finished_at
FROM tasks t LEFT JOIN results r ON r.task_id = t.id ORDER BY t.sequence
"""
PUT_VERSION = "INSERT INTO meta VALUES ('schema', ?) ON CONFLICT DO NOTHING"
GET_VERSION = "SELECT value FROM meta WHERE name='schema'"
NEXT_EPOCH = """
INSERT INTO meta VALUES ('epoch', 1) ON CONFLICT (name) DO UPDATE SET value = meta.value + 1 RETURNING value
"""
GET_EPOCH = "SELECT value FROM meta WHERE name='epoch'"


def check_version(found: int, where: str) -> None:
    """Raise `Permanent` unless this version reads that schema; `where` names the database."""
    if found != SCHEMA_VERSION:
        raise Permanent(f"{where} has schema {found}, this version reads {SCHEMA_VERSION}: use the version that "
                        "wrote it, or a new one", reason="SchemaMismatch")


def check_epoch(mine: int, found: int) -> None:
    """Raise `Deposed` unless nobody has begun a later epoch. Call in the transaction that writes."""
    if found != mine:
        raise Deposed(f"epoch {found}, mine was {mine}")


def snapshot(select: Callable[[str], Iterator[Row]]) -> Snapshot:
    """Everything, by three queries."""
    return Snapshot(
        tuple(_job(row) for row in select(_LOAD_JOBS)), tuple(_task(row) for row in select(_LOAD_TASKS)),
        tuple(key for (key,) in select("SELECT key FROM workers")),
    )


_TASK_LEVEL: dict[type, tuple[str, Callable[[Any], Rows]]] = {
    PutTasks: (PUT_TASK, lambda w: [_task_row(record) for record in w.records]),
    PutSpent: (_PUT_SPENT, lambda w: [(w.spent.attempt, w.spent.faults, w.spent.lost, w.task_id)]),
    PutEnding: (PUT_ENDING, lambda w: [_ending_row(w)]),
}
"""Writes that may be collected by kind, in this order: they only ever add to what the kinds before them did."""


def batches(writes: Sequence[Write]) -> Iterator[tuple[str, Rows]]:
    """Statements with their rows: few with many rows instead of many with one; other writes keep their place."""
    collected: dict[type, Rows] = {kind: [] for kind in _TASK_LEVEL}
    for write in writes:
        if type(write) in collected:
            collected[type(write)].extend(_TASK_LEVEL[type(write)][1](write))
            continue
        yield from _drain(collected)
        yield from _statements(write)
    yield from _drain(collected)


def _drain(collected: dict[type, Rows]) -> Iterator[tuple[str, Rows]]:
    for kind, rows in collected.items():
        if rows:
            yield _TASK_LEVEL[kind][0], list(rows)
            rows.clear()


def _statements(write: Write) -> Iterator[tuple[str, Rows]]:
    match write:
        case PutJob(job):
            yield PUT_JOB, [_job_row(job)]
        case DropJob(uid):
            yield "DELETE FROM results WHERE task_id IN (SELECT id FROM tasks WHERE job_uid=?)", [(uid,)]
            yield "DELETE FROM tasks WHERE job_uid=?", [(uid,)]
            yield "DELETE FROM jobs WHERE uid=?", [(uid,)]
        case PutWorker(key):
            yield "INSERT INTO workers VALUES (?) ON CONFLICT DO NOTHING", [(key,)]
        case DropWorker(key):
            yield "DELETE FROM workers WHERE key=?", [(key,)]


def _job_row(job: Job) -> Row:
    return (
        job.uid, job.namespace, job.name, job.kind, job.priority, int(job.suspended), int(job.cancelled), job.retries,
        job.task_timeout_s, job.submitted_at, job.finished_at, int(job.has_endpoints), job.pool,
    )


def _job(row: Row) -> Job:
    uid, namespace, name, kind, priority, suspended, cancelled, retries, timeout_s, submitted, finished, *rest = row
    endpoints, pool = rest
    return Job(uid, namespace, name, kind, priority, bool(suspended), bool(cancelled), retries, timeout_s, submitted,
               finished, bool(endpoints), pool)


def _task_row(r: TaskRecord) -> Row:
    depends_on = json.dumps([[d.key, d.when] for d in r.depends_on]) if r.depends_on else None
    tags = json.dumps(r.tags) if r.tags else None
    return r.sequence, r.id, r.job_uid, r.key, r.type, r.payload, depends_on, float(r.timeout_s), r.retries, tags


def _ending_row(write: PutEnding) -> Row:
    e = write.ending
    tallies = json.dumps(dict(e.tallies)) if e.tallies else None
    return (write.task_id, write.job_uid, e.state.value, e.attempts, e.reason, e.message, e.value, tallies, e.worker,
            float(e.execution_s), float(e.finished_at))


def _task(row: Row) -> StoredTask:
    id_, job_uid, sequence, key, type_, payload, depends_on, timeout_s, retries, tags = row[:10]
    edges = tuple(Dependency(k, When(w)) for k, w in json.loads(depends_on)) if depends_on else ()
    record = TaskRecord(id_, job_uid, sequence, key, type_, payload, edges, timeout_s, retries,
                        tuple(json.loads(tags)) if tags else ())
    return StoredTask(record, Spent(*row[10:13]), _ending(row[13:]) if row[13] is not None else None)


def _ending(row: Row) -> Ending:
    state, attempts, reason, message, value, tallies, worker, execution_s, finished_at = row
    return Ending(TaskState(state), attempts, reason, message, value, json.loads(tallies) if tallies else NO_TALLIES,
                  worker, execution_s, finished_at)
