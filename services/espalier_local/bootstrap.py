"""The objects that make a bare API server ours: namespaces, rights to join, the local volume's class."""

from __future__ import annotations

from espalier_kube.cluster import Object
from espalier_local.pki import BOOTSTRAP_GROUP

NAMESPACE = "espalier-system"
STORAGE_CLASS = "espalier-local"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
_CSRS = "system:certificates.k8s.io:certificatesigningrequests"


def objects(token_id: str, token_secret: str) -> list[Object]:
    """Everything that must exist before a node may join."""
    return [
        _namespace("kube-system", {}),
        _namespace("default", RESTRICTED),
        _namespace(NAMESPACE, RESTRICTED),
        _binding("espalier:node-bootstrapper", "system:node-bootstrapper", "Group", BOOTSTRAP_GROUP),
        _binding("espalier:approve-node-client", f"{_CSRS}:nodeclient", "Group", BOOTSTRAP_GROUP),
        _binding("espalier:approve-node-client-renewal", f"{_CSRS}:selfnodeclient", "Group", "system:nodes"),
        # Node agents ask the API server whether the caller of their own API may do so; this is the API server calling.
        _binding("espalier:apiserver-to-node", "system:kubelet-api-admin", "User", "kube-apiserver-kubelet-client"),
        _token(token_id, token_secret),
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": STORAGE_CLASS},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    ]


def local_volume(name: str, path: str, node: str) -> Object:
    """A directory of the machine as a volume of one node."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": STORAGE_CLASS,
            "local": {"path": path},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
                    ]
                }
            },
        },
    }


def _namespace(name: str, labels: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _binding(name: str, role: str, subject_kind: str, subject: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": subject_kind, "name": subject}],
    }


def _token(token_id: str, secret: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": f"bootstrap-token-{token_id}", "namespace": "kube-system"},
        "stringData": {
            "token-id": token_id,
            "token-secret": secret,
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": BOOTSTRAP_GROUP,
        },
    }
