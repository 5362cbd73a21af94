"""What pods and the node use: the kubelet's `/stats/summary` and `/metrics/resource` (pure, over measured figures)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from espalier_node.machine.base import Usage
from espalier_node.podspec import PodSpec
from espalier_node.podstate import timestamp

_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """One running container."""

    pod: PodSpec
    name: str
    started_at: datetime
    usage: Usage


def summary(node: str, whole: Usage, containers: Iterable[ContainerUsage], now: datetime) -> dict[str, Any]:
    """The Summary API's document, with CPU and memory and no more."""
    pods: dict[str, dict[str, Any]] = {}
    for one in containers:
        reference = {"name": one.pod.name, "namespace": one.pod.namespace, "uid": one.pod.uid}
        began = timestamp(one.started_at)
        entry = pods.setdefault(one.pod.uid, {"podRef": reference, "startTime": began, "containers": []})
        entry["containers"].append({"name": one.name, "startTime": began, **_figures(one.usage, now)})
    return {"node": {"nodeName": node, **_figures(whole, now)}, "pods": list(pods.values())}


def resource_metrics(whole: Usage, containers: Iterable[ContainerUsage]) -> str:
    """What metrics-server reads: cumulative CPU seconds and working sets, by node, pod and container."""
    found = list(containers)
    by_pod: dict[str, list[ContainerUsage]] = {}
    for one in found:
        by_pod.setdefault(one.pod.uid, []).append(one)
    lines = [
        *_family("node_cpu_usage_seconds_total", "counter", [("", whole.cpu_seconds)]),
        *_family("node_memory_working_set_bytes", "gauge", [("", whole.memory_bytes)]),
    ]
    for scope, groups in (("pod", list(by_pod.values())), ("container", [[one] for one in found])):
        labels = [_labels(group[0], with_container=scope == "container") for group in groups]
        cpu = [sum(one.usage.cpu_seconds for one in group) for group in groups]
        memory = [sum(one.usage.memory_bytes for one in group) for group in groups]
        lines += _family(f"{scope}_cpu_usage_seconds_total", "counter", zip(labels, cpu, strict=True))
        lines += _family(f"{scope}_memory_working_set_bytes", "gauge", zip(labels, memory, strict=True))
    starts = [(_labels(one, with_container=True), one.started_at.timestamp()) for one in found]
    lines += _family("container_start_time_seconds", "gauge", starts)
    return "\n".join(lines) + "\n"


def _figures(usage: Usage, now: datetime) -> dict[str, Any]:
    return {
        "cpu": {"time": timestamp(now), "usageCoreNanoSeconds": int(usage.cpu_seconds * _NANO)},
        "memory": {
            "time": timestamp(now), "workingSetBytes": usage.memory_bytes, "usageBytes": usage.memory_bytes,
            "rssBytes": usage.memory_bytes,
        },
    }


def _labels(one: ContainerUsage, *, with_container: bool) -> str:
    container = f'container="{one.name}",' if with_container else ""
    return f'{{{container}namespace="{one.pod.namespace}",pod="{one.pod.name}"}}'


def _family(name: str, kind: str, samples: Iterable[tuple[str, float]]) -> list[str]:
    return [f"# TYPE {name} {kind}", *(f"{name}{labels} {value}" for labels, value in samples)]
