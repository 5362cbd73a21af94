"""kopf as the watch loop: one `on.event` per kind, each only handing the object on.

kopf runs on a thread with a loop of its own: it cancels tasks it did not start and takes over signals otherwise.
No other handlers: so it never patches an object, adds no finalizer and no annotation.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kopf
import yaml

from espalier_kube.cluster import Object
from espalier_operator.watching import WATCHED, Selection

log = logging.getLogger(__name__)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVER_TIMEOUT_S = 240
STOP_S = 10.0

Sink = Callable[[str | None, Object], None]


class WatchLoop:
    """Feeds `sink(type, object)` on the caller's loop until stopped; `failed` is set if kopf ends by itself."""

    def __init__(self, sink: Sink, *, server: str, kubeconfig: Path | None) -> None:
        self._sink, self._server, self._kubeconfig = sink, server, kubeconfig
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self.failed = asyncio.Event()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    async def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, STOP_S)

    def _run(self) -> None:
        try:
            asyncio.run(kopf.operator(
                registry=self._registry(), settings=_settings(), clusterwide=True, standalone=True,
                stop_flag=self._stop,
            ))
        except Exception:
            log.exception("the watch loop failed")
        if not self._stop.is_set():
            self._loop.call_soon_threadsafe(self.failed.set)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for selection in WATCHED:
            self._watch(registry, selection)
        return registry

    def _watch(self, registry: kopf.OperatorRegistry, selection: Selection) -> None:
        kind = selection.kind

        async def pass_on(event: Any, **_: Any) -> None:
            obj = {"apiVersion": kind.api_version, "kind": kind.kind, **event["object"]}
            self._loop.call_soon_threadsafe(self._sink, event["type"], obj)

        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"watch-{kind.plural}")(pass_on)

    def _login(self, **_: Any) -> kopf.ConnectionInfo:
        if self._kubeconfig is None:
            return kopf.ConnectionInfo(
                server=self._server, ca_path=str(SERVICE_ACCOUNT / "ca.crt"), scheme="Bearer",
                token=(SERVICE_ACCOUNT / "token").read_text().strip(),
            )
        return connection_of(yaml.safe_load(self._kubeconfig.read_text()), self._server)


def connection_of(config: dict[str, Any], server: str) -> kopf.ConnectionInfo:
    """kopf's credentials from a kubeconfig's current context."""
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    return kopf.ConnectionInfo(
        server=server,
        ca_path=cluster.get("certificate-authority"),
        ca_data=cluster.get("certificate-authority-data"),
        certificate_path=user.get("client-certificate"),
        certificate_data=user.get("client-certificate-data"),
        private_key_path=user.get("client-key"),
        private_key_data=user.get("client-key-data"),
        scheme="Bearer" if user.get("token") else None,
        token=user.get("token"),
    )


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = SERVER_TIMEOUT_S
    for selection in WATCHED:
        kind = selection.kind
        if selection.labels:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = selection.labels
        if selection.fields:
            settings.watching.field_selectors[kind.group, kind.version, kind.plural] = selection.fields
    return settings
