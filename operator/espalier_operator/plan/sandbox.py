"""One-shot pods for submissions' code: a Job that keeps a pool of them warm, each for one task.

A pod is a worker that takes one task, with the coordinator's token, and beside it the sandbox that runs the code
(`plan.sidecar`). Two Jobs follow each other, as a Job must know its number of
completions when it is made: one pod for the admission, then one per submission. More pods than tasks do no harm: what
is left over waits, and goes with its Job when the grading has ended.
"""

from __future__ import annotations

from dataclasses import dataclass

from espalier_api.gradingjob import GradingJob
from espalier_api.names import NODE_KIND
from espalier_api.tasks import TALLY_EXECUTED, TALLY_SUBMISSIONS
from espalier_kit.digest import value_digest
from espalier_kit.errors import EXIT_MISCONFIGURED, EXIT_STOPPED
from espalier_kube.cluster import JOB, Object
from espalier_kube.objects import (
    container_security,
    metadata,
    owner_labels,
    pod_security,
    service_account,
    typed,
    value_env,
)
from espalier_operator.plan.facts import GradingJobFacts, Job, JobFacts
from espalier_operator.plan.outcome import Change, Deletion, Followed
from espalier_operator.plan.pods import TOKEN_DIR, authority_config_map, credentials_volume, with_overrides
from espalier_operator.plan.quantity import parse_bytes
from espalier_operator.plan.sidecar import is_pod, with_sandbox
from espalier_operator.plan.workers import GRACE_S, WORKERS_HASH, worker_environment
from espalier_operator.settings import OperatorSettings
from espalier_rpc.views import JobView

ADMISSION, EXECUTION = "grading.admit", "grading.execute"
EXIT_AGAIN = 75
"""A one-shot worker's code for a task that comes again (`espalier_worker.once`): another pod, at no cost."""
_ATTEMPTS = 4
"""Pods that one completion may cost before the Job gives up: killed nodes and containers, on average."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The Job that is needed now."""

    name: str
    type: str
    completions: int
    parallelism: int


def sandbox_names(job: str) -> tuple[str, str]:
    """The names of a job's two sandbox Jobs; the second is also their ServiceAccount's."""
    return f"{job}-admission", f"{job}-sandbox"


def wanted(job: GradingJob, view: JobView | None) -> Wanted | None:
    """Which of the two, and how large; None where no code is left to run."""
    if not is_pod(job.spec.execution.sandbox):
        return None
    admission, sandbox = sandbox_names(job.metadata.name)
    if view is None or TALLY_SUBMISSIONS not in view.tallies:
        return Wanted(admission, ADMISSION, 1, 1)
    left = int(view.tallies[TALLY_SUBMISSIONS] - view.tallies.get(TALLY_EXECUTED, 0))
    return Wanted(sandbox, EXECUTION, left, min(left, job.spec.execution.warm_pods)) if left > 0 else None


def _wish(facts: GradingJobFacts) -> Wanted | None:
    """Nothing new while nobody knows how far the job is: after a restart of ours with the coordinator away."""
    coordinator = facts.coordinator
    is_known = coordinator.view is not None or coordinator.is_synced
    return wanted(facts.job, coordinator.view) if is_known else None


def follow(facts: GradingJobFacts, settings: OperatorSettings, suspend: bool) -> Followed:
    """What must exist for them, and how existing Jobs follow: a Job that exists is never applied again."""
    changes, deletions = _changes(facts, suspend=suspend)
    return Followed(_children(facts, settings=settings, suspend=suspend), changes, deletions)


def sandbox_deletions(facts: JobFacts[Job]) -> tuple[Deletion, ...]:
    """The grading has ended: the Jobs go, and their pods with them."""
    namespace = facts.job.metadata.namespace
    return tuple(Deletion(JOB, live.name, namespace, live.uid) for live in facts.sandboxes)


def _children(facts: GradingJobFacts, *, settings: OperatorSettings, suspend: bool) -> tuple[Object, ...]:
    wish = _wish(facts)
    if wish is None or suspend or any(live.name == wish.name for live in facts.sandboxes):
        return ()
    job, namespace = facts.job, facts.job.metadata.namespace
    labels = owner_labels("sandbox", kind="GradingJob", name=job.metadata.name)
    account = metadata(sandbox_names(job.metadata.name)[1], namespace, labels=labels, owner=facts.obj)
    annotations = {WORKERS_HASH: _hash(job)}
    meta = metadata(wish.name, namespace, labels=labels, annotations=annotations, owner=facts.obj)
    made = _job(meta, wish, _template(job, labels, settings, wish.type))
    return authority_config_map(namespace, facts.ca_pem), service_account(account), made


def _changes(facts: GradingJobFacts, *, suspend: bool) -> tuple[tuple[Change, ...], tuple[Deletion, ...]]:
    """A Job that has used up its pods while code is left to run is made again."""
    namespace, wish = facts.job.metadata.namespace, _wish(facts)
    changes: list[Change] = []
    deletions: list[Deletion] = []
    for live in facts.sandboxes:
        is_wanted = wish is not None and wish.name == live.name
        is_used_up = live.is_finished and is_wanted and not live.failure and not suspend
        if is_used_up or (not live.is_finished and is_wanted and live.workers_hash != _hash(facts.job)):
            deletions.append(Deletion(JOB, live.name, namespace, live.uid))
        elif not live.is_finished and live.suspended != suspend:
            changes.append(Change(JOB, live.name, namespace, {"spec": {"suspend": suspend}}))
    return tuple(changes), tuple(deletions)


def _hash(job: GradingJob) -> str:
    pod = job.spec.workers.pod
    return value_digest({"execution": job.spec.execution.wire(), "pod": pod.wire() if pod else {}})[:16]


def _job(meta: Object, wish: Wanted, template: Object) -> Object:
    ignore = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [EXIT_AGAIN, EXIT_STOPPED]}}
    spec = {
        "completions": wish.completions, "parallelism": wish.parallelism, "backoffLimit": _ATTEMPTS * wish.completions,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [EXIT_MISCONFIGURED]}},
            ignore,
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]},
        "template": template,
    }
    return typed(JOB, meta, spec=spec)


def _template(job: GradingJob, labels: dict[str, str], settings: OperatorSettings, type_: str) -> Object:
    overrides = job.spec.workers.pod
    spec: Object = {
        "serviceAccountName": sandbox_names(job.metadata.name)[1],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "nodeSelector": {NODE_KIND: "linux"},
        "tolerations": [],
        # A node that is lost takes as few of them with it as can be.
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }],
        "securityContext": pod_security(),
        "containers": [_worker(job, settings, type_)],
        "volumes": [credentials_volume(), {"name": "tmp", "emptyDir": {}}],
    }
    execution = job.spec.execution
    template = with_sandbox(
        {"metadata": {"labels": labels}, "spec": spec}, execution.sandbox,
        memory_bytes=parse_bytes(execution.memory), settings=settings,
    )  # fmt: skip
    # Resources of the shared workers are another matter: a pod here holds one submission.
    return with_overrides(template, overrides and overrides.model_copy(update={"resources": None}))


def _worker(job: GradingJob, settings: OperatorSettings, type_: str) -> Object:
    return {
        "name": "worker",
        "image": settings.worker_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["espalier-worker"],
        "args": ["--once"],
        "env": [*worker_environment(job, settings), *value_env({"ESPALIER_WORKER_TYPES": type_})],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "credentials", "mountPath": TOKEN_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
