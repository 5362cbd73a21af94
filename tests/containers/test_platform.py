"""The platform in containers: charts on a real kubelet, a class graded there, and what a person does with its pods."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from espalier_cli.connection import artifacts_of
from espalier_cli.options import Where
from espalier_kube.client import Client, connect
from espalier_kube.cluster import POD, SECRET
from espalier_local import api
from espalier_local.bootstrap import NAMESPACE
from espalier_local.building import Built
from espalier_local.cluster import Cluster
from espalier_local.release import IMAGE_ANNOTATION
from tests.support import classroom
from tests.support.flows import recording
from tests.support.machines import eventually, kubectl, tried
from tests.support.platform import Platform
from tests.support.waiting import has

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

GRADED_S = 240
SYSTEM = f"--namespace={NAMESPACE}"


def test_the_charts_pods_are_containers_of_our_images(released: Cluster, built: Built) -> None:
    pods = {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod
            for pod in api.list_all(released.kubeconfig, POD, NAMESPACE)}  # fmt: skip
    assert pods.keys() == {"operator", "coordinator"}
    for program, pod in pods.items():
        (status,) = pod["status"]["containerStatuses"]
        assert pod["spec"]["nodeName"] == "linux-1"
        assert status["ready"]
        assert status["containerID"].startswith("containerd://")
        (image,) = built.of(program)
        assert pod["spec"]["containers"][0]["image"] == image.name
        assert pod["metadata"]["annotations"][IMAGE_ANNOTATION] == image.manifest
        assert status["imageID"].endswith(image.blobs[0])


def test_macs_have_serving_certificates_by_the_operator_in_its_container(released: Cluster) -> None:
    """Logs of a pod on a Mac need one; the node's address is on a cable."""
    eventually(lambda: tried(released, "get", "--raw", "/api/v1/nodes/mac-studio-1/proxy/healthz").returncode == 0,
               "a Mac's kubelet API")  # fmt: skip


def test_a_class_is_graded_in_one_shot_pods(released: Cluster, namespace: str) -> None:
    """The same grades as on process nodes, over Services and names; every connection was one that policies allow."""
    with recording(released) as seen:
        rows = asyncio.run(graded(released, namespace))
    assert {row["name"]: row["tests"] for row in rows} == {
        "student-000": "2.0/2", "student-001": "2.0/2", "wrong": "0.0/2",
    }  # fmt: skip
    assert seen.problems() == []


async def graded(released: Cluster, namespace: str) -> list[dict[str, Any]]:
    """The report's rows of a class of three."""
    students = {
        **classroom.good_class(2),
        **classroom.submissions({"wrong": classroom.notebook(classroom.WRONG_CODE, classroom.GOOD_TEXT)}),
    }
    client = await connect(released.kubeconfig)
    try:
        platform = Platform(released, client)
        execution = {"sandbox": "container", "kernelTimeoutSeconds": 60}
        job = await platform.submit(namespace, "class", students=students, execution=execution)
        await platform.until(job, has("Complete"), timeout_s=GRADED_S, what="Complete")
        return await platform.report_rows(job)
    finally:
        await client.close()


def test_logs_and_exec(released: Cluster) -> None:
    """exec needs no shell, and there is none."""
    coordinator = ("espalier-coordinator-0", SYSTEM)
    first = kubectl(released, "logs", *coordinator).splitlines()[0]
    assert json.loads(first)["level"] == "info"
    assert kubectl(released, "exec", *coordinator, "--", "espalier-coordinator", "--version").split()
    without = tried(released, "exec", *coordinator, "--", "sh", "-c", "true")
    assert without.returncode != 0
    assert "not found" in without.stderr


async def test_a_drained_node_gives_its_pods_back_with_their_data(
    released: Cluster, client: Client, namespace: str
) -> None:
    """`espalier push` comes by a forwarded port; what it stored outlives the coordinator's pod."""
    where = Where(released.kubeconfig, namespace)
    async with artifacts_of(client, where) as store:
        digest = await store.put(b"outlives its pod")
    before = await client.get(POD, "espalier-coordinator-0", NAMESPACE)
    secret = await client.get(SECRET, "espalier-coordinator-tls", NAMESPACE)
    kubectl(released, "drain", "linux-1", "--force", "--delete-emptydir-data", "--ignore-daemonsets", "--timeout=100s")
    assert not [pod for pod in api_pods(await client.list(POD)) if pod["spec"].get("nodeName") == "linux-1"]
    kubectl(released, "uncordon", "linux-1")
    for kind in ("deployment/espalier-operator", "statefulset/espalier-coordinator"):
        kubectl(released, "rollout", "status", kind, SYSTEM, "--timeout=90s")
    after = await client.get(POD, "espalier-coordinator-0", NAMESPACE)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert (await client.get(SECRET, "espalier-coordinator-tls", NAMESPACE))["data"] == secret["data"]
    async with artifacts_of(client, where) as store:
        assert await store.get(digest) == b"outlives its pod"


def api_pods(listing: object) -> list[dict[str, dict[str, str]]]:
    """Those of a list that have not ended."""
    items = getattr(listing, "items", ())
    return [pod for pod in items if pod["status"]["phase"] not in ("Succeeded", "Failed")]
