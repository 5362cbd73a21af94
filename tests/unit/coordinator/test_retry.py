"""Dead letters: what failed comes back with fresh retries, and with it what was skipped because of it."""

from __future__ import annotations

import pytest

from espalier_coordinator.messages import Verdict
from espalier_kit.errors import NotFound, Permanent
from espalier_kit.execution import ModelEndpoint, TaskState
from tests.support.coordination import UID, World, task

DONE, FAILED, SKIPPED, READY, BLOCKED = (
    TaskState.DONE, TaskState.FAILED, TaskState.SKIPPED, TaskState.READY, TaskState.BLOCKED
)


def failed_world(*tasks: object) -> World:
    """`a` has failed by its own fault; a worker of capacity 4 is connected and wants nothing."""
    world = World()
    world.submit(*tasks, retries=0)  # type: ignore[arg-type]
    worker = world.worker("w")
    for assignment in worker.want(sum(not t.depends_on for t in tasks)):  # type: ignore[attr-defined]
        verdict = Verdict.USER_FAULT if assignment.record.key == "a" else Verdict.DONE
        worker.report(assignment, verdict, tallies={"n": 1})
    return world


def retry(world: World, *keys: str) -> int:
    count, effects = world.engine.retry(UID, keys)
    world.do(effects)
    return count


def test_a_failed_task_runs_again_under_the_next_number() -> None:
    world = failed_world(task("a"))
    assert world.states() == {"a": FAILED}
    assert retry(world) == 1
    assert world.states() == {"a": READY}
    (again,) = world.worker("v").want()
    assert again.attempt == 2


def test_what_was_skipped_because_of_it_comes_back_and_runs() -> None:
    world = failed_world(task("a"), task("b", "a"), task("c", "b"))
    assert world.states() == {"a": FAILED, "b": SKIPPED, "c": SKIPPED}
    retry(world, "a")
    assert world.states() == {"a": READY, "b": BLOCKED, "c": BLOCKED}
    worker = world.worker("v")
    for key in ("a", "b", "c"):
        (assignment,) = worker.want()
        assert assignment.record.key == key
        worker.report(assignment)
    assert set(world.states().values()) == {DONE}
    assert world.view().state == "complete"


def test_what_another_failure_keeps_skipped_stays_skipped() -> None:
    world = World()
    world.submit(task("a"), task("x"), task("b", "a", "x"), task("c", "a"), retries=0)
    worker = world.worker("w")
    for assignment in worker.want(2):
        worker.report(assignment, Verdict.USER_FAULT)
    retry(world, "a")
    assert world.states() == {"a": READY, "x": FAILED, "b": SKIPPED, "c": BLOCKED}
    retry(world, "x")
    assert world.states()["b"] is BLOCKED


def test_what_ran_after_it_all_the_same_is_not_run_again() -> None:
    world = World()
    world.submit(task("a"), task("after", finished=["a"]), retries=0)
    worker = world.worker("w")
    worker.report(worker.want()[0], Verdict.USER_FAULT)
    worker.report(worker.want()[0], Verdict.DONE)
    retry(world)
    assert world.states() == {"a": READY, "after": DONE}
    worker.report(worker.want()[0], Verdict.DONE)
    assert world.states() == {"a": DONE, "after": DONE}
    assert world.view().state == "complete"


def test_counts_tallies_and_outcomes_forget_the_failure() -> None:
    world = failed_world(task("a"), task("ok"))
    assert world.view().tallies == {"n": 2}
    retry(world)
    assert world.view().tallies == {"n": 1}
    assert world.view().counts["failed"] == 0
    assert [o.key for o in world.view().outcomes] == ["ok"]
    assert world.view().job.finished_at == 0


def test_retries_are_counted_from_the_start() -> None:
    world = World()
    world.submit(task("a", retries=1))
    worker = world.worker("w", capacity=1)
    for _ in range(2):
        worker.report(worker.want()[0], Verdict.PLATFORM_FAULT)
        world.pass_time(10, worker)
    assert world.states() == {"a": FAILED}
    retry(world)
    assert worker.want()[0].attempt == 4, "numbers of attempts that may be out there are never used again"
    worker.report(worker.assignments()[-1], Verdict.PLATFORM_FAULT)
    world.pass_time(10, worker)
    assert world.states() == {"a": READY}


def test_it_survives_a_crash_at_once_and_a_crash_before_the_disk() -> None:
    world = failed_world(task("a"), task("b", "a"))
    world.is_disk_stuck = True
    retry(world)
    assert world.states() == {"a": FAILED, "b": SKIPPED}, "nothing is true before it is on disk"
    assert retry(world) == 0, "it is on its way already"
    world.crash()
    assert world.states() == {"a": FAILED, "b": SKIPPED}
    retry(world)
    world.crash()
    assert world.states() == {"a": READY, "b": BLOCKED}


def test_the_result_of_an_old_attempt_is_not_taken() -> None:
    world = World()
    world.submit(task("a", retries=0))
    lost = world.worker("lost")
    (old,) = lost.want()
    world.pass_time(40)
    assert world.states() == {"a": FAILED}
    retry(world)
    back = world.worker("lost", holds=[old])
    back.report(old)
    assert world.states() == {"a": READY}
    assert world.engine.statistics.fenced == 1


@pytest.mark.parametrize(("keys", "error", "sentence"), [
    (["nobody"], NotFound, "has no task 'nobody'"),
    (["ok"], Permanent, "is done: only failed tasks"),
], ids=["unknown", "not failed"])
def test_what_cannot_be_retried_is_a_sentence(keys: list[str], error: type[Exception], sentence: str) -> None:
    world = failed_world(task("a"), task("ok"))
    with pytest.raises(error, match=sentence):
        world.engine.retry(UID, keys)
    with pytest.raises(NotFound, match="never submitted"):
        world.engine.retry("other")


def test_after_a_restart_it_waits_for_the_endpoints_that_its_job_had() -> None:
    world = World()
    code = ModelEndpoint("code", "https://a", "m", api_key="secret")
    world.submit(task("a", retries=0), endpoints=(code,))
    worker = world.worker("w")
    worker.report(worker.want(1)[0], Verdict.USER_FAULT)
    world.crash()
    retry(world)
    worker = world.worker("v")
    assert worker.want(1) == []
    world.update(endpoints=(code,))
    assert worker.keys() == ["a"]
    assert worker.contexts()[0].endpoints == (code,)


def test_a_cancelled_job_is_not_retried() -> None:
    world = failed_world(task("a"), task("b", "a"), task("open", tags=("nobody",)))
    world.update(cancel=True, cancel_reason="enough")
    assert world.view().job.cancel_reason == "enough"
    with pytest.raises(Permanent, match="was cancelled"):
        world.engine.retry(UID)
