"""A shared pool under the real HPA controller, which reads our own external metric through the real API server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from espalier_kube.client import Client
from espalier_kube.cluster import API_SERVICE
from espalier_local.cluster import Cluster
from tests.integration.conftest import Kubectl
from tests.support.charts import CHART
from tests.support.pools import (
    SYSTEM,
    coordinator_of,
    open_diary,
    request,
    until_ended,
    until_fewer_replicas,
    until_replicas,
)
from tests.support.pools import Diary as Told
from tests.support.waiting import has, until

METRIC = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{SYSTEM}/espalier_pending_work_units"
SERVICE = "v1beta1.external.metrics.k8s.io"
SHORT, LONG = 60, 6


@pytest.fixture
async def available(pooled: Cluster, client: Client) -> None:
    """The API server has found our server and believes its certificate."""
    await until(client, API_SERVICE, None, SERVICE, has("Available"), timeout_s=30, what="available metrics API")


@pytest.fixture
async def diary() -> AsyncIterator[Told]:
    async with open_diary() as opened:
        yield opened


def pending(kubectl: Kubectl, selector: str) -> dict[str, str]:
    """Value by pool, as the API server tells it."""
    found = json.loads(kubectl("get", "--raw", f"{METRIC}?labelSelector={selector}"))
    assert (found["kind"], found["apiVersion"]) == ("ExternalMetricValueList", "external.metrics.k8s.io/v1beta1")
    return {item["metricLabels"]["pool"]: item["value"] for item in found["items"]}


async def test_load_brings_workers_up_to_the_bound_and_its_end_takes_them_away_with_nothing_lost_or_doubled(
    pooled: Cluster, available: None, client: Client, kubectl: Kubectl, diary: Told,
    record_property: Callable[[str, object], None],
) -> None:
    """When the short tasks are done the long ones still run: workers that are taken away then drain."""
    await until_replicas(client, "elastic", 1, timeout_s=30, is_ready=True)
    tasks = [diary.task(f"short-{n:02}", 0.6) for n in range(SHORT)]
    tasks += [diary.task(f"long-{n}", 9.0) for n in range(LONG)]
    async with coordinator_of(client, pooled) as coordinator:
        started = time.monotonic()
        await coordinator.submit(request("load", tasks, pool="elastic"))
        assert pending(kubectl, "pool%3Delastic") == {"elastic": str(SHORT + LONG)}
        assert pending(kubectl, "pool%3Dnobody") == {}
        await until_replicas(client, "elastic", 4, timeout_s=30)
        up_s = time.monotonic() - started
        await until_fewer_replicas(client, "elastic", 4, timeout_s=60)
        running = set(diary.keys("begin")) - set(diary.keys("end"))
        view = await until_ended(coordinator, "load", timeout_s=60)
        drained = time.monotonic()
        await until_replicas(client, "elastic", 1, timeout_s=30, is_ready=True)
        down_s = time.monotonic() - drained
        results = await coordinator.tasks("load")
        await coordinator.delete("load")
    record_property("seconds_to_the_upper_bound", round(up_s, 1))
    record_property("seconds_from_the_last_task_to_one_worker", round(down_s, 1))
    print(f"up to 4 workers in {up_s:.1f} s, {drained - started:.1f} s in all, down to 1 {down_s:.1f} s after the end")

    assert running, "workers were taken away while tasks ran"
    assert (view.counts.done, view.counts.total, view.lost_leases) == (len(tasks), len(tasks), 0)
    assert {task.key: task.attempts for task in results} == {task.key: 1 for task in tasks}
    assert diary.more_than_once() == {}
    assert len(diary.pods()) >= 4, "every worker that came had work"


def test_a_second_server_of_the_metrics_is_refused_before_anything_is_installed(pooled: Cluster) -> None:
    """Another release in another namespace: what it would take over is named, and what to do instead."""
    chart = [str(CHART), "--values", str(CHART / "values-local.yaml")]
    mode = "pools[0].autoscaling.mode=external-metrics"
    done = subprocess.run(
        [str(pooled.assets["helm"]), f"--kubeconfig={pooled.kubeconfig}", "install", "second", *chart,
         "--namespace=other", "--dry-run=server", "--set=pools[0].name=x", f"--set={mode}"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"APIService {SERVICE} is served by {SYSTEM}/espalier-scaling already" in done.stderr
    assert "use pools[].autoscaling.mode keda or cpu" in done.stderr


async def test_only_the_api_server_may_ask_the_coordinator_itself(pooled: Cluster, kubectl: Kubectl) -> None:
    """The port is open to anybody on the network; the certificate of the aggregator is what opens the door."""
    host = pooled.address_range.coordinator
    data = json.loads(kubectl("-n", SYSTEM, "get", "configmap", "espalier-coordinator", "-o", "json"))["data"]
    assert data["grpc"].startswith(host)
    async with httpx.AsyncClient(verify=False, trust_env=False) as http:
        for path in (METRIC, "/apis/external.metrics.k8s.io/v1beta1", "/apis"):
            answer = await http.get(f"https://{host}:8443{path}", headers={"X-Remote-User": "system:admin"})
            assert answer.status_code == 401
            assert "only the API server may ask here" in answer.json()["message"]


async def test_the_api_server_lists_the_metric_and_verifies_the_certificate(available: None, kubectl: Kubectl) -> None:
    service = json.loads(kubectl("get", "apiservice", SERVICE, "-o", "json"))
    assert service["spec"].get("insecureSkipTLSVerify", False) is False
    assert service["spec"]["caBundle"], "the operator wrote it"
    listed = json.loads(kubectl("get", "--raw", "/apis/external.metrics.k8s.io/v1beta1"))
    assert [resource["name"] for resource in listed["resources"]] == ["espalier_pending_work_units"]
    known = kubectl("api-resources", "--api-group=external.metrics.k8s.io", "-o", "name")
    assert "espalier_pending_work_units" in known
