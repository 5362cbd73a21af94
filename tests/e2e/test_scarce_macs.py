"""Macs are scarce: jobs take them all or none; what cannot run yet costs nothing."""

from __future__ import annotations

import asyncio

import pytest

from espalier_kube.cluster import GRADING_JOB, JOB, MODEL_SERVER
from espalier_kube.watch import follow
from tests.support import classroom
from tests.support.jobs import grading_job
from tests.support.waiting import condition, has, until

pytestmark = pytest.mark.timeout(900)

MANY = 200
WRITES_PER_JOB = 3
OPERATOR_RSS_MIB = 150


async def test_two_jobs_that_want_both_macs_run_one_after_the_other(platform, namespace) -> None:
    first = await platform.submit(namespace, "first", students=classroom.good_class(3))
    await platform.until(first, has("Accepted"), timeout_s=120, what="Accepted")
    second = await platform.submit(namespace, "second", students=classroom.good_class(2))
    waiting = await platform.until(
        second, has("Progressing", "False", "WaitingForNodes"), timeout_s=60, what="WaitingForNodes"
    )
    message = condition(waiting, "Progressing")["message"]
    assert "first" in message
    servers = await platform.cluster.list(MODEL_SERVER, namespace)
    assert {item["metadata"]["name"] for item in servers.items} <= {"first-code", "first-feedback"}
    done_first = await platform.until(first, has("Complete"), timeout_s=240, what="Complete")
    done_second = await platform.until(second, has("Complete"), timeout_s=240, what="Complete")
    assert done_first["status"]["completionTime"] < done_second["status"]["completionTime"]


async def test_200_suspended_jobs_cost_a_suspended_job_each_and_no_more(platform, namespace) -> None:
    absent = "artifact://" + "0" * 64
    versions: dict[str, set[str]] = {}
    counting = asyncio.create_task(_count_versions(platform.cluster, namespace, versions))
    for n in range(MANY):
        job = grading_job(
            f"many-{n:03d}", namespace, assignment=absent, submissions=absent, runPolicy={"suspend": True}
        )
        await platform.cluster.create(job)
    for n in range(MANY):
        await until(
            platform.cluster,
            GRADING_JOB,
            namespace,
            f"many-{n:03d}",
            has("Suspended", "True", "SuspendedByUser"),
            timeout_s=120,
            what="Suspended",
        )
    jobs = (await platform.cluster.list(JOB, namespace)).items
    assert len(jobs) == MANY
    assert all(item["spec"]["suspend"] for item in jobs)
    assert all(item["spec"]["completionMode"] == "Indexed" for item in jobs)
    assert (await platform.cluster.list(MODEL_SERVER, namespace)).items == ()
    counting.cancel()
    writes = {name: len(seen) - 1 for name, seen in versions.items()}  # the first version is the creation
    assert max(writes.values()) <= WRITES_PER_JOB, sorted(writes.items(), key=lambda w: -w[1])[:5]
    (rss,) = platform.rss_mib("operator")
    print(f"\noperator RSS with {MANY} jobs: {rss:.0f} MiB; writes per job: max {max(writes.values())}")
    assert rss <= OPERATOR_RSS_MIB


async def _count_versions(cluster, namespace: str, versions: dict[str, set[str]]) -> None:
    async for event in follow(cluster, GRADING_JOB, namespace):
        metadata = event.object["metadata"]
        versions.setdefault(metadata["name"], set()).add(metadata["resourceVersion"])
