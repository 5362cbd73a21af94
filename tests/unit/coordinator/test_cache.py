"""Equal tasks answer for each other: same type, version, payload, inputs and models; successes only."""

from __future__ import annotations

import pytest

from espalier_coordinator.cache import Cached, ResultCache
from espalier_coordinator.engine import Limits
from espalier_coordinator.messages import Verdict
from espalier_coordinator.model import NewTask
from espalier_kit.execution import ModelEndpoint
from tests.support.coordination import Session, World, task


def asked(key: str = "a", payload: bytes = b"1", **fields: object) -> NewTask:
    return task(key, payload=payload, cache="read-write", **fields)


def worker(world: World, version: str = "grading 1.0", name: str = "w") -> Session:
    return world.worker(name, version=version)


def answered_world(*, version: str = "grading 1.0", endpoints: tuple[ModelEndpoint, ...] = ()) -> World:
    """One task of job `first` has succeeded with 42."""
    world = World()
    world.submit(asked(), uid="first", endpoints=endpoints)
    session = worker(world, version)
    session.report(session.want(1)[0], value=b"42", tallies={"n": 1})
    return world


def executions(world: World, session: Session, *tasks: NewTask, **job: object) -> int:
    """How many of these a worker had to run."""
    world.submit(*tasks, uid="second", **job)  # type: ignore[arg-type]
    return len(session.want(len(tasks)))


def test_an_equal_task_ends_without_a_lease_and_says_so() -> None:
    world = answered_world()
    assert executions(world, worker(world), asked("other-key")) == 0
    entry = world.entry("other-key", "second")
    assert entry.ending is not None
    assert (entry.state, entry.ending.value, entry.ending.reason) == ("done", b"42", "Cached")
    assert (entry.ending.attempts, entry.ending.worker) == (0, "")
    assert world.view("second").tallies == {"n": 1}
    assert world.view("second").state == "complete"
    assert world.engine.statistics.cache_hits == 1


def test_the_worker_still_gets_what_it_asked_for() -> None:
    world = answered_world()
    session = worker(world)
    world.submit(asked("x"), asked("y", b"2"), uid="second")
    assert [a.record.key for a in session.want(1)] == ["y"]


@pytest.mark.parametrize("change", [
    {"payload": b"2"}, {"type": "u"}, {"cache": ""},
], ids=["payload", "type", "not asked for"])
def test_what_differs_runs(change: dict[str, object]) -> None:
    world = answered_world()
    session = world.worker("w", types=("t", "u"), version="grading 1.0")
    other = task("o", **{"payload": b"1", "cache": "read-write", **change})
    assert executions(world, session, other) == 1


def test_another_namespace_gets_nothing_of_it() -> None:
    world = answered_world()
    session = world.worker("w", namespace="other", version="grading 1.0")
    assert executions(world, session, asked(), namespace="other") == 1


@pytest.mark.parametrize("version", ["grading 2.0", ""], ids=["another", "unknown"])
def test_another_version_of_the_executor_runs_it(version: str) -> None:
    world = answered_world()
    assert executions(world, worker(world, version), asked()) == 1


def test_the_models_count_and_where_they_run_does_not() -> None:
    world = answered_world(endpoints=(ModelEndpoint("code", "https://a", "qwen-7b"),))
    moved = (ModelEndpoint("code", "https://b", "qwen-7b", node="mac-2"),)
    session = worker(world)
    assert executions(world, session, asked(), endpoints=moved) == 0
    world.submit(asked(), uid="third", endpoints=(ModelEndpoint("code", "https://a", "qwen-3b"),))
    assert len(session.assignments()) == 1


def test_what_its_dependencies_said_counts() -> None:
    world = World()
    session = worker(world)
    for uid, value in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        world.submit(task("in"), task("out", "in", payload=b"1", cache="read-write"), uid=uid)
        session.report(session.want(2)[0], value=value)
        for assignment in session.assignments():
            session.report(assignment)
        assert world.view(uid).state == "complete"
        session.hang_up()
        session = worker(world, name=f"after-{uid}")
    reasons = {uid: world.entry("out", uid).ending.reason for uid in "abc"}  # type: ignore[union-attr]
    assert reasons == {"a": "", "b": "Cached", "c": ""}


@pytest.mark.parametrize("verdict", [Verdict.USER_FAULT, Verdict.EVALUATOR_FAULT])
def test_a_failure_answers_for_nobody(verdict: Verdict) -> None:
    world = World()
    world.submit(asked(), uid="first")
    session = worker(world)
    session.report(session.want(1)[0], verdict)
    assert executions(world, session, asked()) == 1


def test_a_result_that_submitted_children_answers_for_nobody() -> None:
    world = World()
    world.submit(asked(), uid="first")
    session = worker(world)
    session.report(session.want(1)[0], children=(task("child"),))
    session.report(session.want(1)[0])
    assert executions(world, session, asked()) == 1


def test_it_survives_a_restart_and_the_job_it_came_from() -> None:
    world = answered_world()
    world.delete("first")
    world.crash()
    assert executions(world, worker(world), asked()) == 0


def test_the_least_recently_used_goes_first_on_disk_too() -> None:
    world = World(Limits(cache_entries=2))
    session = worker(world)
    for n in range(2):
        world.submit(asked(payload=b"%d" % n), uid=f"job{n}")
        session.report(session.want(1)[0])
    world.submit(asked(), uid="uses 0", )
    world.submit(asked(payload=b"0"), uid="again 0")
    session.want(1)
    world.submit(asked(payload=b"2"), uid="third")
    assert len(world.store.load().cached) == len(world.engine.cache) == 2


def test_bounded_by_count_and_by_bytes() -> None:
    cache = ResultCache(3, max_bytes=100)
    assert [cache.put(Cached(k, b"x" * 10)) for k in "abc"] == [(), (), ()]
    assert cache.get("a") is not None
    assert cache.put(Cached("d", b"x")) == ("b",)
    assert cache.put(Cached("e", b"x" * 95)) == ("c", "a")
    assert (len(cache), cache.get("c")) == (2, None)


def test_a_wrong_word_is_a_sentence() -> None:
    with pytest.raises(Exception, match="cache is 'always': use 'read-write'"):
        World().submit(task("a", cache="always"))
