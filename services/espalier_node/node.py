"""The Node object and its Lease: what the machine is, how it fares, and the sign of life that stops when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from espalier_api import names
from espalier_kit.clock import Clock
from espalier_kit.errors import Conflict, EspalierError, NotFound
from espalier_kube.cluster import LEASE, NODE, Cluster, Object
from espalier_kube.objects import micro_timestamp, timestamp
from espalier_node.environment import quantity
from espalier_node.machine.base import Facts, Pressure
from espalier_node.metrics import Metrics
from espalier_node.settings import NodeSettings

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
KUBELET_VERSION = "v1.36.0-espalier"
"""The Kubernetes release whose kubelet this agent behaves like."""
WEBSOCKETS = "ExtendWebSocketsToKubelet"
"""Then the API server passes WebSockets on, and needs no SPDY, for exec, attach and port-forward (KEP-4006)."""
HEARTBEAT_S = 300.0
"""An unchanged status is written again this often."""
LOW_MEMORY, LOW_DISK, LOW_PIDS = 100 << 20, 0.05, 1000
_RESERVED_MEMORY = 256 << 20


def registration(settings: NodeSettings, facts: Facts) -> Object:
    """The Node as it is created: labels, and the taint that a node may not add to itself later (pure)."""
    spec = {"taints": [{"key": names.MLX_TAINT, "effect": "NoSchedule"}]} if settings.kind == "mlx" else {}
    return {
        "apiVersion": "v1", "kind": "Node", "spec": spec,
        "metadata": {"name": settings.name, "labels": labels(settings, facts)},
    }


def labels(settings: NodeSettings, facts: Facts) -> dict[str, str]:
    """The labels a node sets itself (pure)."""
    exclude = {"node.kubernetes.io/exclude-from-external-load-balancers": "true"} if settings.kind == "mlx" else {}
    return {
        **settings.labels,
        **facts.labels,
        **exclude,
        "kubernetes.io/os": facts.operating_system,
        "kubernetes.io/arch": facts.architecture,
        "kubernetes.io/hostname": settings.name,
        names.NODE_KIND: settings.kind,
        names.SIMULATED: str(settings.simulated).lower(),
    }


def capacity(settings: NodeSettings, facts: Facts) -> dict[str, str]:
    """What the node has in all (pure)."""
    metal = {names.METAL: "1"} if settings.kind == "mlx" else {}
    return {
        "cpu": str(facts.cpus), "memory": f"{facts.memory_bytes // 1024}Ki", "pods": str(settings.max_pods),
        "ephemeral-storage": str(facts.disk_bytes), **metal,
    }


def allocatable(settings: NodeSettings, facts: Facts) -> dict[str, str]:
    """What pods may ask for: a little memory stays the machine's own (pure)."""
    return {
        **capacity(settings, facts),
        "memory": f"{max(0, facts.memory_bytes - _RESERVED_MEMORY) // 1024}Ki",
        "ephemeral-storage": str(int(facts.disk_bytes * 0.9)),
    }


def status(
    settings: NodeSettings, facts: Facts, pressure: Pressure, *, problem: str | None, old: Object, now: datetime
) -> dict[str, Any]:
    """The Node's status; `problem` is the sentence of a failed check, which makes it not Ready (pure)."""
    return {
        "capacity": capacity(settings, facts),
        "allocatable": allocatable(settings, facts),
        "addresses": [
            {"type": "InternalIP", "address": str(settings.address)}, {"type": "Hostname", "address": settings.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.port}},
        "nodeInfo": _node_info(facts),
        "declaredFeatures": [WEBSOCKETS],
        "conditions": _conditions(facts, pressure, problem, old, now),
    }


def _node_info(facts: Facts) -> dict[str, str]:
    return {
        "machineID": facts.machine_id, "systemUUID": facts.machine_id, "bootID": facts.boot_id,
        "kernelVersion": facts.kernel_version, "osImage": facts.os_image,
        "containerRuntimeVersion": "process://0.1.0", "kubeletVersion": KUBELET_VERSION, "kubeProxyVersion": "",
        "operatingSystem": facts.operating_system, "architecture": facts.architecture,
    }


def _conditions(
    facts: Facts, pressure: Pressure, problem: str | None, old: Object, now: datetime
) -> list[dict[str, Any]]:
    is_low = {
        "MemoryPressure": pressure.memory_free_bytes < LOW_MEMORY,
        "DiskPressure": pressure.disk_free_bytes < facts.disk_bytes * LOW_DISK,
        "PIDPressure": pressure.pids_free < LOW_PIDS,
    }
    words = {"MemoryPressure": "Memory", "DiskPressure": "Disk", "PIDPressure": "PID"}
    made = [
        _condition(name, low, f"Agent{'HasInsufficient' if low else 'HasSufficient'}{words[name]}", "", old, now)
        for name, low in is_low.items()
    ]
    if problem is None:
        ready = _condition("Ready", True, "AgentReady", "the node agent runs pods", old, now)
    else:
        ready = _condition("Ready", False, "AgentNotReady", problem, old, now)
    return [*made, _condition("NetworkUnavailable", False, "AgentUsesHostNetwork", "", old, now), ready]


def _condition(name: str, is_true: bool, reason: str, message: str, old: Object, now: datetime) -> dict[str, Any]:
    word = str(is_true)
    before: Mapping[str, Any] = next((c for c in old.get("conditions") or () if c["type"] == name), {})
    since = before.get("lastTransitionTime") if before.get("status") == word else None
    return {
        "type": name, "status": word, "reason": reason, "message": message,
        "lastHeartbeatTime": timestamp(now), "lastTransitionTime": since or timestamp(now),
    }


def patience_s(settings: NodeSettings) -> float:
    """How long one try to renew the Lease may take: after one that hangs there is time for another (pure)."""
    return settings.lease_duration_s / 2


class NodeKeeper:
    """Writes the Node and its Lease until cancelled."""

    def __init__(
        self, settings: NodeSettings, cluster: Cluster, clock: Clock, metrics: Metrics, *, facts: Callable[[], Facts],
        pressure: Callable[[], Pressure], check: Callable[[], str | None],
    ) -> None:
        self._settings, self._cluster, self._clock, self._metrics = settings, cluster, clock, metrics
        self._facts, self._pressure, self._check = facts, pressure, check
        self._node: Object = {}
        self._written_at: float | None = None
        self._lease: Object | None = None

    async def register(self) -> Object:
        """Create the Node, or bring an existing one's labels up to date; returns it with its first status."""
        wished = registration(self._settings, self._facts())
        while True:
            try:
                self._node = await self._create_or_label(wished)
                await self._write_status()
                return self._node
            except EspalierError as error:
                log.warning("cannot register the node", extra={"error": str(error)})
                await self._clock.sleep(1.0)

    async def keep_status(self) -> None:
        """Write the status when it changed, and every five minutes."""
        while True:
            await self._clock.sleep(self._settings.status_refresh_s)
            try:
                await self._write_status()
            except NotFound:
                log.warning("the Node was deleted: registering again")
                self._lease = None
                await self.register()
            except EspalierError as error:
                log.warning("cannot write the node's status", extra={"error": str(error)})

    async def keep_lease(self) -> None:
        """Renew the Lease in time, but not while the agent's own check fails: the cluster shall see it."""
        while True:
            began = self._clock.monotonic()
            problem = self._check()
            self._metrics.healthy.set(problem is None)
            if problem is None:
                await self._renew_safely()
            else:
                log.error("the Lease is not renewed", extra={"problem": problem})
            await self._clock.sleep(max(0.05, self._settings.lease_renew_s - (self._clock.monotonic() - began)))

    async def _create_or_label(self, wished: Object) -> Object:
        try:
            return await self._cluster.create(wished)
        except Conflict as error:
            if error.reason != "AlreadyExists":
                raise
        patch = {"metadata": {"labels": wished["metadata"]["labels"]}}
        return await self._cluster.patch(NODE, self._settings.name, None, patch)

    async def _write_status(self) -> None:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        old = self._node.get("status") or {}
        new = status(self._settings, self._facts(), self._pressure(), problem=self._check(), old=old, now=now)
        is_due = self._written_at is None or monotonic - self._written_at >= HEARTBEAT_S
        if not is_due and _essence(old) == _essence(new):
            # Somebody else (the node controller) may have written since: only the server knows.
            self._node = await self._cluster.get(NODE, self._settings.name)
            if _essence(self._node.get("status") or {}) == _essence(new):
                return
        self._node = await self._cluster.patch(
            NODE, self._settings.name, None, {"status": new}, subresource="status", strategic=True
        )
        self._written_at = monotonic

    async def _renew_safely(self) -> None:
        try:
            async with asyncio.timeout(patience_s(self._settings)):
                await self._renew()
            self._metrics.lease_renewed.set(self._clock.now().timestamp())
        except NotFound:
            self._lease = None
        except (EspalierError, TimeoutError) as error:
            self._lease = None
            log.warning("cannot renew the Lease", extra={"error": str(error) or "no answer in time"})

    async def _renew(self) -> None:
        now = micro_timestamp(self._clock.now())
        if self._lease is None:
            self._lease = await self._find_lease(now)
        spec = {
            **self._lease.get("spec", {}), "holderIdentity": self._settings.name,
            "leaseDurationSeconds": self._settings.lease_duration_s, "renewTime": now,
        }
        body = {**self._lease, "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
        self._lease = await self._cluster.replace(body)

    async def _find_lease(self, now: str) -> Object:
        try:
            return await self._cluster.get(LEASE, self._settings.name, LEASE_NAMESPACE)
        except NotFound:
            owner = {
                "apiVersion": "v1", "kind": "Node", "name": self._settings.name, "uid": self._node["metadata"]["uid"],
            }
            return await self._cluster.create({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": self._settings.name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
                "spec": {
                    "holderIdentity": self._settings.name, "renewTime": now,
                    "leaseDurationSeconds": self._settings.lease_duration_s,
                },
            })


def _essence(found: Object) -> Any:
    """A status without its heartbeat times and without what others write into it; the server rewrites quantities."""
    own = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable", "Ready")
    conditions = {
        c["type"]: {k: v for k, v in c.items() if k != "lastHeartbeatTime" and v != ""}
        for c in found.get("conditions") or () if c["type"] in own
    }
    info = {key: value for key, value in (found.get("nodeInfo") or {}).items() if value}
    amounts = {
        part: {name: quantity(str(amount)) for name, amount in (found.get(part) or {}).items()}
        for part in ("capacity", "allocatable")
    }
    places = {key: found.get(key) for key in ("addresses", "daemonEndpoints")}
    return {**amounts, **places, "nodeInfo": info, "conditions": conditions}
