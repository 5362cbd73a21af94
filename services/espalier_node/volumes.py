"""A pod's volumes on this machine: directories kept as the API objects say, tokens renewed in time; and the mounts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from espalier_kit.clock import Clock
from espalier_kit.errors import Forbidden, NotFound, Permanent, Retryable
from espalier_kube.cluster import CONFIG_MAP, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, SECRET, Cluster, Kind, Object
from espalier_node import files, inside, targets
from espalier_node.environment import CONFIG_ERROR, Situation, Sources, expand
from espalier_node.files import FAILED_MOUNT, TokenSource
from espalier_node.podspec import FILE_TYPES, ContainerSpec, PodSpec
from espalier_node.runtime import Mount

RENEW_AT = 0.8
"""A token is renewed after this part of its life."""


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    renew_at: datetime


async def read_sources(cluster: Cluster, namespace: str, maps: set[str], secrets: set[str]) -> Sources:
    """ConfigMaps and Secrets by name: a node may read those that its pods name, and may list none."""
    return Sources(
        config_maps={name: await _read(cluster, CONFIG_MAP, name, namespace) for name in sorted(maps)},
        secrets={name: await _read(cluster, SECRET, name, namespace) for name in sorted(secrets)},
    )


class Volumes:
    """The volumes of one pod, under `directory`, owned by `user` and `group`."""

    def __init__(self, cluster: Cluster, clock: Clock, directory: Path, *, user: int, group: int) -> None:
        self._cluster, self._clock, self._directory = cluster, clock, directory
        self._user, self._group = user, group
        self._tokens: dict[tuple[str, str], _Token] = {}

    async def prepare(self, pod: PodSpec, situation: Situation) -> dict[str, Path]:
        """Bring every volume up to date; volume name → its directory. Safe to repeat.

        Raises `Permanent` (FailedMount) naming what is missing, `Retryable` when the API server is away.
        """
        volumes = pod.raw["spec"].get("volumes") or ()
        sources = await read_sources(self._cluster, pod.namespace, *files.references(volumes))
        return {volume["name"]: await self._one(volume, pod, sources, situation) for volume in volumes}

    def needs_refresh(self, pod: PodSpec) -> bool:
        """Whether any volume can change during the pod's life."""
        return any(FILE_TYPES & set(volume) for volume in pod.raw["spec"].get("volumes") or ())

    async def _one(self, volume: Mapping[str, Any], pod: PodSpec, sources: Sources, situation: Situation) -> Path:
        directory = self._directory / str(volume["name"])
        if "persistentVolumeClaim" in volume:
            return await self._claim(volume["persistentVolumeClaim"]["claimName"], pod)
        if "emptyDir" in volume:
            return self._empty(directory)
        tokens = {source.path: await self._token(volume["name"], source, pod) for source in files.tokens_of(volume)}
        wished = files.contents(volume, pod, sources, situation, tokens)
        files.write_atomically(directory, wished, self._own)
        return directory

    async def _token(self, volume: str, source: TokenSource, pod: PodSpec) -> str:
        now, key = self._clock.now(), (volume, source.path)
        held = self._tokens.get(key)
        if held is None or now >= held.renew_at:
            account = pod.raw["spec"].get("serviceAccountName") or "default"
            try:
                value, until = await self._cluster.create_token(
                    account, pod.namespace, audience=source.audience, expiration_s=source.expiration_s,
                    bound_pod=(pod.name, pod.uid),
                )
            except (NotFound, Forbidden) as error:
                raise Permanent(f"token of service account {account}: {error}", reason=FAILED_MOUNT) from error
            life = datetime.fromisoformat(until) - now
            held = self._tokens[key] = _Token(value, now + timedelta(seconds=life.total_seconds() * RENEW_AT))
        return held.value

    async def _claim(self, name: str, pod: PodSpec) -> Path:
        claim = await _read(self._cluster, PERSISTENT_VOLUME_CLAIM, name, pod.namespace)
        if claim is None or (claim.get("status") or {}).get("phase") != "Bound":
            raise Permanent(f"PersistentVolumeClaim {name} is not bound", reason=FAILED_MOUNT)
        volume = await _read(self._cluster, PERSISTENT_VOLUME, claim["spec"]["volumeName"], None)
        local = ((volume or {}).get("spec") or {}).get("local")
        if local is None:
            raise Permanent(
                f"PersistentVolumeClaim {name} is bound to a volume that is not `local`: this node mounts only those",
                reason=FAILED_MOUNT,
            )
        return await asyncio.to_thread(self._owned, Path(local["path"]), name)

    def _empty(self, directory: Path) -> Path:
        """It has its name only once it has its mode and owner: an agent may be killed at any step."""
        if not directory.exists():
            fresh = directory.with_name(f"..{directory.name}")
            fresh.mkdir(parents=True, exist_ok=True)
            fresh.chmod(0o777)
            self._own(fresh)
            fresh.rename(directory)
        return directory

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, self._user, self._group)

    def _owned(self, root: Path, claim: str) -> Path:
        """The volume, given to the pod's user; only when its root, given last, is not: a large one is walked once."""
        if not root.is_dir():
            raise Permanent(f"the local volume of claim {claim}, {root}, is not a directory here", reason=FAILED_MOUNT)
        if os.geteuid() != 0 or root.stat().st_uid == self._user:
            return root
        for name, held in inside.deepest_first(root):
            os.chown(name, self._user, self._group, dir_fd=held, follow_symlinks=False)
        return root


def mounts(
    container: ContainerSpec, pod: PodSpec, paths: Mapping[str, Path], values: Mapping[str, str]
) -> tuple[Mount, ...]:
    """A container's mounts, outer before inner. Raises `Permanent` when one names no volume or leaves it."""
    read_only = {v["name"] for v in pod.raw["spec"].get("volumes") or () if FILE_TYPES & set(v)}
    found = []
    for mount in container.raw.get("volumeMounts") or ():
        source = paths.get(mount["name"])
        if source is None:
            raise Permanent(f"volumeMount {mount['name']} names no volume of this pod", reason=CONFIG_ERROR)
        below = mount.get("subPath") or expand(mount.get("subPathExpr") or "", values)
        target = targets.normal(mount["mountPath"])
        is_read_only = bool(mount.get("readOnly")) or mount["name"] in read_only
        volume = source.resolve() if below and mount["name"] not in read_only else None
        found.append(Mount(_sub_path(source, below, is_read_only), target, is_read_only, volume))
    return tuple(sorted(found, key=lambda mount: mount.target.count("/") if mount.target != "/" else 0))


def _sub_path(volume: Path, below: str, is_read_only: bool) -> Path:
    """A part of a volume, made where it is missing; links in it may lead to other parts, never out."""
    if not below:
        return volume
    if below.startswith("/") or ".." in below.split("/"):
        raise Permanent(f"subPath {below!r} leaves its volume", reason=CONFIG_ERROR)
    root = volume.resolve()
    path = Path(os.path.realpath(root / below))
    if not path.is_relative_to(root):
        raise Permanent(f"subPath {below!r} leads out of its volume", reason=CONFIG_ERROR)
    if not path.exists():
        if is_read_only:
            raise Permanent(f"subPath {below!r} does not exist in its volume", reason=CONFIG_ERROR)
        try:
            _make(root, path)
        except OSError as error:
            raise Permanent(f"subPath {below!r} cannot be made: {error.strerror}", reason=CONFIG_ERROR) from error
    return path


def _make(root: Path, path: Path) -> None:
    status = root.stat()
    with inside.directory(root, path.relative_to(root)) as made:
        os.fchmod(made, 0o777)
        if os.geteuid() == 0:
            os.fchown(made, status.st_uid, status.st_gid)


async def _read(cluster: Cluster, kind: Kind, name: str, namespace: str | None) -> Object | None:
    """None where it does not exist. Right after a pod was bound the authoriser may not know yet that we may read."""
    try:
        return await cluster.get(kind, name, namespace)
    except NotFound:
        return None
    except Forbidden as error:
        raise Retryable(f"{kind.kind} {name}: {error}", reason=error.reason) from error
