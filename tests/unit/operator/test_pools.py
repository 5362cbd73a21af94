"""A GradingJob on a shared worker pool: no workers of its own, and a plain word where the pool does not exist."""

from __future__ import annotations

from espalier_kube.cluster import JOB, SERVICE_ACCOUNT
from tests.support.operator_world import World, conditions, grading_job, operator_settings


async def begun(*pools: str) -> World:
    return await World(settings=operator_settings(pools=",".join(pools))).begin()


async def test_a_job_of_a_pool_is_handed_over_and_gets_no_workers_of_its_own() -> None:
    world = await begun("shared", "gpu")
    made = await world.create(grading_job(workers={"pool": "gpu"}))
    assert world.coordinator.requests[made["metadata"]["uid"]].pool == "gpu"
    assert await world.names(JOB) == []
    assert "week-1-worker" not in await world.names(SERVICE_ACCOUNT)


async def test_a_job_without_a_pool_has_its_own_workers_and_asks_for_none() -> None:
    world = await begun("gpu")
    made = await world.create(grading_job())
    assert world.coordinator.requests[made["metadata"]["uid"]].pool == ""
    assert await world.names(JOB) == ["week-1-worker"]


async def test_an_unknown_pool_is_named_with_those_there_are_and_nothing_starts() -> None:
    world = await begun("shared", "gpu")
    made = await world.create(grading_job(workers={"pool": "tpu"}))
    found = await world.job()
    assert conditions(found)["Accepted"] == ("False", "UnknownPool")
    assert conditions(found)["Progressing"] == ("False", "UnknownPool")
    (accepted,) = [c for c in found["status"]["conditions"] if c["type"] == "Accepted"]
    assert accepted["message"] == "workers.pool: there is no worker pool tpu; the pools are gpu, shared"
    assert made["metadata"]["uid"] not in world.coordinator.requests


async def test_once_the_pool_is_there_the_job_goes_on() -> None:
    world = await begun()
    made = await world.create(grading_job(workers={"pool": "gpu"}))
    assert "the platform has no pools" in str((await world.job())["status"])
    world.settings = operator_settings(pools="gpu")
    world.start_operator()  # the chart's new value is a new operator
    await world.authority.load()
    await world.settle()
    assert world.coordinator.requests[made["metadata"]["uid"]].pool == "gpu"
    assert conditions(await world.job())["Accepted"][0] != "False"
