"""How the worker reaches its coordinator: over TLS, or in the clear on this machine; by token, key or certificate."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from espalier_kit.addresses import is_loopback
from espalier_kit.clock import Clock
from espalier_kit.errors import Misconfigured, Retryable
from espalier_rpc.artifacts import HttpArtifacts, web_client
from espalier_rpc.channels import ClientPair, channel, plain_channel
from espalier_rpc.client import CoordinatorClient
from espalier_worker.calls import CallsClient
from espalier_worker.session import Client
from espalier_worker.settings import WEB_PORT, WorkerSettings


class Door:
    """Made once; raises `Misconfigured` with a sentence where it leads nowhere.

    `health_address` is told to the coordinator by a worker that speaks by calls.
    """

    def __init__(self, settings: WorkerSettings, clock: Clock, *, health_address: str = "") -> None:
        self._settings = settings
        self._health_address = health_address
        self._clock = clock
        scheme, _, address = settings.coordinator.rpartition("://")
        self._address = address
        self._is_plain = scheme == "http"
        self._name = settings.coordinator_name or None
        check(settings)
        self._ca_pem = None if self._is_plain or settings.ca_file is None else read_text(settings.ca_file)
        self._pair = _pair(settings)

    def connect(self) -> Client:
        """A fresh client for one session."""
        wire = plain_channel(self._address, token=self.token) if self._is_plain else channel(
            self._address, ca_pem=self._ca_pem, server_name=self._name, token=self.token, pair=self._pair
        )
        client = CoordinatorClient(wire)
        if self._settings.transport == "session":
            return client
        return CallsClient(
            client, clock=self._clock, pull_interval_s=self._settings.pull_interval_s,
            address=self._health_address,
        )

    def web(self) -> httpx.AsyncClient:
        """For artifacts."""
        host = self._address.rpartition(":")[0]
        base_url = self._settings.coordinator_web or f"{'http' if self._is_plain else 'https'}://{host}:{WEB_PORT}"
        files = (self._settings.cert_file, self._settings.key_file)
        try:
            return web_client(base_url, ca_pem=self._ca_pem, pair=files if all(files) else None)  # type: ignore[arg-type]
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(f"the client certificate cannot be used: {error}", reason="Misconfigured") from error

    def artifacts(self, http: httpx.AsyncClient, namespace: str) -> HttpArtifacts:
        """A namespace's store."""
        return HttpArtifacts(http, namespace=namespace, token=self.token, server_name=self._name)

    def token(self) -> str:
        """The key, or the token; read anew for each call, since the kubelet replaces it. Empty: the certificate."""
        if key := self._settings.api_key.get_secret_value():
            return key
        path = self._settings.token_file
        if self._pair and not path.exists():
            return ""
        try:
            return path.read_text().strip()
        except OSError as error:
            raise Retryable(f"cannot read the token {path}: {error.strerror}", reason="NoToken") from error


def read_text(path: Path) -> str:
    """A file that must be there."""
    try:
        return path.read_text()
    except OSError as error:
        raise Misconfigured(f"cannot read {path}: {error.strerror}", reason="Misconfigured") from error


def _pair(settings: WorkerSettings) -> ClientPair | None:
    if settings.cert_file and settings.key_file:
        return ClientPair(read_text(settings.cert_file).encode(), read_text(settings.key_file).encode())
    return None


def check(settings: WorkerSettings) -> None:
    """Raise `Misconfigured` for what contradicts itself or would show secrets; reads no file."""
    if bool(settings.cert_file) != bool(settings.key_file):
        raise Misconfigured("give both ESPALIER_WORKER_CERT_FILE and ESPALIER_WORKER_KEY_FILE, or neither",
                            reason="Misconfigured")
    for name in ("coordinator", "coordinator_web"):
        url = urlsplit(getattr(settings, name))
        if url.scheme == "http" and not (settings.insecure or is_loopback(url.hostname or "")):
            raise Misconfigured(
                f"ESPALIER_WORKER_{name.upper()}={url.geturl()}: without TLS the key and all tasks can be read on the "
                "way: use https://, or set ESPALIER_WORKER_INSECURE=yes where the network itself is private",
                reason="Misconfigured",
            )
