"""The node agent as a kubelet: its Node object, logs, the kubelet API, and what its identity may read."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from espalier_kit.errors import NotFound, Permanent
from espalier_kube.client import Client, connect
from espalier_kube.cluster import CONFIG_MAP, LEASE, NODE, SECRET
from espalier_local.cluster import Cluster as LocalCluster
from espalier_local.places import Places
from tests.support.pods import (
    NODE_NAME,
    TIMEOUT_S,
    container,
    create_sources,
    is_ready,
    pod,
    processes_with,
    state_directory,
    until_pod,
    waits_with,
)

pytestmark = pytest.mark.cluster

Kubectl = Callable[..., str]


async def test_the_node_is_a_node(cluster: LocalCluster, client: Client) -> None:
    linux, mac = [await client.get(NODE, name) for name in (NODE_NAME, "mac-studio-1")]
    assert linux["metadata"]["labels"]["kubernetes.io/os"] == "linux"
    assert mac["metadata"]["labels"]["kubernetes.io/os"] == "darwin"
    assert mac["metadata"]["labels"]["espalier.dev/simulated"] == "true"
    assert {"key": "espalier.dev/mlx", "effect": "NoSchedule"} in mac["spec"]["taints"]
    assert mac["status"]["allocatable"]["espalier.dev/metal"] == "1"
    assert "espalier.dev/metal" not in linux["status"]["allocatable"]
    lease = await client.get(LEASE, NODE_NAME, "kube-node-lease")
    assert lease["spec"]["holderIdentity"] == NODE_NAME
    assert lease["metadata"]["ownerReferences"][0]["uid"] == linux["metadata"]["uid"]


async def test_logs_of_a_pod_that_is_not_there_are_a_sentence(
    cluster: LocalCluster, client: Client, namespace: str, serving: None
) -> None:
    await client.create(pod(namespace, "quiet", {**container("main", "sleep", "60"), "image": "nginx:1"}))
    await until_pod(client, namespace, "quiet", waits_with("ErrImagePull", "nginx"), "ErrImagePull")
    with pytest.raises((Permanent, NotFound), match="waiting to start"):
        await client.logs("quiet", namespace)


def touch_inside(path: str) -> None:
    """Make a file in the container whose command line names it."""
    (pid,) = processes_with(path)
    Path(f"/proc/{pid}/root{path}").touch()


async def test_a_followed_log_ends_with_the_container(
    cluster: LocalCluster, client: Client, namespace: str, kubectl: Kubectl, serving: None
) -> None:
    script = "echo first; touch /tmp/up; while ! test -f /tmp/go; do sleep 0.05; done; echo last"
    probe = {"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 1}
    made = container("main", "sh", "-c", script, readinessProbe=probe)
    await client.create(pod(namespace, "talks", made, restartPolicy="Never"))
    found = await until_pod(client, namespace, "talks", is_ready, "readiness")
    following = asyncio.create_task(asyncio.to_thread(kubectl, "logs", "-n", namespace, "-f", "talks"))
    touch_inside("/tmp/go")
    assert await asyncio.wait_for(following, TIMEOUT_S) == "first\nlast\n"
    assert found["status"]["phase"] == "Running"


def administrators_tls(cluster: LocalCluster, directory: Path) -> ssl.SSLContext:
    """The administrator's client certificate, as the kubeconfig has it."""
    values = yaml.safe_load(cluster.kubeconfig.read_text())
    user, authority = values["users"][0]["user"], values["clusters"][0]["cluster"]
    files = {"crt": user["client-certificate-data"], "key": user["client-key-data"]}
    for name, data in files.items():
        (directory / name).write_bytes(base64.b64decode(data))
    tls = ssl.create_default_context(cadata=base64.b64decode(authority["certificate-authority-data"]).decode())
    tls.load_cert_chain(directory / "crt", directory / "key")
    return tls


async def test_the_kubelet_api_serves_those_who_may(cluster: LocalCluster, serving: None, tmp_path: Path) -> None:
    # The API server proxies to no loopback address, so the administrator asks the node itself.
    url = f"https://{cluster.address_range.node(1)}:10250"
    async with httpx.AsyncClient(verify=administrators_tls(cluster, tmp_path), trust_env=False) as web:
        assert (await web.get(f"{url}/healthz")).text == "ok"
        assert "espalier_node_container_starts_total" in (await web.get(f"{url}/metrics")).text
        assert (await web.get(f"{url}/pods")).json()["kind"] == "PodList"
        assert (await web.get(f"{url}/stats/summary")).json()["node"]["nodeName"] == NODE_NAME
        assert "node_cpu_usage_seconds_total" in (await web.get(f"{url}/metrics/resource")).text
        absent = await web.get(f"{url}/containerLogs/a/b/c")
        later = await web.get(f"{url}/run/a/b/c")
    assert (absent.status_code, absent.text) == (404, "pod a/b is not on this node\n")
    assert (later.status_code, "is not available on this node" in later.text) == (501, True)


async def test_the_kubelet_api_refuses_strangers(
    cluster: LocalCluster, client: Client, namespace: str, serving: None
) -> None:
    token, _ = await client.create_token("default", namespace, audience=None, expiration_s=600)
    url = f"https://{cluster.address_range.node(1)}:10250/metrics"
    async with httpx.AsyncClient(verify=False, trust_env=False) as web:
        nobody = await web.get(url)
        unknown = await web.get(url, headers={"Authorization": "Bearer no"})
        somebody = await web.get(url, headers={"Authorization": f"Bearer {token}"})
    assert [answer.status_code for answer in (nobody, unknown, somebody)] == [401, 401, 403]
    assert f"system:serviceaccount:{namespace}:default may not get nodes/metrics" in somebody.text


async def test_a_node_reads_only_what_its_pods_name(
    cluster: LocalCluster, client: Client, namespace: str, places: Places
) -> None:
    await create_sources(client, namespace)
    node = await connect(state_directory(cluster, places) / "kubeconfig")
    try:
        with pytest.raises(Permanent, match="no relationship found"):
            await node.get(SECRET, "key", namespace)
        with pytest.raises(Permanent):
            await node.list(CONFIG_MAP, namespace)
    finally:
        await node.close()
