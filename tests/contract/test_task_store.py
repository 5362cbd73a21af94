"""What every task store must do, the durable ones and the one that forgets."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from espalier_coordinator.model import Ending, Job, NewTask, Spent, TaskRecord, record_of
from espalier_coordinator.store import (
    DropJob,
    DropWorker,
    PutEnding,
    PutJob,
    PutSpent,
    PutTasks,
    PutWorker,
    StoredTask,
    TaskStore,
)
from espalier_coordinator.store.memory import MemoryStore
from espalier_coordinator.store.sqlite import SqliteStore
from espalier_kit.errors import Permanent, Retryable
from espalier_kit.execution import Dependency, TaskState, When

Reopen = Callable[[], TaskStore]

JOB = Job("u", "ns", "n", "GradingJob", 3, True, False, 2, 60.5, 1000.25, 0.0, True)
A = record_of("u", NewTask("a", "t", b"\x00{}", (), 1.5, 0, ("gpu", "arm")), 1)
B = record_of("u", NewTask("b", "t", depends_on=(Dependency("a"), Dependency("c", When.FINISHED))), 2)
DONE = Ending(TaskState.DONE, 2, "r", "m", b'{"v":1}', {"points": 1.25}, "ns/w", 0.5, 1001.5)
FAILED = Ending(TaskState.FAILED, 1, "PlatformFault", "late")


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Opens the same store again, as a restarted process would."""
    opened: list[TaskStore] = []
    memory = MemoryStore()

    def again() -> TaskStore:
        if opened:
            opened.pop().close()
        opened.append(memory if request.param == "memory" else SqliteStore(tmp_path / "coordinator.db"))
        return opened[-1]

    yield again
    for store in opened:
        store.close()


def stored(record: TaskRecord, spent: Spent | None = None, ending: Ending | None = None) -> StoredTask:
    return StoredTask(record, spent or Spent(), ending)


def test_a_new_store_is_empty(reopen: Reopen) -> None:
    snapshot = reopen().load()
    assert (snapshot.jobs, snapshot.tasks, snapshot.workers) == ((), (), ())


def test_each_start_is_another_epoch(reopen: Reopen) -> None:
    assert [reopen().begin_epoch() for _ in range(3)] == [1, 2, 3]


def test_everything_comes_back_as_it_was(reopen: Reopen) -> None:
    reopen().commit([
        PutJob(JOB), PutTasks((A, B)), PutSpent(A.id, Spent(2, 1, 1)), PutEnding(A.id, "u", DONE), PutWorker("ns/w"),
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
    writes = [PutEnding(A.id, "u", DONE), PutEnding(A.id, "u", FAILED)]
    for group in [writes] if is_one_commit else [[w] for w in writes]:
        store.commit(group)
    assert reopen().load().tasks == (stored(A, None, DONE),)


def test_a_dropped_job_takes_its_tasks_and_results_and_nobody_elses(reopen: Reopen) -> None:
    store = reopen()
    other = record_of("v", NewTask("a", "t"), 3)
    store.commit([PutJob(JOB), PutJob(Job("v", "ns", "m", submitted_at=1.0)), PutTasks((A, other)),
                  PutEnding(A.id, "u", DONE), PutEnding(other.id, "v", DONE)])
    store.commit([DropJob("u")])
    snapshot = reopen().load()
    assert [j.uid for j in snapshot.jobs] == ["v"]
    assert snapshot.tasks == (stored(other, None, DONE),)


def test_a_job_dropped_and_put_again_in_one_commit_starts_anew(reopen: Reopen) -> None:
    store = reopen()
    store.commit([PutJob(JOB), PutTasks((A,)), PutEnding(A.id, "u", DONE)])
    store.commit([DropJob("u"), PutJob(JOB), PutTasks((A,))])
    assert reopen().load().tasks == (stored(A),)


def test_dropping_what_is_not_there_is_success(reopen: Reopen) -> None:
    reopen().commit([DropJob("nobody"), DropWorker("nobody")])


def test_workers_are_a_set(reopen: Reopen) -> None:
    store = reopen()
    store.commit([PutWorker("a"), PutWorker("a"), PutWorker("b"), DropWorker("a")])
    assert reopen().load().workers == ("b",)


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
    with pytest.raises(Retryable, match="locked"):
        SqliteStore(tmp_path / "c.db", wait_s=0.1)
    first.close()


def test_a_database_of_another_version_is_refused_with_a_sentence(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "c.db").close()
    with sqlite3.connect(tmp_path / "c.db") as db:
        db.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    db.close()
    with pytest.raises(Permanent, match="schema 99"):
        SqliteStore(tmp_path / "c.db")


def test_a_full_disk_refuses_the_whole_commit_and_takes_it_later(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "c.db", max_bytes=200_000)
    store.commit([PutJob(JOB), PutTasks((A,))])
    big = record_of("u", NewTask("big", "t", b"x" * 250_000), 3)
    with pytest.raises(Retryable, match="full"):
        store.commit([PutEnding(A.id, "u", DONE), PutTasks((big,))])
    assert store.load().tasks == (stored(A),)
    store.commit([PutEnding(A.id, "u", DONE)])
    assert store.load().tasks == (stored(A, None, DONE),)
    store.close()
