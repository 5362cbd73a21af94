"""Shared pools: who gets whose tasks and artifacts, and what kubectl does to a pool."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bench.model_server import ScriptedServer, serving
from espalier_cli.connection import artifacts_of
from espalier_cli.options import Where
from espalier_kit.errors import Forbidden, Permanent
from espalier_kit.execution import TaskSpec
from espalier_kube.client import Client
from espalier_kube.cluster import CONFIG_MAP, GRADING_JOB
from espalier_local.cluster import Cluster
from espalier_rpc.artifacts import HttpArtifacts, web_client
from tests.integration.conftest import Kubectl
from tests.support import classroom
from tests.support.jobs import grading_job
from tests.support.platform import Platform
from tests.support.pool_stories import a_worker_goes, an_autoscaler_keeps_the_bounds
from tests.support.pools import SYSTEM, coordinator_of, open_diary, request, until_ended
from tests.support.waiting import has, until


async def test_a_pools_workers_run_a_job_of_another_namespace_with_its_artifacts(
    pooled: Cluster, client: Client, namespace: str
) -> None:
    async with artifacts_of(client, Where(pooled.kubeconfig, namespace)) as store:
        digest = await store.put(b"given by the course")
        task = TaskSpec(key="copy", type="probe.store", payload={"sha256": digest})
        async with coordinator_of(client, pooled) as coordinator:
            await coordinator.submit(request("copy", [task], pool="fixed", namespace=namespace))
            view = await until_ended(coordinator, "copy", timeout_s=30)
            await coordinator.delete("copy")
        (outcome,) = view.outcomes
        assert outcome.state == "done", outcome
        assert outcome.value is not None
        assert outcome.value["text"] == "given by the course"
        assert await store.get(outcome.value["sha256"]) == b"GIVEN BY THE COURSE"


async def test_a_class_is_graded_by_a_pools_workers(
    pooled: Cluster, client: Client, namespace: str, kubectl: Kubectl
) -> None:
    """No worker of its own: no Job, no account; the pool's workers read its submissions and ask its judges."""
    platform = Platform(pooled, client)
    async with serving(ScriptedServer("code")) as code, serving(ScriptedServer("feedback")) as feedback:
        judges = {
            role: {"endpoint": {"url": url, "model": role}} for role, url in (("code", code), ("feedback", feedback))
        }
        job = await platform.submit(
            namespace, "pooled", students=classroom.good_class(2), models=judges, workers={"pool": "fixed"}
        )
        found = await platform.until(job, has("Complete"), timeout_s=60, what="report")
    assert found["status"]["submissions"]["graded"] == 2
    assert {row["points"] for row in await platform.report_rows(job)} == {37.5}
    assert {task["worker"].rpartition("-")[0].rpartition("-")[0] for task in await platform.tasks(job)} == {
        "espalier-pool-fixed"
    }
    assert kubectl("-n", namespace, "get", "jobs,pods", "-o", "name") == ""


async def test_an_unknown_pool_is_refused_with_the_pools_there_are(
    pooled: Cluster, client: Client, namespace: str
) -> None:
    async with coordinator_of(client, pooled) as coordinator:
        with pytest.raises(Permanent, match=r"no worker pool 'nobody': the pools are elastic, fixed"):
            await coordinator.submit(request("lost", [], pool="nobody"))
    async with artifacts_of(client, Where(pooled.kubeconfig, namespace)) as store:
        address = f"artifact://{await store.put(b'a bundle that nobody opens')}"
    job = grading_job("lost", namespace, assignment=address, submissions=address, workers={"pool": "nobody"})
    await client.create(job)
    found = await until(
        client, GRADING_JOB, namespace, "lost", has("Accepted", "False", "UnknownPool"), timeout_s=20, what="condition"
    )
    (accepted,) = [c for c in found["status"]["conditions"] if c["type"] == "Accepted"]
    assert "there is no worker pool nobody; the pools are elastic, fixed" in accepted["message"]


ADDRESS = f"artifact://{'a' * 64}"


@pytest.mark.parametrize(("workers", "words"), [
    ({"pool": "fixed", "capacity": 8}, "with workers.pool leave out replicas, capacity and pod: the pool has its own"),
    ({"pool": "fixed", "replicas": 2}, "with workers.pool leave out replicas, capacity and pod"),
    ({"pool": "fixed", "pod": {"labels": {"a": "b"}}}, "with workers.pool leave out replicas, capacity and pod"),
    ({"pool": "Fixed"}, "a pool's name is lower-case letters, digits and hyphens"),
], ids=["capacity", "replicas", "pod", "name"])
async def test_what_a_pool_decides_a_job_may_not(
    control_plane: Cluster, client: Client, namespace: str, workers: dict[str, Any], words: str
) -> None:
    job = grading_job("both", namespace, assignment=ADDRESS, submissions=ADDRESS, workers=workers)
    with pytest.raises(Permanent, match=words):
        await client.create(job)


@pytest.mark.parametrize(("before", "after"), [("fixed", "elastic"), ("fixed", None), (None, "fixed")])
async def test_a_job_stays_with_the_workers_it_began_with(
    control_plane: Cluster, client: Client, namespace: str, before: str | None, after: str | None
) -> None:
    await client.create(grading_job(
        "settled", namespace, assignment=ADDRESS, submissions=ADDRESS, workers={"pool": before} if before else {}
    ))
    with pytest.raises(Permanent, match=r"spec\.workers\.pool cannot change after creation"):
        await client.patch(GRADING_JOB, "settled", namespace, {"spec": {"workers": {"pool": after}}})


@asynccontextmanager
async def artifacts_as(client: Client, account: str, namespace: str) -> AsyncIterator[HttpArtifacts]:
    """A namespace's artifacts as an account of the release's namespace sees them."""
    found = (await client.get(CONFIG_MAP, "espalier-coordinator", SYSTEM))["data"]
    token, _ = await client.create_token(account, SYSTEM, audience="espalier-coordinator", expiration_s=3600)
    async with web_client(found["web"], ca_pem=found["ca.crt"]) as http:
        yield HttpArtifacts(http, namespace=namespace, token=lambda: token, server_name=found["name"])


async def test_a_pools_account_touches_artifacts_only_while_its_pool_has_work_there(
    pooled: Cluster, client: Client, namespace: str
) -> None:
    async with (
        open_diary() as diary, coordinator_of(client, pooled) as coordinator,
        artifacts_as(client, "espalier-pool-fixed", namespace) as mine,
        artifacts_as(client, "espalier-pool-elastic", namespace) as others,
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            await mine.put(b"before there is a job")
        await coordinator.submit(request("open", [diary.task("one", 0.5)], pool="fixed", namespace=namespace))
        digest = await mine.put(b"while it runs")
        with pytest.raises(Forbidden):
            await others.get(digest)
        await until_ended(coordinator, "open", timeout_s=30)
        with pytest.raises(Forbidden):
            await mine.get(digest)
        await coordinator.delete("open")


async def test_kubectl_scale_takes_a_worker_away_without_losing_what_it_runs(
    pooled: Cluster, client: Client, kubectl: Kubectl
) -> None:
    async with open_diary() as diary:
        await a_worker_goes(pooled, client, diary, kubectl)


async def test_kubectl_autoscale_keeps_the_pool_within_its_bounds(
    pooled: Cluster, client: Client, kubectl: Kubectl
) -> None:
    await an_autoscaler_keeps_the_bounds(client, kubectl)


def test_a_pools_pods_are_one_to_a_disruption(pooled: Cluster, kubectl: Kubectl) -> None:
    budget = json.loads(kubectl("-n", SYSTEM, "get", "pdb", "espalier-pool-fixed", "-o", "json"))
    assert budget["status"]["expectedPods"] >= 1
    assert budget["spec"]["maxUnavailable"] == 1
