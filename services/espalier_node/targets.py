"""Where in its view a pod may mount (pure): never over what root runs or reads there before the pod's user takes over,
nor by way of a volume, in which a container may have laid a link that leads there."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt/homebrew")
"""This machine's programs and libraries, which every view has."""
MESSAGE_PATH = "/dev/termination-log"
_OWN = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "proc", "sys", "dev")
"""First steps of the paths that stay the machine's."""


def normal(path: str) -> str:
    """An absolute path without `.`, `..` and doubled slashes, as it is checked and as it is mounted."""
    return posixpath.normpath("/" + path.lstrip("/"))


def is_system(path: str) -> bool:
    """Whether it is one of `SYSTEM` or lies inside."""
    return any(PurePosixPath(path).is_relative_to(place) for place in SYSTEM)


def message_path(container: Mapping[str, Any]) -> str:
    """Where a container writes why it ended."""
    return normal(container.get("terminationMessagePath") or MESSAGE_PATH)


def problems(container: Mapping[str, Any], writable: Collection[str]) -> Iterator[str]:
    """Sentences on a container's places that cannot be; `writable`: the pod's volumes that containers write to."""
    mounts = [(normal(mount["mountPath"]), mount["name"]) for mount in container.get("volumeMounts") or ()]
    places = [*(("mountPath", path) for path, _ in mounts), ("terminationMessagePath", message_path(container))]
    outer = [(path, volume) for path, volume in mounts if volume in writable]
    for field, path in places:
        where = f"container {container['name']}: {field} {path} is not available on this node"
        if _is_the_machines(path) and (field, path) != ("terminationMessagePath", MESSAGE_PATH):
            yield f"{where}, it belongs to the machine; choose another"
        for above, volume in outer:
            if path != above and PurePosixPath(path).is_relative_to(above):
                yield f"{where}, it lies inside volume {volume}, where containers may lay links; choose one beside it"


def _is_the_machines(path: str) -> bool:
    """Whether it is, contains or lies in what root needs: programs, libraries, the loader's files, kernel files."""
    if PurePosixPath(path).is_relative_to("/dev/shm"):
        return False
    first, _, rest = path[1:].partition("/")
    if first == "etc":
        return not rest or rest.startswith(("ld.so", "alternatives"))
    return not first or first in _OWN
