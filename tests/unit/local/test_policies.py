"""The program that keeps a node's rules: what is in place stays until it knows everything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from espalier_kube.cluster import NAMESPACE, NETWORK_POLICY, POD, Kind, Listing
from espalier_kube.fake import FakeCluster
from espalier_local.policies import GATHER_S, Rules, keep

DEADLINE_S = 10.0
NODE, ADDRESS = "10.89.9.2", "10.91.9.2"


class Told(Rules):
    """Remembers in which threads the known objects were read: they change in the event loop's."""

    def __init__(self, node: str, put: Callable[[str], None]) -> None:
        super().__init__(node, put)
        self.readers: set[int] = set()

    def text(self) -> str:
        self.readers.add(threading.get_ident())
        return super().text()


class Slow(FakeCluster):
    """An API server whose list of NetworkPolicies comes last."""

    def __init__(self) -> None:
        super().__init__()
        self.has_policies = asyncio.Event()

    async def list(self, kind: Kind, namespace: str | None = None, **more: Any) -> Listing:
        if kind is NETWORK_POLICY:
            await self.has_policies.wait()
        return await super().list(kind, namespace, **more)


async def test_rules_are_replaced_only_once_everything_was_listed() -> None:
    cluster, installed, has_installed = Slow(), list[str](), asyncio.Event()
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})
    await cluster.create({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"},
        "spec": {"containers": [{}]},
    })
    status = {"podIP": ADDRESS, "hostIP": NODE, "phase": "Running"}
    await cluster.patch(POD, "p", "a", {"status": status}, subresource="status")
    await cluster.create({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed", "namespace": "a"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    })
    loop = asyncio.get_running_loop()

    def put(text: str) -> None:
        installed.append(text)
        loop.call_soon_threadsafe(has_installed.set)

    rules = Told(NODE, put)
    running = [asyncio.create_task(rules.watch(cluster, kind)) for kind in (NAMESPACE, POD, NETWORK_POLICY)]
    running.append(asyncio.create_task(keep(rules)))
    try:
        await asyncio.wait_for(rules.changed.wait(), DEADLINE_S)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(has_installed.wait(), 5 * GATHER_S)
        cluster.has_policies.set()
        await asyncio.wait_for(has_installed.wait(), DEADLINE_S)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert rules.readers == {threading.get_ident()}
    assert [f"chain {direction}-{ADDRESS} {{" in installed[0] for direction in ("egress", "ingress")] == [True, True]
