"""The sandbox beside a worker: a container that runs code of others, and the nodes that can have such pods.

It works under another user, without token, network or writable root, and has its own bound of memory, which holds its
files too. One-shot pods of a grading have it (`plan.sandbox`), and generators whose questions' answers run
(`plan.answers`).
"""

from __future__ import annotations

from collections.abc import Iterable

from espalier_api.names import NODE_KIND, SIMULATED
from espalier_api.tasks import sandbox_tags
from espalier_kube.cluster import Object
from espalier_kube.objects import UNPRIVILEGED, container_security, value_env
from espalier_operator.plan.facts import Problem
from espalier_operator.settings import OperatorSettings

GVISOR = "gvisor"
"""The RuntimeClass."""
SCRATCH_BYTES = 256 * 2**20
OVERHEAD_BYTES = 256 * 2**20
"""The sandbox's own processes, and what a kernel needs before a submission asks for anything."""
FIELD = "execution.sandbox"


def is_pod(sandbox: str | None) -> bool:
    """Whether a sandbox of that name is a container beside the worker."""
    return bool(sandbox_tags(sandbox))


def with_sandbox(template: Object, sandbox: str, *, memory_bytes: int, settings: OperatorSettings) -> Object:
    """The pod template of a worker with that sandbox beside it, on nodes that run containers."""
    spec = template["spec"]
    worker, *others = spec["containers"]
    tags = value_env({"ESPALIER_WORKER_TAGS": ",".join(sandbox_tags(sandbox))})
    return {**template, "spec": {
        **spec,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": SIMULATED, "operator": "DoesNotExist"}]}
        ]}}},
        "containers": [{**worker, "env": [*worker["env"], *tags]}, *others],
        "initContainers": [_container(sandbox, memory_bytes=memory_bytes, settings=settings)],
        # In memory: there the kernel itself bounds the size.
        "volumes": [
            *spec["volumes"], {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": str(SCRATCH_BYTES)}},
        ],
        **({"runtimeClassName": GVISOR} if sandbox == "gvisor" else {}),
    }}  # fmt: skip


def _container(sandbox: str, *, memory_bytes: int, settings: OperatorSettings) -> Object:
    """A sidecar, so that it is there before the worker and goes after it."""
    memory = memory_bytes + SCRATCH_BYTES + OVERHEAD_BYTES
    return {
        "name": "sandbox",
        "image": settings.worker_image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "command": ["espalier-sandbox"],
        "env": value_env({"ESPALIER_SANDBOX_RUNTIME": sandbox}),
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": str(memory)}},
        "securityContext": {
            **container_security(), "runAsUser": UNPRIVILEGED + 1, "runAsGroup": UNPRIVILEGED + 1,
        },
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
    }


def runtime_problem(sandbox: str | None, nodes: Iterable[Object], runtime_class: Object | None) -> Problem | None:
    """Why no node could run the pods; `runtime_class` is RuntimeClass gvisor, None where there is none."""
    if not is_pod(sandbox):
        return None
    able = [node for node in nodes if runs_containers(node)]
    field = f"{FIELD} {sandbox}"
    if not able:
        return Problem("SandboxUnavailable", f"{field}: no Linux node here runs containers")
    if sandbox != "gvisor":
        return None
    if runtime_class is None:
        return Problem("SandboxUnavailable", f"{field}: the cluster has no RuntimeClass {GVISOR}")
    selector = (runtime_class.get("scheduling") or {}).get("nodeSelector") or {}
    if not any(selector.items() <= (node["metadata"].get("labels") or {}).items() for node in able):
        labels = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
        said = f"{field}: no Linux node has the labels of RuntimeClass {GVISOR} ({labels})"
        return Problem("SandboxUnavailable", said)
    return None


def is_linux(node: Object) -> bool:
    """Whether workers may go there."""
    return (node["metadata"].get("labels") or {}).get(NODE_KIND) == "linux"


def runs_containers(node: Object) -> bool:
    """A kubelet's node of ours; those of our agents say whether they are simulated, and run processes."""
    return is_linux(node) and SIMULATED not in (node["metadata"].get("labels") or {})
