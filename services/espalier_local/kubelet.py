"""Configuration of kubelet and kube-proxy on a Linux host of a local cluster: pure builders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier_api.names import NODE_KIND
from espalier_local import gvisor
from espalier_local.dns import DNS_SERVICE, DOMAIN

POD_PROCESSES = 512
"""Processes and threads of one pod: a fork bomb ends there."""
LEASE_DURATION_S = 8
"""A kubelet renews after a quarter of it."""


@dataclass(frozen=True, slots=True)
class KubeletPlan:
    """Where a kubelet's files are and which node it is."""

    name: str
    address: str
    directory: Path
    runtime_socket: Path
    cgroup: str
    authority: str
    """File of the CA that signs the API server's client certificate."""

    @property
    def config(self) -> Path:
        """Its KubeletConfiguration."""
        return self.directory / "kubelet.yaml"

    @property
    def certificate(self) -> Path:
        """Its serving certificate; the key beside it ends in .key."""
        return self.directory / "serving.crt"

    @property
    def key(self) -> Path:
        """The key of its serving certificate."""
        return self.directory / "serving.key"


def kubelet_config(plan: KubeletPlan) -> dict[str, Any]:
    """KubeletConfiguration. Its cgroups hang under one of its own: kubelets side by side would empty each other's."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": plan.address,
        "containerRuntimeEndpoint": f"unix://{plan.runtime_socket}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{plan.cgroup}",
        "enforceNodeAllocatable": [],
        # The cluster's owner has the authority's key: no CSR waits for an approver before logs and exec work.
        "tlsCertFile": str(plan.certificate),
        "tlsPrivateKeyFile": str(plan.key),
        "rotateCertificates": True,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": plan.authority},
        },
        "authorization": {"mode": "Webhook"},
        "nodeLeaseDurationSeconds": LEASE_DURATION_S,
        "nodeStatusUpdateFrequency": "3s",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "podPidsLimit": POD_PROCESSES,
        # An image that is removed to make room cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "podLogsDir": str(plan.directory / "pod-logs"),
        "volumePluginDir": str(plan.directory / "volume-plugins"),
        "resolvConf": str(plan.directory / "resolv.conf"),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": DOMAIN,
        "shutdownGracePeriod": "0s",
    }


def kubelet_flags(plan: KubeletPlan, bootstrap_kubeconfig: Path) -> tuple[str, ...]:
    """What has no field in the configuration."""
    return (
        f"--config={plan.config}",
        f"--bootstrap-kubeconfig={bootstrap_kubeconfig}",
        f"--kubeconfig={plan.directory / 'kubeconfig'}",
        f"--cert-dir={plan.directory / 'pki'}",
        f"--root-dir={plan.directory / 'root'}",
        f"--hostname-override={plan.name}",
        f"--node-ip={plan.address}",
        f"--node-labels={NODE_KIND}=linux,{gvisor.LABEL}=true",
    )


def proxy_flags(name: str, kubeconfig: Path) -> tuple[str, ...]:
    """kube-proxy on nftables. It leaves the machine's connection tracking limits as they are."""
    return (
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={name}",
        "--proxy-mode=nftables",
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--metrics-bind-address=127.0.0.1:10249",
        "--healthz-bind-address=127.0.0.1:10256",
    )
