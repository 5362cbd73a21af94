"""Completed jobs: some in memory, the others in the store, none lost."""

from __future__ import annotations

import pytest

from espalier_coordinator.completed import read_summary
from espalier_coordinator.engine import Limits
from espalier_coordinator.messages import JobContext, Verdict
from espalier_kit.errors import NotFound
from espalier_kit.execution import ModelEndpoint, TaskState
from tests.support.coordination import UID, World, task

ALL = [f"j{n}" for n in range(5)]


def completed_world(jobs: int = 5, *, kept: int = 2, ttl_s: float = 0.0) -> World:
    """Jobs j0, j1, … ended in this order: each has a task that succeeded and one that failed."""
    world = World(Limits(max_completed_jobs=kept, completed_ttl_s=ttl_s))
    worker = world.worker("w")
    for n in range(jobs):
        world.submit(task("good"), task("bad", retries=0), uid=f"j{n}", tags=("night",))
        good, bad = worker.want(2)
        worker.report(good, value=b'{"v": "\xc3\xa9"}', tallies={"points": n})
        worker.report(bad, Verdict.USER_FAULT, reason="Empty", message="nothing handed in")
        world.pass_time(1, worker)
    return world


def recall(world: World, uid: str) -> None:
    world.do(world.engine.recall(world.store.job(uid)))


def test_the_first_to_end_leave_memory_first() -> None:
    world = completed_world()
    assert list(world.engine.jobs) == ["j3", "j4"]
    assert list(world.engine.archived) == ["j0", "j1", "j2"]
    assert world.engine.statistics.archived == 3
    with pytest.raises(NotFound, match="archived: recall it first"):
        world.engine.job("j0")
    with pytest.raises(NotFound, match="archived: recall it first"):
        world.submit(task("more"), uid="j0")


def test_lists_show_them_without_recalling() -> None:
    world = completed_world()
    first, second = (read_summary(a) for a in world.store.archived(["j0", "j1"]))
    assert (first.job.uid, second.job.uid) == ("j0", "j1")
    assert (first.job.tags, first.state, first.tallies) == (("night",), "complete", {"points": 0})
    assert first.counts == {TaskState.DONE: 1, TaskState.FAILED: 1}
    told = {o.key: (o.state, o.reason, o.message, o.value) for o in first.outcomes}
    assert told == {"good": ("done", "", "", b'{"v": "\xc3\xa9"}'),
                    "bad": ("failed", "Empty", "nothing handed in", b"")}
    assert [a.job.uid for a in world.store.archived(["j2", "j3", "j9"])] == ["j2"]


def test_a_recalled_job_is_what_it_was_and_may_be_retried() -> None:
    world = completed_world()
    recall(world, "j0")
    assert world.states("j0") == {"good": TaskState.DONE, "bad": TaskState.FAILED}
    assert world.view("j0").tallies == {"points": 0}
    assert "j0" not in world.engine.archived
    _, effects = world.engine.retry("j0")
    world.do(effects)
    worker = world.worker("v")
    worker.report(worker.want(1)[0], tallies={"points": 9})
    assert world.view("j0").tallies == {"points": 9}
    world.pass_time(1, worker)
    assert sorted(world.engine.jobs) == ["j0", "j4"], "it ended last now"


def test_recalled_twice_at_once_is_recalled_once() -> None:
    world = completed_world()
    snapshot = world.store.job("j0")
    world.do(world.engine.recall(snapshot))
    world.do(world.engine.recall(snapshot))
    assert world.states("j0") == {"good": TaskState.DONE, "bad": TaskState.FAILED}


def test_a_restart_finds_them_where_they_were_and_gives_no_number_twice() -> None:
    world = completed_world()
    last = world.store.load().last_sequence
    world.crash()
    assert (list(world.engine.jobs), list(world.engine.archived)) == (["j3", "j4"], ["j0", "j1", "j2"])
    world.delete("j3")
    world.delete("j4")
    world.crash()
    world.submit(task("new"), uid="new")
    assert world.entry("new", "new").record.sequence > last - 4
    recall(world, "j0")
    assert {t.record.sequence for t in world.store.load().tasks} >= {1, 2}
    assert len({t.record.sequence for t in world.store.load().tasks}) == 3


def test_a_crash_before_the_disk_leaves_them_in_memory() -> None:
    world = completed_world(2)
    world.is_disk_stuck = True
    world.submit(task("x"), uid="other")
    world.engine._limits = Limits(max_completed_jobs=0)
    world.pass_time(1)
    assert sorted(world.engine.jobs) == ["j0", "j1"], "nothing is true before it is on disk"
    world.crash()
    assert sorted(world.engine.jobs) == ["j0", "j1"]


def test_tasks_that_come_meanwhile_keep_it() -> None:
    world = completed_world(2)
    world.submit(task("x", retries=0), uid="j2")
    worker = world.worker("v")
    worker.report(worker.want(1)[0])
    world.is_disk_stuck = True
    world.pass_time(1, worker)
    world.submit(task("more"), uid="j0")
    world.is_disk_stuck = False
    world.write()
    assert world.states("j0")["more"] is TaskState.READY
    world.crash()
    assert world.states("j0")["more"] is TaskState.READY


def test_deleted_ones_are_gone_wherever_they_were() -> None:
    world = completed_world()
    for n in range(5):
        world.delete(f"j{n}")
    assert (world.engine.archived, world.store.load().tasks, world.store.archived(ALL)) == ({}, (), ())


def test_after_their_time_they_are_forgotten() -> None:
    world = completed_world(ttl_s=60.0)
    world.pass_time(50)
    assert len(world.engine.jobs) + len(world.engine.archived) == 5
    world.pass_time(20)
    assert (world.engine.jobs, world.engine.archived) == ({}, {})
    assert (world.store.load().jobs, world.store.archived(ALL)) == ((), ())


def test_a_dedicated_worker_that_comes_after_the_end_is_dismissed() -> None:
    world = completed_world()
    assert world.worker("late", job_uid="j0").is_drained
    assert world.worker("later", job_uid="j4").is_drained


def test_dead_letters_of_archived_jobs_are_found() -> None:
    world = completed_world()
    letters = world.store.dead_letters("ns")
    assert [x.task.record.job_uid for x in letters] == ["j0", "j1", "j2", "j3", "j4"]
    page = world.store.dead_letters(None, after=letters[1].task.record.sequence, limit=2)
    assert [x.task.record.job_uid for x in page] == ["j2", "j3"]
    assert [x.task.record.key for x in world.store.dead_letters("ns", job_uid="j4")] == ["bad"]
    assert world.store.dead_letters("other") == ()


def test_a_recalled_job_keeps_its_limits_and_stays_suspended() -> None:
    world = World(Limits(max_completed_jobs=0))
    world.submit(*(task(key, retries=0) for key in "ab"), max_running=1)
    worker = world.worker()
    for _ in range(2):
        worker.report(worker.want(1)[0], Verdict.USER_FAULT)
    world.pass_time(1, worker)
    assert UID in world.engine.archived
    recall(world, UID)
    world.do(world.engine.retry(UID)[1])
    (first,) = worker.want(2)
    world.update(suspended=True)
    worker.report(first, Verdict.USER_FAULT)
    assert worker.want(2) == []


def test_the_endpoints_of_a_job_that_left_memory_are_forgotten_by_its_workers_too() -> None:
    world = World(Limits(max_completed_jobs=0))
    endpoint = ModelEndpoint(role="code", url="https://127.0.0.1:1", model="m", api_key="secret")
    worker = world.worker()
    for uid in ("first", "second"):
        world.submit(task("a"), uid=uid, endpoints=(endpoint,))
        worker.report(worker.want(1)[0])
        world.pass_time(1, worker)
    assert [(told.job_uid, bool(told.endpoints)) for told in worker.all(JobContext)] == [
        ("first", True), ("first", False), ("second", True), ("second", False),
    ]
    assert world.engine.workers[next(iter(world.engine.workers))].contexts == {}
