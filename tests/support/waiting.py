"""Waiting on the real API server by watching it, with a deadline and a telling failure. No sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import yaml

from espalier_kube.cluster import EVENT, Cluster, Kind, Object
from espalier_kube.watch import follow

Predicate = Callable[[Object], bool]
_ENDED = {"Failed", "Cancelled", "Complete"}
"""Phases after which nothing more comes: waiting on would only hide why."""


async def until(
    cluster: Cluster, kind: Kind, namespace: str | None, name: str, predicate: Predicate, *, timeout_s: float, what: str
) -> Object:
    """The object once `predicate` holds; fails after `timeout_s` showing its last status."""
    last: dict[str, Any] = {}

    async def watch() -> Object:
        async with aclosing(follow(cluster, kind, namespace, fields=f"metadata.name={name}")) as changes:
            async for event in changes:
                last["object"] = event.object
                if event.type != "DELETED" and predicate(event.object):
                    return event.object
                if event.object.get("status", {}).get("phase") in _ENDED:
                    raise TimeoutError
        raise AssertionError("unreachable: follow never ends")

    try:
        return await asyncio.wait_for(watch(), timeout_s)
    except TimeoutError:
        seen = yaml.safe_dump(last.get("object", {}).get("status", "never seen"), allow_unicode=True)
        raise AssertionError(f"{kind.kind} {name}: no {what} within {timeout_s} s; last status:\n{seen}") from None


async def until_gone(
    cluster: Cluster, kind: Kind, namespace: str, *, labels: str | None = None, timeout_s: float
) -> None:
    """Return once no such object is left."""
    left: dict[str, str] = {}

    async def watch() -> None:
        while True:
            listing = await cluster.list(kind, namespace, labels=labels)
            left.clear()
            left.update({item["metadata"]["uid"]: item["metadata"]["name"] for item in listing.items})
            if not left:
                return
            # From the list's own position: what goes between two lists would never be told.
            changes = cluster.watch(kind, namespace, resource_version=listing.resource_version, labels=labels)
            async with aclosing(changes):
                async for event in changes:
                    if event.type == "DELETED":
                        break

    try:
        await asyncio.wait_for(watch(), timeout_s)
    except TimeoutError:
        raise AssertionError(f"{kind.plural} still there after {timeout_s} s: {sorted(left.values())}") from None


async def until_event(
    cluster: Cluster,
    namespace: str | None,
    predicate: Predicate,
    *,
    timeout_s: float,
    what: str,
    seen: set[str] = frozenset(),
) -> tuple[Object, float]:
    """The first Event that `predicate` accepts and whose (uid, count) is not in `seen`, and the seconds it took."""
    started = time.monotonic()
    others: list[str] = []

    async def watch() -> Object:
        async with aclosing(follow(cluster, EVENT, namespace)) as changes:
            async for event in changes:
                if fingerprint(event.object) not in seen and event.type != "DELETED":
                    if predicate(event.object):
                        return event.object
                    others.append(f"{event.object.get('reason')}: {event.object.get('message', '')[:100]}")
        raise AssertionError("unreachable: follow never ends")

    try:
        found = await asyncio.wait_for(watch(), timeout_s)
    except TimeoutError:
        raise AssertionError(f"no Event {what} within {timeout_s} s; others: {others[-12:]}") from None
    return found, time.monotonic() - started


async def seen_events(cluster: Cluster, namespace: str | None = None) -> set[str]:
    """Fingerprints of every Event there is now, so that only later ones count."""
    return {fingerprint(item) for item in (await cluster.list(EVENT, namespace)).items}


def fingerprint(event: Object) -> str:
    """An Event and how often it has happened."""
    return f"{event['metadata']['uid']}/{event.get('count', 1)}/{(event.get('series') or {}).get('count', 0)}"


def condition(obj: Object, type_: str) -> Object:
    """The condition of that type, or an empty dictionary."""
    found = [c for c in obj.get("status", {}).get("conditions", ()) if c["type"] == type_]
    return found[0] if found else {}


def has(type_: str, status: str = "True", reason: str | None = None) -> Predicate:
    """A predicate: the object carries that condition."""

    def predicate(obj: Object) -> bool:
        found = condition(obj, type_)
        return found.get("status") == status and (reason is None or found.get("reason") == reason)

    return predicate
