"""The ModelServer's plan: one Deployment of native processes, its credentials, and who of them serves."""

from __future__ import annotations

import json
from datetime import datetime

from espalier_api.meta import find_condition
from espalier_api.modelserver import ModelEndpoint, ModelServer, ModelServerStatus
from espalier_api.names import METAL, NODE_KIND
from espalier_kube.cluster import Object
from espalier_kube.objects import (
    container_security,
    deployment,
    field_env,
    metadata,
    owner_labels,
    pod_security,
    service_account,
    value_env,
)
from espalier_operator.plan.conditions import Conditions
from espalier_operator.plan.facts import ModelServerFacts, ServerPod
from espalier_operator.plan.outcome import Burial, Notice, Plan
from espalier_operator.plan.pods import KEY_DIR, NODE_PATIENCE_S, TLS_DIR, mac_tolerations, with_overrides
from espalier_operator.plan.quantity import parse_bytes
from espalier_operator.settings import OperatorSettings

PORT = 8100
PRE_STOP_S = 2
"""A server that is to go still takes questions for so long: by then workers and Services know that it goes."""
DRAIN_S = 20
"""For the answers that it is writing."""
GRACE_S = PRE_STOP_S + DRAIN_S + 8
"""And to end its threads and connections."""
RECHECK_S = 10.0
LOAD_TRIES = 300
"""Start-up probes two seconds apart: a large model may take ten minutes to load."""


def plan(facts: ModelServerFacts, now: datetime, settings: OperatorSettings) -> Plan:
    """Decide everything about one model server."""
    wished = _status(facts, now)
    return Plan(
        status=wished, children=children(facts.obj, facts.server, settings), has_credentials=True,
        burials=_buried(facts), notices=(*_notices(facts.server.status, wished), *_restarts(facts)),
        recheck_s=RECHECK_S if any(pod.node_away_s is not None for pod in facts.pods) else None,
    )


def _buried(facts: ModelServerFacts) -> tuple[Burial, ...]:
    """Pods of nodes that have been away too long: nobody there would ever end them.

    There is no fencing: an agent that comes back stops processes whose pod is gone.
    """
    return tuple(
        Burial(pod.name, facts.server.metadata.namespace, pod.uid, pod.node)
        for pod in facts.pods
        if pod.node_away_s is not None and pod.node_away_s > NODE_PATIENCE_S
    )


def certificate_name(server: ModelServer) -> str:
    """The DNS name that clients verify."""
    return f"{server.metadata.name}.{server.metadata.namespace}.svc"


def tls_secret(name: str) -> str:
    """The Secret with the serving certificate."""
    return f"{name}-tls"


def key_secret(name: str) -> str:
    """The Secret with the API key."""
    return f"{name}-key"


def pod_labels(server: ModelServer) -> dict[str, str]:
    """Labels of the pods, and the selector of Deployment and `/scale`."""
    return owner_labels("mlx", kind="ModelServer", name=server.metadata.name)


def children(obj: Object, server: ModelServer, settings: OperatorSettings) -> tuple[Object, ...]:
    """ServiceAccount and Deployment; the Secrets are the authority's to make."""
    labels, meta = pod_labels(server), server.metadata
    selector = {key: labels[key] for key in sorted(labels) if key.startswith("espalier.dev/")}
    template = with_overrides(_template(server, labels, settings), server.spec.pod)
    return (
        service_account(metadata(meta.name, meta.namespace, labels=labels, owner=obj)),
        deployment(
            metadata(meta.name, meta.namespace, labels=labels, owner=obj),
            replicas=server.spec.replicas, selector=selector, template=template,
        ),
    )


def _template(server: ModelServer, labels: dict[str, str], settings: OperatorSettings) -> Object:
    is_mac = server.spec.placement == "mlx"
    container: Object = {
        "name": "mlx",
        "image": settings.mlx_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["espalier-mlx"],
        "env": _environment(server),
        "ports": [{"name": "https", "containerPort": PORT}],
        "startupProbe": _probe("/ready", period=2, failures=LOAD_TRIES),
        "readinessProbe": _probe("/ready", period=5, failures=2),
        "livenessProbe": _probe("/health", period=10, failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "tls", "mountPath": TLS_DIR, "readOnly": True},
            {"name": "key", "mountPath": KEY_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
        **({"resources": {"requests": {METAL: "1"}, "limits": {METAL: "1"}}} if is_mac else {}),
    }
    name = server.metadata.name
    spec: Object = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S,
        "nodeSelector": {NODE_KIND: server.spec.placement},
        "tolerations": mac_tolerations() if is_mac else [],
        "securityContext": pod_security(uid=None) if is_mac else pod_security(),
        "containers": [container],
        "volumes": [
            {"name": "tls", "secret": {"secretName": tls_secret(name)}},
            {"name": "key", "secret": {"secretName": key_secret(name)}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return {"metadata": {"labels": labels}, "spec": spec}


def _environment(server: ModelServer) -> list[Object]:
    spec, prefix = server.spec, "ESPALIER_MLX_"
    plain = {
        "PORT": PORT, "MODELS": json.dumps([m.wire() for m in spec.models]), "MAX_CONCURRENCY": spec.max_concurrency,
        "QUEUE_LIMIT": spec.queue_limit, "PROMPT_CACHE_BYTES": parse_bytes(spec.prompt_cache_bytes),
        "TLS_DIR": TLS_DIR, "API_KEY_FILE": f"{KEY_DIR}/api-key", "DRAIN_S": DRAIN_S,
    }
    return [
        *value_env({prefix + key: value for key, value in plain.items()}),
        field_env(f"{prefix}HOST", "status.podIP"),
        field_env(f"{prefix}NODE", "spec.nodeName"),
    ]


def _probe(path: str, *, period: int, failures: int) -> Object:
    http = {"path": path, "port": PORT, "scheme": "HTTPS"}
    return {"httpGet": http, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}


def _status(facts: ModelServerFacts, now: datetime) -> ModelServerStatus:
    server = facts.server
    endpoints = tuple(_endpoint(facts, pod) for pod in facts.pods if pod.ip and not pod.is_going)
    ready = [e for e in endpoints if e.ready]
    rates = [p.tokens_per_second for p in facts.pods if p.tokens_per_second and _serves(facts, p)]
    conditions = Conditions(server.status.conditions, now, server.metadata.generation)
    if server.spec.replicas == 0:
        conditions.set("Ready", "False", "NoReplicas", "spec.replicas is 0")
    elif len(ready) >= server.spec.replicas:
        conditions.set("Ready", "True", "Serving", f"{len(ready)} of {server.spec.replicas} endpoints answer")
    else:
        conditions.set("Ready", "False", "EndpointNotReady", _missing(facts, len(ready)))
    labels = pod_labels(server)
    selector = ",".join(f"{key}={labels[key]}" for key in sorted(labels) if key.startswith("espalier.dev/"))
    return ModelServerStatus(
        observed_generation=server.metadata.generation, phase=_phase(facts, len(ready)), replicas=len(ready),
        selector=selector, endpoints=endpoints, tokens_per_second=round(sum(rates), 1) if rates else None,
        conditions=conditions.result(),
    )


def _endpoint(facts: ModelServerFacts, pod: ServerPod) -> ModelEndpoint:
    host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
    return ModelEndpoint(
        url=f"https://{host}:{PORT}", node=pod.node, pod=pod.name, ready=_serves(facts, pod),
        server_name=certificate_name(facts.server),
    )


def _serves(facts: ModelServerFacts, pod: ServerPod) -> bool:
    """The doctor's verdict; before its first probe (it has just started) what stood in the status counts on."""
    if pod.is_going or pod.node_away_s is not None or not pod.ip:
        return False
    if pod.probe is not None:
        return pod.probe
    return any(e.pod == pod.name and e.ready for e in facts.server.status.endpoints or ())


def _missing(facts: ModelServerFacts, ready: int) -> str:
    waiting = [f"{p.name} on {p.node or 'no node yet'}: {_why(p)}" for p in facts.pods if not _serves(facts, p)]
    return "; ".join([f"{ready} of {facts.server.spec.replicas} endpoints answer", *sorted(waiting)])


def _why(pod: ServerPod) -> str:
    if pod.is_going:
        return "is being stopped"
    if pod.node_away_s is not None:
        return "its node is away"
    return pod.why or ("not probed yet" if pod.ip else "has no address yet")


def _phase(facts: ModelServerFacts, ready: int) -> str:
    wished = facts.server.spec.replicas
    if wished == 0:
        return "Stopped"
    if ready >= wished:
        return "Ready"
    return "Degraded" if ready else "Starting" if not _was_ready(facts.server.status) else "NotReady"


def _was_ready(status: ModelServerStatus) -> bool:
    return status.phase in ("Ready", "Degraded", "NotReady")


def _restarts(facts: ModelServerFacts) -> tuple[Notice, ...]:
    """A process that died and came back between two probes is told all the same."""
    return tuple(
        Notice("EndpointNotReady", f"the process of {p.name} on {p.node} ended and was started again ({p.restarts})",
               key=f"{p.name}/restart", type="Warning")
        for p in facts.pods
        if p.has_restarted
    )


def _notices(before: ModelServerStatus, after: ModelServerStatus) -> tuple[Notice, ...]:
    known = {e.pod: e.ready for e in before.endpoints or ()}
    now = {e.pod: e for e in after.endpoints or ()}
    ready = find_condition(after.conditions, "Ready")
    why = ready.message if ready is not None else ""
    lost = [pod for pod, was_ready in known.items() if was_ready and not (pod in now and now[pod].ready)]
    found = [e for e in now.values() if e.ready and not known.get(e.pod, False)]
    return (
        *(Notice("EndpointNotReady", f"endpoint {pod} was withdrawn: {why}", key=pod, type="Warning") for pod in lost),
        *(Notice("EndpointReady", f"endpoint {e.pod} on {e.node} answers", key=e.pod) for e in found),
    )
