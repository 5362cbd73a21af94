"""Status and Events: one status write only if something changed, Events only after it succeeded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from espalier_api.meta import Condition
from espalier_api.reasons import REASONS
from espalier_kit.clock import Clock
from espalier_kit.digest import sha256
from espalier_kit.errors import Conflict, EspalierError, NotFound, Permanent
from espalier_kube.cluster import EVENT, Cluster, Object
from espalier_kube.objects import timestamp, typed
from espalier_operator.plan.outcome import Notice, Plan
from espalier_operator.watching import Intake

log = logging.getLogger(__name__)

PROGRESS_S = 5.0
"""Between two status writes of one object that tell only of progress."""
SOURCE = "espalier-operator"
MAX_MESSAGE = 1000
"""The API server refuses Event messages over 1,024 bytes."""
DEFAULT_NAMESPACE = "default"
"""Where Events about cluster-wide objects go."""


class Reporter:
    """Writes what a plan says about its object. Every reason must be in `espalier_api.reasons`."""

    def __init__(self, cluster: Cluster, intake: Intake, clock: Clock) -> None:
        self._cluster, self._intake, self._clock = cluster, intake, clock
        self._written: dict[str, float] = {}
        self._writes: dict[str, int] = {}

    async def report(self, obj: Object, plan: Plan) -> float | None:
        """Write status and Events; returns in how many seconds a held-back progress write is due, or None."""
        _check_reasons(plan.status.conditions, plan.notices)
        held_back = await self._status(obj, plan.status.wire())
        for notice in plan.notices:
            await self.tell(obj, notice)
        return held_back

    async def tell(self, obj: Object, notice: Notice) -> None:
        """One Event. A failure costs the Event, never the reconcile."""
        _check_reasons((), (notice,))
        name, namespace = event_name(obj, notice), obj["metadata"].get("namespace") or DEFAULT_NAMESPACE
        try:
            await self._create_or_count(obj, notice, name=name, namespace=namespace)
        except EspalierError as error:
            log.warning("event not written", extra={"reason": notice.reason, "error": str(error)})

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._written.pop(uid, None)
        self._writes.pop(uid, None)

    @property
    def most_writes(self) -> int:
        """The most status writes that one object has had from this process."""
        return max(self._writes.values(), default=0)

    async def _status(self, obj: Object, wished: dict[str, Any]) -> float | None:
        current, uid = obj.get("status") or {}, obj["metadata"]["uid"]
        if current == wished:
            return None
        since = self._clock.monotonic() - self._written.get(uid, float("-inf"))
        if since < PROGRESS_S and _essence(current) == _essence(wished):
            return PROGRESS_S - since
        meta = {"name": obj["metadata"]["name"], "namespace": obj["metadata"]["namespace"], "uid": uid}
        body = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": meta, "status": wished}
        try:
            written = await self._cluster.apply(body, subresource="status")
        except NotFound:
            return None
        self._intake.written(written)
        self._written[uid] = self._clock.monotonic()
        self._writes[uid] = self._writes.get(uid, 0) + 1
        return None

    async def _create_or_count(self, obj: Object, notice: Notice, *, name: str, namespace: str) -> None:
        now = timestamp(self._clock.now())
        message = notice.message[:MAX_MESSAGE]
        event = typed(
            EVENT, {"name": name, "namespace": namespace}, reason=notice.reason, message=message, type=notice.type,
            involvedObject=_involved(obj), count=1, firstTimestamp=now, lastTimestamp=now,
            source={"component": SOURCE}, reportingComponent=SOURCE, reportingInstance=SOURCE,
        )
        try:
            await self._cluster.create(event)
        except Conflict:
            if notice.once:
                return
            known = await self._cluster.get(EVENT, name, namespace)
            again = {"count": int(known.get("count") or 1) + 1, "lastTimestamp": now, "message": message}
            await self._cluster.patch(EVENT, name, namespace, again)


def event_name(obj: Object, notice: Notice) -> str:
    """The same thing about the same object is one Event, counted up."""
    meta = obj["metadata"]
    return f"{meta['name'][:200]}.{sha256('/'.join((meta['uid'], notice.reason, notice.key)).encode())[:16]}"


def _involved(obj: Object) -> Object:
    meta = obj["metadata"]
    made = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": meta["name"], "uid": meta["uid"]}
    return {**made, **({"namespace": meta["namespace"]} if meta.get("namespace") else {})}


def _essence(status: Mapping[str, Any]) -> object:
    """What must be told at once; everything else is progress."""
    conditions = [(c["type"], c["status"], c["reason"]) for c in status.get("conditions") or ()]
    ready = [(e["pod"], e["ready"]) for e in status.get("endpoints") or ()]
    return status.get("phase"), status.get("observedGeneration"), sorted(conditions), ready


def _check_reasons(conditions: tuple[Condition, ...], notices: tuple[Notice, ...]) -> None:
    used = {condition.reason for condition in conditions} | {notice.reason for notice in notices}
    unknown = used - REASONS.keys()
    if unknown:
        raise Permanent(f"reasons without documentation: {', '.join(sorted(unknown))}", reason="UnknownReason")
