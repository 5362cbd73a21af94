"""What every task store must do, the durable ones and the one that forgets."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest

from espalier_coordinator.cache import Cached
from espalier_coordinator.model import EndedJob, Ending, Job, NewTask, Spent, TaskRecord, record_of
from espalier_coordinator.reservations import Reservation
from espalier_coordinator.store import (
    Archived,
    ArchiveJob,
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
    StoredTask,
    TaskStore,
)
from espalier_coordinator.store.memory import MemoryStore
from espalier_coordinator.store.postgres import AWAY, PostgresStore, connect
from espalier_coordinator.store.sqlite import SqliteStore
from espalier_coordinator.templates import Template
from espalier_kit.errors import Permanent, Retryable
from espalier_kit.execution import Dependency, TaskState, When
from tests.support.postgres import PostgresServer, running_server

Reopen = Callable[[], TaskStore]

JOB = Job("u", "ns", "n", "GradingJob", 3, True, False, 2, 60.5, 1000.25, 0.0, True, "pool", 2.5, 10.0, 7,
          ("night", "gpu"), "enough")
A = record_of("u", NewTask("a", "t", b"\x00{}", (), 1.5, 0, ("gpu", "arm"), (("gpu", 0.5), ("memoryGiB", 4.0)),
                           "read-write"), 1)
B = record_of("u", NewTask("b", "t", depends_on=(Dependency("a"), Dependency("c", When.FINISHED))), 2)
VERSION_1 = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
  uid TEXT PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, priority INTEGER NOT NULL,
  suspended INTEGER NOT NULL, cancelled INTEGER NOT NULL, retries INTEGER NOT NULL, task_timeout_s REAL NOT NULL,
  submitted_at REAL NOT NULL, finished_at REAL NOT NULL, has_endpoints INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE tasks (
  sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, job_uid TEXT NOT NULL, key TEXT NOT NULL, type TEXT NOT NULL,
  payload BLOB NOT NULL, depends_on TEXT, timeout_s REAL NOT NULL, retries INTEGER, tags TEXT,
  attempt INTEGER NOT NULL DEFAULT 0, faults INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tasks_by_job ON tasks (job_uid);
CREATE TABLE results (
  task_id TEXT PRIMARY KEY, job_uid TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, reason TEXT NOT NULL,
  message TEXT NOT NULL, value BLOB NOT NULL, tallies TEXT, worker TEXT NOT NULL, execution_s REAL NOT NULL,
  finished_at REAL NOT NULL
);
CREATE TABLE workers (key TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema', 1), ('epoch', 7);
INSERT INTO jobs VALUES ('u', 'ns', 'n', 'GradingJob', 3, 1, 0, 2, 60.5, 1000.25, 0.0, 1);
INSERT INTO tasks VALUES (1, '{A.id}', 'u', 'a', 't', X'7B7D', NULL, 1.5, 0, '["gpu"]', 2, 1, 1);
INSERT INTO results VALUES
  ('{A.id}', 'u', 'done', 2, 'r', 'm', X'7B2276223A317D', '{{"points": 1.25}}', 'ns/w', 0.5, 1001.5);
INSERT INTO workers VALUES ('ns/w')
"""
"""A database as the version before wrote it, with one finished task."""
DONE = Ending(TaskState.DONE, 2, "r", "m", b'{"v":1}', {"points": 1.25}, "ns/w", 0.5, 1001.5)
FAILED = Ending(TaskState.FAILED, 1, "PlatformFault", "late")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Opens the same store again, as a restarted process would."""
    opened: list[TaskStore] = []
    stores: dict[str, Callable[[], Reopen]] = {
        "memory": lambda: _always(MemoryStore()),
        "sqlite": lambda: lambda: SqliteStore(tmp_path / "coordinator.db"),
        "postgres": lambda: _postgres(request.getfixturevalue("postgres").new_database()),
    }
    make = stores[request.param]()

    def again() -> TaskStore:
        if opened:
            opened.pop().close()
        opened.append(make())
        return opened[-1]

    yield again
    for store in opened:
        store.close()


def _always(store: TaskStore) -> Reopen:
    return lambda: store


def _postgres(url: str) -> Reopen:
    return lambda: PostgresStore(url)


def stored(record: TaskRecord, spent: Spent | None = None, ending: Ending | None = None) -> StoredTask:
    return StoredTask(record, spent or Spent(), ending)


def test_a_new_store_is_empty(reopen: Reopen) -> None:
    snapshot = reopen().load()
    assert (snapshot.jobs, snapshot.tasks, snapshot.workers) == ((), (), ())


def test_each_start_is_another_epoch(reopen: Reopen) -> None:
    assert [reopen().begin_epoch() for _ in range(3)] == [1, 2, 3]


def test_everything_comes_back_as_it_was(reopen: Reopen) -> None:
    reopen().commit([
        PutJob(JOB), PutTasks((A, B)), PutSpent(A.id, Spent(2, 1, 1)), PutEnding(A, DONE), PutWorker("ns/w"),
    ])
    snapshot = reopen().load()
    assert snapshot.jobs == (JOB,)
    assert snapshot.tasks == (stored(A, Spent(2, 1, 1), DONE), stored(B))
    assert snapshot.workers == ("ns/w",)


def test_tasks_come_back_in_the_order_of_their_sequence(reopen: Reopen) -> None:
    reopen().commit([PutJob(JOB), PutTasks((B,)), PutTasks((A,))])
    assert [t.record.sequence for t in reopen().load().tasks] == [1, 2]


def test_a_job_is_replaced(reopen: Reopen) -> None:
    store = reopen()
    store.commit([PutJob(JOB)])
    later = Job("u", "ns", "n", cancelled=True, finished_at=5.0)
    store.commit([PutJob(later)])
    assert reopen().load().jobs == (later,)


def test_a_task_that_is_there_is_left_as_it_is(reopen: Reopen) -> None:
    store = reopen()
    store.commit([PutJob(JOB), PutTasks((A,))])
    store.commit([PutTasks((record_of("u", NewTask("a", "other", b"new"), 9),))])
    assert reopen().load().tasks == (stored(A),)


@pytest.mark.parametrize("is_one_commit", [True, False])
def test_the_first_result_of_a_task_is_kept(reopen: Reopen, is_one_commit: bool) -> None:
    store = reopen()
    store.commit([PutJob(JOB), PutTasks((A,))])
    writes = [PutEnding(A, DONE), PutEnding(A, FAILED)]
    for group in [writes] if is_one_commit else [[w] for w in writes]:
        store.commit(group)
    assert reopen().load().tasks == (stored(A, None, DONE),)


def test_a_dropped_job_takes_its_tasks_and_results_and_nobody_elses(reopen: Reopen) -> None:
    store = reopen()
    other = record_of("v", NewTask("a", "t"), 3)
    store.commit([PutJob(JOB), PutJob(Job("v", "ns", "m", submitted_at=1.0)), PutTasks((A, other)),
                  PutEnding(A, DONE), PutEnding(other, DONE)])
    store.commit([DropJob("u")])
    snapshot = reopen().load()
    assert [j.uid for j in snapshot.jobs] == ["v"]
    assert snapshot.tasks == (stored(other, None, DONE),)


def test_a_job_dropped_and_put_again_in_one_commit_starts_anew(reopen: Reopen) -> None:
    store = reopen()
    store.commit([PutJob(JOB), PutTasks((A,)), PutEnding(A, DONE)])
    store.commit([DropJob("u"), PutJob(JOB), PutTasks((A,))])
    assert reopen().load().tasks == (stored(A),)


def test_dropping_what_is_not_there_is_success(reopen: Reopen) -> None:
    reopen().commit([DropJob("nobody"), DropWorker("nobody")])


def test_workers_are_a_set(reopen: Reopen) -> None:
    store = reopen()
    store.commit([PutWorker("a"), PutWorker("a"), PutWorker("b"), DropWorker("a")])
    assert reopen().load().workers == ("b",)


def test_a_group_written_twice_leaves_what_it_left_the_first_time(reopen: Reopen) -> None:
    """The answer to a commit may get lost: whoever asked writes it again."""
    store = reopen()
    other = Job("v", "ns", "m", submitted_at=1.0)
    store.commit([PutJob(JOB), PutJob(other), PutTasks((A,))])
    group = [
        PutWorker("w"), PutSpent(A.id, Spent(1, 1, 0)), PutEnding(A, DONE), DropJob("u"), PutJob(JOB),
        PutTasks((B,)), PutSpent(B.id, Spent(1, 0, 1)), PutSpent(B.id, Spent(2, 0, 2)), DropJob("v"), DropWorker("w"),
    ]
    store.commit(group)
    first = reopen().load()
    reopen().commit(group)
    assert reopen().load() == first
    reopen().commit([PutTasks((A,))])
    assert reopen().load().tasks == (stored(A), stored(B, Spent(2, 0, 2)))


def test_a_result_of_a_task_that_is_gone_is_not_kept(reopen: Reopen) -> None:
    reopen().commit([PutJob(JOB), PutEnding(A, DONE)])
    reopen().commit([PutTasks((A,))])
    assert reopen().load().tasks == (stored(A),)


def test_a_reopened_task_is_open_and_takes_the_next_result(reopen: Reopen) -> None:
    reopen().commit([PutJob(JOB), PutTasks((A,)), PutEnding(A, FAILED)])
    reopen().commit([PutReopened(A.id, Spent(1, 0, 0))])
    assert reopen().load().tasks == (stored(A, Spent(1, 0, 0)),)
    reopen().commit([PutEnding(A, DONE)])
    assert reopen().load().tasks == (stored(A, Spent(1, 0, 0), DONE),)


def test_a_group_that_reopens_leaves_the_same_when_it_is_written_twice(reopen: Reopen) -> None:
    group = [PutEnding(A, FAILED), PutReopened(A.id, Spent(1)), PutEnding(A, DONE)]
    store = reopen()
    store.commit([PutJob(JOB), PutTasks((A,))])
    for _ in range(2):
        store.commit(group)
        assert store.load().tasks == (stored(A, Spent(1), DONE),)


def test_an_archived_job_is_passed_over_and_found(reopen: Reopen) -> None:
    other = replace(JOB, uid="v", namespace="elsewhere", finished_at=9.5)
    c = record_of("v", NewTask("c", "t"), 3)
    reopen().commit([PutJob(JOB), PutJob(other), PutTasks((A, c)), PutEnding(c, FAILED),
                     ArchiveJob("v", '{"said": 1}')])
    store = reopen()
    snapshot = store.load()
    assert (snapshot.jobs, snapshot.tasks, snapshot.last_sequence) == ((JOB,), (stored(A),), 3)
    assert snapshot.archived == (("v", EndedJob("elsewhere", 9.5, "failed")),)
    assert store.archived(["u", "v", "w"]) == (Archived(other, '{"said": 1}'),)
    assert store.archived(["u"]) == store.archived([]) == ()
    assert store.job("v").jobs == (other,)
    assert store.job("v").tasks == (stored(c, None, FAILED),)
    assert store.dead_letters(None) == (DeadLetter("elsewhere", stored(c, None, FAILED)),)


def test_a_job_that_is_put_again_is_archived_no_longer(reopen: Reopen) -> None:
    reopen().commit([PutJob(JOB), ArchiveJob("u", "{}"), PutJob(JOB)])
    assert reopen().load().jobs == (JOB,)
    assert reopen().load().archived == ()


def test_how_archived_jobs_ended_is_known_without_their_tasks(reopen: Reopen) -> None:
    well, badly = replace(JOB, uid="j0", cancelled=False), replace(JOB, uid="j1", cancelled=False)
    tasks = [record_of(uid, NewTask("a", "t"), n) for n, uid in enumerate(("j0", "j1", "u"), 1)]
    reopen().commit([PutJob(well), PutJob(badly), PutJob(replace(JOB, cancelled=True)), PutTasks(tuple(tasks)),
                     *(PutEnding(t, FAILED if t.job_uid != "j0" else DONE) for t in tasks),
                     *(ArchiveJob(uid, "{}") for uid in ("j0", "j1", "u"))])
    assert [(uid, job.status) for uid, job in reopen().load().archived] == [
        ("j0", "completed"), ("j1", "failed"), ("u", "cancelled")
    ]


def test_nobody_is_found_where_there_is_nobody(reopen: Reopen) -> None:
    store = reopen()
    assert (store.job("u"), store.archived(["u"]), store.dead_letters(None)) == (Snapshot(), (), ())


def test_dead_letters_come_in_pages_by_sequence_and_only_failed_ones(reopen: Reopen) -> None:
    records = [record_of("u", NewTask(f"t{n}", "t"), n) for n in range(1, 6)]
    store = reopen()
    store.commit([PutJob(JOB), PutTasks(tuple(records)), *(PutEnding(r, FAILED) for r in records[:4]),
                  PutEnding(records[4], DONE)])
    assert [x.task.record.sequence for x in store.dead_letters("ns", limit=3)] == [1, 2, 3]
    assert [x.task.record.sequence for x in store.dead_letters(None, job_uid="u", after=3)] == [4]
    assert store.dead_letters("other") == store.dead_letters(None, job_uid="v") == ()


def test_what_tasks_carry_comes_in_pages_of_archived_jobs_too(reopen: Reopen) -> None:
    old, new = replace(JOB, uid="old"), replace(JOB, uid="new")
    records = [record_of("old", NewTask("a", "t", b"1"), 1), record_of("old", NewTask("b", "t", b"2"), 2),
               record_of("new", NewTask("c", "t", b"3"), 3)]
    store = reopen()
    store.commit([PutJob(old), PutJob(new), PutTasks(tuple(records)), ArchiveJob("old", "{}"),
                  PutEnding(records[0], DONE._replace(value=b"one"))])
    assert store.contents(limit=2) == ((1, (b"1", b"one")), (2, (b"2",)))
    assert store.contents(after=2) == ((3, (b"3",)),)
    store.commit([DropJob("old")])
    assert store.contents() == ((3, (b"3",)),)


def test_templates_reservations_and_cached_results_come_back_and_go(reopen: Reopen) -> None:
    first = Template("ns", "bench", (NewTask("a", "t", b'{"m":"{m}"}', (Dependency("b", When.FINISHED),), 1.5, 2,
                                             ("gpu",), (("gpu", 1.0),), "read-write"),), "what", {"m": "q"}, ("n",), 3)
    again = replace(first, revision=4, description="other")
    kept = Reservation("ns", "r", 2, frozenset({"gpu", "arm"}), "u", 1234.5)
    old, new = Cached("k1", b"\x00", {"n": 1.0}, 1.0), Cached("k0", b"2", created_at=2.0)
    reopen().commit([PutTemplate(first), PutTemplate(again), PutReservation(replace(kept, slots=9)),
                     PutReservation(kept), PutCached(new), PutCached(old), PutCached(replace(old, value=b"late"))])
    snapshot = reopen().load()
    assert (snapshot.templates, snapshot.reservations, snapshot.cached) == ((again,), (kept,), (old, new))
    reopen().commit([DropTemplate("ns", "bench"), DropReservation("ns", "r"), DropCached(("k0", "k1", "k2"))])
    assert reopen().load() == Snapshot()


def test_a_group_of_thousands_comes_back(reopen: Reopen) -> None:
    records = tuple(record_of("u", NewTask(str(n), "t", bytes([n % 256]) * 50), n) for n in range(1, 5_001))
    reopen().commit([PutJob(JOB), PutTasks(records), *(PutEnding(r, DONE) for r in records)])
    assert reopen().load().tasks == tuple(stored(r, None, DONE) for r in records)


# ---------------------------------------------------------------- what only files can do


def test_a_killed_process_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from espalier_coordinator.store.sqlite import SqliteStore\n"
        "from espalier_coordinator.store import PutWorker\n"
        "store = SqliteStore(pathlib.Path(sys.argv[1]))\n"
        "store.commit([PutWorker(str(n)) for n in range(500)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "c.db")], check=False, timeout=60)
    assert done.returncode == -9
    store = SqliteStore(tmp_path / "c.db")
    assert len(store.load().workers) == 500
    store.close()


def test_a_database_in_use_is_refused(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "c.db")
    first.commit([PutWorker("a")])
    with pytest.raises(Retryable, match="locked; another process uses its file"):
        SqliteStore(tmp_path / "c.db", wait_s=0.1)
    first.close()


def test_a_database_of_another_version_is_refused_with_a_sentence(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "c.db").close()
    with sqlite3.connect(tmp_path / "c.db") as db:
        db.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    db.close()
    with pytest.raises(Permanent, match="schema 99"):
        SqliteStore(tmp_path / "c.db")


def test_a_database_of_the_version_before_is_brought_up_to_date(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "c.db") as db:
        db.executescript(VERSION_1)
    db.close()
    store = SqliteStore(tmp_path / "c.db")
    _is_as_before(store)
    store.close()
    again = SqliteStore(tmp_path / "c.db")
    _is_as_before(again)
    again.close()


def test_a_migration_that_is_interrupted_changes_nothing(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "c.db") as db:
        db.executescript(VERSION_1 + "; ALTER TABLE tasks ADD COLUMN cache TEXT;")  # its last step must fail
    db.close()
    with pytest.raises(Retryable, match="duplicate column"):
        SqliteStore(tmp_path / "c.db")
    with sqlite3.connect(tmp_path / "c.db") as db:
        assert [row[1] for row in db.execute("PRAGMA table_info(jobs)")][-1] == "has_endpoints"
        assert db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() == (1,)
    db.close()


def _is_as_before(store: TaskStore) -> None:
    snapshot = store.load()
    assert snapshot.jobs == (Job("u", "ns", "n", "GradingJob", 3, True, False, 2, 60.5, 1000.25, 0.0, True),)
    a = record_of("u", NewTask("a", "t", b"{}", (), 1.5, 0, ("gpu",)), 1)
    assert snapshot.tasks == (stored(a, Spent(2, 1, 1), DONE._replace(tallies={"points": 1.25})),)
    assert (snapshot.workers, snapshot.last_sequence) == (("ns/w",), 1)
    assert store.begin_epoch() > 7


def test_a_full_disk_refuses_the_whole_commit_and_takes_it_later(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "c.db", max_bytes=200_000)
    store.commit([PutJob(JOB), PutTasks((A,))])
    big = record_of("u", NewTask("big", "t", b"x" * 250_000), 3)
    with pytest.raises(Retryable, match="full"):
        store.commit([PutEnding(A, DONE), PutTasks((big,))])
    assert store.load().tasks == (stored(A),)
    store.commit([PutEnding(A, DONE)])
    assert store.load().tasks == (stored(A, None, DONE),)
    store.close()


# ---------------------------------------------------------------- what only a server can do


def test_a_coordinator_that_was_replaced_cannot_write(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    first, second = PostgresStore(url), PostgresStore(url)
    assert first.begin_epoch() == 1
    first.commit([PutJob(JOB), PutTasks((A,))])
    assert second.begin_epoch() == 2
    with pytest.raises(Deposed, match="epoch 2, mine was 1"):
        first.commit([PutEnding(A, DONE)])
    second.commit([PutEnding(A, FAILED)])
    assert second.load().tasks == (stored(A, None, FAILED),)
    first.close()
    second.close()


def test_a_server_that_crashed_and_came_back_has_everything_and_is_used_again(postgres: PostgresServer) -> None:
    store = PostgresStore(postgres.new_database())
    store.begin_epoch()
    store.commit([PutJob(JOB), PutTasks((A,))])
    postgres.stop(signal.SIGQUIT)
    try:
        with pytest.raises(Retryable, match="cannot be used"):
            store.commit([PutEnding(A, DONE)])
        with pytest.raises(Retryable, match="cannot be used"):  # there is nothing to connect to
            store.commit([PutEnding(A, DONE)])
    finally:
        postgres.start()
    store.commit([PutEnding(A, DONE)])
    assert store.load().tasks == (stored(A, None, DONE),)
    store.close()


def test_a_connection_that_was_cut_is_replaced_and_the_epoch_still_counts(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    first = PostgresStore(url)
    first.begin_epoch()
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'espalier-coordinator'"
    postgres.execute("postgres", cut)
    with pytest.raises(Retryable):
        first.commit([PutWorker("a")])
    first.commit([PutWorker("a")])
    second = PostgresStore(url)
    second.begin_epoch()
    postgres.execute("postgres", cut)
    with pytest.raises(Retryable):
        first.commit([PutWorker("b")])
    with pytest.raises(Deposed):
        first.commit([PutWorker("b")])
    with pytest.raises(Retryable):
        second.load()
    assert second.load().workers == ("a",)
    first.close()
    second.close()


def test_a_successor_does_not_wait_for_one_that_hangs_in_the_middle_of_a_group(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    store = PostgresStore(url)
    store.begin_epoch()
    with connect(url, idle_in_transaction_session_timeout=300) as hanging:
        hanging.execute("BEGIN")
        hanging.execute("SELECT value FROM meta WHERE name = 'epoch' FOR SHARE")
        assert store.begin_epoch() == 2
        with pytest.raises(AWAY, match="idle-in-transaction"):
            hanging.execute("COMMIT")
        hanging.close()
    store.close()


def test_a_database_on_a_server_of_another_version_is_refused_with_a_sentence(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    PostgresStore(url).close()
    with connect(url) as connection:
        connection.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    with pytest.raises(Permanent, match=r"'test\d+' at .* has schema 99"):
        PostgresStore(url)


def test_a_database_on_a_server_of_the_version_before_is_brought_up_to_date(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    types = {"INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION", "BLOB": "BYTEA", "WITHOUT ROWID": "", "X'": "'\\x"}
    with connect(url) as connection:
        for statement in VERSION_1.split(";"):
            connection.execute(reduce(lambda text, name: text.replace(name, types[name]), types, statement).encode())
    for _ in range(2):
        store = PostgresStore(url)
        _is_as_before(store)
        store.close()


def test_a_server_that_is_not_there_is_a_sentence_without_the_password() -> None:
    with pytest.raises(Retryable, match=r"'e' at 127\.0\.0\.1:1 cannot be used: .*refused") as caught:
        PostgresStore("postgresql://me:secret@127.0.0.1:1/e")
    assert "secret" not in str(caught.value)


def test_commits_are_durable_whatever_the_database_was_told(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with connect(url) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET synchronous_commit = off".encode())
    with connect(url) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
