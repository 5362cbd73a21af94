"""List, watch, bookmark, resync as one endless iterator: level-based readers need nothing else.

A broken watch, an expired position (410) or a silent stream leads to a new list; objects that vanished meanwhile come
as DELETED, so that no reader keeps a ghost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

from espalier_kit.clock import Clock, SystemClock
from espalier_kit.errors import Gone, Retryable
from espalier_kit.retry import Backoff
from espalier_kube.cluster import Cluster, Kind, Object, WatchEvent

log = logging.getLogger(__name__)

RESYNC_S = 240
_BACKOFF = Backoff(first_s=0.2, longest_s=5.0)


@dataclass(slots=True)
class Pulse:
    """Proof of life of one watch: when something, a bookmark included, was last seen (monotonic seconds)."""

    seen_at: float = 0.0
    lists: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """What to follow."""

    kind: Kind
    namespace: str | None = None
    labels: str | None = None
    fields: str | None = None


@dataclass(slots=True)
class _Position:
    resource_version: str = ""
    known: dict[str, Object] = field(default_factory=dict)


async def follow(
    cluster: Cluster,
    kind: Kind,
    namespace: str | None = None,
    *,
    labels: str | None = None,
    fields: str | None = None,
    resync_s: int = RESYNC_S,
    clock: Clock | None = None,
    pulse: Pulse | None = None,
) -> AsyncGenerator[WatchEvent, None]:
    """Every object first as ADDED, then each change, for ever; cancel the task to stop.

    After a new list the objects come again as MODIFIED, the vanished as DELETED. Retryable errors are waited out;
    Forbidden and other permanent errors are raised.
    """
    chosen = Selection(kind, namespace, labels, fields)
    watch_clock, beat, position = clock or SystemClock(), pulse or Pulse(), _Position()
    rng, failures = random.Random(0), 0
    while True:
        try:
            async for event in _list(cluster, chosen, position):
                yield event
            beat.lists += 1
            beat.seen_at = watch_clock.monotonic()
            async with aclosing(_watch(cluster, chosen, position, resync_s)) as changes:
                async for event in changes:
                    failures = 0
                    beat.seen_at = watch_clock.monotonic()
                    if event.type != "BOOKMARK":
                        beat.events += 1
                        yield event
        except Gone:
            continue
        except Retryable as error:
            failures += 1
            log.warning(
                "watch interrupted", extra={"kind_watched": kind.kind, "error": str(error), "failures": failures}
            )
            await watch_clock.sleep(_BACKOFF.delay_s(failures, rng))


async def _list(cluster: Cluster, chosen: Selection, position: _Position) -> AsyncIterator[WatchEvent]:
    listing = await cluster.list(chosen.kind, chosen.namespace, labels=chosen.labels, fields=chosen.fields)
    before, position.known = position.known, {}
    for item in listing.items:
        uid = item["metadata"]["uid"]
        position.known[uid] = _identity(item)
        yield WatchEvent("MODIFIED" if uid in before else "ADDED", item)
    position.resource_version = listing.resource_version
    for uid, ghost in before.items():
        if uid not in position.known:
            yield WatchEvent("DELETED", ghost)


async def _watch(
    cluster: Cluster, chosen: Selection, position: _Position, resync_s: int
) -> AsyncGenerator[WatchEvent, None]:
    deadline = asyncio.get_running_loop().time() + resync_s
    while (left := deadline - asyncio.get_running_loop().time()) > 1:
        stream = cluster.watch(
            chosen.kind,
            chosen.namespace,
            resource_version=position.resource_version,
            labels=chosen.labels,
            fields=chosen.fields,
            timeout_s=max(1, int(left)),
        )
        async with aclosing(stream) as changes:  # whoever stops following closes the connection with it
            async for event in changes:
                position.resource_version = event.object["metadata"]["resourceVersion"]
                _remember(position, event)
                yield event


def _remember(position: _Position, event: WatchEvent) -> None:
    if event.type == "BOOKMARK":
        return
    uid = event.object["metadata"]["uid"]
    if event.type == "DELETED":
        position.known.pop(uid, None)
    else:
        position.known[uid] = _identity(event.object)


def _identity(item: Object) -> Object:
    metadata = item["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "uid", "labels", "ownerReferences") if key in metadata}
    return {"apiVersion": item.get("apiVersion"), "kind": item.get("kind"), "metadata": kept}
