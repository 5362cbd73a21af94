"""Events as a kubelet's; repeats of one fact are counted on one object."""

from __future__ import annotations

import logging
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from espalier_kit.clock import Clock
from espalier_kit.errors import EspalierError
from espalier_kube.cluster import EVENT, Cluster, Object

log = logging.getLogger(__name__)

COMPONENT = "espalier-node"
REMEMBERED = 1024
REPEAT_S = 10.0
"""A repeated Event is counted at once and written this often: a failing probe must not flood the API server."""
NODE_NAMESPACE = "default"
"""Where Kubernetes keeps Events of objects without a namespace."""


@dataclass(slots=True)
class _Known:
    name: str
    written_at: float
    count: int = 1


class Events:
    """Writes Events; never raises, since an Event that is lost must not stop what it tells of."""

    def __init__(self, cluster: Cluster, clock: Clock, node_name: str) -> None:
        self._cluster, self._clock, self._node = cluster, clock, node_name
        self._seen: OrderedDict[tuple[str, str, str, str], _Known] = OrderedDict()

    async def write(
        self, about: Object, reason: str, message: str, *, kind: Literal["Normal", "Warning"] = "Normal",
        container: str | None = None,
    ) -> None:
        """`about` is a Pod or Node with apiVersion, kind and metadata."""
        involved = _reference(about, container)
        namespace = involved.get("namespace") or NODE_NAMESPACE
        key = (involved["uid"], involved.get("fieldPath", ""), reason, message)
        log.info("event", extra={"reason": reason, "about": f"{involved['kind']} {involved['name']}", "said": message})
        try:
            await self._write(key, involved, namespace, reason, message, kind)
        except EspalierError as error:
            self._seen.pop(key, None)
            log.warning("event was not written", extra={"reason": reason, "error": str(error)})

    async def _write(
        self, key: tuple[str, str, str, str], involved: Object, namespace: str, reason: str, message: str, kind: str
    ) -> None:
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        if key in self._seen:
            known = self._seen[key]
            known.count += 1
            self._seen.move_to_end(key)
            if self._clock.monotonic() - known.written_at >= REPEAT_S:
                known.written_at = self._clock.monotonic()
                await self._cluster.patch(EVENT, known.name, namespace, {"count": known.count, "lastTimestamp": now})
            return
        name = f"{involved['name'][:200]}.{uuid.uuid4().hex[:16]}"
        await self._cluster.create({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved, "reason": reason, "message": message[:1024], "type": kind, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": COMPONENT, "host": self._node},
            "reportingComponent": COMPONENT, "reportingInstance": self._node,
        })
        self._seen[key] = _Known(name, written_at=self._clock.monotonic())
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)


def _reference(about: Object, container: str | None) -> Object:
    metadata = about["metadata"]
    reference = {
        "apiVersion": about.get("apiVersion", "v1"), "kind": about.get("kind", "Pod"), "name": metadata["name"],
        "uid": metadata["uid"],
    }
    if "namespace" in metadata:
        reference["namespace"] = metadata["namespace"]
    if container is not None:
        reference["fieldPath"] = f"spec.containers{{{container}}}"
    return reference
