"""The merge rules of the API server that the fake needs: JSON merge patch, and server-side apply of one manager."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

LIST_KEYS = {
    "conditions": ("type",), "ownerReferences": ("uid",), "containers": ("name",), "initContainers": ("name",),
    "volumes": ("name",), "env": ("name",), "volumeMounts": ("mountPath",), "ports": ("containerPort", "port"),
}
"""List fields that merge by key; every other list is one value."""


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: objects merge, null removes, everything else replaces."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(copy.deepcopy(target)) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def apply_merge(live: Any, *, previous: Any, wished: Any, field: str = "") -> Any:
    """`live` with what the manager wishes, less what it applied before (`previous`) and no longer wishes."""
    if isinstance(wished, Mapping):
        return _merge_object(live, previous, wished)
    if isinstance(wished, list) and (keys := LIST_KEYS.get(field)):
        return _merge_list(live, previous, wished, keys)
    return wished


def _merge_object(live: Any, previous: Any, wished: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(live) if isinstance(live, Mapping) else {}
    before = previous if isinstance(previous, Mapping) else {}
    for key in before.keys() - wished.keys():
        merged.pop(key, None)
    for key, value in wished.items():
        merged[key] = apply_merge(merged.get(key), previous=before.get(key), wished=value, field=key)
    return merged


def _merge_list(live: Any, previous: Any, wished: list[Any], keys: tuple[str, ...]) -> list[Any]:
    def identity(item: Any) -> Any:
        return next((item[k] for k in keys if k in item), None)

    before = {identity(i): i for i in previous or ()}
    desired = {identity(i): i for i in wished}
    merged: list[Any] = []
    for item in live or ():
        name = identity(item)
        if name in desired:
            merged.append(apply_merge(item, previous=before.get(name), wished=desired.pop(name)))
        elif name not in before:
            merged.append(item)
    return [*merged, *desired.values()]
