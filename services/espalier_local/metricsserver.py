"""What `kubectl top` asks: Kubernetes' metrics-server beside the control plane, an aggregated API of its own."""

from __future__ import annotations

import base64
from pathlib import Path

from espalier_kube.cluster import Object
from espalier_local.addresses import API_PORT, Cables
from espalier_local.assets import Assets
from espalier_local.pki import METRICS_USER, Pki
from espalier_local.supervised import ProcessSpec

METRICS_SERVER = "metrics-server"
PORT = 4443
RESOLUTION_S = 10
"""How often nodes are asked; the least that the program takes."""
_ANSWER_S = 5
_ORDER = 3
_NAMESPACE = "kube-system"
_GROUP, _VERSION = "metrics.k8s.io", "v1beta1"


def spec(assets: Assets, pki: Pki, cables: Cables) -> ProcessSpec:
    """The process; it starts once the API server is ready."""
    kubeconfig = pki.kubeconfig(METRICS_SERVER)
    flags = (
        f"--kubeconfig={kubeconfig}", f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={cables.server}", f"--secure-port={PORT}",
        f"--metric-resolution={RESOLUTION_S}s", f"--kubelet-request-timeout={_ANSWER_S}s",
        f"--tls-cert-file={pki.certificate(METRICS_SERVER)}", f"--tls-private-key-file={pki.key(METRICS_SERVER)}",
        f"--kubelet-certificate-authority={pki.certificate('ca')}", "--kubelet-preferred-address-types=InternalIP",
    )  # fmt: skip
    return ProcessSpec(
        METRICS_SERVER, (str(assets[METRICS_SERVER]), *flags), _ORDER, after=(cables.server, API_PORT),
        authority=pki.certificate("ca"),
    )  # fmt: skip


def objects(cables: Cables, pki: Pki) -> list[Object]:
    """Its rights, the Service with its one endpoint, and the API that the API server passes on to it."""
    metadata = {"name": METRICS_SERVER, "namespace": _NAMESPACE}
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": METRICS_USER},
            "rules": [
                {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
            ],
        },
        _binding("ClusterRoleBinding", METRICS_USER, "ClusterRole", METRICS_USER),
        _binding("ClusterRoleBinding", f"{METRICS_USER}:auth-delegator", "ClusterRole", "system:auth-delegator"),
        _binding("RoleBinding", METRICS_SERVER, "Role", "extension-apiserver-authentication-reader"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"name": "https", "port": 443, "targetPort": PORT}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": METRICS_SERVER}},
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": PORT, "protocol": "TCP"}],
            "endpoints": [{"addresses": [cables.server]}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{_VERSION}.{_GROUP}"},
            "spec": {
                "group": _GROUP,
                "version": _VERSION,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": {**metadata, "port": 443},
                "caBundle": base64.b64encode(Path(pki.certificate("ca")).read_bytes()).decode(),
            },
        },
    ]


def _binding(kind: str, name: str, role_kind: str, role: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, **({"namespace": _NAMESPACE} if kind == "RoleBinding" else {})},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": METRICS_USER}],
    }
