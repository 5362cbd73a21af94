"""Pure readers: what one Kubernetes object says, as facts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from espalier_api.benchmarkjob import BenchmarkJob
from espalier_api.meta import is_true
from espalier_api.modelserver import ModelServer
from espalier_api.names import METAL, NODE_KIND, OWNER_KIND, OWNER_NAME, SIMULATED
from espalier_kit.artifacts import SCHEME
from espalier_kit.errors import EXIT_STOPPED
from espalier_kube.cluster import Object
from espalier_kube.objects import condition, has_condition, label_value, parse_time
from espalier_operator.plan.conditions import TERMINAL
from espalier_operator.plan.facts import ComparedRun, Job, LostPod, MacFacts, ServerPod, StrandedPod, WorkerFacts
from espalier_operator.plan.kinds import JOB_KINDS, TYPES, model_refs, named_targets
from espalier_operator.plan.workers import WORKERS_HASH


def job(obj: Object) -> Job:
    """Parse a job of any kind; the API server has checked it against the CRD."""
    return TYPES[obj["kind"]].model_validate({key: obj[key] for key in ("metadata", "spec", "status") if key in obj})


def model_server(obj: Object) -> ModelServer:
    """Parse; the API server has checked it against the CRD."""
    return ModelServer.model_validate({key: obj[key] for key in ("metadata", "spec", "status") if key in obj})


def belongs(obj: Object, kind: str, name: str) -> bool:
    """Whether the labels name that owner."""
    labels = obj["metadata"].get("labels") or {}
    return labels.get(OWNER_KIND) == kind and labels.get(OWNER_NAME) == label_value(name)


def worker(batch: Object) -> WorkerFacts:
    """The worker Job."""
    spec, status = batch["spec"], batch.get("status") or {}
    failed = condition(batch, "Failed")
    failure = failed.get("message") or failed.get("reason") or "" if failed and failed["status"] == "True" else ""
    return WorkerFacts(
        name=batch["metadata"]["name"],
        uid=batch["metadata"]["uid"],
        workers_hash=(batch["metadata"].get("annotations") or {}).get(WORKERS_HASH, ""),
        suspended=bool(spec.get("suspend")),
        replicas=int(spec.get("parallelism") or 0),
        active=int(status.get("active") or 0),
        is_finished=has_condition(batch, "Complete") or has_condition(batch, "Failed"),
        failure=failure,
    )


def lost_pod(pod: Object) -> LostPod | None:
    """A worker pod that failed, and why; None for others, also for one that was asked to stop and left in order."""
    status = pod.get("status") or {}
    if status.get("phase") != "Failed":
        return None
    ended = [s["state"]["terminated"] for s in status.get("containerStatuses") or () if "terminated" in s["state"]]
    if pod["metadata"].get("deletionTimestamp") and {t.get("exitCode") for t in ended} == {EXIT_STOPPED}:
        return None
    codes = [f"{t.get('reason') or 'exit'} {t.get('exitCode')}" for t in ended if t.get("exitCode")]
    why = ", ".join(codes) or status.get("reason") or status.get("message") or "phase Failed"
    return LostPod(pod["metadata"]["uid"], pod["metadata"]["name"], why)


def stranded_pods(pods: tuple[Object, ...], away: Mapping[str, float], now: datetime) -> tuple[StrandedPod, ...]:
    """Worker pods that have not ended, on nodes that are away."""
    found = ((pod, stranded_s(pod, away, now)) for pod in pods if not _has_ended(pod))
    return tuple(
        StrandedPod(pod["metadata"]["uid"], pod["metadata"]["name"], pod["spec"]["nodeName"], seconds)
        for pod, seconds in found
        if seconds is not None
    )


def stranded_s(pod: Object, away: Mapping[str, float], now: datetime) -> float | None:
    """How long this pod has been on a node that is away; None while its node is well. A new pod starts at 0."""
    node_s = away.get((pod.get("spec") or {}).get("nodeName") or "")
    made = parse_time(pod["metadata"].get("creationTimestamp"))
    return node_s if node_s is None or made is None else min(node_s, (now - made).total_seconds())


def server_pod(
    pod: Object, away: Mapping[str, float], now: datetime, verdict: tuple[bool, float | None, str] | None
) -> ServerPod | None:
    """A model server's pod; None once it has ended."""
    meta, status = pod["metadata"], pod.get("status") or {}
    if _has_ended(pod):
        return None
    node = (pod.get("spec") or {}).get("nodeName") or ""
    answers, rate, why = verdict or (None, None, "")
    return ServerPod(
        name=meta["name"], uid=meta["uid"], node=node, ip=status.get("podIP") or "",
        is_going="deletionTimestamp" in meta,
        node_away_s=stranded_s(pod, away, now), probe=answers, tokens_per_second=rate,
        why=why or _waits(pod), restarts=sum(_restarts(pod)),
    )


def simulated_nodes(nodes: tuple[Object, ...]) -> frozenset[str]:
    """Macs that another machine plays."""
    return frozenset(n["metadata"]["name"] for n in nodes if _labels(n).get(SIMULATED) == "true")


def away_nodes(nodes: tuple[Object, ...], now: datetime) -> dict[str, float]:
    """Nodes whose agent is silent or unwell, and for how many seconds."""
    return {n["metadata"]["name"]: _away_s(n, now) for n in nodes if not has_condition(n, "Ready")}


def macs(nodes: tuple[Object, ...]) -> MacFacts:
    """What the Macs can hold."""
    ours = [n for n in nodes if _labels(n).get(NODE_KIND) == "mlx"]
    able = [n for n in ours if has_condition(n, "Ready") and not (n.get("spec") or {}).get("unschedulable")]
    capacity = sum(int((n["status"].get("allocatable") or {}).get(METAL, 0)) for n in able)
    away = tuple(sorted(n["metadata"]["name"] for n in ours if n not in able))
    return MacFacts(capacity, away)


def node_essence(node: Object) -> object:
    """What of a node concerns us; heartbeats change nothing of it."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ready = condition(node, "Ready") or {}
    labels = {key: value for key, value in _labels(node).items() if key.startswith("espalier.dev/")}
    allocatable = (status.get("allocatable") or {}).get(METAL)
    return ready.get("status"), bool(spec.get("unschedulable")), labels, allocatable


def holder_label(server: Object) -> str:
    """Who holds a Mac, for a person."""
    meta = server["metadata"]
    for ref in meta.get("ownerReferences") or ():
        if ref["kind"] in JOB_KINDS:
            return f"{ref['kind']} {meta['namespace']}/{ref['name']}"
    return f"ModelServer {meta['namespace']}/{meta['name']}"


def is_out_of_contest(job: Object) -> bool:
    """Whether a job cannot want Macs now: ended, paused, cancelled or being deleted."""
    policy = job["spec"].get("runPolicy") or {}
    conditions = (job.get("status") or {}).get("conditions") or ()
    ended = any(c["type"] in TERMINAL and c["status"] == "True" for c in conditions)
    return bool(ended or policy.get("suspend") or policy.get("cancel") or "deletionTimestamp" in job["metadata"])


def names_server(job_: Object, server: str) -> bool:
    """Whether a job asks that ModelServer by name."""
    return any(ref.model_server == server for _, ref in model_refs(job(job_)))


def compared_runs(comparison: Object) -> tuple[str, str]:
    """The BenchmarkJobs that a BenchmarkComparison names."""
    spec = comparison["spec"]
    return spec["baseline"]["benchmarkJob"], spec["candidate"]["benchmarkJob"]


def compared_run(name: str, obj: Object | None) -> ComparedRun:
    """A BenchmarkJob as a comparison sees it; None: there is none of that name."""
    if obj is None or not isinstance(found := job(obj), BenchmarkJob):
        return ComparedRun(name)
    status, uri = found.status, found.status.result_uri or ""
    return ComparedRun(
        name, exists=True, has_ended=any(is_true(status.conditions, t) for t in TERMINAL), phase=status.phase or "",
        index=uri.removeprefix(SCHEME), targets=tuple(name for name, _ in named_targets(found)),
        verdict=status.validity.verdict if status.validity is not None else "",
    )


def is_running_job(job: Job) -> bool:
    """Whether a job has begun and not ended."""
    return job.status.start_time is not None and not any(is_true(job.status.conditions, t) for t in TERMINAL)


def _away_s(node: Object, now: datetime) -> float:
    since = parse_time((condition(node, "Ready") or {}).get("lastTransitionTime"))
    return (now - since).total_seconds() if since is not None else 0.0


def _has_ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def _restarts(pod: Object) -> list[int]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return [int(status.get("restartCount") or 0) for status in statuses]


def _waits(pod: Object) -> str:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (status.get("state") or {}).get("waiting")
        if waiting:
            return f"{waiting.get('reason', 'waiting')} {waiting.get('message', '')}".strip()
    scheduled = condition(pod, "PodScheduled")
    return str(scheduled.get("message", "")) if scheduled and scheduled["status"] == "False" else ""


def _labels(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}
