"""A model on a Linux node, in a container, and everybody who may ask it: workers of jobs and of pools, clients."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from espalier_kube.client import Client
from espalier_kube.cluster import BENCHMARK_JOB, MODEL_SERVER, POD, Object
from espalier_kube.objects import metadata, typed
from espalier_local.cluster import Cluster
from espalier_operator.plan.modelserver import PORT
from tests.support.examples import SECONDS, apply, complete, example, is_answered
from tests.support.flows import recording
from tests.support.jobs import TINY
from tests.support.machines import kubectl, pod, tried
from tests.support.platform import Platform
from tests.support.pool_stories import POOL
from tests.support.waiting import has, until, until_gone

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ON_LINUX = {f'source: "{TINY}"}}]': f'source: "{TINY}"}}]\n  placement: linux'}
PLACES = ("on-linux", "on-a-mac")


@pytest.fixture
async def servers(pooled: Cluster, client: Client, namespace: str) -> AsyncIterator[str]:
    """The namespace; its servers go afterwards, for other tests want both Macs."""
    yield namespace
    for server in (await client.list(MODEL_SERVER, namespace)).items:
        await client.delete(MODEL_SERVER, server["metadata"]["name"], namespace)
    await until_gone(client, POD, namespace, labels="app.kubernetes.io/component=mlx", timeout_s=60)


async def test_a_server_on_a_linux_node_is_asked_by_all_who_may(
    pooled: Cluster, client: Client, servers: str
) -> None:
    """The example, but for its place: its load comes from a worker of its own; a pool's worker asks it and a Mac's."""
    platform, namespace = Platform(pooled, client), servers
    with recording(pooled) as sight:
        await apply(platform, namespace, example("modelserver", **ON_LINUX))
        mac = typed(MODEL_SERVER, metadata("mac", namespace), spec={"models": [{"name": "tiny", "source": TINY}]})
        for wished in (mac, by_a_pool(namespace)):
            await client.create(wished)
        url = f"https://{await address_of_server(client, namespace)}:{PORT}/health"
        friend = pod("friend", "pause", labels={"espalier.dev/model-client": "true"}, namespace=namespace)
        assert "certificate" in await refusal(pooled, client, friend, url), "reached"
        loaded, asked = [await complete(platform, namespace, name) for name in ("tiny-under-load", "by-a-pool")]
    (target,) = loaded["status"]["targets"]
    assert target["requests"] >= 6
    assert is_answered(target), target["errors"]
    assert {name: value["succeeded"] > 0 for name, value in results_of(asked).items()} == dict.fromkeys(PLACES, True)
    assert sight.problems() == []
    assert sight.seen is not None
    asking = {(who, "model server") for who in ("operator", "worker", "pool worker", "model client")}
    assert asking | {("pool worker", "Mac")} <= sight.seen.used()
    stranger = pod("stranger", "pause", namespace=namespace)
    assert "deadline" in await refusal(pooled, client, stranger, url), "dropped"


def by_a_pool(namespace: str) -> Object:
    """Three questions to each of the two servers, asked by the workers of the shared pool."""
    tasks = [
        {"name": place, "type": "benchmark", "payload": {"provider": f"target-{n}", "iterations": 3, "maxTokens": 8}}
        for n, place in enumerate(PLACES)
    ]
    targets = [{"modelServer": "tiny"}, {"modelServer": "mac"}]
    spec = {"targets": targets, "tasks": tasks, "generators": {"pool": POOL}}
    return typed(BENCHMARK_JOB, metadata("by-a-pool", namespace), spec=spec)


async def address_of_server(client: Client, namespace: str) -> str:
    """Where the one on Linux serves, in a container of that node."""
    server = await until(
        client, MODEL_SERVER, namespace, "tiny", has("Ready", reason="Serving"), timeout_s=SECONDS, what="Serving"
    )
    (endpoint,) = server["status"]["endpoints"]
    assert endpoint["node"] == "linux-1"
    found = await client.get(POD, endpoint["pod"], namespace)
    (container,) = found["status"]["containerStatuses"]
    assert container["containerID"].startswith("containerd://")
    return str(found["status"]["podIP"])


async def refusal(pooled: Cluster, client: Client, asker: Object, url: str) -> str:
    """What a pod, which knows no authority, is told when it asks there."""
    name, place = asker["metadata"]["name"], f"--namespace={asker['metadata']['namespace']}"
    await client.create(asker)
    kubectl(pooled, "wait", "--for=condition=Ready", f"pod/{name}", place, "--timeout=60s")
    done = tried(pooled, "exec", name, place, "--", "/tiny", "get", url)
    assert done.returncode != 0
    return done.stderr


def results_of(job: Object) -> dict[str, Any]:
    """What each task of the workflow found."""
    return {found["name"]: json.loads(found["value"]) for found in job["status"]["results"]}
