"""`espalier explain`: why a job is where it is, in one sentence, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape

from espalier_api.names import OWNER_KIND, OWNER_NAME, WORKER_SUFFIX
from espalier_api.reasons import REASONS
from espalier_cli.connection import cluster_of, job_of
from espalier_cli.objects import conditions, ended_as, status_line
from espalier_cli.options import Kubeconfig, Namespace, Where, job_reference
from espalier_cli.terminal import out, run
from espalier_kit.errors import NotFound
from espalier_kube.cluster import EVENT, GRADING_JOB, JOB, MODEL_SERVER, POD, Cluster, Kind, Object
from espalier_kube.objects import is_owned_by, label_value

_WAITS = frozenset({"WaitingForNodes", "WaitingForRuns", "RunNotFound", "RunFailed", "SecretNotFound"})
"""Reasons of Progressing that say more than any pod."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The job and what belongs to it."""

    job: Object
    worker_job: Object | None
    pods: tuple[Object, ...]
    warnings: tuple[Object, ...]
    """Warning Events of the job and of its pods, newest last."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A sentence, what to do, and where it is known from."""

    sentence: str
    next_step: str
    evidence: tuple[str, ...] = ()


def explain(
    name: Annotated[str, typer.Argument(help="The job, as gj/NAME, bj/NAME or bmc/NAME.")],
    namespace: Namespace = "default", kubeconfig: Kubeconfig = None,
) -> None:
    """Say in one sentence where a job stands, why, and what to do."""

    async def work() -> None:
        async with cluster_of(Where(kubeconfig, namespace)) as cluster:
            kind, plain = job_reference(name)
            found = explanation(await gather(cluster, plain, namespace, kind))
        out.print(escape(found.sentence))
        out.print(f"next: {escape(found.next_step)}")
        for line in found.evidence:
            out.print(f"  {escape(line)}")

    run(work())


async def gather(cluster: Cluster, name: str, namespace: str, kind: Kind = GRADING_JOB) -> Facts:
    """Read everything once."""
    job = await job_of(cluster, name, namespace, kind)
    try:
        worker_job = await cluster.get(JOB, f"{name}-{WORKER_SUFFIX[kind.kind]}", namespace)
    except NotFound:
        worker_job = None
    owners = {(kind.kind, label_value(name)), *(("ModelServer", server) for server in await _servers(cluster, job))}
    listed = await cluster.list(POD, namespace, labels=f"{OWNER_NAME} in ({','.join(sorted({n for _, n in owners}))})")
    pods = tuple(pod for pod in listed.items if _owner(pod) in owners)
    uids = {job["metadata"]["uid"], *(pod["metadata"]["uid"] for pod in pods)}
    events = (await cluster.list(EVENT, namespace)).items
    ours = [e for e in events if e.get("type") == "Warning" and (e.get("involvedObject") or {}).get("uid") in uids]
    return Facts(job, worker_job, pods, tuple(sorted(ours, key=_seen)))


async def _servers(cluster: Cluster, job: Object) -> tuple[str, ...]:
    """Model servers that the job made, as their pods are labelled."""
    found = (await cluster.list(MODEL_SERVER, job["metadata"]["namespace"])).items
    return tuple(label_value(o["metadata"]["name"]) for o in found if is_owned_by(o, job["metadata"]["uid"]))


def _owner(pod: Object) -> tuple[str, str]:
    labels = pod["metadata"].get("labels") or {}
    return labels.get(OWNER_KIND, ""), labels.get(OWNER_NAME, "")


def explanation(facts: Facts) -> Explanation:
    """The most specific thing that holds the job up: its end, a refusal, a degradation, a pod, or none."""
    name = facts.job["metadata"]["name"]
    workers = _job_lines(facts.worker_job, _pool_of(facts.job))
    evidence = (*workers, *_pod_lines(facts.pods), *_event_lines(facts.warnings))
    state = {c["type"]: c for c in conditions(facts.job)}
    if not state:
        step = "see that the operator runs: kubectl -n espalier-system get pods"
        return Explanation(f"{name}: the operator has not looked at it yet.", step, evidence)
    decisive = _decisive(state)
    waiting = () if ended_as(facts.job) else tuple(pod for pod in facts.pods if _trouble(pod))
    if decisive is None and waiting:
        pod = waiting[0]
        what = pod["metadata"]["name"]
        step = f"kubectl -n {pod['metadata']['namespace']} describe pod {what}"
        return Explanation(f"{name} waits for pod {what}: {_trouble(pod)}.", step, evidence)
    found = decisive or state.get("Complete") or state.get("Progressing") or next(iter(state.values()))
    known = REASONS.get(found["reason"])
    why = found.get("message") or (known.sentence if known else found["reason"])
    object_ = f"{facts.job.get('kind', 'gj').lower()} {name}"
    step = known.remedy if known else f"kubectl -n {facts.job['metadata']['namespace']} describe {object_}"
    return Explanation(f"{name}: {status_line(facts.job)}. {found['reason']}: {why}", step, evidence)


def _decisive(state: Mapping[str, Mapping[str, str]]) -> Mapping[str, str] | None:
    for type_, status in (
        ("Failed", "True"), ("Cancelled", "True"), ("Complete", "True"), ("Accepted", "False"), ("Suspended", "True"),
        ("Degraded", "True"),
    ):
        found = state.get(type_)
        if found is not None and found["status"] == status:
            return found
    progressing = state.get("Progressing")
    return progressing if progressing is not None and progressing["reason"] in _WAITS else None


def _trouble(pod: Object) -> str:
    """Why a pod does not run; empty when it does."""
    status: Mapping[str, Any] = pod.get("status") or {}
    if status.get("phase") in {"Succeeded", "Failed"}:
        return ""
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = (container.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
            return f"{waiting['reason']} {waiting.get('message', '')}".strip()
    for found in status.get("conditions", ()):
        if found["type"] == "PodScheduled" and found["status"] == "False":
            return f"{found.get('reason')} {found.get('message', '')}".strip()
    return ""


def _pool_of(job: Object) -> str:
    spec = job.get("spec") or {}
    workers = spec.get("workers") or spec.get("generators") or {}
    return str(workers.get("pool") or "")


def _job_lines(worker_job: Object | None, pool: str) -> tuple[str, ...]:
    if pool:
        return (f"workers of the shared pool {pool}: kubectl -n espalier-system get deployment espalier-pool-{pool}",)
    if worker_job is None:
        return ("no worker Job",)
    status: Mapping[str, Any] = worker_job.get("status") or {}
    counts = ", ".join(f"{status.get(key, 0)} {key}" for key in ("active", "succeeded", "failed"))
    failed = [c for c in status.get("conditions", ()) if c["type"] == "Failed" and c["status"] == "True"]
    why = f"; {failed[0].get('reason')} {failed[0].get('message', '')}".rstrip() if failed else ""
    return (f"job {worker_job['metadata']['name']}: {counts}{why}",)


def _pod_lines(pods: Sequence[Object]) -> tuple[str, ...]:
    lines = []
    for pod in sorted(pods, key=lambda p: str(p["metadata"]["name"])):
        where = (pod.get("spec") or {}).get("nodeName") or "no node"
        phase = (pod.get("status") or {}).get("phase", "Unknown")
        restarts = sum(c.get("restartCount", 0) for c in (pod.get("status") or {}).get("containerStatuses", ()))
        told = f", {restarts} restarts" if restarts else ""
        lines.append(f"pod {pod['metadata']['name']} on {where}: {phase}{told}")
    return tuple(lines)


def _event_lines(events: Sequence[Object]) -> tuple[str, ...]:
    told = [e for e in events if e.get("reason") != "Unhealthy"]  # a starting server's probes
    return tuple(f"event {e.get('reason')}: {e.get('message', '')}" for e in told[-3:])


def _seen(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
