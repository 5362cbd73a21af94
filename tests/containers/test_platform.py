"""The platform in containers: charts on a real kubelet, a class graded there, and what a person does with its pods."""

from __future__ import annotations

import json
import re

import pytest

from espalier_cli.connection import artifacts_of
from espalier_cli.options import Where
from espalier_kube.client import Client
from espalier_kube.cluster import POD, SECRET
from espalier_local import api
from espalier_local.bootstrap import NAMESPACE
from espalier_local.building import Built
from espalier_local.cluster import Cluster
from espalier_local.release import IMAGE_ANNOTATION
from tests.support.demo import demonstrated
from tests.support.flows import recording
from tests.support.machines import eventually, kubectl, tried
from tests.support.pods import container, is_ready, until_pod
from tests.support.pods import pod as process_pod
from tests.support.waiting import until_gone

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

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


def test_the_demo_gives_the_same_points_in_one_shot_pods(released: Cluster) -> None:
    """The command checks its figures as on process nodes; every connection was one that policies allow."""
    with recording(released) as seen:
        printed = demonstrated(released.name, "--nodes=container")
    assert "submissions run each in a fresh pod under gVisor" in printed
    assert seen.problems() == []


def test_tops_figures_are_those_of_all_nodes_and_pods(released: Cluster) -> None:
    """By metrics-server, which asks kubelets and our agents alike; it looks every 15 s."""
    nodes = {"linux-1", "mac-studio-1", "mac-studio-2"}
    eventually(lambda: top(released, "nodes") == nodes, "in kubectl top nodes", 60.0)
    eventually(lambda: {"espalier-coordinator-0"} <= top(released, "pods", SYSTEM), "in kubectl top pods", 60.0)


def top(released: Cluster, *words: str) -> set[str]:
    """Names of which `kubectl top` shows memory that is used."""
    rows = [line.split() for line in tried(released, "top", *words, "--no-headers").stdout.splitlines()]
    return {row[0] for row in rows if re.search(r"\b[1-9]\d*Mi\b", " ".join(row))}


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


async def test_a_pod_on_a_mac_has_logs_and_goes_when_the_mac_is_drained(
    released: Cluster, client: Client, namespace: str
) -> None:
    place = {"nodeSelector": {"kubernetes.io/hostname": "mac-studio-2"}, "tolerations": [{"operator": "Exists"}]}
    talks = container("main", "sh", "-c", "echo hello from a Mac; sleep 600")
    await client.create(process_pod(namespace, "native", talks, **place))
    await until_pod(client, namespace, "native", is_ready, "readiness")
    assert kubectl(released, "logs", "native", f"--namespace={namespace}") == "hello from a Mac\n"
    kubectl(released, "drain", "mac-studio-2", "--force", "--timeout=100s")
    await until_gone(client, POD, namespace, timeout_s=10)
    kubectl(released, "uncordon", "mac-studio-2")


def api_pods(listing: object) -> list[dict[str, dict[str, str]]]:
    """Those of a list that have not ended."""
    items = getattr(listing, "items", ())
    return [pod for pod in items if pod["status"]["phase"] not in ("Succeeded", "Failed")]
