"""Names of Services: one CoreDNS beside the control plane, which pods reach by the Service kube-dns."""

from __future__ import annotations

from pathlib import Path

from espalier_kube.cluster import Object
from espalier_local.addresses import API_PORT, Cables
from espalier_local.assets import Assets
from espalier_local.pki import DNS_USER, Pki
from espalier_local.supervised import ProcessSpec

DNS = "coredns"
DNS_SERVICE = "10.0.0.10"
"""The Service's address, the tenth of its range as everywhere."""
DOMAIN = "cluster.local"
_PORT = 53
_ORDER = 3
_READS = (("", ("endpoints", "services", "pods", "namespaces")), ("discovery.k8s.io", ("endpointslices",)))


def corefile(cables: Cables, kubeconfig: Path) -> str:
    """It knows the cluster's names and forwards nothing: a pod cannot ask about, hence not tell, the world outside."""
    return f"""\
.:{_PORT} {{
    bind {cables.server}
    errors
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    cache 5
    loadbalance
}}
"""


def spec(assets: Assets, pki: Pki, cables: Cables, file: Path) -> ProcessSpec:
    """The process; it starts once the API server is ready."""
    return ProcessSpec(
        DNS, (str(assets[DNS]), f"-conf={file}"), _ORDER, after=(cables.server, API_PORT),
        authority=pki.certificate("ca"),
    )  # fmt: skip


def objects(cables: Cables) -> list[Object]:
    """The right to read names, and the Service with its one endpoint."""
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": DNS_USER},
            "rules": [
                {"apiGroups": [group], "resources": list(kinds), "verbs": ["list", "watch"]} for group, kinds in _READS
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": DNS_USER},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": DNS_USER},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": DNS_USER}],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "clusterIP": DNS_SERVICE,
                "ports": [{"name": name, "port": _PORT, "protocol": protocol} for name, protocol in ports],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "ports": [{"name": name, "port": _PORT, "protocol": protocol} for name, protocol in ports],
            "endpoints": [{"addresses": [cables.server]}],
        },
    ]
