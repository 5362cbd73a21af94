"""What ends and what goes on: crashes, deletion, a killed agent and its successor, an identity near its end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from espalier_kit.clock import SystemClock
from espalier_kube.client import Client, connect
from espalier_kube.cluster import NODE, POD, Object
from espalier_kube.watch import follow
from espalier_local.cluster import Cluster as LocalCluster
from espalier_local.places import Places
from espalier_node import identity
from espalier_node.settings import NodeSettings
from tests.support import waiting
from tests.support.pods import (
    NODE_NAME,
    TIMEOUT_S,
    container,
    is_ready,
    pod,
    processes_with,
    state,
    state_directory,
    until_phase,
    until_pod,
    waits_with,
)

pytestmark = pytest.mark.cluster

Kubectl = Callable[..., str]


def kill_agent(cluster: LocalCluster, places: Places) -> None:
    os.kill(int((state_directory(cluster, places) / "agent.pid").read_text()), signal.SIGKILL)


async def test_a_crashing_container_is_restarted_with_back_off(
    cluster: LocalCluster, client: Client, namespace: str, kubectl: Kubectl, serving: None
) -> None:
    script = "echo attempt; echo because > /dev/termination-log; exit 3"
    await client.create(pod(namespace, "crash", container("main", "sh", "-c", script)))
    found = await until_pod(
        client, namespace, "crash", waits_with("CrashLoopBackOff", "back-off 10s"), "CrashLoopBackOff"
    )
    held = state(found, "main")
    assert held["restartCount"] == 1
    last = held["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (3, "Error", "because\n")
    assert kubectl("logs", "-n", namespace, "crash", "--previous") == "attempt\n"
    again = await until_pod(
        client, namespace, "crash", lambda p: state(p, "main").get("restartCount") == 2, "a second restart"
    )
    assert again["status"]["phase"] == "Running"
    await waiting.until_event(
        client, namespace, lambda e: e["reason"] == "BackOff" and e["involvedObject"]["name"] == "crash",
        timeout_s=TIMEOUT_S, what="BackOff",
    )  # fmt: skip


async def test_a_failing_liveness_probe_restarts_the_container(
    cluster: LocalCluster, client: Client, namespace: str
) -> None:
    probe = {"exec": {"command": ["sh", "-c", "echo ill; exit 1"]}, "periodSeconds": 1, "failureThreshold": 1}
    await client.create(pod(namespace, "ill", container("main", "sleep", "100", livenessProbe=probe)))
    await until_pod(client, namespace, "ill", lambda p: state(p, "main").get("restartCount", 0) >= 1, "a restart")
    await waiting.until_event(
        client, namespace, lambda e: e["reason"] == "Unhealthy" and "Liveness probe failed: ill" in e["message"],
        timeout_s=TIMEOUT_S, what="Unhealthy",
    )  # fmt: skip


async def test_delete_is_graceful_then_firm(cluster: LocalCluster, client: Client, namespace: str) -> None:
    probe = {"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 1}
    wait = "touch /tmp/up; while :; do sleep 0.05; done"
    polite = container("main", "sh", "-c", f"trap 'exit 0' TERM; {wait}", readinessProbe=probe)
    stubborn = container("main", "sh", "-c", f"trap '' TERM; {wait}", readinessProbe=probe)
    await client.create(pod(namespace, "polite", polite, terminationGracePeriodSeconds=60))
    await client.create(pod(namespace, "stubborn", stubborn, terminationGracePeriodSeconds=2))
    for name in ("polite", "stubborn"):
        await until_pod(client, namespace, name, is_ready, "readiness")
    ended: dict[str, tuple[float, Object]] = {}
    began = time.monotonic()
    async with asyncio.timeout(TIMEOUT_S), aclosing(follow(client, POD, namespace)) as changes:
        async for event in changes:
            name = event.object["metadata"]["name"]
            if event.type == "ADDED":
                await client.delete(POD, name, namespace)
            elif event.type == "DELETED":
                ended[name] = time.monotonic() - began, event.object
            if len(ended) == 2:
                break
    assert ended["polite"][0] < 2
    assert 2 <= ended["stubborn"][0] < 10
    assert ended["polite"][1]["status"]["phase"] == "Succeeded"
    assert state(ended["stubborn"][1], "main")["state"]["terminated"]["exitCode"] == 137


async def test_a_killed_agent_leaves_pods_running_and_its_successor_adopts_them(
    cluster: LocalCluster, client: Client, namespace: str, places: Places
) -> None:
    word = f"adopted-{namespace}"
    script = f"import time; open('/tmp/up', 'w').close(); time.sleep(600)  # {word}"
    probe = {"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 1}
    made = container("main", "python3", "-c", script, readinessProbe=probe)
    await client.create(pod(namespace, "stays", made))
    before = await until_pod(client, namespace, "stays", is_ready, "readiness")
    pids = processes_with(word)
    assert len(pids) == 1
    seen = await waiting.seen_events(client)
    kill_agent(cluster, places)
    await waiting.until_event(
        client, None, lambda e: e["reason"] == "AgentRestarted" and e["involvedObject"]["name"] == NODE_NAME,
        timeout_s=TIMEOUT_S, what="AgentRestarted", seen=seen,
    )  # fmt: skip
    assert processes_with(word) == pids
    after = await client.get(POD, "stays", namespace)
    assert state(after, "main")["containerID"] == state(before, "main")["containerID"]
    assert state(after, "main")["restartCount"] == 0
    await client.delete(POD, "stays", namespace)
    await waiting.until_gone(client, POD, namespace, timeout_s=TIMEOUT_S)
    assert processes_with(word) == []


async def test_a_container_that_ended_while_no_agent_was_there_keeps_its_exit_code(
    cluster: LocalCluster, client: Client, namespace: str, places: Places
) -> None:
    host = next(host for host in cluster.hosts if host.name == NODE_NAME)
    script = "while ! test -f /scratch/go; do sleep 0.05; done; exit 5"
    await client.create(pod(
        namespace, "ends", container("main", "sh", "-c", script, volumeMounts=[{"name": "w", "mountPath": "/scratch"}]),
        restartPolicy="Never", volumes=[{"name": "w", "emptyDir": {}}],
    ))  # fmt: skip
    found = await until_pod(client, namespace, "ends", is_ready, "readiness")
    pod_directory = state_directory(cluster, places) / "pods" / found["metadata"]["uid"]
    host.stop()
    try:
        (pod_directory / "volumes" / "w" / "go").touch()
        ending = pod_directory / "containers" / "main" / "0" / "exit.json"
        deadline = time.monotonic() + TIMEOUT_S
        while not ending.exists():
            assert time.monotonic() < deadline, "the shim wrote no exit status"
    finally:
        host.start()
    found = await until_phase(client, namespace, "ends", "Failed")
    assert state(found, "main")["state"]["terminated"]["exitCode"] == 5


class NextYear(SystemClock):
    """A clock by which every certificate of today is near its end."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=330)


async def test_an_identity_near_its_end_is_renewed_by_itself(
    cluster: LocalCluster, places: Places, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_bytes((state_directory(cluster, places) / "kubeconfig").read_bytes())
    before = identity.client_certificate(kubeconfig)
    settings = NodeSettings.model_validate({
        "name": NODE_NAME, "address": cluster.address_range.node(1), "state_dir": tmp_path, "kubeconfig": kubeconfig,
        "bootstrap_kubeconfig": tmp_path / "none",
    })  # fmt: skip
    for _ in range(2):
        node = await connect(kubeconfig)
        try:
            assert (await node.get(NODE, NODE_NAME))["metadata"]["name"] == NODE_NAME
            if identity.client_certificate(kubeconfig) == before:
                await asyncio.wait_for(identity.renew_when_due(node, settings, NextYear()), TIMEOUT_S)
        finally:
            await node.close()
    assert identity.client_certificate(kubeconfig) != before
