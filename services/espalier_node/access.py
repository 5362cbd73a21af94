"""Who may ask the kubelet API what: a client certificate of the cluster's CA or a token, then a SubjectAccessReview."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from espalier_kit.clock import Clock
from espalier_kit.errors import Forbidden
from espalier_kube.cluster import Cluster

CACHE_S = 30.0
CACHE_ENTRIES = 512
_FINE = {"/pods": "pods", "/runningpods": "pods", "/healthz": "healthz", "/configz": "configz"}
"""Paths with a subresource of their own (KEP-2862); `proxy` allows them as well."""
_PREFIXES = {"/stats": "stats", "/metrics": "metrics", "/logs": "log"}
_ACTING = ("/exec/", "/attach/", "/portForward/")
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated user."""

    name: str
    groups: tuple[str, ...]


def subresources(path: str) -> tuple[str, ...]:
    """The `nodes/…` subresources of which any one allows the path (pure)."""
    if path in _FINE:
        return (_FINE[path], "proxy")
    for prefix, word in _PREFIXES.items():
        if path == prefix or path.startswith(prefix + "/"):
            return (word,)
    return ("proxy",)


def caller_of(certificate: Mapping[str, Any]) -> Caller | None:
    """The user in a verified peer certificate, as Python's ssl gives it (pure)."""
    pairs = [pair for part in certificate.get("subject", ()) for pair in part]
    name = next((value for key, value in pairs if key == "commonName"), None)
    groups = tuple(value for key, value in pairs if key == "organizationName")
    return Caller(name, (*groups, "system:authenticated")) if name else None


class Access:
    """Asks the API server, remembering answers for half a minute."""

    def __init__(self, cluster: Cluster, clock: Clock, node: str) -> None:
        self._cluster, self._clock, self._node = cluster, clock, node
        self._callers: dict[str, tuple[float, Caller | None]] = {}
        self._verdicts: dict[tuple[Caller, str, str], tuple[float, bool]] = {}

    async def by_token(self, token: str) -> Caller | None:
        """The token's user; None when the API server does not know it."""
        held = self._callers.get(token)
        if held is not None and held[0] > self._clock.monotonic():
            return held[1]
        review = await self._cluster.create({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {"token": token},
        })
        status = review.get("status") or {}
        user = status.get("user") or {}
        caller = Caller(user["username"], tuple(user.get("groups") or ())) if status.get("authenticated") else None
        _bound(self._callers)[token] = (self._clock.monotonic() + CACHE_S, caller)
        return caller

    async def require(self, caller: Caller, method: str, path: str) -> None:
        """Raises `Forbidden` with the sentence a person needs."""
        chosen = subresources(path)
        # A WebSocket begins as a GET, but whoever may only look must not run commands.
        verb = "create" if path.startswith(_ACTING) else _VERBS.get(method, "get")
        for subresource in chosen:
            if await self._may(caller, verb, subresource):
                return
        raise Forbidden(
            f"{caller.name} may not {verb} nodes/{chosen[0]} of {self._node}: bind it to a ClusterRole that may",
            reason="Forbidden",
        )

    async def _may(self, caller: Caller, verb: str, subresource: str) -> bool:
        key = (caller, verb, subresource)
        held = self._verdicts.get(key)
        if held is not None and held[0] > self._clock.monotonic():
            return held[1]
        attributes = {
            "group": "", "version": "v1", "resource": "nodes", "subresource": subresource, "name": self._node,
            "verb": verb,
        }
        review = await self._cluster.create({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
            "spec": {"user": caller.name, "groups": list(caller.groups), "resourceAttributes": attributes},
        })
        is_allowed = bool((review.get("status") or {}).get("allowed"))
        _bound(self._verdicts)[key] = (self._clock.monotonic() + CACHE_S, is_allowed)
        return is_allowed


def _bound(cache: dict[Any, Any]) -> dict[Any, Any]:
    if len(cache) >= CACHE_ENTRIES:
        cache.clear()
    return cache
