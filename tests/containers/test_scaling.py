"""Shared pools in containers: the API server asks the coordinator through an ordinary Service, policies in force."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from espalier_kit.execution import TaskSpec
from espalier_kube.client import Client
from espalier_kube.cluster import API_SERVICE, Kind, Object
from espalier_local.cluster import Cluster
from espalier_operator.plan.modelserver import PORT
from espalier_rpc.views import JobUpdate
from tests.support.flows import recording
from tests.support.machines import kubectl
from tests.support.pool_stories import a_worker_goes, an_autoscaler_keeps_the_bounds
from tests.support.pools import (
    SYSTEM,
    Diary,
    coordinator_of,
    open_diary,
    request,
    until_ended,
    until_fewer_replicas,
    until_replicas,
)
from tests.support.waiting import has, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

AUTOSCALER = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
WANTED_PERCENT = 80
"""The chart's own `cpuPercent`, of the 50m that the pools' workers request here."""


@pytest.fixture
async def diary(pooled: Cluster) -> AsyncIterator[Diary]:
    """At the switch, on the port of models on cables: there policies let workers go, and we can listen."""
    assert pooled.cables is not None
    async with open_diary(pooled.cables.server, PORT) as opened:
        yield opened


async def test_pods_come_with_the_work_and_go_with_it(
    pooled: Cluster, client: Client, record_property: Callable[[str, object], None]
) -> None:
    await until(
        client, API_SERVICE, None, "v1beta1.external.metrics.k8s.io", has("Available"), timeout_s=60, what="metrics API"
    )
    service = json.loads(kubectl(pooled, "-n", SYSTEM, "get", "service", "espalier-scaling", "-o", "json"))["spec"]
    assert (service["type"], service["selector"]["app.kubernetes.io/component"]) == ("ClusterIP", "coordinator")
    seconds = [1.0] * 30 + [8.0] * 5
    tasks = [TaskSpec(key=f"task-{n}", type="probe.nap", payload={"seconds": s}) for n, s in enumerate(seconds)]
    with recording(pooled) as seen:
        async with coordinator_of(client, pooled) as coordinator:
            started = time.monotonic()
            await coordinator.submit(request("load", tasks, pool="elastic"))
            await until_replicas(client, "elastic", 4, timeout_s=60)
            record_property("seconds_to_the_upper_bound", round(time.monotonic() - started, 1))
            await until_fewer_replicas(client, "elastic", 4, timeout_s=90)
            view = await until_ended(coordinator, "load", timeout_s=90)
            record_property("seconds_until_all_was_done", round(time.monotonic() - started, 1))
            drained = time.monotonic()
            results = await coordinator.tasks("load")
            await coordinator.delete("load")
        await until_replicas(client, "elastic", 1, timeout_s=60, is_ready=True)
        record_property("seconds_from_the_last_task_to_one_worker", round(time.monotonic() - drained, 1))
    assert (view.counts.done, view.lost_leases) == (len(tasks), 0)
    assert {task.attempts for task in results} == {1}
    assert seen.problems() == []


async def test_kubectl_scale_takes_a_worker_away_without_losing_what_it_runs(
    pooled: Cluster, client: Client, diary: Diary
) -> None:
    await a_worker_goes(pooled, client, diary, partial(kubectl, pooled))


async def test_kubectl_autoscale_keeps_the_pool_within_its_bounds(pooled: Cluster, client: Client) -> None:
    await an_autoscaler_keeps_the_bounds(client, partial(kubectl, pooled))


async def test_cpu_use_brings_a_worker_as_well(
    pooled: Cluster, client: Client, record_property: Callable[[str, object], None]
) -> None:
    """As metrics-server tells it: little at rest, and one worker; a task that computes, and there are two."""
    rest = await until_autoscaled(client, lambda hpa: use_percent(hpa) is not None, what="CPU metric")
    assert (use_percent(rest) or 0) <= WANTED_PERCENT
    assert rest["status"]["desiredReplicas"] == 1
    task = TaskSpec(key="busy", type="probe.burn", payload={"seconds": 120})
    async with coordinator_of(client, pooled) as coordinator:
        started = time.monotonic()
        await coordinator.submit(request("busy", [task], pool="warm"))
        busy = await until_autoscaled(client, wants_two, what="second worker")
        record_property("seconds_to_the_second_worker", round(time.monotonic() - started, 1))
        await until_replicas(client, "warm", 2, timeout_s=30)
        await coordinator.update(JobUpdate("busy", cancel=True))
        await until_ended(coordinator, "busy", timeout_s=30)
        await coordinator.delete("busy")
    assert (use_percent(busy) or 0) > WANTED_PERCENT


async def until_autoscaled(client: Client, holds: Callable[[Object], bool], *, what: str) -> Object:
    """The autoscaler of the pool that follows CPU use, once that holds; metrics-server looks every 15 s."""
    return await until(client, AUTOSCALER, SYSTEM, "espalier-pool-warm", holds, timeout_s=90, what=what)


def wants_two(hpa: Object) -> bool:
    """Whether it wishes a second worker."""
    return bool(hpa.get("status", {}).get("desiredReplicas") == 2)


def use_percent(hpa: Object) -> int | None:
    """CPU use of its workers, of what they request; None until it is known."""
    metrics = hpa.get("status", {}).get("currentMetrics") or ()
    return next((metric["resource"]["current"].get("averageUtilization") for metric in metrics if metric), None)
