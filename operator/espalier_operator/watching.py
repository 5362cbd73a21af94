"""What is watched, where changes go, and the list every 60 s that proves the watches alive (and mends what they miss).

kopf's own probe answers while its streams are dead, so the proof is ours: a version that a list showed and that the
watch has still not delivered a period later means a dead watch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from espalier_api.names import OWNER_KIND
from espalier_kit.clock import Clock, wait_or_stop
from espalier_kit.errors import EspalierError
from espalier_kube.cluster import (
    BENCHMARK_COMPARISON,
    BENCHMARK_JOB,
    CSR,
    DEPLOYMENT,
    GRADING_JOB,
    JOB,
    MODEL_SERVER,
    NODE,
    POD,
    Cluster,
    Kind,
    Object,
)
from espalier_kube.signing import SERVING_SIGNER
from espalier_operator.cache import Cache
from espalier_operator.queue import Key
from espalier_operator.routing import affected

log = logging.getLogger(__name__)

RESYNC_S = 60.0


@dataclass(frozen=True, slots=True)
class Selection:
    """A kind, and what of it the server shall send."""

    kind: Kind
    labels: str | None = None
    fields: str | None = None


WATCHED = (
    Selection(NODE),
    Selection(MODEL_SERVER),
    Selection(GRADING_JOB),
    Selection(BENCHMARK_JOB),
    Selection(BENCHMARK_COMPARISON),
    Selection(JOB, labels=OWNER_KIND),
    Selection(DEPLOYMENT, labels=OWNER_KIND),
    Selection(POD, labels=OWNER_KIND),
    Selection(CSR, fields=f"spec.signerName={SERVING_SIGNER}"),
)


class Intake:
    """Takes changes from the watch and from lists, keeps the cache, fills the queue; `on_gone` is told deleted uids."""

    def __init__(self, cache: Cache, add: Callable[[Key], None], clock: Clock) -> None:
        self._cache, self._add, self._clock = cache, add, clock
        self.on_gone: list[Callable[[str], None]] = []
        self._unseen: dict[str, float] = {}
        self.listed_at: float | None = None

    def event(self, type_: str | None, obj: Object) -> None:
        """One change, as the watch tells it."""
        self._unseen.pop(_version(obj), None)
        self._take(type_, obj)

    def written(self, obj: Object) -> None:
        """The answer to a write of our own: known at once, so that nothing is decided from before it."""
        self._take("MODIFIED", obj)

    async def resync(self, cluster: Cluster) -> None:
        """List everything once. Raises what the lists raise."""
        now = self._clock.monotonic()
        for selection in WATCHED:
            listing = await cluster.list(selection.kind, labels=selection.labels, fields=selection.fields)
            changed, ghosts = self._cache.replace(selection.kind, listing)
            for obj in changed:
                if self.listed_at is not None:
                    self._unseen.setdefault(_version(obj), now)
                self._route(obj, None, is_gone=False)
            for ghost in ghosts:
                self._route(ghost, ghost, is_gone=True)
        self.listed_at = self._clock.monotonic()

    async def run(self, cluster: Cluster, stop: asyncio.Event) -> None:
        """List every 60 s until `stop`."""
        while not await wait_or_stop(stop, RESYNC_S):
            try:
                await self.resync(cluster)
            except EspalierError as error:
                log.warning("resync failed", extra={"error": str(error)})

    @property
    def blind_s(self) -> float:
        """How long some change has been known from a list that the watch did not deliver; 0 if none."""
        return self._clock.monotonic() - min(self._unseen.values()) if self._unseen else 0.0

    @property
    def listed_s(self) -> float | None:
        """Seconds since the last complete list; None before the first."""
        return None if self.listed_at is None else self._clock.monotonic() - self.listed_at

    def _take(self, type_: str | None, obj: Object) -> None:
        kind = next(s.kind for s in WATCHED if s.kind.kind == obj["kind"])
        before = self._cache.get(kind, obj["metadata"]["name"], obj["metadata"].get("namespace") or "")
        is_gone = type_ == "DELETED"
        changed = self._cache.remove(obj) if is_gone else self._cache.put(obj)
        if changed:
            self._route(obj, before, is_gone=is_gone)

    def _route(self, obj: Object, before: Object | None, *, is_gone: bool) -> None:
        if is_gone:
            for forget in self.on_gone:
                forget(obj["metadata"]["uid"])
        for key in affected(obj, before, self._cache, is_gone=is_gone):
            self._add(key)


def _version(obj: Object) -> str:
    return f"{obj['metadata']['uid']}@{obj['metadata']['resourceVersion']}"
