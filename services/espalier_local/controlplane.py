"""etcd, API server, controller manager and scheduler: their flags, in the order in which they start."""

from __future__ import annotations

from pathlib import Path

from espalier_local.addresses import (
    API_PORT,
    CONTROLLER_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    SCHEDULER_PORT,
    Cables,
    Range,
)
from espalier_local.assets import Assets
from espalier_local.pki import SERVICE_RANGE, Pki
from espalier_local.supervised import ProcessSpec

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE_GRACE_S = 12
"""Node Leases are renewed every 2 s; with both cores of a small machine busy, 6 s called healthy nodes lost."""


def specs(
    assets: Assets, pki: Pki, address_range: Range, data: Path, *, cables: Cables | None = None
) -> tuple[ProcessSpec, ...]:
    """The four processes; the API server listens on the cables where there are any.

    The last two wait until it is ready: without its RBAC rules they give up.
    """
    address = address_range.control_plane
    server = cables.server if cables else address
    api = (server, API_PORT)
    served = apiserver_flags(pki, server, store=address, is_routed=cables is not None)
    plan = (
        ("etcd", etcd_flags(pki, address, data), 0, None),
        ("kube-apiserver", served, 1, (address, ETCD_PORT)),
        ("kube-controller-manager", controller_flags(pki, address), 2, api),
        ("kube-scheduler", scheduler_flags(pki, address), 2, api),
    )
    return tuple(
        ProcessSpec(
            name=name, argv=(str(assets[name]), *flags), order=order, after=after,
            authority=pki.certificate("ca") if after == api else "",
        )
        for name, flags, order, after in plan
    )


def etcd_flags(pki: Pki, address: str, data: Path) -> tuple[str, ...]:
    """One member; mutual TLS, since every user of the machine can reach loopback; no fsync: it is no archive."""
    client, peer = f"https://{address}:{ETCD_PORT}", f"https://{address}:{ETCD_PEER_PORT}"
    tls = [
        f"--{prefix}{flag}"
        for prefix in ("", "peer-")
        for flag in (
            f"cert-file={pki.certificate('etcd')}", f"key-file={pki.key('etcd')}",
            f"trusted-ca-file={pki.certificate('etcd-ca')}", "client-cert-auth=true",
        )
    ]
    return (
        "--name=local", f"--data-dir={data}", "--unsafe-no-fsync=true", "--logger=zap",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=local={peer}",
        *tls,
    )


def apiserver_flags(pki: Pki, address: str, *, store: str, is_routed: bool) -> tuple[str, ...]:
    """Node and RBAC authorisation, bootstrap tokens, Pod Security by namespace label (the plugin is on by default).

    `is_routed`: pods can reach `address` and this machine can reach pods.
    """
    return (
        f"--etcd-servers=https://{store}:{ETCD_PORT}", f"--etcd-cafile={pki.certificate('etcd-ca')}",
        f"--etcd-certfile={pki.certificate('etcd')}", f"--etcd-keyfile={pki.key('etcd')}",
        f"--bind-address={address}", f"--advertise-address={address}", f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICE_RANGE}", "--allow-privileged=true",
        # EndpointSlices refuse loopback addresses, so nothing may try to publish ours.
        f"--endpoint-reconciler-type={'lease' if is_routed else 'none'}",
        f"--tls-cert-file={pki.certificate('apiserver')}", f"--tls-private-key-file={pki.key('apiserver')}",
        f"--client-ca-file={pki.certificate('ca')}",
        f"--service-account-key-file={pki.key('service-account')}",
        f"--service-account-signing-key-file={pki.key('service-account')}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--proxy-client-cert-file={pki.certificate('front-proxy-client')}",
        f"--proxy-client-key-file={pki.key('front-proxy-client')}",
        f"--requestheader-client-ca-file={pki.certificate('front-proxy-ca')}",
        "--requestheader-allowed-names=front-proxy-client", "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
        "--enable-bootstrap-token-auth=true",
        f"--kubelet-client-certificate={pki.certificate('apiserver-kubelet-client')}",
        f"--kubelet-client-key={pki.key('apiserver-kubelet-client')}",
        f"--kubelet-certificate-authority={pki.certificate('ca')}", "--kubelet-preferred-address-types=InternalIP",
        # An aggregated API by ExternalName Service works only without it.
        f"--enable-aggregator-routing={'true' if is_routed else 'false'}",
    )  # fmt: skip


def controller_flags(pki: Pki, address: str) -> tuple[str, ...]:
    """Short periods: a lost node is seen within seconds and an autoscaler settles within a test."""
    return (
        *_client_flags(pki, "controller-manager", address, CONTROLLER_PORT),
        f"--root-ca-file={pki.certificate('ca')}", f"--service-account-private-key-file={pki.key('service-account')}",
        "--use-service-account-credentials=true",
        f"--cluster-signing-cert-file={pki.certificate('ca')}", f"--cluster-signing-key-file={pki.key('ca')}",
        "--node-monitor-period=1s", f"--node-monitor-grace-period={NODE_GRACE_S}s",
        "--horizontal-pod-autoscaler-sync-period=2s", "--horizontal-pod-autoscaler-downscale-stabilization=5s",
        "--controllers=*,bootstrapsigner,tokencleaner",
    )


def scheduler_flags(pki: Pki, address: str) -> tuple[str, ...]:
    """A default scheduler."""
    return _client_flags(pki, "scheduler", address, SCHEDULER_PORT)


def _client_flags(pki: Pki, name: str, address: str, port: int) -> tuple[str, ...]:
    kubeconfig = pki.kubeconfig(name)
    return (
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}", f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={address}", f"--secure-port={port}", "--leader-elect=false",
    )
