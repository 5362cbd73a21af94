"""Shared pools in containers: the API server asks the coordinator through an ordinary Service, policies in force."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from espalier_kit.execution import TaskSpec
from espalier_kube.client import Client
from espalier_kube.cluster import API_SERVICE, Kind
from espalier_local import api
from espalier_local.cluster import Cluster
from espalier_local.places import Places
from espalier_local.progress import Terminal
from espalier_local.release import install
from tests.support.machines import kubectl
from tests.support.pools import (
    SYSTEM,
    coordinator_of,
    executors,
    pool_values,
    request,
    until_ended,
    until_fewer_replicas,
    until_replicas,
)
from tests.support.waiting import has, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

AUTOSCALER = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")


@pytest.fixture(scope="module")
def pooled(released: Cluster, places: Places) -> Cluster:
    """Two pools: `elastic` by the work that waits, `warm` by CPU use as metrics-server tells it."""
    api.apply(released.kubeconfig, [executors()])
    elastic = {"mode": "external-metrics", "min": 1, "max": 4, "targetPerWorker": 4, "scaleDownSeconds": 3}
    warm = {"mode": "cpu", "min": 1, "max": 2}
    pools = pool_values(elastic={"autoscaling": elastic}, warm={"autoscaling": warm})
    install(released, places, Terminal(), overrides=pools)
    return released


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
    async with coordinator_of(client, pooled) as coordinator:
        started = time.monotonic()
        await coordinator.submit(request("load", tasks, pool="elastic"))
        await until_replicas(client, "elastic", 4, timeout_s=60)
        record_property("seconds_to_the_upper_bound", round(time.monotonic() - started, 1))
        await until_fewer_replicas(client, "elastic", 4, timeout_s=90)
        view = await until_ended(coordinator, "load", timeout_s=90)
        results = await coordinator.tasks("load")
        await coordinator.delete("load")
    assert (view.counts.done, view.lost_leases) == (len(tasks), 0)
    assert {task.attempts for task in results} == {1}
    await until_replicas(client, "elastic", 1, timeout_s=60, is_ready=True)


async def test_cpu_use_is_a_metric_as_well(pooled: Cluster, client: Client) -> None:
    found = await until(
        client, AUTOSCALER, SYSTEM, "espalier-pool-warm", has("ScalingActive", reason="ValidMetricFound"),
        timeout_s=90, what="CPU metric",
    )
    (metric,) = found["status"]["currentMetrics"]
    assert metric["resource"]["name"] == "cpu"
    assert metric["resource"]["current"]["averageUtilization"] >= 0
