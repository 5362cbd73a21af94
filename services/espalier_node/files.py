"""What a volume of files shall hold (pure), and how it gets there at once: readers never see half an update."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espalier_kit.errors import Permanent
from espalier_node.environment import Situation, Sources, config_map_data, field_value, resource_value, secret_data
from espalier_node.podspec import PodSpec

FAILED_MOUNT = "FailedMount"
DEFAULT_MODE = 0o644
_DATA = "..data"


@dataclass(frozen=True, slots=True)
class File:
    """Bytes and mode of one file."""

    data: bytes = field(repr=False)
    mode: int = DEFAULT_MODE


@dataclass(frozen=True, slots=True)
class TokenSource:
    """A projected service-account token, as asked for."""

    path: str
    audience: str | None
    expiration_s: int


def tokens_of(volume: Mapping[str, Any]) -> tuple[TokenSource, ...]:
    """The tokens that a projected volume wants."""
    found = (s["serviceAccountToken"] for s in _projections(volume) if "serviceAccountToken" in s)
    return tuple(
        TokenSource(s["path"], s.get("audience") or None, int(s.get("expirationSeconds") or 3600)) for s in found
    )


def references(volumes: Iterable[Mapping[str, Any]]) -> tuple[set[str], set[str]]:
    """Names of the ConfigMaps and Secrets that volumes need."""
    maps, secrets = set(), set()
    for volume in volumes:
        if "configMap" in volume:
            maps.add(volume["configMap"]["name"])
        if "secret" in volume:
            secrets.add(volume["secret"]["secretName"])
        for source in _projections(volume):
            if "configMap" in source:
                maps.add(source["configMap"]["name"])
            if "secret" in source:
                secrets.add(source["secret"]["name"])
    return maps, secrets


def contents(
    volume: Mapping[str, Any], pod: PodSpec, sources: Sources, situation: Situation, tokens: Mapping[str, str]
) -> dict[str, File]:
    """Path → file of a configMap, secret, downwardAPI or projected volume; `tokens` by path.

    Raises `Permanent` (FailedMount) naming what is missing.
    """
    if "projected" in volume:
        mode = int(volume["projected"].get("defaultMode", DEFAULT_MODE))
        merged: dict[str, File] = {}
        for source in _projections(volume):
            merged.update(_projection(source, mode, pod, sources, situation, tokens))
        return merged
    kind = next(kind for kind in ("configMap", "secret", "downwardAPI") if kind in volume)
    source = volume[kind]
    mode = int(source.get("defaultMode", DEFAULT_MODE))
    if kind == "secret":
        source = {**source, "name": source["secretName"]}
    return _projection({kind: source}, mode, pod, sources, situation, tokens)


def write_atomically(directory: Path, wished: Mapping[str, File], own: Callable[[Path], None]) -> bool:
    """Make `directory` hold exactly `wished`, by swapping one symbolic link; returns whether anything changed.

    The layout is a kubelet's: `..data` → a dated directory, and a link per top-level name into `..data`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = {path.split("/")[0] for path in wished}
    if _present(directory) == dict(wished):
        _finish(directory, names)  # an agent killed after its swap has not
        return False
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    fresh.chmod(0o755)
    for path, file in wished.items():
        _write(fresh, path, file, own)
    own(fresh)
    temporary = directory / f"{_DATA}_tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(fresh.name)
    temporary.rename(directory / _DATA)
    _finish(directory, names)
    return True


def _write(root: Path, path: str, file: File, own: Callable[[Path], None]) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(file.data)
    os.chmod(target, file.mode)
    own(target)


def _finish(directory: Path, wished: set[str]) -> None:
    """What follows the swap: a link per name, and nothing left of earlier contents or of a swap that never came."""
    _link_names(directory, wished)
    current = os.readlink(directory / _DATA)
    for path in directory.glob("..*"):
        if path.is_dir() and not path.is_symlink() and path.name != current:
            shutil.rmtree(path, ignore_errors=True)


def _link_names(directory: Path, wished: set[str]) -> None:
    present = {path.name for path in directory.iterdir() if path.is_symlink() and not path.name.startswith("..")}
    for name in wished - present:
        (directory / name).symlink_to(f"{_DATA}/{name}")
    for name in present - wished:
        (directory / name).unlink()


def _present(directory: Path) -> dict[str, File] | None:
    data = directory / _DATA
    if not data.is_symlink():
        return None
    root = data.resolve()
    return {
        str(path.relative_to(root)): File(path.read_bytes(), path.stat().st_mode & 0o7777)
        for path in root.rglob("*") if path.is_file()
    }


def _projections(volume: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from (volume.get("projected") or {}).get("sources") or ()


def _projection(
    source: Mapping[str, Any], mode: int, pod: PodSpec, sources: Sources, situation: Situation,
    tokens: Mapping[str, str],
) -> dict[str, File]:
    if "serviceAccountToken" in source:
        path = source["serviceAccountToken"]["path"]
        return {path: File(tokens[path].encode(), 0o600 if mode == DEFAULT_MODE else mode)}
    if "downwardAPI" in source:
        return dict(_downward(item, mode, pod, situation) for item in source["downwardAPI"].get("items") or ())
    if "configMap" in source:
        return _keys("ConfigMap", source["configMap"], mode, sources)
    return _keys("Secret", source["secret"], mode, sources)


def _downward(item: Mapping[str, Any], mode: int, pod: PodSpec, situation: Situation) -> tuple[str, File]:
    if "fieldRef" in item:
        text = field_value(item["fieldRef"]["fieldPath"], pod, situation)
    else:
        text = resource_value(item["resourceFieldRef"], pod.containers, situation)
    return _inside(item["path"]), File(text.encode(), int(item.get("mode") or mode))


def _keys(kind: str, source: Mapping[str, Any], mode: int, sources: Sources) -> dict[str, File]:
    name = source["name"]
    found = (sources.config_maps if kind == "ConfigMap" else sources.secrets).get(name)
    if found is None:
        if source.get("optional"):
            return {}
        raise Permanent(f"{kind} {name} does not exist: create it, and the pod starts", reason=FAILED_MOUNT)
    data = config_map_data(found) if kind == "ConfigMap" else secret_data(found)
    if not source.get("items"):
        return {key: File(value, mode) for key, value in data.items()}
    chosen = {}
    for item in source["items"]:
        if item["key"] in data:
            chosen[_inside(item["path"])] = File(data[item["key"]], int(item.get("mode") or mode))
        elif not source.get("optional"):
            raise Permanent(f"{kind} {name} has no key {item['key']}: add it, and the pod starts", reason=FAILED_MOUNT)
    return chosen


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise Permanent(f"path {path!r} leaves its volume", reason=FAILED_MOUNT)
    return path
