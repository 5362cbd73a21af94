"""What the stores that speak SQL share: tables and statements. Written in SQLite's words; `?` is a parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from espalier_coordinator.model import EndedJob, ended_job
from espalier_coordinator.store import (
    Archived,
    ArchiveJob,
    Contents,
    DeadLetter,
    Deposed,
    DropCached,
    DropJob,
    DropReservation,
    DropTemplate,
    DropWorker,
    PutCached,
    PutEnding,
    PutJob,
    PutReopened,
    PutReservation,
    PutSpent,
    PutTasks,
    PutTemplate,
    PutWorker,
    Snapshot,
    Write,
    rows,
)
from espalier_coordinator.store.rows import Row, Rows
from espalier_kit.errors import Permanent

Select = Callable[[str, Sequence[object]], Iterator[Row]]
"""Runs a query with its parameters."""

SCHEMA_VERSION = 3

META = "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID"

RESULTS = """
CREATE TABLE IF NOT EXISTS results (
  sequence INTEGER PRIMARY KEY, state TEXT NOT NULL, attempts INTEGER NOT NULL, reason TEXT NOT NULL,
  message TEXT NOT NULL, value BLOB NOT NULL, tallies TEXT, worker TEXT NOT NULL, execution_s REAL NOT NULL,
  finished_at REAL NOT NULL
)
"""
"""By the task's sequence: results come nearly in that order, and a key at random would touch a page of its own each."""

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS jobs (
  uid TEXT PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, priority INTEGER NOT NULL,
  suspended INTEGER NOT NULL, cancelled INTEGER NOT NULL, retries INTEGER NOT NULL, task_timeout_s REAL NOT NULL,
  submitted_at REAL NOT NULL, finished_at REAL NOT NULL, has_endpoints INTEGER NOT NULL,
  pool TEXT NOT NULL DEFAULT '', weight REAL NOT NULL DEFAULT 1, max_tasks_per_s REAL NOT NULL DEFAULT 0,
  max_running INTEGER NOT NULL DEFAULT 0, tags TEXT, cancel_reason TEXT NOT NULL DEFAULT '', summary TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tasks (
  sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, job_uid TEXT NOT NULL, key TEXT NOT NULL, type TEXT NOT NULL,
  payload BLOB NOT NULL, depends_on TEXT, timeout_s REAL NOT NULL, retries INTEGER, tags TEXT,
  attempt INTEGER NOT NULL DEFAULT 0, faults INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0,
  resources TEXT, cache TEXT
);
CREATE INDEX IF NOT EXISTS tasks_by_job ON tasks (job_uid);
{RESULTS};
CREATE INDEX IF NOT EXISTS results_failed ON results (sequence) WHERE state = 'failed';
CREATE TABLE IF NOT EXISTS workers (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS templates (
  namespace TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reservations (
  namespace TEXT NOT NULL, name TEXT NOT NULL, slots INTEGER NOT NULL, tags TEXT NOT NULL, job_uid TEXT NOT NULL,
  until REAL NOT NULL, PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cached (key TEXT PRIMARY KEY, value BLOB NOT NULL, tallies TEXT, created_at REAL NOT NULL)
  WITHOUT ROWID
"""

MIGRATIONS: Mapping[int, str] = {
    1: """
ALTER TABLE jobs ADD COLUMN pool TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN weight REAL NOT NULL DEFAULT 1;
ALTER TABLE jobs ADD COLUMN max_tasks_per_s REAL NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN max_running INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN tags TEXT;
ALTER TABLE jobs ADD COLUMN cancel_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN summary TEXT;
ALTER TABLE tasks ADD COLUMN resources TEXT;
ALTER TABLE tasks ADD COLUMN cache TEXT
""",
    2: f"""
ALTER TABLE results RENAME TO results_by_id;
{RESULTS};
INSERT INTO results SELECT t.sequence, r.state, r.attempts, r.reason, r.message, r.value, r.tallies, r.worker,
  r.execution_s, r.finished_at FROM results_by_id r JOIN tasks t ON t.id = r.task_id;
DROP TABLE results_by_id
""",
}
"""From a version to the next; tables and indexes that are new come from `SCHEMA` afterwards."""


def _columns(names: Sequence[str], prefix: str = "") -> str:
    return ", ".join(prefix + name for name in names)


def _upsert(table: str, columns: Sequence[str], key: str) -> str:
    values = ",".join("?" * len(columns))
    changes = ", ".join(f"{name}=excluded.{name}" for name in columns if name not in key.split(", "))
    return f"INSERT INTO {table} ({_columns(columns)}) VALUES ({values}) ON CONFLICT ({key}) DO UPDATE SET {changes}"


PUT_JOB = _upsert("jobs", rows.JOB, "uid") + ", summary=NULL"
PUT_TASK = (f"INSERT INTO tasks ({_columns(rows.TASK)}) VALUES ({','.join('?' * len(rows.TASK))}) "
            "ON CONFLICT DO NOTHING")
PUT_ENDING = """
INSERT INTO results SELECT * FROM (SELECT ? AS sequence,?,?,?,?,?,?,?,?,?) AS new
WHERE EXISTS (SELECT 1 FROM tasks WHERE sequence = new.sequence AND id = ?) ON CONFLICT DO NOTHING
"""
"""Nothing for a task that is not there: a group that is written twice leaves what it left the first time."""
_PUT_TEMPLATE = _upsert("templates", ("namespace", "name", "revision", "body"), "namespace, name")
_PUT_RESERVATION = _upsert("reservations", ("namespace", "name", "slots", "tags", "job_uid", "until"),
                           "namespace, name")
_PUT_SPENT = "UPDATE tasks SET attempt=?, faults=?, lost=? WHERE id=?"

_TASKS = (f"SELECT {_columns(rows.TASK, 't.')}, {_columns(rows.SPENT, 't.')}, {_columns(rows.ENDING, 'r.')} "
          "FROM tasks t LEFT JOIN results r ON r.sequence = t.sequence")
_LOAD_JOBS = f"SELECT {_columns(rows.JOB)} FROM jobs WHERE summary IS NULL ORDER BY submitted_at, uid"
_LOAD_TASKS = (f"{_TASKS} WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.uid = t.job_uid AND j.summary IS NOT NULL) "
               "ORDER BY t.sequence")
_JOB = f"SELECT {_columns(rows.JOB)} FROM jobs WHERE uid = ?"
_TASKS_OF_JOB = f"{_TASKS} WHERE t.job_uid = ? ORDER BY t.sequence"
_ARCHIVED = f"SELECT {_columns(rows.JOB)}, summary FROM jobs WHERE summary IS NOT NULL AND uid IN "
_FAILED_JOBS = ("SELECT DISTINCT t.job_uid FROM results r JOIN tasks t ON t.sequence = r.sequence "
                "WHERE r.state = 'failed'")
_DEAD_LETTERS = (f"SELECT j.namespace, {_columns(rows.TASK, 't.')}, {_columns(rows.SPENT, 't.')}, "
                 f"{_columns(rows.ENDING, 'r.')} FROM results r JOIN tasks t ON t.sequence = r.sequence "
                 "JOIN jobs j ON j.uid = t.job_uid WHERE r.state = 'failed' AND t.sequence > ? "
                 "AND (? = '' OR j.namespace = ?) AND (? = '' OR j.uid = ?) ORDER BY t.sequence LIMIT ?")
_CONTENTS = ("SELECT t.sequence, t.payload, r.value FROM tasks t LEFT JOIN results r ON r.sequence = t.sequence "
             "WHERE t.sequence > ? ORDER BY t.sequence LIMIT ?")

PUT_VERSION = "INSERT INTO meta VALUES ('schema', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
GET_VERSION = "SELECT value FROM meta WHERE name='schema'"
NEXT_EPOCH = """
INSERT INTO meta VALUES ('epoch', 1) ON CONFLICT (name) DO UPDATE SET value = meta.value + 1 RETURNING value
"""
GET_EPOCH = "SELECT value FROM meta WHERE name='epoch'"


def migrations(found: int | None, where: str) -> list[str]:
    """Statements that make a database of version `found` (None: empty) one of this version, in one transaction.

    Raises `Permanent` for a version that is not known; `where` names the database.
    """
    if found is not None and not 1 <= found <= SCHEMA_VERSION:
        raise Permanent(f"{where} has schema {found}, this version reads up to {SCHEMA_VERSION}: use the version that "
                        "wrote it, or a new one", reason="SchemaMismatch")
    steps = [MIGRATIONS[n] for n in range(found or SCHEMA_VERSION, SCHEMA_VERSION)]
    return [statement for step in [*steps, SCHEMA] for statement in step.split(";")]


def check_epoch(mine: int, found: int) -> None:
    """Raise `Deposed` unless nobody has begun a later epoch. Call in the transaction that writes."""
    if found != mine:
        raise Deposed(f"epoch {found}, mine was {mine}")


def snapshot(select: Select) -> Snapshot:
    """Everything that is not archived."""
    ((last,),) = select("SELECT coalesce(max(sequence), 0) FROM tasks", ())
    return Snapshot(
        tuple(rows.job(row) for row in select(_LOAD_JOBS, ())),
        tuple(rows.task(row) for row in select(_LOAD_TASKS, ())),
        tuple(key for (key,) in select("SELECT key FROM workers", ())),
        tuple(map(rows.template, select("SELECT namespace, name, revision, body FROM templates", ()))),
        tuple(map(rows.reservation, select(
            "SELECT namespace, name, slots, tags, job_uid, until FROM reservations", ()))),
        tuple(map(rows.cached, select("SELECT key, value, tallies, created_at FROM cached ORDER BY created_at, key",
                                      ()))),
        _ended_jobs(select), last,
    )


def one_job(select: Select, uid: str) -> Snapshot:
    """A job with its tasks, archived or not."""
    return Snapshot(tuple(map(rows.job, select(_JOB, (uid,)))), tuple(map(rows.task, select(_TASKS_OF_JOB, (uid,)))))


def _ended_jobs(select: Select) -> tuple[tuple[str, EndedJob], ...]:
    """What memory keeps of archived jobs; their summaries, which may be long, stay where they are."""
    failed = {uid for (uid,) in select(_FAILED_JOBS, ())}
    found = select(f"SELECT {_columns(rows.JOB)} FROM jobs WHERE summary IS NOT NULL ORDER BY uid", ())
    return tuple((job.uid, ended_job(job, has_failed=job.uid in failed)) for job in map(rows.job, found))


def archived(select: Select, uids: Sequence[str]) -> tuple[Archived, ...]:
    """Those of these jobs that are archived."""
    if not uids:
        return ()
    found = select(f"{_ARCHIVED}({','.join('?' * len(uids))})", tuple(uids))
    return tuple(Archived(rows.job(row[:-1]), row[-1]) for row in found)


def dead_letters(
    select: Select, namespace: str | None, job_uid: str, after: int, limit: int
) -> tuple[DeadLetter, ...]:
    """A page of failed tasks."""
    found = select(_DEAD_LETTERS, (after, namespace or "", namespace or "", job_uid, job_uid, limit))
    return tuple(DeadLetter(row[0], rows.task(row[1:])) for row in found)


def contents(select: Select, after: int, limit: int) -> tuple[Contents, ...]:
    """A page of what all tasks carry."""
    found = select(_CONTENTS, (after, limit))
    return tuple((number, (payload, *((value,) if value is not None else ()))) for number, payload, value in found)


_TASK_LEVEL: dict[type, tuple[str, Callable[[Any], Rows]]] = {
    PutTasks: (PUT_TASK, lambda w: [rows.task_row(record) for record in w.records]),
    PutSpent: (_PUT_SPENT, lambda w: [(w.spent.attempt, w.spent.faults, w.spent.lost, w.task_id)]),
    PutEnding: (PUT_ENDING, lambda w: [rows.ending_row(w)]),
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
    for kind, found in collected.items():
        if found:
            yield _TASK_LEVEL[kind][0], list(found)
            found.clear()


def _statements(write: Write) -> Iterator[tuple[str, Rows]]:
    match write:
        case PutJob(job):
            yield PUT_JOB, [rows.job_row(job)]
        case PutReopened(task_id, spent):
            yield "DELETE FROM results WHERE sequence IN (SELECT sequence FROM tasks WHERE id=?)", [(task_id,)]
            yield _PUT_SPENT, [(spent.attempt, spent.faults, spent.lost, task_id)]
        case ArchiveJob(uid, summary):
            yield "UPDATE jobs SET summary=? WHERE uid=?", [(summary, uid)]
        case DropJob(uid):
            yield "DELETE FROM results WHERE sequence IN (SELECT sequence FROM tasks WHERE job_uid=?)", [(uid,)]
            yield "DELETE FROM tasks WHERE job_uid=?", [(uid,)]
            yield "DELETE FROM jobs WHERE uid=?", [(uid,)]
        case PutWorker(key):
            yield "INSERT INTO workers VALUES (?) ON CONFLICT DO NOTHING", [(key,)]
        case DropWorker(key):
            yield "DELETE FROM workers WHERE key=?", [(key,)]
        case _:
            yield from _named(write)


def _named(write: Write) -> Iterator[tuple[str, Rows]]:
    match write:
        case PutTemplate(template):
            yield _PUT_TEMPLATE, [rows.template_row(template)]
        case DropTemplate(namespace, name):
            yield "DELETE FROM templates WHERE namespace=? AND name=?", [(namespace, name)]
        case PutReservation(reservation):
            yield _PUT_RESERVATION, [rows.reservation_row(reservation)]
        case DropReservation(namespace, name):
            yield "DELETE FROM reservations WHERE namespace=? AND name=?", [(namespace, name)]
        case PutCached(cached):
            yield "INSERT INTO cached VALUES (?,?,?,?) ON CONFLICT DO NOTHING", [rows.cached_row(cached)]
        case DropCached(keys):
            yield "DELETE FROM cached WHERE key=?", [(key,) for key in keys]
