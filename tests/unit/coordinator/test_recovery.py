"""Workers that vanish, attempts that fail, coordinators that are killed."""

from __future__ import annotations

import pytest

from espalier_coordinator.messages import Verdict
from espalier_coordinator.model import JobState
from espalier_coordinator.store import Deposed
from espalier_coordinator.store.memory import MemoryStore
from espalier_kit.execution import ModelEndpoint, TaskState
from tests.support.coordination import UID, World, lease_of, task

CODE = ModelEndpoint(role="code", url="https://127.0.0.1:1", model="m", api_key="secret")


def test_a_platform_fault_is_tried_again_later_and_then_fails_with_its_cause() -> None:
    world = World()
    world.submit(task("a", retries=2))
    worker = world.worker()
    attempts = []
    for _ in range(3):
        assignments = worker.want()
        while not assignments:
            before = len(worker.assignments())
            world.pass_time(0.5, worker)
            assignments = worker.assignments()[before:]
        attempts.append(assignments[0].attempt)
        worker.report(assignments[0], Verdict.PLATFORM_FAULT, reason="ModelDown", message="no answer")
    assert attempts == [1, 2, 3]
    (outcome,) = world.view().outcomes
    assert (outcome.reason, outcome.message, outcome.attempts) == ("PlatformFault", "ModelDown: no answer", 3)
    assert len(worker.acked()) == 3


def test_the_time_between_tries_grows() -> None:
    world = World()
    world.submit(task("a", retries=3))
    worker = world.worker()
    waits = []
    (attempt,) = worker.want(10)
    for _ in range(3):
        worker.report(attempt, Verdict.PLATFORM_FAULT)
        start = world.clock.monotonic()
        known = len(worker.assignments())
        while len(worker.assignments()) == known:
            world.pass_time(0.5, worker)
        attempt = worker.assignments()[-1]
        waits.append(world.clock.monotonic() - start)
    assert [0.5 <= waits[0] <= 1.5, 1.0 <= waits[1] <= 2.5, 2.0 <= waits[2] <= 4.5] == [True] * 3


def test_a_worker_that_falls_silent_loses_its_tasks_after_the_lease_time() -> None:
    world = World()
    world.submit(task("a"))
    silent = world.worker("silent")
    silent.want()
    other = world.worker("other")
    other.want()
    world.pass_time(29.5, other)
    assert other.keys() == []
    world.pass_time(3, other)
    assert [(x.record.key, x.attempt) for x in other.assignments()] == [("a", 2)]
    assert silent.is_closed
    assert world.view().lost_leases == 1


def test_the_late_result_of_a_lost_lease_is_fenced() -> None:
    world = World()
    world.submit(task("a"))
    slow = world.worker("slow")
    (old,) = slow.want()
    other = world.worker("other")
    other.want()
    world.pass_time(34, other)
    back = world.worker("slow", holds=[old])
    assert back.cancelled() == [lease_of(old)]
    back.report(old, value=b'{"from":"slow"}')
    assert back.acked() == [lease_of(old)]
    assert world.states() == {"a": TaskState.RUNNING}
    other.report(other.assignments()[0], value=b'{"from":"other"}')
    assert world.entry("a").ending.value == b'{"from":"other"}'  # type: ignore[union-attr]


def test_a_coordinator_that_itself_stood_still_blames_nobody() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    (a,) = worker.want()
    world.clock.move(40)
    world.do(world.engine.tick())
    worker.report(a)
    assert world.states() == {"a": TaskState.DONE}
    assert world.view().lost_leases == 0


def test_a_broken_stream_is_noticed_sooner_than_silence() -> None:
    world = World()
    world.submit(task("a"))
    gone = world.worker("gone")
    gone.want()
    other = world.worker("other")
    other.want()
    gone.hang_up()
    world.pass_time(13, other)
    assert other.keys() == ["a"]


def test_a_worker_that_reconnects_in_time_keeps_what_it_holds() -> None:
    world = World()
    world.submit(task("a"), task("b"))
    worker = world.worker()
    a, b = worker.want(2)
    worker.hang_up()
    world.pass_time(5)
    worker = world.worker(holds=[a])
    worker.report(a)
    assert worker.acked() == [lease_of(a)]
    assert world.states()["a"] is TaskState.DONE
    worker.want()
    assert lease_of(worker.assignments()[0]) == lease_of(b)


def test_a_worker_that_only_knows_an_older_attempt_does_not_keep_the_newer() -> None:
    world = World()
    world.submit(task("a"), task("b"))
    worker = world.worker()
    first, b = worker.want(2)
    worker.report(first, Verdict.CANCELLED)
    (second,) = worker.want()
    assert (first.attempt, second.attempt) == (1, 2)
    worker.hang_up()
    worker = world.worker(holds=[first, b])
    assert worker.cancelled() == [lease_of(first)]
    assert [lease_of(x) for x in worker.want()] == [lease_of(second)]


def test_what_ended_meanwhile_is_stopped_and_forgotten() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    (a,) = worker.want()
    worker.report(a)
    worker = world.worker(holds=[a])
    assert (worker.acked(), worker.cancelled()) == ([lease_of(a)], [lease_of(a)])


def test_a_task_that_kills_its_worker_does_not_run_for_ever() -> None:
    world = World()
    world.submit(task("poison", retries=2))
    for _ in range(3):
        worker = world.worker()
        worker.want()
        while not worker.assignments():
            world.pass_time(1, worker)
    world.worker()
    (outcome,) = world.view().outcomes
    assert outcome.reason == "PlatformFault"
    assert "WorkerLost" in outcome.message
    assert world.view().lost_leases == 3


def test_a_second_session_of_the_same_worker_ends_the_first() -> None:
    world = World()
    world.submit(task("a"))
    first = world.worker()
    (a,) = first.want()
    second = world.worker(holds=[a])
    assert first.is_closed
    second.report(a)
    assert world.states() == {"a": TaskState.DONE}


def test_workers_of_one_name_in_two_namespaces_are_two() -> None:
    world = World()
    world.submit(task("a"))
    mine = world.worker("w")
    (a,) = mine.want()
    other = world.worker("w", namespace="elsewhere", holds=[a])
    assert not mine.is_closed
    assert other.cancelled() == [lease_of(a)]
    other.report(a)
    assert world.states() == {"a": TaskState.RUNNING}


def test_what_is_handed_back_is_queued_again_and_no_attempt_is_spent() -> None:
    world = World()
    world.submit(task("a", retries=0))
    worker = world.worker()
    worker.hand_back(*worker.want())
    other = world.worker("other")
    assert [a.attempt for a in other.want()] == [1]
    assert world.view().lost_leases == 0


def test_a_worker_that_stops_midway_costs_its_task_no_retry() -> None:
    world = World()
    world.submit(task("a", retries=0))
    worker = world.worker()
    worker.report(worker.want()[0], Verdict.CANCELLED)
    assert [a.attempt for a in worker.want()] == [2]


def test_the_coordinator_ends_an_attempt_that_its_worker_does_not() -> None:
    world = World()
    world.submit(task("a", timeout_s=10, retries=0))
    worker = world.worker()
    (a,) = worker.want()
    assert a.timeout_s == 10
    world.pass_time(49.5, worker)
    assert worker.cancelled() == []
    world.pass_time(1, worker)
    assert worker.cancelled() == [lease_of(a)]
    assert "TaskTimeout" in world.view().outcomes[0].message


# ---------------------------------------------------------------- kill -9


def test_after_a_restart_a_worker_goes_on_with_what_it_runs() -> None:
    world = World()
    world.submit(task("a"), task("b"))
    a, _ = world.worker().want(2)
    world.crash()
    assert world.engine.epoch == "2"
    worker = world.worker(holds=[a])
    assert worker.cancelled() == []
    worker.report(a, value=b'{"v":1}')
    assert worker.acked() == [lease_of(a)]
    assert world.states() == {"a": TaskState.DONE, "b": TaskState.READY}
    assert [(x.record.key, x.attempt) for x in worker.want()] == [("b", 1)]


def test_after_a_restart_nothing_is_granted_while_somebody_may_still_run_it() -> None:
    world = World()
    world.submit(task("a"), task("b"))
    (a,) = world.worker("gone").want()
    world.worker("quick")
    world.crash()
    quick = world.worker("quick")
    assert quick.want(5) == []
    world.pass_time(29, quick)
    assert quick.assignments() == []
    world.pass_time(1.5, quick)
    assert [(x.record.key, x.attempt) for x in quick.assignments()] == [("a", 2), ("b", 2)]
    late = world.worker("gone", holds=[a])
    assert late.cancelled() == [lease_of(a)]


def test_after_a_restart_without_workers_everything_starts_at_once() -> None:
    world = World()
    world.submit(task("a"))
    world.crash()
    assert [x.attempt for x in world.worker().want()] == [1]


def test_tasks_submitted_after_a_restart_do_not_wait_for_lost_workers() -> None:
    world = World()
    world.submit(task("a"))
    world.worker("gone").want()
    world.crash()
    worker = world.worker("new")
    worker.want(5)
    world.submit(task("x"), uid="job-2")
    assert worker.keys() == ["x"]


def test_an_attempt_number_is_never_given_twice_over_two_crashes() -> None:
    world = World()
    world.submit(task("a", retries=9))
    numbers = [x.attempt for x in world.worker("first").want()]
    world.crash()
    worker = world.worker("second")
    worker.want()
    world.pass_time(31, worker)
    numbers += [x.attempt for x in worker.assignments()]
    world.crash()
    worker = world.worker("third")
    worker.want()
    world.pass_time(31, worker)
    numbers += [x.attempt for x in worker.assignments()]
    assert numbers == [1, 2, 3]


def test_a_retry_that_was_not_yet_on_disk_is_claimed_under_its_old_number() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    (a,) = worker.want()
    world.is_disk_stuck = True
    worker.report(a, Verdict.PLATFORM_FAULT, reason="X")
    world.crash()
    worker = world.worker(holds=[a])
    worker.report(a, Verdict.PLATFORM_FAULT, reason="X")
    assert world.entry("a").spent.attempt == 1
    assert worker.acked() == [lease_of(a)]


def test_results_tallies_and_attempts_survive() -> None:
    world = World()
    world.submit(task("a"), task("b", "a"), task("c", "b"), task("d", finished=["b"]), kind="GradingJob", retries=0)
    worker = world.worker()
    worker.report(worker.want()[0], tallies={"n": 2}, value=b"1")
    worker.report(worker.want()[0], Verdict.USER_FAULT, reason="Bad")
    before = world.view()
    world.crash()
    after = world.view()
    assert (after.tallies, after.outcomes, after.job) == (before.tallies, before.outcomes, before.job)
    assert world.states() == {
        "a": TaskState.DONE, "b": TaskState.FAILED, "c": TaskState.SKIPPED, "d": TaskState.READY,
    }


@pytest.mark.parametrize("is_told_again", [True, False])
def test_a_job_waits_for_its_endpoints_after_a_restart_but_not_for_ever(is_told_again: bool) -> None:
    world = World()
    world.submit(task("a"), endpoints=(CODE,))
    world.crash()
    worker = world.worker()
    assert worker.want() == []
    if is_told_again:
        world.submit(task("a"), endpoints=(CODE,))
        assert [c.endpoints for c in worker.contexts()] == [(CODE,)]
    else:
        world.pass_time(31, worker)
        assert worker.contexts() == []
    assert worker.keys() == ["a"]


def test_a_cancelled_job_stays_cancelled() -> None:
    world = World()
    world.submit(task("a"), task("b"))
    (a,) = world.worker().want()
    world.update(cancel=True)
    world.crash()
    assert world.view().state is JobState.CANCELLED
    worker = world.worker(holds=[a], job_uid=UID)
    assert worker.is_drained
    worker.report(a)
    assert worker.acked()[-1] == lease_of(a)


def test_a_deleted_job_stays_deleted() -> None:
    world = World()
    world.submit(task("a"))
    world.delete()
    world.crash()
    assert world.store.load().tasks == ()
    assert world.engine.jobs == {}


def test_a_coordinator_that_stood_still_learns_at_once_that_it_was_replaced() -> None:
    world = World()
    assert isinstance(world.store, MemoryStore)
    MemoryStore(world.store.tables).begin_epoch()
    world.pass_time(20)
    world.clock.move(20)
    with pytest.raises(Deposed):
        world.do(world.engine.tick())
