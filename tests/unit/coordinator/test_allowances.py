"""What holds a ready task back: resources of workers, reservations, limits and shares of jobs."""

from __future__ import annotations

from collections import Counter

import pytest

from espalier_coordinator.engine import Limits
from espalier_coordinator.fairness import Fairness
from espalier_coordinator.messages import Lease, Progress
from espalier_coordinator.reservations import Reservation
from espalier_coordinator.rules import Bucket
from espalier_kit.errors import NotFound, Permanent
from tests.support.coordination import UID, World, task

GPU = (("gpu", 1.0),)


# ---------------------------------------------------------------- resources


def test_a_task_gets_a_worker_that_has_what_it_takes() -> None:
    world = World()
    world.submit(task("g", resources=GPU))
    assert world.worker("plain").want(1) == []
    assert [a.record.key for a in world.worker("strong", resources=GPU).want(1)] == ["g"]


def test_resources_are_shared_by_what_runs_and_come_back() -> None:
    world = World()
    world.submit(*(task(f"t{n}", resources=(("memoryGiB", 3.0),)) for n in range(4)))
    worker = world.worker("w", capacity=8, resources=(("memoryGiB", 8.0),))
    first = worker.want(4)
    assert len(first) == 2
    worker.report(first[0])
    assert len(worker.assignments()) == 3


def test_what_does_not_fit_does_not_hold_up_what_does() -> None:
    world = World()
    world.submit(task("big", resources=(("gpu", 4.0),)), task("none"), task("small", resources=GPU))
    worker = world.worker("w", resources=GPU)
    assert [a.record.key for a in worker.want(3)] == ["none", "small"]


@pytest.mark.parametrize("amount", [0.0, -1.0, float("nan"), float("inf")])
def test_an_amount_that_means_nothing_is_a_sentence(amount: float) -> None:
    with pytest.raises(Permanent, match="resource 'gpu' must be a positive number"):
        World().submit(task("a", resources=(("gpu", amount),)))


# ---------------------------------------------------------------- reservations


def reserve(world: World, **fields: object) -> None:
    until = world.clock.now().timestamp() + 30
    given = {"namespace": "ns", "name": "r", "slots": 1, "job_uid": "vip", "until": until, **fields}
    world.do(world.engine.reserve(Reservation(**given)))  # type: ignore[arg-type]


def test_capacity_is_kept_for_a_job_until_it_comes() -> None:
    world = World()
    reserve(world, slots=3)
    world.submit(*(task(f"t{n}") for n in range(9)))
    worker = world.worker("w", capacity=4)
    assert len(worker.want(4)) == 1
    world.submit(*(task(f"v{n}") for n in range(9)), uid="vip")
    keys = [a.record.key for a in worker.assignments()]
    assert Counter(key[0] for key in keys) == {"t": 1, "v": 3}


def test_it_counts_only_workers_with_its_tags() -> None:
    world = World()
    reserve(world, tags=frozenset({"gpu"}), slots=4)
    world.submit(*(task(f"t{n}") for n in range(9)))
    assert len(world.worker("plain").want(4)) == 4
    assert world.worker("gpu", tags=("gpu",)).want(4) == []


def test_without_a_job_it_is_for_tasks_that_require_its_tags() -> None:
    world = World()
    reserve(world, tags=frozenset({"gpu"}), slots=2, job_uid="")
    world.submit(task("any"), task("g", tags=("gpu",)))
    worker = world.worker("gpu", tags=("gpu",), capacity=2)
    assert [a.record.key for a in worker.want(2)] == ["g"]


def test_a_shared_pool_is_held_back_only_for_its_own_jobs() -> None:
    world = World()
    world.submit(*(task(f"t{n}") for n in range(4)), pool="gpus")
    reserve(world)
    assert len(world.worker("p", namespace=None, pool="gpus", capacity=1).want(1)) == 1
    world.submit(task("v", "w"), task("w", tags=("nobody",)), uid="vip", pool="gpus")
    assert world.worker("q", namespace=None, pool="gpus", capacity=1).want(1) == []


def test_it_ends_in_time_and_when_it_is_released() -> None:
    world = World()
    world.submit(task("a"), task("b"))
    worker = world.worker("w", capacity=1)
    reserve(world)
    assert worker.want(1) == []
    world.pass_time(31, worker)
    assert worker.keys() == ["a"]
    assert world.store.load().reservations == ()
    reserve(world)
    world.do(world.engine.release("ns", "r"))
    assert (world.engine.reservations, world.store.load().reservations) == ({}, ())
    with pytest.raises(NotFound, match="was released or is over"):
        world.engine.release("ns", "r")


def test_made_again_while_it_ends_it_lasts_as_long_as_the_new_one_says() -> None:
    world = World()
    reserve(world)
    world.is_disk_stuck = True
    world.pass_time(31)
    reserve(world)
    world.is_disk_stuck = False
    world.write()
    assert len(world.engine.reservations) == 1
    world.pass_time(31)
    assert world.engine.reservations == {}


def test_it_survives_a_restart() -> None:
    world = World()
    reserve(world)
    world.crash()
    world.submit(task("a"))
    assert world.worker("w", capacity=1).want(1) == []


def test_of_workers_that_serve_every_namespace_one_holds_its_share_at_most() -> None:
    world = World()
    reserve(world, slots=100)
    world.submit(*(task(f"o{n}") for n in range(20)), uid="other", namespace="other")
    shared = world.worker("shared", namespace=None, capacity=10)
    assert len(shared.want(10)) == 5
    world.submit(*(task(f"v{n}") for n in range(20)), uid="vip")
    assert Counter(a.record.key[0] for a in shared.assignments()) == {"o": 5, "v": 5}
    shared.report(shared.assignments()[0])
    assert shared.want(1)[-1].record.key[0] == "o", "five are in use: no more are kept"


def test_the_reservations_of_a_namespace_share_its_share() -> None:
    world = World()
    for name in ("r", "s"):
        reserve(world, name=name, slots=4, job_uid="", tags=frozenset({name}))
    world.submit(*(task(f"o{n}") for n in range(20)), uid="other", namespace="other")
    first, second = (world.worker(name, namespace=None, capacity=4, tags=(name,)) for name in ("r", "s"))
    assert first.want(4) == []
    assert len(second.want(4)) == 4


def test_more_than_its_share_is_refused_with_the_numbers() -> None:
    world = World()
    world.worker("shared", namespace=None, capacity=10)
    world.worker("own", capacity=2)
    world.worker("pool", namespace=None, pool="gpus", capacity=50)
    reserve(world, slots=6)
    sentence = ("namespace ns would hold back 8 slots; it may have 7: 50% of the 10 on workers that serve every "
                "namespace, and 2 on workers of its own")
    with pytest.raises(Permanent, match=sentence):
        reserve(world, name="more", slots=2)
    reserve(world, slots=7)
    assert [r.slots for r in world.engine.reservations.values()] == [7]


@pytest.mark.parametrize(("fields", "sentence"), [
    ({"slots": 0}, "slots must be at least 1"),
    ({"job_uid": ""}, "is for nobody"),
    ({"until": 5.0}, "would be over at once"),
    ({"name": ""}, "needs a name and a namespace"),
], ids=["slots", "nobody", "past", "name"])
def test_a_reservation_that_means_nothing_is_a_sentence(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(Permanent, match=sentence):
        reserve(World(), **fields)


# ---------------------------------------------------------------- limits of a job


def test_no_more_run_at_once_than_the_job_allows() -> None:
    world = World()
    world.submit(*(task(f"t{n}") for n in range(9)), max_running=2)
    worker = world.worker("w", capacity=8)
    first = worker.want(9)
    assert len(first) == 2
    worker.report(first[0])
    assert len(worker.assignments()) == 3
    world.update(max_running=0)
    assert len(worker.assignments()) == 9


def test_no_more_start_per_second_than_the_job_allows() -> None:
    world = World()
    world.submit(*(task(f"t{n}") for n in range(40)), max_tasks_per_s=2.0)
    worker = world.worker("w", capacity=64)
    assert len(worker.want(64)) == 2
    world.pass_time(5, worker)
    assert len(worker.assignments()) == 12
    assert world.engine.next_due() == world.clock.monotonic() + 0.5


def test_a_limited_job_that_waits_for_a_worker_wakes_nobody() -> None:
    world = World()
    world.submit(*(task(f"t{n}") for n in range(40)), max_tasks_per_s=2.0)
    assert world.engine.next_due() == float("inf")
    world.pass_time(5)
    assert world.engine.next_due() == float("inf")
    worker = world.worker("w")
    worker.want(1)
    world.pass_time(5, worker)
    assert world.engine.next_due() > world.clock.monotonic() + 60, "only the deadline of what runs is left"


def test_a_slow_job_does_not_hold_up_another() -> None:
    world = World()
    world.submit(*(task(f"t{n}") for n in range(4)), max_running=1, priority=9)
    world.submit(*(task(f"o{n}") for n in range(4)), uid="other")
    assert [a.record.key for a in world.worker("w").want(4)] == ["t0", "o0", "o1", "o2"]


def test_a_bucket_lends_no_more_than_one_second_brings() -> None:
    bucket = Bucket(10.0, 0.0)
    assert bucket.room(100.0) == 10
    for _ in range(10):
        bucket.take()
    assert bucket.room(100.0) == 0
    assert bucket.next_at() == pytest.approx(100.1)
    assert bucket.room(100.25) == 2


@pytest.mark.parametrize("change", [{"weight": 0.0}, {"weight": float("nan")}, {"max_tasks_per_s": -1.0},
                                    {"max_running": -1}], ids=str)
def test_a_limit_that_means_nothing_is_a_sentence(change: dict[str, float]) -> None:
    world = World()
    with pytest.raises(Permanent, match=r"must be a positive number|cannot be negative"):
        world.submit(task("a"), **change)  # type: ignore[arg-type]
    world.submit(task("a"))
    with pytest.raises(Permanent, match=r"must be a positive number|cannot be negative"):
        world.update(**change)  # type: ignore[arg-type]


# ---------------------------------------------------------------- shares


def granted(world: World, worker: object, rounds: int) -> Counter[str]:
    """Who got the next `rounds` slots of a worker that runs one at a time."""
    counts: Counter[str] = Counter()
    for _ in range(rounds):
        (assignment,) = worker.want(1)  # type: ignore[attr-defined]
        counts[assignment.job_name] += 1
        worker.report(assignment)  # type: ignore[attr-defined]
    return counts


def shared_world(fairness: Fairness, **priority: int) -> World:
    world = World(Limits(fairness=fairness))
    for uid, namespace, weight in (("a", "ns", 1.0), ("b", "ns", 3.0), ("c", "other", 1.0)):
        world.submit(*(task(f"{uid}{n}") for n in range(99)), uid=uid, namespace=namespace, weight=weight,
                     priority=priority.get(uid, 0))
    return world


def test_first_come_first_served_by_default() -> None:
    world = shared_world(Fairness.PRIORITY)
    assert granted(world, world.worker("w", namespace=None, capacity=1), 60) == {"a": 60}


def test_jobs_share_by_weight() -> None:
    world = shared_world(Fairness.JOBS)
    counts = granted(world, world.worker("w", namespace=None, capacity=1), 50)
    assert {job: round(n / 10) for job, n in counts.items()} == {"a": 1, "b": 3, "c": 1}


def test_namespaces_share_evenly_whatever_their_number_of_jobs() -> None:
    world = shared_world(Fairness.NAMESPACES)
    assert granted(world, world.worker("w", namespace=None, capacity=1), 60) == {"a": 30, "c": 30}


def test_priority_goes_before_shares() -> None:
    world = shared_world(Fairness.JOBS, c=1)
    assert granted(world, world.worker("w", namespace=None, capacity=1), 20) == {"c": 20}


def test_a_job_that_was_away_gets_no_credit_for_it() -> None:
    world = World(Limits(fairness=Fairness.JOBS))
    world.submit(*(task(f"a{n}") for n in range(99)), uid="a")
    worker = world.worker("w", capacity=1)
    granted(world, worker, 40)
    world.submit(*(task(f"b{n}") for n in range(99)), uid="b")
    counts = granted(world, worker, 20)
    assert abs(counts["a"] - counts["b"]) <= 1


def test_progress_becomes_the_fraction_of_the_job() -> None:
    world = World()
    world.submit(task("a"), task("b"))
    worker = world.worker("w")
    a, b = worker.want(2)
    worker.heartbeat(Progress(Lease(a.record.id, 1), 0.5, "half"), Progress(Lease(b.record.id, 7), 1.0, "not mine"))
    entry = world.engine.job(UID)
    assert (entry.fraction, entry.message) == (0.25, "half")
    worker.report(a)
    assert entry.fraction == 0.5
    worker.hand_back(b)
    worker.report(worker.want(1)[0])
    assert entry.fraction == 1.0
