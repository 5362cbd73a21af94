"""Pods for the real API server, what their status says, and where the node agent that runs them keeps its state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from espalier_kube.cluster import POD, Cluster, Object
from espalier_local.cluster import Cluster as LocalCluster
from espalier_local.layout import Layout
from espalier_local.places import Places
from tests.support import waiting

NODE_NAME = "linux-1"
KUBELET_PORT = 10250
TIMEOUT_S = 30
_RESTRICTED = {
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
    "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


def container(name: str, *command: str, **fields: Any) -> Object:
    """A container of our own image that Pod Security restricted admits."""
    base = {"name": name, "image": "espalier-worker:test", "command": list(command), "securityContext": _RESTRICTED}
    return {**base, **fields}


def pod(namespace: str, name: str, *containers: Object, **spec: Any) -> Object:
    """A pod for a Linux node; `spec` adds to the spec or replaces its fields."""
    selector = {"espalier.dev/node-kind": "linux"}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": list(containers), "nodeSelector": selector, "terminationGracePeriodSeconds": 5, **spec},
    }  # fmt: skip


def is_ready(found: Object) -> bool:
    """The pod's Ready condition holds."""
    return waiting.condition(found, "Ready").get("status") == "True"


def state(found: Object, name: str) -> Object:
    """The status of that container or init container, or an empty dictionary."""
    statuses = [*found["status"].get("initContainerStatuses", ()), *found["status"].get("containerStatuses", ())]
    return next((status for status in statuses if status["name"] == name), {})


def waits_with(reason: str, text: str) -> Callable[[Object], bool]:
    """A predicate: the container `main` waits for that reason, with that text in the message."""

    def predicate(found: Object) -> bool:
        held = state(found, "main").get("state", {}).get("waiting", {})
        return held.get("reason") == reason and text in held.get("message", "")

    return predicate


async def until_pod(
    client: Cluster, namespace: str, name: str, predicate: Callable[[Object], bool], what: str
) -> Object:
    """The pod once `predicate` holds; `what` names it in the failure."""
    return await waiting.until(client, POD, namespace, name, predicate, timeout_s=TIMEOUT_S, what=what)


async def until_phase(client: Cluster, namespace: str, name: str, phase: str) -> Object:
    """The pod once it is in that phase."""
    return await until_pod(client, namespace, name, lambda found: found["status"].get("phase") == phase, phase)


async def create_sources(client: Cluster, namespace: str) -> None:
    """A ConfigMap `settings` and a Secret `key` for pods to take values from."""
    meta = {"namespace": namespace}
    await client.create({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {**meta, "name": "settings"}, "data": {"colour": "green"},
    })  # fmt: skip
    await client.create({
        "apiVersion": "v1", "kind": "Secret", "metadata": {**meta, "name": "key"}, "stringData": {"password": "s3cret"},
    })  # fmt: skip


def state_directory(cluster: LocalCluster, places: Places) -> Path:
    """Where the agent of `NODE_NAME` keeps its pods, its kubeconfig and its pid."""
    return Layout(places.clusters / cluster.name).nodes / NODE_NAME / "state"


def processes_with(word: str) -> list[int]:
    """Pids of Python or shell processes whose command line carries a word of ours, wrappers left out."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        name = Path(arguments[0]).name if arguments else ""
        if name.startswith(("python", "sh", "sleep")) and any(word in argument for argument in arguments[1:]):
            found.append(process.pid)
    return found
