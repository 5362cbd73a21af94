"""The fence: every write to the API server first checks that this process holds the operator's Lease."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Literal

from espalier_kit.errors import Retryable
from espalier_kube.cluster import Cluster, Kind, Listing, Object, WatchEvent


class FencedCluster:
    """A `Cluster` whose writes are refused as `Retryable` (reason NotLeader) unless `may_write()`; reads pass."""

    def __init__(
        self, inner: Cluster, may_write: Callable[[], bool], *, on_write: Callable[[str, str], None] | None = None
    ) -> None:
        self._inner = inner
        self._may_write = may_write
        self._on_write = on_write or (lambda _verb, _kind: None)

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object:
        return await self._inner.get(kind, name, namespace)

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> Listing:
        return await self._inner.list(kind, namespace, labels=labels, fields=fields)

    def watch(
        self, kind: Kind, namespace: str | None = None, *, resource_version: str,
        labels: str | None = None, fields: str | None = None, timeout_s: int = 240,
    ) -> AsyncGenerator[WatchEvent, None]:
        return self._inner.watch(
            kind, namespace, resource_version=resource_version, labels=labels, fields=fields, timeout_s=timeout_s
        )

    async def create(self, obj: Object) -> Object:
        self._pass("create", obj["kind"])
        return await self._inner.create(obj)

    async def replace(self, obj: Object, *, subresource: str | None = None) -> Object:
        self._pass("update", obj["kind"])
        return await self._inner.replace(obj, subresource=subresource)

    async def apply(self, obj: Object, *, subresource: str | None = None, force: bool = True) -> Object:
        self._pass("apply", obj["kind"])
        return await self._inner.apply(obj, subresource=subresource, force=force)

    async def patch(
        self, kind: Kind, name: str, namespace: str | None, patch: Mapping[str, Any], *,
        subresource: str | None = None, strategic: bool = False,
    ) -> Object:
        self._pass("patch", kind.kind)
        return await self._inner.patch(kind, name, namespace, patch, subresource=subresource, strategic=strategic)

    async def delete(
        self, kind: Kind, name: str, namespace: str | None = None, *, uid: str | None = None,
        grace_s: int | None = None, propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> None:
        self._pass("delete", kind.kind)
        await self._inner.delete(kind, name, namespace, uid=uid, grace_s=grace_s, propagation=propagation)

    async def create_token(
        self, service_account: str, namespace: str, *, audience: str | None, expiration_s: int,
        bound_pod: tuple[str, str] | None = None,
    ) -> tuple[str, str]:
        self._pass("create", "TokenRequest")
        return await self._inner.create_token(
            service_account, namespace, audience=audience, expiration_s=expiration_s, bound_pod=bound_pod
        )

    async def logs(self, name: str, namespace: str, *, container: str | None = None, tail: int | None = None) -> str:
        return await self._inner.logs(name, namespace, container=container, tail=tail)

    async def close(self) -> None:
        await self._inner.close()

    def _pass(self, verb: str, kind: str) -> None:
        if not self._may_write():
            raise Retryable(f"{verb} {kind}: this process does not hold the operator's Lease", reason="NotLeader")
        self._on_write(verb, kind)
