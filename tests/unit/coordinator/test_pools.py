"""Shared worker pools: whose account works where, who gets which tasks, and what it may touch."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from espalier_coordinator.access import Identity, identity_of
from espalier_coordinator.messages import Hello, Verdict
from espalier_coordinator.pools import check_pool, pending_units, read_pools, require_artifacts
from espalier_coordinator.scheduling import Lane, Profile, may_run
from espalier_kit.errors import Forbidden, Permanent
from tests.support.coordination import World, task

ACCOUNT = "system:serviceaccount:espalier-system:espalier-pool-gpu"
WORKER = "system:serviceaccount:team:job-worker"
POOLS = {ACCOUNT: "gpu"}
MEMBER = identity_of(ACCOUNT, [], POOLS)
OTHER = identity_of(WORKER, [], POOLS)
ADMIN = Identity("root", None, is_admin=True)


def test_the_setting_names_an_account_and_its_pool() -> None:
    assert read_pools(f" {ACCOUNT}=gpu, {WORKER}=cpu,") == {ACCOUNT: "gpu", WORKER: "cpu"}
    assert read_pools("") == {}


@pytest.mark.parametrize(("text", "words"), [
    ("gpu", "expected system:serviceaccount:NAMESPACE:NAME=POOL"),
    ("alice=gpu", "expected system:serviceaccount:NAMESPACE:NAME=POOL"),
    (f"{ACCOUNT}=GPU", "expected system:serviceaccount:NAMESPACE:NAME=POOL"),
    (f"{ACCOUNT}=gpu,{ACCOUNT}=cpu", "is named for two pools"),
])
def test_a_setting_that_cannot_be_meant_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_pools(text)


@pytest.mark.parametrize(("caller", "pool", "reach"), [
    (MEMBER, "gpu", None), (OTHER, "", "team"), (ADMIN, "gpu", None), (ADMIN, "", None),
], ids=["member", "dedicated worker", "administrator in a pool", "administrator"])
def test_a_pools_worker_reaches_every_namespace_and_others_their_own(
    caller: Identity, pool: str, reach: str | None
) -> None:
    assert caller.reach_for(pool) == reach


@pytest.mark.parametrize(("caller", "pool", "words"), [
    (OTHER, "gpu", "may not run tasks of pool 'gpu': it belongs to no pool"),
    (MEMBER, "cpu", "may not run tasks of pool 'cpu': it belongs to pool 'gpu'"),
    (MEMBER, "", "may not run tasks outside it: it belongs to pool 'gpu'"),
], ids=["no member", "member of another", "member outside"])
def test_an_account_works_for_its_own_pool_and_for_nothing_else(caller: Identity, pool: str, words: str) -> None:
    with pytest.raises(Forbidden, match=words):
        caller.reach_for(pool)


def test_a_pools_tasks_are_its_workers_and_its_workers_take_no_others() -> None:
    for pool_of_job, pool_of_worker in product(("", "gpu", "cpu"), repeat=2):
        lane = Lane("ns", "job", "t", frozenset(), pool_of_job)
        profile = Profile(None, "", frozenset({"t"}), frozenset(), pool_of_worker)
        assert may_run(profile, lane) is (pool_of_job == pool_of_worker)


def test_nobody_passes_for_a_worker_of_a_pool() -> None:
    member = Hello("w-1", None, 1, frozenset({"t"}), pool="gpu")
    keys = {h.key for h in (member, replace(member, pool="cpu"), replace(member, pool=""),
                            replace(member, pool="", namespace="gpu"))}
    assert len(keys) == 4


@pytest.fixture
def world() -> World:
    """A job of each kind in one namespace: two tasks for pool gpu, one for dedicated workers."""
    made = World()
    made.submit(task("a"), task("b"), uid="pooled", namespace="team", pool="gpu")
    made.submit(task("c"), uid="own", namespace="team")
    return made


def test_workers_get_the_tasks_of_their_own_kind(world: World) -> None:
    assert [a.record.key for a in world.worker("dedicated", namespace="team").want(9)] == ["c"]
    assert world.worker("elsewhere", namespace=None, pool="cpu").want(9) == []
    member = world.worker("member", namespace=None, pool="gpu")
    assert [a.record.key for a in member.want(9)] == ["a", "b"]
    assert {uid: world.view(uid).workers for uid in ("pooled", "own")} == {"pooled": 1, "own": 1}


def test_after_a_restart_the_job_is_still_its_pools(world: World) -> None:
    world.crash()
    assert world.worker("dedicated", namespace="team").keys() == []
    member = world.worker("member", namespace=None, pool="gpu")
    assert {a.record.key for a in member.want(9)} == {"a", "b"}


def test_a_worker_that_comes_back_in_another_pool_keeps_nothing(world: World) -> None:
    member = world.worker("member", namespace=None, pool="gpu")
    held = member.want(9)
    world.crash()
    stranger = world.worker("member", namespace=None, pool="cpu", holds=held)
    assert len(stranger.cancelled()) == len(held)


def units(world: World) -> dict[str, int]:
    engine = world.engine
    return pending_units(engine.jobs, engine.ready.depths(), engine.workers.values(), ["gpu", "idle"])


def test_pending_units_are_what_runs_and_what_could(world: World) -> None:
    assert units(world) == {"gpu": 2, "idle": 0}
    world.submit(task("d"), task("e", "d"), uid="chain", namespace="x", pool="gpu")
    assert units(world)["gpu"] == 3, "e waits for d and asks for no worker"
    member = world.worker("member", namespace=None, pool="gpu")
    first, *_ = member.want(2)
    assert units(world)["gpu"] == 3, "what runs counts as well"
    member.report(first)
    assert units(world)["gpu"] == 2
    world.update("chain", suspended=True)
    assert units(world)["gpu"] == 1, "what is held back asks for no worker"


def test_tasks_that_more_workers_would_not_run_sooner_ask_for_none(world: World) -> None:
    world.submit(*(task(f"f{n}") for n in range(9)), uid="narrow", namespace="x", pool="gpu", max_running=2)
    assert units(world)["gpu"] == 2 + 2, "two of a job that runs two at once"
    world.submit(task("s", tags=("sandbox/container",)), task("u", type="u"), uid="special", namespace="x", pool="gpu")
    assert units(world)["gpu"] == 2 + 2 + 2, "as long as nobody knows what its workers can do"
    member = world.worker("member", namespace=None, pool="gpu", capacity=1)
    assert units(world)["gpu"] == 2 + 2, "no worker of the pool offers that tag or type"
    member.want(1)
    assert units(world)["gpu"] == 2 + 2


def test_a_job_of_a_pool_may_have_workers_of_its_own(world: World) -> None:
    """One-shot pods for submissions run beside a pool that does the rest; they count for no pool."""
    world.submit(task("s", tags=("sandbox/container",)), uid="class", namespace="team", pool="gpu")
    offers = ("sandbox/container",)
    assert [a.record.key for a in world.worker("neighbour", namespace="team", tags=offers).want(9)] == ["c"]
    other = world.worker("other's", namespace="team", tags=offers, job_uid="pooled")
    assert [a.record.key for a in other.want(1)] == ["a"]
    (taken,) = world.worker("own", namespace="team", tags=offers, job_uid="class").want(1)
    assert taken.record.key == "s"
    assert world.view("class").workers == 1
    assert units(world)["gpu"] == 1


def test_an_attempt_that_a_leaving_worker_cuts_short_spends_no_retry(world: World) -> None:
    world.submit(task("long"), uid="fragile", namespace="x", pool="gpu", priority=9, retries=0)
    leaving = world.worker("leaving", namespace=None, pool="gpu", capacity=1)
    (taken,) = leaving.want(1)
    leaving.report(taken, Verdict.CANCELLED, reason="WorkerStopped")
    (again,) = world.worker("next", namespace=None, pool="gpu", capacity=1).want(1)
    assert (again.record.key, again.attempt) == ("long", taken.attempt + 1)
    assert world.view("fragile").counts["failed"] == 0


@pytest.mark.parametrize(("namespace", "is_allowed"), [("team", True), ("other", False)])
def test_a_pools_account_touches_the_artifacts_of_its_open_jobs(
    world: World, namespace: str, is_allowed: bool
) -> None:
    jobs = world.engine.jobs.values()
    if is_allowed:
        require_artifacts(MEMBER, namespace, jobs)
    else:
        with pytest.raises(Forbidden):
            require_artifacts(MEMBER, namespace, jobs)
    with pytest.raises(Forbidden):
        require_artifacts(identity_of(ACCOUNT, [], {ACCOUNT: "cpu"}), namespace, jobs)


def test_once_the_job_has_ended_its_artifacts_are_closed_to_the_pool(world: World) -> None:
    member = world.worker("member", namespace=None, pool="gpu")
    for assignment in member.want(2):
        require_artifacts(MEMBER, "team", world.engine.jobs.values())
        member.report(assignment)
    with pytest.raises(Forbidden, match="may only act in namespace 'espalier-system'"):
        require_artifacts(MEMBER, "team", world.engine.jobs.values())


def test_a_job_of_a_pool_that_nobody_works_for_is_refused() -> None:
    check_pool("", [])
    check_pool("gpu", ["gpu"])
    with pytest.raises(Permanent, match="no worker pool 'tpu': the pools are cpu, gpu"):
        check_pool("tpu", ["gpu", "cpu"])
    with pytest.raises(Permanent, match="there are no pools"):
        check_pool("tpu", [])
