"""The workers of one job: ServiceAccount, authority, Indexed Job, and how the Job follows its CR; or a shared pool."""

from __future__ import annotations

from collections.abc import Collection

from espalier_api.benchmarkjob import BenchmarkJob
from espalier_api.common import Workers
from espalier_api.names import NODE_KIND
from espalier_kit.digest import value_digest
from espalier_kube.cluster import JOB, Object
from espalier_kube.objects import (
    container_security,
    field_env,
    indexed_job,
    metadata,
    owner_labels,
    pod_security,
    service_account,
    value_env,
)
from espalier_operator.plan.answers import ANSWER_BYTES
from espalier_operator.plan.facts import Job, Problem, WorkerFacts
from espalier_operator.plan.kinds import worker_name, workers_of
from espalier_operator.plan.outcome import Change, Deletion
from espalier_operator.plan.pods import (
    CA_FILE,
    TOKEN_DIR,
    authority_config_map,
    credentials_volume,
    mac_tolerations,
    with_overrides,
    with_resources,
)
from espalier_operator.plan.sidecar import is_pod, with_sandbox
from espalier_operator.settings import OperatorSettings

WORKERS_HASH = "espalier.dev/workers-hash"
"""Annotation of the worker Job: what of `spec.workers` its immutable template was made from."""
PORT = 8082
GRACE_S = 30


def workers_hash(workers: Workers, sandbox: str | None = None) -> str:
    """Changes when the pods themselves must change; `replicas` may change in place."""
    made_of = {"capacity": workers.capacity, "pod": workers.pod.wire() if workers.pod else {}}
    return value_digest({**made_of, "sandbox": sandbox} if is_pod(sandbox) else made_of)[:16]


def worker_children(
    obj: Object, job: Job, *, settings: OperatorSettings, ca_pem: str, suspend: bool, live: WorkerFacts | None,
    sandbox: str | None = None,
) -> tuple[Object, ...]:
    """What must exist for the workers. A Job that exists is changed by `worker_changes`, never applied again.

    `sandbox` is what confines code of others in them: a container beside each where it is one (`plan.sidecar`).

    A shared pool's workers are there already: the chart makes them, and an autoscaler or a person says how many.
    """
    workers = workers_of(job)
    if workers.pool is not None:
        return ()
    name, namespace = worker_name(job.metadata.name, job.kind), job.metadata.namespace
    labels = owner_labels("worker", kind=job.kind, name=job.metadata.name)
    account = service_account(metadata(name, namespace, labels=labels, owner=obj))
    children = (authority_config_map(namespace, ca_pem), account)
    if live is not None:
        return children
    annotations = {WORKERS_HASH: workers_hash(workers, sandbox)}
    meta = metadata(name, namespace, labels=labels, annotations=annotations, owner=obj)
    template = with_overrides(_template(job, labels, settings), workers.pod)
    if template["spec"]["nodeSelector"][NODE_KIND] == "linux":
        template = with_resources(template, settings.worker_resources)
    if sandbox is not None and is_pod(sandbox):
        template = with_sandbox(template, sandbox, memory_bytes=ANSWER_BYTES, settings=settings)
    made = indexed_job(meta, replicas=workers.replicas, suspend=suspend, template=template)
    return (*children, made)


def worker_changes(
    job: Job, live: WorkerFacts | None, *, suspend: bool, sandbox: str | None = None
) -> tuple[tuple[Change, ...], tuple[Deletion, ...]]:
    """How the existing Job follows: in place where Kubernetes allows it, else it goes and is made again."""
    namespace, replicas = job.metadata.namespace, workers_of(job).replicas
    if live is None or (live.is_finished and (suspend or live.failure)):
        return (), ()
    if live.is_finished:  # the coordinator dismissed its workers, but there is work again
        return (), (Deletion(JOB, live.name, namespace, live.uid),)
    if live.workers_hash != workers_hash(workers_of(job), sandbox):
        return (), (Deletion(JOB, live.name, namespace, live.uid),)
    if (live.suspended, live.replicas) == (suspend, replicas):
        return (), ()
    sizes = {"completions": replicas, "parallelism": replicas, "maxFailedIndexes": replicas}
    patch = {"spec": {"suspend": suspend, **(sizes if live.replicas != replicas else {})}}
    return (Change(JOB, live.name, namespace, patch),), ()


def pool_problem(job: Job, pools: Collection[str]) -> Problem | None:
    """Why no worker can ever come for the job; `pools` are those that the platform has."""
    wanted = workers_of(job).pool
    if wanted is None or wanted in pools:
        return None
    there = f"the pools are {', '.join(sorted(pools))}" if pools else "the platform has no pools"
    return Problem("UnknownPool", f"{_field(job)}.pool: there is no worker pool {wanted}; {there}")


def _field(job: Job) -> str:
    return "generators" if isinstance(job, BenchmarkJob) else "workers"


def _template(job: Job, labels: dict[str, str], settings: OperatorSettings) -> Object:
    is_mac = isinstance(job, BenchmarkJob) and job.spec.generators.placement == "mlx"
    container: Object = {
        "name": "worker",
        "image": settings.worker_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["espalier-worker"],
        "env": worker_environment(job, settings),
        "ports": [{"name": "metrics", "containerPort": PORT}],
        "startupProbe": _probe("/healthz", period_s=2, failures=60),
        "readinessProbe": _probe("/readyz", period_s=10, failures=3),
        "livenessProbe": _probe("/healthz", period_s=10, failures=6),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "credentials", "mountPath": TOKEN_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    spec: Object = {
        "serviceAccountName": worker_name(job.metadata.name, job.kind),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "nodeSelector": {NODE_KIND: "mlx" if is_mac else "linux"},
        "tolerations": mac_tolerations() if is_mac else [],
        "securityContext": pod_security(uid=None) if is_mac else pod_security(),
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }],
        "containers": [container],
        "volumes": [credentials_volume(), {"name": "tmp", "emptyDir": {}}],
    }
    return {"metadata": {"labels": labels}, "spec": spec}


def _probe(path: str, *, period_s: int, failures: int) -> Object:
    """A worker that shares its machine with model servers answers late now and then: patience costs little."""
    http = {"path": path, "port": PORT}
    return {"httpGet": http, "periodSeconds": period_s, "timeoutSeconds": 5, "failureThreshold": failures}


def worker_environment(job: Job, settings: OperatorSettings) -> list[Object]:
    """A dedicated worker's settings."""
    plain = {
        "COORDINATOR": settings.coordinator,
        "COORDINATOR_WEB": settings.coordinator_web,
        "COORDINATOR_NAME": settings.coordinator_name,
        "CA_FILE": CA_FILE,
        "TOKEN_FILE": f"{TOKEN_DIR}/token",
        "NAMESPACE": job.metadata.namespace,
        "JOB_UID": job.metadata.uid,
        "CAPACITY": workers_of(job).capacity,
        "PORT": PORT,
        **({"PREFETCH": 0} if isinstance(job, BenchmarkJob) else {}),  # a generator waits for nobody's turn
    }
    fields = {"ID": "metadata.name", "HOST": "status.podIP"}
    prefix = "ESPALIER_WORKER_"
    return [
        *value_env({prefix + key: value for key, value in plain.items()}),
        *(field_env(prefix + key, path) for key, path in fields.items()),
    ]
