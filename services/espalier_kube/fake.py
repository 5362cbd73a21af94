"""FakeCluster: the API server's semantics in memory, for fast tests. It passes `tests/contract/test_cluster.py`.

Modelled: resource versions and conflicts, uid and generation, the status subresource, server-side apply of one manager,
merge patches, finalizers, graceful pod deletion, owner-reference garbage collection, selectors, watches with bookmarks
and expiry. Not modelled: schemas, defaulting, admission, authorisation.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Literal

from espalier_kit.clock import Clock, SystemClock
from espalier_kit.errors import Conflict, Gone, NotFound, Permanent
from espalier_kube.cluster import Kind, Listing, Object, WatchEvent
from espalier_kube.merging import apply_merge, merge_patch
from espalier_kube.objects import timestamp
from espalier_kube.selectors import matches_fields, matches_labels

Key = tuple[str, str, str, str]
"""apiVersion, kind, namespace, name."""

STATUS_KINDS = frozenset({
    "GradingJob", "BenchmarkJob", "BenchmarkComparison", "ModelServer", "Pod", "Node", "Job", "Deployment",
    "StatefulSet", "CertificateSigningRequest", "Namespace", "PersistentVolumeClaim",
})
_REVIEWS = frozenset({"TokenReview", "SubjectAccessReview"})
_SERVER_FIELDS = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")

Fault = Callable[[str, str], Exception | None]
"""Asked before each call with (verb, kind); an exception is raised in the call's place."""


class FakeCluster:
    """`espalier_kube.cluster.Cluster` in memory. `calls` counts (verb, kind); `faults` breaks calls on purpose."""

    def __init__(self, *, clock: Clock | None = None, collect_garbage: bool = True) -> None:
        self._clock = clock or SystemClock()
        self._collect = collect_garbage
        self._objects: dict[Key, Object] = {}
        self._applied: dict[tuple[Key, str], Object] = {}
        self._log: list[tuple[int, str, Object]] = []
        self._version = 0
        self._oldest = 0
        self._uids = itertools.count(1)
        self._changed = asyncio.Condition()
        self.calls: list[tuple[str, str]] = []
        self.faults: Fault | None = None
        self.reviews: dict[str, Callable[[Object], Object]] = {}
        self.log_lines: dict[tuple[str, str], str] = {}

    # ------------------------------------------------------------ reading
    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object:
        self._enter("get", kind.kind)
        return copy.deepcopy(self._find((kind.api_version, kind.kind, namespace or "", name)))

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> Listing:
        self._enter("list", kind.kind)
        found = [o for o in self._objects.values() if _selected(o, kind, namespace, labels, fields)]
        found.sort(key=lambda o: (o["metadata"].get("namespace", ""), o["metadata"]["name"]))
        return Listing(tuple(copy.deepcopy(o) for o in found), str(self._version))

    async def watch(
        self, kind: Kind, namespace: str | None = None, *, resource_version: str,
        labels: str | None = None, fields: str | None = None, timeout_s: int = 240,
    ) -> AsyncGenerator[WatchEvent, None]:
        self._enter("watch", kind.kind)
        position = int(resource_version)
        if position < self._oldest:
            raise Gone(f"too old resource version: {position}", reason="Expired")
        deadline = self._clock.monotonic() + timeout_s
        while True:
            for version, type_, obj in [entry for entry in self._log if entry[0] > position]:
                position = version
                if _selected(obj, kind, namespace, labels, fields):
                    yield WatchEvent(type_, copy.deepcopy(obj))  # type: ignore[arg-type] # one of the three
            left = deadline - self._clock.monotonic()
            if left <= 0 or not await self._wait_beyond(position, left):
                break
        meta = {"resourceVersion": str(self._version)}
        yield WatchEvent("BOOKMARK", {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta})

    # ------------------------------------------------------------ writing
    async def create(self, obj: Object) -> Object:
        self._enter("create", obj["kind"])
        if obj["kind"] in _REVIEWS:
            answer = self.reviews.get(obj["kind"])
            return {**obj, "status": answer(obj) if answer else {"authenticated": False, "allowed": False}}
        made = copy.deepcopy(obj)
        meta = made["metadata"]
        if "name" not in meta and "generateName" in meta:
            meta["name"] = f"{meta['generateName']}{next(self._uids):05d}"
        if _key(made) in self._objects:
            raise Conflict(f'{made["kind"]} "{meta["name"]}" already exists', reason="AlreadyExists")
        return await self._insert(made)

    async def replace(self, obj: Object, *, subresource: str | None = None) -> Object:
        self._enter("update", obj["kind"])
        old = self._find(_key(obj))
        self._check(old, obj["metadata"])
        new = _with_part(old, copy.deepcopy(obj), subresource)
        return await self._store(old, new)

    async def apply(self, obj: Object, *, subresource: str | None = None, force: bool = True) -> Object:
        self._enter("apply", obj["kind"])
        key, memory = _key(obj), (_key(obj), subresource or "")
        old = self._objects.get(key)
        if old is None:
            if subresource is not None:
                raise NotFound(f'{obj["kind"]} "{obj["metadata"]["name"]}" not found')
            self._applied[memory] = copy.deepcopy(obj)
            return await self._insert(_without_status(copy.deepcopy(obj)))
        if obj["metadata"].get("uid") not in (None, old["metadata"]["uid"]):
            raise Permanent("metadata.uid: field is immutable", reason="Invalid")
        self._check(old, obj["metadata"])
        merged = apply_merge(old, previous=self._applied.get(memory, {}), wished=copy.deepcopy(obj))
        self._applied[memory] = copy.deepcopy(obj)
        return await self._store(old, _with_part(old, merged, subresource))

    async def patch(
        self, kind: Kind, name: str, namespace: str | None, patch: Mapping[str, Any], *,
        subresource: str | None = None, strategic: bool = False,
    ) -> Object:
        self._enter("patch", kind.kind)
        old = self._find((kind.api_version, kind.kind, namespace or "", name))
        self._check(old, patch.get("metadata") or {})
        if strategic:
            merged = apply_merge(old, previous={}, wished=copy.deepcopy(dict(patch)))
        else:
            merged = merge_patch(old, patch)
        return await self._store(old, _with_part(old, merged, subresource))

    async def delete(
        self, kind: Kind, name: str, namespace: str | None = None, *, uid: str | None = None,
        grace_s: int | None = None, propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> None:
        self._enter("delete", kind.kind)
        old = self._objects.get((kind.api_version, kind.kind, namespace or "", name))
        if old is None:
            return
        if uid is not None and old["metadata"]["uid"] != uid:
            raise Conflict(f"the UID in the precondition ({uid}) does not match {old['metadata']['uid']}")
        lingers = bool(old["metadata"].get("finalizers")) or _terminates_gracefully(old, grace_s)
        if not lingers:
            await self._remove(old, orphan=propagation == "Orphan")
        elif "deletionTimestamp" not in old["metadata"]:
            new = copy.deepcopy(old)
            new["metadata"]["deletionTimestamp"] = timestamp(self._clock.now())
            await self._store(old, new)

    async def create_token(
        self, service_account: str, namespace: str, *, audience: str | None, expiration_s: int,
        bound_pod: tuple[str, str] | None = None,
    ) -> tuple[str, str]:
        self._enter("create", "TokenRequest")
        self._find(("v1", "ServiceAccount", namespace, service_account))
        token = f"token-of-{namespace}-{service_account}-for-{audience or 'default'}"
        return token, timestamp(self._clock.now())

    async def logs(self, name: str, namespace: str, *, container: str | None = None, tail: int | None = None) -> str:
        self._enter("get", "Pod")
        text = self.log_lines.get((namespace, name), "")
        return text if tail is None else "\n".join(text.splitlines()[-tail:])

    async def close(self) -> None:
        return None

    def compact(self) -> None:
        """Forget the history: watches from before now answer `Gone`."""
        self._oldest = self._version
        self._log.clear()

    # ------------------------------------------------------------ inside
    def _enter(self, verb: str, kind: str) -> None:
        self.calls.append((verb, kind))
        fault = self.faults(verb, kind) if self.faults else None
        if fault is not None:
            raise fault

    def _find(self, key: Key) -> Object:
        if key not in self._objects:
            raise NotFound(f'{key[1]} "{key[3]}" not found', reason="NotFound")
        return self._objects[key]

    def _check(self, old: Object, meta: Mapping[str, Any]) -> None:
        for name in ("resourceVersion", "uid"):
            if meta.get(name) not in (None, "", old["metadata"][name]):
                raise Conflict(f"{name} does not match: the object has been modified", reason="Conflict")

    async def _insert(self, obj: Object) -> Object:
        meta = obj["metadata"]
        if not meta.get("name"):
            raise Permanent("metadata.name: required", reason="Invalid")
        meta.pop("resourceVersion", None)
        meta["uid"] = f"uid-{next(self._uids):06d}"
        meta["creationTimestamp"] = timestamp(self._clock.now())
        if "spec" in obj:
            meta["generation"] = 1
        if obj["kind"] in STATUS_KINDS:
            obj.pop("status", None)
        return await self._record("ADDED", obj)

    async def _store(self, old: Object, new: Object) -> Object:
        for name in _SERVER_FIELDS:
            if name in old["metadata"] and not (name == "deletionTimestamp" and name in new["metadata"]):
                new["metadata"][name] = old["metadata"][name]
        if new == old:
            return copy.deepcopy(old)
        if new.get("spec") != old.get("spec") and "generation" in old["metadata"]:
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if "deletionTimestamp" in new["metadata"] and _is_free(old, new):
            await self._remove(new)
            return copy.deepcopy(new)
        return await self._record("MODIFIED", new)

    async def _record(self, type_: str, obj: Object) -> Object:
        async with self._changed:
            self._version += 1
            obj["metadata"]["resourceVersion"] = str(self._version)
            if type_ == "DELETED":
                self._objects.pop(_key(obj), None)
            else:
                self._objects[_key(obj)] = obj
            self._log.append((self._version, type_, copy.deepcopy(obj)))
            self._changed.notify_all()
        return copy.deepcopy(obj)

    async def _remove(self, obj: Object, *, orphan: bool = False) -> None:
        key = _key(obj)
        for memory in [m for m in self._applied if m[0] == key]:
            del self._applied[memory]
        await self._record("DELETED", copy.deepcopy(obj))
        if not self._collect or orphan:
            return
        uid = obj["metadata"]["uid"]
        for child in [o for o in self._objects.values() if uid in _owners(o)]:
            alive = {o["metadata"]["uid"] for o in self._objects.values()}
            if not alive & set(_owners(child)):
                await self._remove(child)

    async def _wait_beyond(self, position: int, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self._version > position)
        except TimeoutError:
            return False
        return True


def _key(obj: Object) -> Key:
    meta = obj["metadata"]
    return obj["apiVersion"], obj["kind"], meta.get("namespace") or "", meta.get("name") or ""


def _owners(obj: Object) -> list[str]:
    return [ref["uid"] for ref in obj["metadata"].get("ownerReferences") or ()]


def _selected(obj: Object, kind: Kind, namespace: str | None, labels: str | None, fields: str | None) -> bool:
    if (obj["apiVersion"], obj["kind"]) != (kind.api_version, kind.kind):
        return False
    if namespace and obj["metadata"].get("namespace") != namespace:
        return False
    return matches_labels(labels, obj["metadata"].get("labels") or {}) and matches_fields(fields, obj)


def _without_status(obj: Object) -> Object:
    if obj["kind"] in STATUS_KINDS:
        obj.pop("status", None)
    return obj


def _with_part(old: Object, new: Object, subresource: str | None) -> Object:
    """The object that a write stores: `status` only through its subresource, everything else only without one."""
    if subresource in ("status", "approval"):
        return {**copy.deepcopy(old), "status": new.get("status", {})}
    if subresource == "scale":
        raise Permanent("the fake has no scale subresource", reason="NotImplemented")
    if old["kind"] not in STATUS_KINDS:
        return new
    made = {key: value for key, value in new.items() if key != "status"}
    return {**made, "status": copy.deepcopy(old["status"])} if "status" in old else made


def _terminates_gracefully(obj: Object, grace_s: int | None) -> bool:
    is_running_pod = obj["kind"] == "Pod" and bool((obj.get("spec") or {}).get("nodeName"))
    return is_running_pod and grace_s != 0 and (obj.get("status") or {}).get("phase") not in ("Failed", "Succeeded")


def _is_free(old: Object, new: Object) -> bool:
    """Whether the last finalizer of an object that is being deleted has just gone."""
    return bool(old["metadata"].get("finalizers")) and not new["metadata"].get("finalizers")
