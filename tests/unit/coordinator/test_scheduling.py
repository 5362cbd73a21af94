"""Who gets what next, as a pure function."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from espalier_coordinator.scheduling import Demand, Lane, Profile, Queue, ReadyTasks, may_run
from tests.support.coordination import World, task


def lane(job: str = "j", *, type: str = "t", tags: Iterable[str] = (), namespace: str = "ns") -> Lane:
    return Lane(namespace, job, type, frozenset(tags))


def profile(
    namespace: str | None = "ns", *, job: str = "", types: Iterable[str] = ("t",), tags: Iterable[str] = ()
) -> Profile:
    return Profile(namespace, job, frozenset(types), frozenset(tags))


def demand(worker: str, wants: int, *, held: int = 0, capacity: int = 4, **fields: object) -> Demand:
    return Demand(worker, profile(**fields), wants, held, capacity)  # type: ignore[arg-type]


def ready(*tasks: tuple[Lane, int]) -> ReadyTasks:
    """Tasks named by their sequence."""
    queue = ReadyTasks()
    for where, sequence in tasks:
        queue.put(where, sequence, str(sequence))
    return queue


@pytest.mark.parametrize(("who", "what", "expected"), [
    (profile(), lane(), True),
    (profile("other"), lane(), False),
    (profile(None), lane(), True),
    (profile(job="j"), lane(), True),
    (profile(job="k"), lane(), False),
    (profile(types=["u"]), lane(), False),
    (profile(tags=["gpu"]), lane(), True),
    (profile(), lane(tags=["gpu"]), False),
    (profile(tags=["gpu"]), lane(tags=["gpu", "arm"]), False),
    (profile(tags=["gpu", "arm", "fast"]), lane(tags=["gpu", "arm"]), True),
])
def test_who_may_run_what(who: Profile, what: Lane, expected: bool) -> None:
    assert may_run(who, what) is expected


def test_first_come_first_served_across_jobs_and_tags() -> None:
    queue = ready((lane("k"), 3), (lane("j"), 1), (lane("j", tags=["x"]), 2), (lane("j"), 4))
    assert [t for _, t in queue.assign([demand("w", 9, tags=["x"])])] == ["1", "2", "3", "4"]


def test_a_task_that_comes_back_takes_its_old_place() -> None:
    queue = ready((lane(), 5), (lane(), 6))
    queue.put(lane(), 2, "2")
    assert [t for _, t in queue.assign([demand("w", 2)])] == ["2", "5"]


@pytest.mark.parametrize("puts", [(1, 2, 3, 4), (4, 3, 2, 1), (2, 4, 1, 3), (3, 1, 4, 2), (1, 4, 2, 3)], ids=str)
def test_tasks_leave_by_sequence_in_whatever_order_they_came(puts: tuple[int, ...]) -> None:
    queue, left = Queue(), []
    for n in puts:
        queue.put(n, str(n))
    for n in range(5, 9):  # the line goes on while it is served
        left.append(queue.pop())
        queue.put(n, str(n))
    while queue:
        left.append(queue.first[1])
        assert queue.pop() == left[-1]
    assert left == [str(n) for n in range(1, 9)]


def test_priority_before_order() -> None:
    queue = ready((lane("low"), 1), (lane("high"), 9))
    queue.steer("high", priority=1, is_held=False)
    assert [t for _, t in queue.assign([demand("w", 2)])] == ["9", "1"]


def test_held_jobs_wait_and_stay_in_line() -> None:
    queue = ready((lane("held"), 1), (lane("j"), 2))
    queue.steer("held", priority=9, is_held=True)
    assert [t for _, t in queue.assign([demand("w", 9)])] == ["2"]
    queue.steer("held", priority=9, is_held=False)
    assert [t for _, t in queue.assign([demand("w", 9)])] == ["1"]


def test_the_next_task_of_each_lane_is_shown_and_held_jobs_are_not() -> None:
    queue = ready((lane("j"), 4), (lane("j"), 2), (lane("j", tags=["x"]), 3), (lane("held"), 1))
    queue.steer("held", priority=0, is_held=True)
    assert dict(queue.heads()) == {lane("j"): "2", lane("j", tags=["x"]): "3"}


def test_the_least_loaded_worker_first_by_share_of_its_capacity() -> None:
    queue = ready(*((lane(), n) for n in range(6)))
    given = list(queue.assign([demand("small", 4, held=1, capacity=2), demand("large", 4, held=2, capacity=8)]))
    assert [w for w, _ in given] == ["large", "large", "small", "large", "large", "small"]


def test_nobody_gets_more_than_it_wants() -> None:
    queue = ready(*((lane(), n) for n in range(5)))
    assert len(list(queue.assign([demand("a", 1), demand("b", 2), demand("c", 0)]))) == 3
    assert queue.depths() == {lane(): 2}


def test_workers_with_different_profiles_share_a_lane_without_taking_a_task_twice() -> None:
    queue = ready((lane("j"), 1), (lane("k"), 2), (lane("j"), 3), (lane("k"), 4))
    given = list(queue.assign([demand("any", 2), demand("only-j", 2, job="j")]))
    assert len({t for _, t in given}) == len(given) >= 3
    assert all(t in ("1", "3") for w, t in given if w == "only-j")


def test_a_forgotten_job_leaves_nothing() -> None:
    queue = ready((lane("gone"), 1))
    queue.forget("gone")
    assert queue.is_empty
    assert list(queue.assign([demand("w", 1)])) == []


def test_the_wait_is_told_by_required_tags_and_begins_again_with_a_task_that_comes_back() -> None:
    world = World()
    world.submit(task("plain"), task("gpu", tags=("gpu",)))
    world.pass_time(7)
    assert world.engine.waits() == {frozenset(): 7.0, frozenset({"gpu"}): 7.0}
    worker = world.worker("w", capacity=1)
    (held,) = worker.want(1)
    world.pass_time(3, worker)
    assert world.engine.waits() == {frozenset({"gpu"}): 10.0}
    worker.hand_back(held)
    assert world.engine.waits()[frozenset()] == 0.0
