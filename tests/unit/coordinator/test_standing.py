"""How the whole stands: workers by health, jobs in one word, sums."""

from __future__ import annotations

import pytest

from espalier_coordinator.messages import Verdict
from espalier_coordinator.model import EndedJob
from espalier_coordinator.standing import Fleet, fleet, job_status, overall, stats, worker_pictures
from tests.support.coordination import UID, World, task

TIMEOUT_S = 10.0


def status(world: World) -> str:
    return job_status(world.engine.job(UID))


def statuses(world: World) -> dict[str, str]:
    found = worker_pictures(world.engine.workers.values(), world.clock.monotonic(), timeout_s=TIMEOUT_S)
    return {w.worker_id: w.status for w in found}


def test_a_job_in_one_word_from_its_start_to_its_end() -> None:
    world = World()
    world.submit(task("a"), task("b"))
    worker = world.worker()
    assert status(world) == "pending"
    world.update(suspended=True)
    assert status(world) == "suspended"
    world.update(suspended=False)
    first, second = worker.want(2)
    assert status(world) == "running"
    worker.report(first)
    worker.report(second, Verdict.USER_FAULT)
    assert status(world) == "failed"


def test_a_job_without_failed_tasks_is_completed_and_one_that_was_stopped_cancelled() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    worker.report(*worker.want())
    assert status(world) == "completed"
    world.submit(task("a"), uid="other")
    world.update("other", cancel=True)
    assert job_status(world.engine.job("other")) == "cancelled"


def test_workers_are_idle_busy_draining_or_unhealthy() -> None:
    world = World()
    world.submit(task("a"))
    busy, gone, leaving, silent = (world.worker(name) for name in ("busy", "gone", "leaving", "silent"))
    busy.want()
    world.do(world.engine.drain_worker("ns/leaving", "upgrade"))
    assert statuses(world) == {"busy": "busy", "gone": "idle", "leaving": "draining", "silent": "idle"}
    world.pass_time(TIMEOUT_S + 1, busy, gone, leaving)
    assert statuses(world)["silent"] == "unhealthy"
    assert leaving.is_drained
    silent.heartbeat()
    assert statuses(world)["silent"] == "idle"


def test_health_counts_those_that_are_silent_and_those_that_lost_their_session() -> None:
    world = World()
    world.submit(task("a"))
    healthy, broken, _silent = (world.worker(name) for name in ("healthy", "broken", "silent"))
    broken.want()
    world.pass_time(TIMEOUT_S - 1, healthy, broken)
    broken.hang_up()
    world.pass_time(2, healthy)
    found = fleet(world.engine.workers.values(), world.clock.monotonic(), timeout_s=TIMEOUT_S)
    assert found == Fleet(healthy=1, degraded=1, unhealthy=1)


@pytest.mark.parametrize(("found", "problems", "waiting", "expected", "words"), [
    (Fleet(2, 0, 0), (), 5, "healthy", "2 workers"),
    (Fleet(0, 0, 0), (), 0, "healthy", "0 workers"),
    (Fleet(0, 0, 0), (), 5, "unhealthy", "5 tasks wait and no worker"),
    (Fleet(0, 0, 1), (), 5, "unhealthy", "no worker is connected"),
    (Fleet(1, 1, 0), (), 0, "degraded", "1 workers are silent"),
    (Fleet(1, 0, 2), (), 0, "degraded", "2 have lost their session"),
    (Fleet(9, 0, 0), ("the writer thread has ended",), 0, "unhealthy", "writer thread"),
])
def test_the_whole_in_one_word(
    found: Fleet, problems: tuple[str, ...], waiting: int, expected: str, words: str
) -> None:
    word, message = overall(found, problems, waiting)
    assert word == expected
    assert words in message


def test_sums() -> None:
    world = World()
    world.submit(task("a"), task("b"), task("c"))
    world.submit(task("a"), uid="pooled", pool="p")
    worker = world.worker(capacity=4)
    worker.want(2)
    found = stats(world.engine.jobs.values(), (), world.engine.workers.values())
    assert (found.workers, found.active_workers, found.capacity, found.used, found.load) == (1, 1, 4, 2, 0.5)
    assert found.jobs == {"running": 1, "pending": 1}
    assert (found.pending_tasks, found.running_tasks, found.pending_by_pool) == (2, 2, {"p": 1})
    assert stats((), (), ()).load == 0.0


def test_archived_jobs_count_as_they_ended() -> None:
    world = World()
    world.submit(task("a"))
    ended = [EndedJob("ns", 1.0, status) for status in ("completed", "failed", "completed", "cancelled")]
    found = stats(world.engine.jobs.values(), ended, ())
    assert (found.jobs, found.archived) == ({"pending": 1, "completed": 2, "failed": 1, "cancelled": 1}, 4)
