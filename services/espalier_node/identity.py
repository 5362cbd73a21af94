"""Who the agent is: bootstrap token → signed client certificate → own kubeconfig; then a serving certificate."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import uuid
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from cryptography import x509

from espalier_kit.certificates import KeyPair, expires_at, needs_renewal
from espalier_kit.clock import Clock
from espalier_kit.errors import Forbidden, Misconfigured, Retryable
from espalier_kube import client, signing
from espalier_kube.cluster import Cluster
from espalier_node.settings import NodeSettings

log = logging.getLogger(__name__)

GROUP = "system:nodes"
_NETWORKS = (IPv4Network, IPv6Network)
SIGNED_WITHIN_S = 60.0
RETRY_S = 2.0
DENIED_RETRY_S = 60.0


def user_name(node: str) -> str:
    """The name that the Node authoriser and NodeRestriction know a node by."""
    return f"system:node:{node}"


async def ensure(settings: NodeSettings, clock: Clock) -> bool:
    """Have a kubeconfig of one's own; returns whether there was one before. Waits while nobody signs."""
    held = client_certificate(settings.own_kubeconfig)
    if held is not None and clock.now() < expires_at(held):
        return True
    if not settings.bootstrap_kubeconfig.exists():
        sentence = f"bootstrap_kubeconfig {settings.bootstrap_kubeconfig} does not exist"
        raise Misconfigured(sentence, reason="NoCredentials")
    while True:
        try:
            async with _connected(settings.bootstrap_kubeconfig) as cluster:
                await _request_client(cluster, settings, template=settings.bootstrap_kubeconfig)
            return False
        except (Retryable, Forbidden) as error:
            log.warning("no identity yet", extra={"error": str(error)})
            await clock.sleep(RETRY_S)


async def renew_when_due(cluster: Cluster, settings: NodeSettings, clock: Clock) -> None:
    """Return once a new client certificate was written; the caller connects again with it."""
    while True:
        held = client_certificate(settings.own_kubeconfig)
        if held is None or needs_renewal(held, clock.now()):
            with contextlib.suppress(Retryable, Forbidden):
                await _request_client(cluster, settings, template=settings.own_kubeconfig)
                return
        await clock.sleep(DENIED_RETRY_S)


async def serving_certificate(cluster: Cluster, settings: NodeSettings, clock: Clock) -> KeyPair:
    """The kubelet API's certificate: the kept one while it is good, else a new one, however long its approval takes."""
    kept = read_serving(settings)
    if kept is not None and not needs_renewal(kept.certificate, clock.now()):
        return kept
    while True:
        try:
            made = await _request_serving(cluster, settings)
            _write_private(settings.state_dir / "pki" / "serving.pem", made.certificate + made.key)
            return made
        except Forbidden as error:
            log.warning("serving certificate refused", extra={"error": str(error)})
            await clock.sleep(DENIED_RETRY_S)
        except Retryable as error:
            log.info("serving certificate not signed yet", extra={"error": str(error)})
            await clock.sleep(RETRY_S)


def read_serving(settings: NodeSettings) -> KeyPair | None:
    """The kept serving certificate, if it is for this node's address."""
    path = settings.state_dir / "pki" / "serving.pem"
    try:
        pair = split(path.read_bytes())
        return pair if settings.address in _addresses(pair.certificate) else None
    except (OSError, ValueError, x509.ExtensionNotFound):
        return None


def _addresses(certificate: bytes) -> list[IPv4Address | IPv6Address]:
    parsed = x509.load_pem_x509_certificate(certificate)
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [address for address in names.get_values_for_type(x509.IPAddress) if not isinstance(address, _NETWORKS)]


def split(pem: bytes) -> KeyPair:
    """A file of certificates followed by a key. Raises `ValueError`."""
    marker = pem.find(b"-----BEGIN PRIVATE KEY-----")
    if marker < 0:
        raise ValueError("no private key in the file")
    return KeyPair(pem[:marker], pem[marker:])


def client_certificate(kubeconfig: Path) -> bytes | None:
    """The PEM certificate inside a kubeconfig that this module wrote; None when there is none."""
    try:
        user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
        return base64.b64decode(str(user["client-certificate-data"]))
    except (OSError, KeyError, IndexError, TypeError, ValueError, yaml.YAMLError):
        return None


def api_server(kubeconfig: Path) -> tuple[str, str]:
    """Host and port of the API server."""
    server = urlsplit(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    return server.hostname or "", str(server.port or 443)


def cluster_ca(kubeconfig: Path) -> bytes:
    """The authority that signs the API server's certificate, and in most clusters its clients'."""
    entry = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    if "certificate-authority-data" in entry:
        return base64.b64decode(str(entry["certificate-authority-data"]))
    return (kubeconfig.parent / str(entry["certificate-authority"])).read_bytes()


def own_kubeconfig(template: dict[str, Any], node: str, pair: KeyPair) -> dict[str, Any]:
    """The template's cluster with our certificate for a user (pure)."""
    entry = template["clusters"][0]
    user = user_name(node)
    return {
        "apiVersion": "v1", "kind": "Config", "clusters": [entry], "current-context": "node",
        "contexts": [{"name": "node", "context": {"cluster": entry["name"], "user": user}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": base64.b64encode(pair.certificate).decode(),
            "client-key-data": base64.b64encode(pair.key).decode(),
        }}],
    }


async def _request_client(cluster: Cluster, settings: NodeSettings, *, template: Path) -> None:
    pair = await signing.obtain(
        cluster, f"{settings.name}-client-{uuid.uuid4().hex[:8]}",
        signing.Subject(user_name(settings.name), (GROUP,)),
        signer=signing.CLIENT_SIGNER, usages=signing.CLIENT_USAGES, timeout_s=SIGNED_WITHIN_S,
    )
    made = own_kubeconfig(_read_kubeconfig(template), settings.name, pair)
    _write_private(settings.own_kubeconfig, yaml.safe_dump(made).encode())


def _read_kubeconfig(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    entry = values["clusters"][0]["cluster"]
    if "certificate-authority" in entry:
        entry["certificate-authority"] = str((path.parent / entry["certificate-authority"]).resolve())
    return values


async def _request_serving(cluster: Cluster, settings: NodeSettings) -> KeyPair:
    return await signing.obtain(
        cluster, f"{settings.name}-serving-{uuid.uuid4().hex[:8]}",
        signing.Subject(user_name(settings.name), (GROUP,), hosts=(settings.name, str(settings.address))),
        signer=signing.SERVING_SIGNER, usages=signing.SERVING_USAGES, timeout_s=SIGNED_WITHIN_S * 5,
    )


@contextlib.asynccontextmanager
async def _connected(kubeconfig: Path) -> AsyncIterator[Cluster]:
    cluster = await client.connect(kubeconfig)
    try:
        yield cluster
    finally:
        await cluster.close()


def _write_private(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.rename(path)
