"""The certificate authority: a CA Secret, serving certificates for the coordinator and each model server, API keys.

Private keys live in Secrets and, for as long as needed, in memory; they are never logged.
"""

from __future__ import annotations

import base64
import logging
import secrets
from dataclasses import dataclass, field

from espalier_api.names import CA_SECRET, MANAGED_BY
from espalier_kit.certificates import KeyPair, issue, make_authority, needs_renewal
from espalier_kit.clock import Clock
from espalier_kit.errors import Conflict, NotFound, Permanent
from espalier_kube.cluster import API_SERVICE, SECRET, Cluster, Object
from espalier_kube.objects import config_map, metadata, owner_labels, secret, secret_bytes
from espalier_operator.ownership import check_ours
from espalier_operator.plan.modelserver import key_secret, tls_secret
from espalier_operator.settings import OperatorSettings

log = logging.getLogger(__name__)

COORDINATOR = "espalier-coordinator"
SCALING = "espalier-scaling"
"""Service by which the API server asks the coordinator for metrics; it is dialled by this name."""
METRICS_API = "v1beta1.external.metrics.k8s.io"
CHECK_S = 3600.0
"""How long a certificate that was found good is not looked at again."""
KEY_BYTES = 32
TLS_TYPE = "kubernetes.io/tls"


@dataclass(slots=True)
class _Known:
    """Credentials of a model server that were read or made."""

    api_key: str = field(repr=False)
    checked_at: float


class Authority:
    """Issues and renews. `load` must have succeeded before anything else is asked."""

    def __init__(self, cluster: Cluster, settings: OperatorSettings, clock: Clock) -> None:
        self._cluster, self._settings, self._clock = cluster, settings, clock
        self._pair: KeyPair | None = None
        self._servers: dict[str, _Known] = {}

    @property
    def ca_pem(self) -> str:
        """The authority's certificate."""
        return self._ca.certificate.decode()

    async def load(self) -> None:
        """Read the authority, or make it if there is none. Two operators racing agree on the first one stored."""
        namespace = self._settings.namespace
        try:
            stored = await self._cluster.get(SECRET, CA_SECRET, namespace)
        except NotFound:
            stored = await self._make(namespace)
        self._pair = _pair(stored)

    async def ensure_coordinator(self) -> None:
        """The coordinator's certificate Secret, and the ConfigMap that tells the CLI where it is."""
        settings, namespace = self._settings, self._settings.namespace
        hosts = coordinator_hosts(settings)
        meta = metadata(f"{COORDINATOR}-tls", namespace, labels={MANAGED_BY: "espalier"})
        await self._ensure_certificate(meta, settings.coordinator_name, hosts)
        where = {
            "web": settings.coordinator_web, "grpc": settings.coordinator, "name": settings.coordinator_name,
            "ca.crt": self.ca_pem,
        }
        await self._cluster.apply(config_map(metadata(COORDINATOR, namespace), where))

    async def ensure_metrics_api(self) -> None:
        """The API server verifies the coordinator's metrics API by our authority, where the chart registered it."""
        try:
            live = await self._cluster.get(API_SERVICE, METRICS_API)
        except NotFound:
            return
        service = live["spec"].get("service") or {}
        if (service.get("name"), service.get("namespace")) != (SCALING, self._settings.namespace):
            return
        wished = base64.b64encode(self._ca.certificate).decode()
        if live["spec"].get("caBundle") != wished:
            await self._cluster.patch(API_SERVICE, METRICS_API, None, {"spec": {"caBundle": wished}})
            log.info("metrics API registered", extra={"api_service": METRICS_API})

    async def ensure_server(self, server: Object) -> str:
        """Certificate and API key of a ModelServer; returns the key."""
        uid, name, namespace = (server["metadata"][k] for k in ("uid", "name", "namespace"))
        known = self._servers.get(uid)
        if known is not None and self._clock.monotonic() - known.checked_at < CHECK_S:
            return known.api_key
        labels = owner_labels("mlx", kind="ModelServer", name=name)
        certificate = metadata(tls_secret(name), namespace, labels=labels, owner=server)
        await self._ensure_certificate(certificate, f"{name}.{namespace}.svc", (f"{name}.{namespace}.svc",))
        api_key = await self._ensure_key(metadata(key_secret(name), namespace, labels=labels, owner=server))
        self._servers[uid] = _Known(api_key, self._clock.monotonic())
        return api_key

    def forget_server(self, uid: str) -> None:
        """The ModelServer is gone; its Secrets go with it."""
        self._servers.pop(uid, None)

    @property
    def _ca(self) -> KeyPair:
        if self._pair is None:
            raise Permanent("the authority has not been loaded", reason="NoAuthority")
        return self._pair

    async def _make(self, namespace: str) -> Object:
        made = make_authority("espalier authority", self._clock.now())
        data = {"tls.crt": made.certificate, "tls.key": made.key, "ca.crt": made.certificate}
        try:
            stored = await self._cluster.create(secret(metadata(CA_SECRET, namespace), data, type_=TLS_TYPE))
        except Conflict:
            return await self._cluster.get(SECRET, CA_SECRET, namespace)
        log.info("authority created", extra={"namespace": namespace})
        return stored

    async def _ensure_certificate(self, meta: Object, name: str, hosts: tuple[str, ...]) -> None:
        live = await self._read(meta)
        now = self._clock.now()
        if live is not None:
            certificate, authority = secret_bytes(live, "tls.crt"), secret_bytes(live, "ca.crt")
            same = authority == self._ca.certificate and _hosts_of(live) == _join(hosts)
            if certificate and same and not needs_renewal(certificate, now):
                return
        pair = issue(self._ca, name, now, hosts=hosts, is_server=True)
        data = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": self._ca.certificate}
        annotated = {**meta, "annotations": {HOSTS: _join(hosts)}}
        await self._cluster.apply(secret(annotated, data, type_=TLS_TYPE))
        log.info("certificate issued", extra={"certificate_name": name, "namespace": meta["namespace"]})

    async def _ensure_key(self, meta: Object) -> str:
        live = await self._read(meta)
        stored = secret_bytes(live, "api-key") if live is not None else None
        if stored:
            return stored.decode().strip()
        made = secrets.token_urlsafe(KEY_BYTES)
        await self._cluster.apply(secret(meta, {"api-key": made.encode()}))
        return made

    async def _read(self, meta: Object) -> Object | None:
        """The Secret that is there; raises `Conflict` where it is not ours to write."""
        try:
            live = await self._cluster.get(SECRET, meta["name"], meta["namespace"])
        except NotFound:
            return None
        check_ours(live, secret(meta, {}))
        return live


HOSTS = "espalier.dev/hosts"
"""Annotation: the names a certificate was issued for, so that a change of settings issues a new one."""


def coordinator_hosts(settings: OperatorSettings) -> tuple[str, ...]:
    """Every name and address under which the coordinator may be dialled."""
    dialled = (settings.coordinator.rpartition(":")[0], settings.coordinator_web.removeprefix("https://"))
    scaling = f"{SCALING}.{settings.namespace}.svc"
    hosts = {settings.coordinator_name, COORDINATOR, scaling, *(_host(part) for part in dialled)}
    return tuple(sorted(hosts))


def _host(part: str) -> str:
    if part.startswith("["):
        return part[1:].partition("]")[0]
    return part.partition(":")[0] if part.count(":") == 1 else part


def _hosts_of(live: Object) -> str:
    return str((live["metadata"].get("annotations") or {}).get(HOSTS, ""))


def _join(hosts: tuple[str, ...]) -> str:
    return ",".join(sorted(hosts))


def _pair(stored: Object) -> KeyPair:
    certificate, key = secret_bytes(stored, "tls.crt"), secret_bytes(stored, "tls.key")
    if not certificate or not key:
        name = f"{stored['metadata'].get('namespace')}/{stored['metadata']['name']}"
        raise Permanent(f"Secret {name} lacks tls.crt or tls.key: restore it, or delete it to make a new authority")
    return KeyPair(certificate, key)
