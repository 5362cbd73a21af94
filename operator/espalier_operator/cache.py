"""What the watches last said: one trimmed copy of each object, newest version wins.

Written by the watch, by the resync list and with the answers to our own writes, so that a reconcile never decides from
before its own last write.
"""

from __future__ import annotations

from collections.abc import Iterator

from espalier_kube.cluster import Kind, Listing, Object

_NOISE = ("managedFields",)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Cache:
    """Objects by kind, namespace and name."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._gone: dict[str, int] = {}

    def put(self, obj: Object) -> bool:
        """Keep it unless a newer one is known or it is known to be gone; returns whether anything changed."""
        meta = obj["metadata"]
        known = self._objects.setdefault(obj["kind"], {})
        old = known.get(_place(obj))
        if meta["uid"] in self._gone or (old is not None and _version(old) >= _version(obj)):
            return False
        known[_place(obj)] = _trimmed(obj)
        return True

    def remove(self, obj: Object) -> bool:
        """It was deleted; an object of the same name but another uid stays."""
        known = self._objects.get(obj["kind"], {})
        old = known.get(_place(obj))
        self._gone[obj["metadata"]["uid"]] = _version(obj)
        if old is None or old["metadata"]["uid"] != obj["metadata"]["uid"]:
            return False
        del known[_place(obj)]
        return True

    def replace(self, kind: Kind, listing: Listing) -> tuple[list[Object], list[Object]]:
        """Take over a list; returns (what was unknown or older here, what was here and is gone).

        What is newer than the list stays: the watch was faster.
        """
        uids = {item["metadata"]["uid"] for item in listing.items}
        as_of = int(listing.resource_version)
        ghosts = [o for o in self.all(kind) if o["metadata"]["uid"] not in uids and _version(o) <= as_of]
        changed = [item for item in listing.items if self.put(item)]
        for ghost in ghosts:
            self.remove(ghost)
        self._gone = {uid: version for uid, version in self._gone.items() if version > as_of}
        return changed, ghosts

    def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """One object, or None."""
        return self._objects.get(kind.kind, {}).get((namespace, name))

    def all(self, kind: Kind, namespace: str | None = None) -> Iterator[Object]:
        """All objects of a kind, or those of one namespace."""
        for (place, _), obj in list(self._objects.get(kind.kind, {}).items()):
            if namespace is None or place == namespace:
                yield obj


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


def _place(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


def _trimmed(obj: Object) -> Object:
    meta = {key: value for key, value in obj["metadata"].items() if key not in _NOISE}
    annotations = meta.get("annotations")
    if annotations and _LAST_APPLIED in annotations:
        meta["annotations"] = {k: v for k, v in annotations.items() if k != _LAST_APPLIED}
    return {**obj, "metadata": meta}
