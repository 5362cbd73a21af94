"""Certificates, keys, tokens and kubeconfigs of one cluster, made once and then read back."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from espalier_kit.certificates import KeyPair, issue, make_authority

SERVICE_RANGE = "10.0.0.0/24"
_FIRST_SERVICE = "10.0.0.1"
DNS_USER = "espalier:coredns"
POLICIES_USER = "espalier:policies"
METRICS_USER = "espalier:metrics-server"
METRICS_NAME = "metrics-server.kube-system.svc"
BOOTSTRAP_GROUP = "system:bootstrappers:espalier"
_SERVER_NAMES = (
    "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost",
)  # fmt: skip
_COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Pki:
    """File names under one private directory."""

    directory: Path

    def certificate(self, name: str) -> str:
        """Path of a certificate."""
        return str(self.directory / f"{name}.crt")

    def key(self, name: str) -> str:
        """Path of a private key."""
        return str(self.directory / f"{name}.key")

    def kubeconfig(self, name: str) -> Path:
        """Path of a kubeconfig: bootstrap, or that of a client that `_make` names."""
        return self.directory / f"{name}.kubeconfig"

    @property
    def bootstrap_token(self) -> tuple[str, str]:
        """Id and secret."""
        token_id, _, secret = (self.directory / "bootstrap-token").read_text().partition(".")
        return token_id, secret


def ensure(directory: Path, *, address: str, port: int, now: datetime, store: str = "") -> Pki:
    """Make everything unless it is there; `address` is the API server's, `store` etcd's if it is another."""
    pki = Pki(directory)
    if (directory / _COMPLETE).exists():
        return pki
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make(pki, (address, *([store] if store else [])), f"https://{address}:{port}", now)
    (directory / _COMPLETE).touch()
    return pki


def _make(pki: Pki, addresses: tuple[str, ...], server: str, now: datetime) -> None:
    authority = _authority(pki, "ca", "espalier-local", now)
    front = _authority(pki, "front-proxy-ca", "espalier-local-front-proxy", now)
    storage = _authority(pki, "etcd-ca", "espalier-local-etcd", now)
    hosts = (*addresses, _FIRST_SERVICE, *_SERVER_NAMES)
    _save(pki, "apiserver", issue(authority, "kube-apiserver", now, hosts=hosts, is_server=True))
    _save(pki, "apiserver-kubelet-client", issue(authority, "kube-apiserver-kubelet-client", now, is_client=True))
    _save(pki, "front-proxy-client", issue(front, "front-proxy-client", now, is_client=True))
    # etcd dials itself with its own certificate, hence both usages.
    _save(pki, "etcd", issue(storage, "etcd", now, hosts=(*addresses, "localhost"), is_server=True, is_client=True))
    _save(pki, "metrics-server", issue(authority, METRICS_NAME, now, hosts=(METRICS_NAME,), is_server=True))
    for name, user, organisation in (
        ("admin", "espalier-admin", "system:masters"),
        ("controller-manager", "system:kube-controller-manager", ""),
        ("scheduler", "system:kube-scheduler", ""),
        ("kube-proxy", "system:kube-proxy", ""),
        ("coredns", DNS_USER, ""),
        ("policies", POLICIES_USER, ""),
        ("metrics-server", METRICS_USER, ""),
    ):
        pair = issue(authority, user, now, organisations=[organisation] if organisation else [], is_client=True)
        _write(pki.kubeconfig(name), _kubeconfig(server, authority, user, certificate_user(pair)))
    token = f"{secrets.token_hex(3)}.{secrets.token_hex(8)}"
    _write(pki.directory / "bootstrap-token", token.encode())
    _write(pki.kubeconfig("bootstrap"), _kubeconfig(server, authority, "bootstrap", {"token": token}))
    _write(Path(pki.key("service-account")), _rsa_key())


def certificate_user(pair: KeyPair) -> dict[str, str]:
    """The user entry of a kubeconfig."""
    return {
        "client-certificate-data": base64.b64encode(pair.certificate).decode(),
        "client-key-data": base64.b64encode(pair.key).decode(),
    }


def _authority(pki: Pki, name: str, common_name: str, now: datetime) -> KeyPair:
    pair = make_authority(common_name, now)
    _save(pki, name, pair)
    return pair


def _save(pki: Pki, name: str, pair: KeyPair) -> None:
    _write(Path(pki.certificate(name)), pair.certificate)
    _write(Path(pki.key(name)), pair.key)


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _rsa_key() -> bytes:
    # Kubernetes signs service-account tokens with RS256; 2048 bits as kubeadm has it.
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _kubeconfig(server: str, authority: KeyPair, user: str, credentials: dict[str, str]) -> bytes:
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(authority.certificate).decode()}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "espalier-local", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "espalier-local", "context": {"cluster": "espalier-local", "user": user}}],
            "current-context": "espalier-local",
        }
    ).encode()
