"""Suspend, cancel, delete, priorities, endpoints and the end of dedicated workers."""

from __future__ import annotations

import pytest

from espalier_coordinator.messages import Cancel, Verdict
from espalier_coordinator.model import JobState
from espalier_kit.errors import Forbidden, NotFound
from espalier_kit.execution import ModelEndpoint, TaskState
from tests.support.coordination import UID, World, lease_of, task

CODE = ModelEndpoint(role="code", url="https://127.0.0.1:1", model="m")
FEEDBACK = ModelEndpoint(role="feedback", url="https://127.0.0.1:2", model="m")


def test_a_suspended_job_starts_nothing_and_finishes_what_runs() -> None:
    world = World()
    world.submit(task("a"), task("b"))
    worker = world.worker(job_uid=UID)
    (a,) = worker.want()
    world.update(suspended=True)
    assert world.view().state is JobState.SUSPENDED
    worker.report(a)
    assert worker.want() == []
    assert not worker.is_drained
    world.update(suspended=False)
    assert worker.keys() == ["a", "b"]


def test_a_job_may_be_submitted_suspended() -> None:
    world = World()
    world.submit(task("a"), suspended=True)
    worker = world.worker()
    assert worker.want() == []
    world.update(suspended=False)
    assert worker.keys() == ["a"]


@pytest.mark.parametrize(("verdict", "expected"), [
    (Verdict.CANCELLED, TaskState.CANCELLED), (Verdict.DONE, TaskState.DONE), (Verdict.USER_FAULT, TaskState.FAILED),
    (Verdict.PLATFORM_FAULT, TaskState.CANCELLED),
])
def test_cancelling_reaches_running_tasks_and_keeps_what_is_done(verdict: Verdict, expected: TaskState) -> None:
    world = World()
    world.submit(task("done"), task("runs"), task("waits", "runs"), task("ready"))
    worker = world.worker(job_uid=UID)
    done, runs = worker.want(2)
    worker.report(done)
    world.update(cancel=True, cancel_reason="wrong rubric")
    assert world.view().state is JobState.CANCELLING
    assert worker.cancelled() == [lease_of(runs)]
    assert worker.all(Cancel)[0].reason == "wrong rubric"
    assert (world.view().job.cancel_reason, world.engine.job(UID).message) == ("wrong rubric", "wrong rubric")
    assert not worker.is_drained
    worker.report(runs, verdict)
    assert world.view().state is JobState.CANCELLED
    assert worker.is_drained
    assert world.states() == {
        "done": TaskState.DONE, "runs": expected, "waits": TaskState.CANCELLED, "ready": TaskState.CANCELLED,
    }


def test_children_of_a_cancelled_job_are_cancelled_with_it() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    (a,) = worker.want(5)
    world.update(cancel=True)
    worker.report(a, children=(task("x"),))
    assert world.states() == {"a": TaskState.DONE, "x": TaskState.CANCELLED}
    assert worker.keys() == ["a"]


def test_a_worker_that_does_not_obey_cannot_hold_up_a_cancellation() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    worker.want()
    world.update(cancel=True)
    world.pass_time(31, worker)
    assert world.view().state is JobState.CANCELLED


def test_cancelling_a_finished_job_changes_nothing() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    worker.report(worker.want()[0])
    world.update(cancel=True)
    assert world.view().state is JobState.COMPLETE


def test_a_result_on_its_way_to_the_disk_wins_over_a_cancellation() -> None:
    world = World()
    world.submit(task("a"), task("b", "a"))
    worker = world.worker()
    (a,) = worker.want()
    world.is_disk_stuck = True
    worker.report(a)
    world.update(cancel=True)
    world.write()
    assert world.states() == {"a": TaskState.DONE, "b": TaskState.CANCELLED}
    assert world.view().state is JobState.CANCELLED


def test_deleting_cancels_what_runs_drains_dedicated_workers_and_forgets() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker(job_uid=UID)
    (a,) = worker.want()
    world.delete()
    assert worker.cancelled() == [lease_of(a)]
    assert worker.is_drained
    with pytest.raises(NotFound):
        world.view()
    world.delete()


def test_a_deleted_job_may_come_again() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    (old,) = worker.want()
    world.delete()
    world.submit(task("a"))
    worker.report(old, value=b"stale")
    assert world.states() == {"a": TaskState.READY}
    assert worker.want()[0].attempt == 1


def test_workers_of_a_finished_job_are_sent_away_also_when_they_come_late() -> None:
    world = World()
    world.submit()
    assert world.worker(job_uid=UID).is_drained
    assert not world.worker("shared").is_drained
    assert not world.worker("early", job_uid="not-yet-submitted").is_drained


def test_changes_that_follow_each_other_faster_than_the_disk_all_count() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    (a,) = worker.want()
    world.is_disk_stuck = True
    world.update(priority=7)
    world.update(suspended=True)
    worker.report(a)
    world.is_disk_stuck = False
    world.write()
    for _ in range(2):
        job = world.view().job
        assert (job.priority, job.suspended, job.finished_at > 0) == (7, True, True)
        world.crash()


def test_unknown_jobs_cannot_be_steered() -> None:
    with pytest.raises(NotFound, match="'nobody'"):
        World().update("nobody", cancel=True)


def test_a_higher_priority_goes_first_also_when_it_is_raised_later() -> None:
    world = World()
    world.submit(task("a1"), task("a2"), uid="first")
    world.submit(task("b1"), uid="second", priority=5)
    world.submit(task("c1"), uid="third")
    worker = world.worker()
    worker.want()
    world.update("third", priority=9)
    worker.want(3)
    assert worker.keys() == ["b1", "c1", "a1", "a2"]


def test_endpoints_come_before_the_first_task_and_whenever_they_change() -> None:
    world = World()
    world.submit(task("a"), task("b"), endpoints=(CODE,))
    worker = world.worker()
    bystander = world.worker("bystander")
    worker.want()
    assert [type(m).__name__ for m in worker.heard] == ["Welcome", "JobContext", "Tasks"]
    worker.want()
    assert len(worker.contexts()) == 1
    world.update(endpoints=(CODE, FEEDBACK))
    assert [len(c.endpoints) for c in worker.contexts()] == [1, 2]
    world.update(endpoints=(CODE, FEEDBACK))
    assert len(worker.contexts()) == 2
    assert bystander.contexts() == []


def test_a_reconnected_worker_hears_the_endpoints_again() -> None:
    world = World()
    world.submit(task("a"), endpoints=(CODE,))
    (a,) = world.worker().want()
    worker = world.worker(holds=[a])
    assert [c.endpoints for c in worker.contexts()] == [(CODE,)]


def test_a_view_counts_the_workers_that_may_run_the_job() -> None:
    world = World()
    world.submit(task("a"))
    shared, _ = world.worker("shared"), world.worker("other-namespace", namespace="x")
    world.worker("other-type", types=["u"])
    world.worker("other-job", job_uid="job-2")
    world.worker("mine", job_uid=UID)
    assert world.view().workers == 2
    world.changed.clear()
    shared.hang_up()
    assert world.view().workers == 1
    assert UID in world.changed


def test_a_view_tells_of_twenty_failures_at_most_oldest_first_and_always_of_the_last_task() -> None:
    world = World()
    names = [f"t{n}" for n in range(25)]
    world.submit(*(task(name) for name in names), task("report", finished=names))
    worker = world.worker()
    for assignment in worker.want(26):
        worker.report(assignment, Verdict.USER_FAULT, reason="Bad")
    worker.report(worker.assignments()[-1], Verdict.USER_FAULT, reason="Bad")
    assert [o.key for o in world.view().outcomes] == [*names[:20], "report"]
    assert world.view().counts["failed"] == 26


def test_a_view_tells_of_ended_tasks_that_nobody_waits_for_also_when_they_were_skipped() -> None:
    world = World()
    world.submit(task("a"), task("b", "a"), task("report", "b"), task("summary", finished=["a"]))
    worker = world.worker()
    worker.report(worker.want(2)[0], Verdict.USER_FAULT, reason="Bad")
    worker.report(worker.assignments()[-1], value=b"{}")
    told = {o.key: o.state for o in world.view().outcomes}
    assert told == {"a": "failed", "report": "skipped", "summary": "done"}
    world.crash()
    assert {o.key: o.state for o in world.view().outcomes} == told


def test_a_job_that_is_deleted_before_it_is_on_disk_does_not_come_back() -> None:
    world = World()
    world.is_disk_stuck = True
    world.submit(task("a"))
    world.delete()
    world.write()
    assert (world.engine.jobs, world.store.load().jobs) == ({}, ())
    world.submit(task("b"))
    world.write()
    assert world.states() == {"b": TaskState.READY}


def test_tasks_for_a_job_that_is_deleted_meanwhile_go_with_it() -> None:
    world = World()
    world.submit(task("a"))
    world.is_disk_stuck = True
    world.submit(task("b", "a"))
    world.delete()
    world.submit(task("c"))
    world.write()
    assert world.states() == {"c": TaskState.READY}
    world.crash()
    assert world.states() == {"c": TaskState.READY}


def test_two_submissions_at_once_are_one_job_of_one_namespace() -> None:
    world = World()
    world.is_disk_stuck = True
    world.submit(namespace="ns")
    with pytest.raises(Forbidden):
        world.submit(task("theirs"), namespace="other")
    world.submit(task("b"), endpoints=(CODE,))
    world.submit(task("c"), name="ignored")
    world.write()
    world.is_disk_stuck = False
    assert world.states() == {"b": TaskState.READY, "c": TaskState.READY}
    assert (world.view().job.namespace, world.view().job.finished_at) == ("ns", 0.0)
    (stored,) = world.store.load().jobs
    assert (stored.namespace, stored.has_endpoints, stored.finished_at) == ("ns", True, 0.0)
    assert world.engine._submitting == {}


@pytest.mark.parametrize("by", ["retry", "tasks"])
def test_a_job_that_is_being_opened_again_can_be_cancelled(by: str) -> None:
    world = World()
    world.submit(task("a", retries=0))
    worker = world.worker()
    worker.report(worker.want()[0], Verdict.USER_FAULT)
    assert world.engine.job(UID).has_ended
    world.is_disk_stuck = True
    if by == "retry":
        world.do(world.engine.retry(UID)[1])
    else:
        world.submit(task("b"))
    assert not world.engine.job(UID).has_ended
    world.update(cancel=True)
    world.write()
    assert world.view().state is JobState.CANCELLED
    assert worker.want() == []
