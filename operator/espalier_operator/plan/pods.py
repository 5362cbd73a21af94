"""What worker pods and model-server pods have in common: volumes, tolerations, a user's overrides."""

from __future__ import annotations

from collections.abc import Mapping

from espalier_api.common import PodOverrides
from espalier_api.names import CA_SECRET, COORDINATOR_AUDIENCE, MANAGED_BY, MLX_TAINT
from espalier_kube.cluster import Object
from espalier_kube.objects import config_map, metadata, value_env

NODE_PATIENCE_S = 45.0
"""A restarting agent adopts its processes; after this long its pods are given up."""
AWAY_TOLERATION_S = 30
TOKEN_SECONDS = 3600
TOKEN_DIR = "/var/run/secrets/espalier"
CA_FILE = "/var/run/secrets/espalier/ca/ca.crt"
TLS_DIR = "/etc/espalier/tls"
KEY_DIR = "/etc/espalier/key"


def authority_config_map(namespace: str, ca_pem: str) -> Object:
    """The authority's certificate for the pods of a namespace; shared by all jobs there, so nobody owns it."""
    return config_map(metadata(CA_SECRET, namespace, labels={MANAGED_BY: "espalier"}), {"ca.crt": ca_pem})


def credentials_volume() -> Object:
    """The coordinator's token, rotated by the node, and the authority: one volume, for mounts must not nest."""
    token = {"audience": COORDINATOR_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    authority = {"name": CA_SECRET, "items": [{"key": "ca.crt", "path": "ca/ca.crt"}]}
    return {"name": "credentials", "projected": {"sources": [{"serviceAccountToken": token}, {"configMap": authority}]}}


def mac_tolerations() -> list[Object]:
    """Pods of Macs stay a while when the node is silent: its agent adopts them when it comes back."""
    away = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    patience = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": AWAY_TOLERATION_S}
    return [{"key": MLX_TAINT, "operator": "Exists"}, *({"key": key, **patience} for key in away)]


def with_overrides(template: Object, overrides: PodOverrides | None) -> Object:
    """The pod template with the user's labels, annotations, node selector, tolerations, environment and resources.

    Our own labels and node selector win: they decide where a pod may run and who finds it.
    """
    if overrides is None:
        return template
    meta, spec = template["metadata"], template["spec"]
    container = spec["containers"][0]
    return {
        "metadata": {
            **meta,
            "labels": {**(overrides.labels or {}), **meta["labels"]},
            **_some("annotations", {**(overrides.annotations or {}), **meta.get("annotations", {})}),
        },
        "spec": {
            **spec,
            "nodeSelector": {**(overrides.node_selector or {}), **spec["nodeSelector"]},
            "tolerations": [*spec["tolerations"], *(t.wire() for t in overrides.tolerations or ())],
            "containers": [{
                **container,
                "env": [*value_env({e.name: e.value for e in overrides.env or ()}), *container["env"]],
                "resources": _resources(container.get("resources") or {}, overrides),
            }],
        },
    }


def with_resources(template: Object, defaults: Mapping[str, Mapping[str, str]]) -> Object:
    """The pod template with these requests and limits where it has none of its own."""
    container, *others = template["spec"]["containers"]
    own = container.get("resources") or {}
    made = {part: {**amounts, **own.get(part, {})} for part, amounts in defaults.items()}
    containers = [{**container, "resources": {**own, **made}}, *others]
    return {**template, "spec": {**template["spec"], "containers": containers}} if made else template


def _resources(ours: Object, overrides: PodOverrides) -> Object:
    asked = {k: v for k, v in (overrides.resources.wire() if overrides.resources else {}).items() if v is not None}
    return {part: {**asked, **ours.get(part, {})} for part in ("requests", "limits")} if asked or ours else {}


def _some(key: str, value: Mapping[str, str]) -> Object:
    return {key: dict(value)} if value else {}
