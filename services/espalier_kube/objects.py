"""Small builders and readers of Kubernetes objects: what several programs would otherwise spell by hand.

Pure. Pod security follows the *restricted* standard; every root file system is read-only and `/tmp` is an emptyDir.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from espalier_api.names import COMPONENT, MANAGED_BY, OWNER_KIND, OWNER_NAME
from espalier_kit.errors import EXIT_MISCONFIGURED, EXIT_STOPPED
from espalier_kube.cluster import CONFIG_MAP, DEPLOYMENT, JOB, SECRET, SERVICE_ACCOUNT, Kind, Object

UNPRIVILEGED = 65532
"""The uid and gid of Linux containers (distroless' `nonroot`)."""


def metadata(
    name: str, namespace: str | None, *, labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None, owner: Object | None = None,
) -> Object:
    """An object's metadata; `owner` becomes its controller and takes it along when it goes."""
    made: Object = {"name": name}
    if namespace is not None:
        made["namespace"] = namespace
    if labels:
        made["labels"] = dict(labels)
    if annotations:
        made["annotations"] = dict(annotations)
    if owner is not None:
        made["ownerReferences"] = [owner_reference(owner)]
    return made


def owner_reference(owner: Object) -> Object:
    """A controller reference to an object that has a uid."""
    meta = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }


def owner_labels(component: str, *, kind: str, name: str) -> dict[str, str]:
    """The labels by which we find what belongs to an object of ours."""
    return {MANAGED_BY: "espalier", COMPONENT: component, OWNER_KIND: kind, OWNER_NAME: label_value(name)}


def label_value(name: str) -> str:
    """A name as a label value: at most 63 characters, ending in a letter or digit. Owner references stay decisive."""
    return name[:63].rstrip("-._")


def typed(kind: Kind, meta: Object, **fields: Any) -> Object:
    """An object of that kind."""
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, **fields}


def secret(meta: Object, data: Mapping[str, bytes], *, type_: str = "Opaque") -> Object:
    """A Secret from bytes."""
    return typed(SECRET, meta, type=type_, data={key: encode(value) for key, value in data.items()})


def secret_bytes(obj: Object, key: str) -> bytes | None:
    """One key of a Secret, decoded; None if it is not there."""
    value = (obj.get("data") or {}).get(key)
    return None if value is None else base64.b64decode(value)


def config_map(meta: Object, data: Mapping[str, str]) -> Object:
    """A ConfigMap from text."""
    return typed(CONFIG_MAP, meta, data=dict(data))


def config_map_bytes(obj: Object, key: str) -> bytes | None:
    """One key of a ConfigMap, from `binaryData` or `data`; None if it is in neither."""
    binary = (obj.get("binaryData") or {}).get(key)
    if binary is not None:
        return base64.b64decode(binary)
    text = (obj.get("data") or {}).get(key)
    return None if text is None else str(text).encode()


def service_account(meta: Object) -> Object:
    """A ServiceAccount whose token is only mounted where a pod asks for it."""
    return typed(SERVICE_ACCOUNT, meta, automountServiceAccountToken=False)


def deployment(meta: Object, *, replicas: int, selector: Mapping[str, str], template: Object) -> Object:
    """A Deployment that stops the old pods before it starts new ones: scarce devices cannot be held twice."""
    spec = {
        "replicas": replicas, "selector": {"matchLabels": dict(selector)}, "template": template,
        "strategy": {"type": "Recreate"}, "revisionHistoryLimit": 2,
    }
    return typed(DEPLOYMENT, meta, spec=spec)


def indexed_job(meta: Object, *, replicas: int, suspend: bool, template: Object) -> Object:
    """An Indexed Job of long-lived workers: a lost pod is replaced, disruptions cost nothing, bad settings end it."""
    spec = {
        "completionMode": "Indexed", "completions": replicas, "parallelism": replicas, "suspend": suspend,
        "backoffLimitPerIndex": 20, "maxFailedIndexes": replicas, "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [EXIT_MISCONFIGURED]}},
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [EXIT_STOPPED]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]},
        "template": template,
    }
    return typed(JOB, meta, spec=spec)


def pod_security(*, uid: int | None = UNPRIVILEGED) -> Object:
    """The pod's security context; `uid` None leaves the user to the node (a Mac's agent cannot change it)."""
    made: Object = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if uid is not None:
        made |= {"runAsUser": uid, "runAsGroup": uid, "fsGroup": uid}
    return made


def container_security() -> Object:
    """A container's security context under *restricted*, with a read-only root file system."""
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def field_env(name: str, path: str) -> Object:
    """An environment variable from a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def value_env(values: Mapping[str, object]) -> list[Object]:
    """Plain environment variables."""
    return [{"name": name, "value": str(value)} for name, value in values.items()]


def encode(data: bytes) -> str:
    """Base64 text."""
    return base64.b64encode(data).decode()


def timestamp(moment: datetime) -> str:
    """RFC 3339 in whole seconds, as metav1.Time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(moment: datetime) -> str:
    """RFC 3339 with microseconds, as metav1.MicroTime."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str | None) -> datetime | None:
    """An API time as aware UTC; None stays None."""
    return None if not text else datetime.fromisoformat(text.replace("Z", "+00:00"))


def condition(obj: Object, type_: str) -> Object | None:
    """The condition of that type in `status.conditions`, or None."""
    conditions: Sequence[Object] = (obj.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == type_), None)


def has_condition(obj: Object, type_: str) -> bool:
    """Whether that condition is True."""
    found = condition(obj, type_)
    return found is not None and found.get("status") == "True"


def is_owned_by(obj: Object, uid: str) -> bool:
    """Whether an owner reference names that uid."""
    return any(ref.get("uid") == uid for ref in obj["metadata"].get("ownerReferences") or ())
